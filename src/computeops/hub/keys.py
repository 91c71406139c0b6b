"""The key server: HKP (draft-gallagher-openpgp-hkp), as far as Apptainer asks it, for signatures inside SIF files.

A key proves nothing by being here: whoever verifies decides whom to trust. Whoever has a token may add one; adding it
again can only add to it (a later end, a revocation), because every part of a certificate is signed by its owner.
"""

import re
import time
from asyncio import to_thread
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote

import sqlalchemy as sa
from pysequoia import Cert
from pysequoia.packet import PacketPile, Tag
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from computeops.errors import FormatError, LimitError, LoginError, NotFoundError, UsageError
from computeops.hub import receive
from computeops.hub.db import Database, upsert
from computeops.hub.state import Hub
from computeops.hub.tables import pgp_key_ids, pgp_keys
from computeops.limits import LIMITS

_HEX = re.compile(r"0x([0-9a-f]{6,40})", re.IGNORECASE)
_ID_LENGTHS = (8, 16, 40)
_FOUND = 256
_WORDS = 256
_IN_FORM = 4  # characters of a form for one of a key, at most
_V4_FINGERPRINT = 40
_WITH_BITS = frozenset({1, 2, 3, 16, 17})  # RSA, ElGamal and DSA, whose first number tells the size
_CURVE_BITS = 256
_SECRET = (Tag.SecretKey, Tag.SecretSubkey)  # tuples, because a tag has no hash
_PUBLIC = (Tag.PublicKey, Tag.PublicSubkey)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A public key with what belongs to it."""

    fingerprint: str
    armored: str
    users: tuple[str, ...]
    fingerprints: tuple[str, ...]
    """Of the primary key and the subkeys."""
    line: str
    """The machine readable lines of an index."""


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def lookup(request: Request) -> Response:
        asked = request.query_params
        words = asked.get("search", "")
        if not words or len(words) > _WORDS:
            raise UsageError(f"a search has 1 to {_WORDS} characters")
        if asked.get("op") == "get":
            return PlainTextResponse(await to_thread(get, hub.database, words), media_type="application/pgp-keys")
        if asked.get("op") in {"index", "vindex"}:
            return PlainTextResponse(await to_thread(index, hub.database, words))
        raise UsageError(f"unknown operation {asked.get('op', '')[:40]!r}", hint="use op=get or op=index")

    async def add_key(request: Request) -> Response:
        caller = hub.caller(request.scope)
        if not caller.name:
            raise LoginError("a token is needed to add a key", hint="run `apptainer remote login`")
        form = parse_qs((await receive.whole(request.receive, LIMITS.key_bytes * _IN_FORM)).decode("latin-1"))
        text = form.get("keytext", [""])[0]
        fingerprint = await to_thread(add, hub.database, text.encode(), caller.name)
        return PlainTextResponse(f"added {fingerprint.upper()}\n")

    return [Route("/pks/lookup", lookup), Route("/pks/add", add_key, methods=["POST"])]


def add(database: Database, data: bytes, name: str) -> str:
    """Store the one certificate in `data`, joined to what is known of it, and return its fingerprint.

    Raises:
        FormatError: there is not exactly one public key of version 4 in it.
        LimitError: it is too large.
    """
    new = read(data)
    with database.write() as connection:
        row = connection.execute(sa.select(pgp_keys).where(pgp_keys.c.fingerprint == new.fingerprint)).first()
        joined = new if row is None else read(_joined(row.armored, new.armored))
        stored = {
            "fingerprint": joined.fingerprint,
            "armored": joined.armored,
            "users": "\n".join(joined.users),
            "line": joined.line,
            "added_by": name,
            "added": int(time.time()),
        }
        upsert(connection, pgp_keys, stored, change=["armored", "users", "line"])
        for one in joined.fingerprints:
            upsert(connection, pgp_key_ids, {"backwards": one[::-1], "fingerprint": joined.fingerprint}, keep=True)
    return joined.fingerprint


def get(database: Database, search: str) -> str:
    """Return the armored certificate that has a key with this id: `0x` and 8, 16 or 40 hex digits.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    found = _by_id(database, search)
    if len(found) != 1:
        raise NotFoundError(f"{len(found)} keys are {search[:60]}")
    return str(found[0].armored)


def index(database: Database, search: str) -> str:
    """Return the machine readable list of certificates with this id, or with these words in a user id.

    Raises:
        NotFoundError: there is none.
    """
    found = _by_id(database, search) or _by_user(database, search)
    if not found:
        raise NotFoundError(f"no key is {search[:60]}")
    return f"info:1:{len(found)}\n" + "".join(row.line for row in found)


def _by_id(database: Database, search: str) -> list[sa.Row[Any]]:
    match = _HEX.fullmatch(search)
    if match is None:
        return []
    # Apptainer writes a key id as a number, without the zeros in front
    length = next(one for one in _ID_LENGTHS if len(match[1]) <= one)
    end = match[1].lower().zfill(length)[::-1]
    query = sa.select(pgp_keys).distinct().join(pgp_key_ids, pgp_key_ids.c.fingerprint == pgp_keys.c.fingerprint)
    query = query.where(pgp_key_ids.c.backwards.between(end, end + "g")).limit(_FOUND)
    with database.read() as connection:
        return list(connection.execute(query))


def _by_user(database: Database, search: str) -> list[sa.Row[Any]]:
    query = sa.select(pgp_keys).where(pgp_keys.c.users.icontains(search, autoescape=True))
    with database.read() as connection:
        return list(connection.execute(query.order_by(pgp_keys.c.added.desc()).limit(_FOUND)))


def read(data: bytes) -> Certificate:
    """Read one certificate, armored or not.

    Raises:
        FormatError: there is not exactly one public key of version 4 in it.
        LimitError: it is too large.
    """
    if len(data) > LIMITS.key_bytes:
        raise LimitError(f"a key may have {LIMITS.key_bytes} bytes, not {len(data)}")
    try:
        packets = list(PacketPile.from_bytes(data))
        found = Cert.split_bytes(data)
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"not an OpenPGP public key: {str(error).partition(chr(10))[0][:200]}") from None
    if any(packet.tag in _SECRET for packet in packets):
        raise FormatError("there is a secret key in it", hint="treat that key as stolen, and send only public keys")
    if len(found) != 1 or len(found[0].fingerprint) != _V4_FINGERPRINT:
        raise FormatError(f"{len(found)} OpenPGP keys in it", hint="send one key of version 4")
    (cert,) = found
    users = tuple(str(user) for user in cert.user_ids)
    own = [packet for packet in packets if packet.tag in _PUBLIC]
    fingerprints = tuple(str(packet.fingerprint) for packet in own)
    return Certificate(cert.fingerprint, str(cert), users, fingerprints, _line(cert, own[0].body, users))


def _joined(old: str, new: str) -> bytes:
    return str(Cert.from_bytes(old.encode()).merge(Cert.from_bytes(new.encode()))).encode()


def _line(cert: Cert, primary: bytes, users: tuple[str, ...]) -> str:
    created, algorithm = int.from_bytes(primary[1:5]), primary[5]
    bits = int.from_bytes(primary[6:8]) if algorithm in _WITH_BITS else _CURVE_BITS
    end = int(cert.expiration.timestamp()) if isinstance(cert.expiration, datetime) else ""
    flags = "r" if cert.is_revoked else ""
    lines = [f"pub:{cert.fingerprint.upper()}:{algorithm}:{bits}:{created}:{end}:{flags}"]
    lines += [f"uid:{quote(user)}:{created}::" for user in users]
    return "".join(f"{line}\n" for line in lines)
