"""The signatures of evidence against the keys that a collection trusts: checked once, when it arrives or a key changes.

Only `valid` is a signature that holds by a key which a maintainer of the collection registered. A green mark is never
shown for anything else: `unknown` is signed by others, `invalid` names a registered key and does not hold.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from computeops.errors import ComputeOpsError, ConflictError, FormatError, NotFoundError, TrustError, UsageError
from computeops.hub.db import Database, upsert
from computeops.hub.facts import clean
from computeops.hub.state import Hub
from computeops.hub.tables import collections, evidence, repositories
from computeops.hub.vulnerabilities import scans
from computeops.hub.vulnerabilities.tables import evidence_checks, evidence_keys, verdicts
from computeops.limits import LIMITS
from computeops.model import Digest, Signed
from computeops.sign import dsse
from computeops.sign.key import Key

WAITING, VALID, UNKNOWN, INVALID, UNSIGNED, UNREADABLE = STATES = (
    "waiting",
    "valid",
    "unknown",
    "invalid",
    "unsigned",
    "unreadable",
)
_MOST = 200
_BATCH = 50
_NAME = 64


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key whose signatures count in a collection."""

    keyid: str
    name: str
    added_by: str
    created: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What the signatures of one piece of evidence are worth."""

    state: str
    """One of `STATES`."""
    keys: tuple[str, ...] = ()
    """Names of those whose signature holds."""


def want(connection: sa.Connection, repository: int, digest: str) -> None:
    """Let the evidence in the manifest `digest`, just pushed, be checked, if it was not yet."""
    row = {"repository": repository, "digest": digest, "state": WAITING, "keys": [], "checked": 0}
    upsert(connection, evidence_checks, row, keep=True)


def check(hub: Hub) -> int:
    """Check some of the evidence that waits, and return how much there was."""
    query = (
        sa.select(evidence_checks, evidence.c.blob, evidence.c.kind, evidence.c.subject, repositories.c.collection)
        .join_from(evidence_checks, repositories, repositories.c.id == evidence_checks.c.repository)
        .join(
            evidence,
            (evidence.c.repository == evidence_checks.c.repository) & (evidence.c.digest == evidence_checks.c.digest),
            isouter=True,
        )
        .where(evidence_checks.c.state == WAITING)
        .limit(_BATCH)
    )
    with hub.database.read() as connection:
        rows = connection.execute(query).all()
        keys = {one: _keys(connection, one) for one in {row.collection for row in rows}}
    for row in rows:
        found = _checked(hub, row.blob, keys[row.collection]) if row.blob else Checked(UNREADABLE)
        here = (evidence_checks.c.repository == row.repository) & (evidence_checks.c.digest == row.digest)
        new = {"state": found.state, "keys": list(found.keys), "checked": int(time.time())}
        with hub.database.write() as connection:
            if keys[row.collection] != _keys(connection, row.collection):
                continue  # a key changed meanwhile: it is looked at again
            if not row.blob:  # deleted
                connection.execute(sa.delete(evidence_checks).where(here))
                continue
            connection.execute(sa.update(evidence_checks).where(here).values(**new))
            if scans.is_vex(row.kind):
                image = (verdicts.c.repository == row.repository) & (verdicts.c.digest == row.subject)
                connection.execute(sa.update(verdicts).where(image).values(pending=True))
    return len(rows)


def _checked(hub: Hub, blob: str, keys: Mapping[str, Key]) -> Checked:
    try:
        signed = Signed.from_json(json.loads(hub.blobs.read(Digest.parse(blob), LIMITS.evidence_bytes)))
        dsse.read(signed)
        found = dsse.signers(signed, keys)
    except TrustError:
        return Checked(INVALID)
    except (ComputeOpsError, ValueError, RecursionError):
        return Checked(UNREADABLE)
    if found:
        return Checked(VALID, tuple(sorted(keys[one].name for one in found)))
    return Checked(UNKNOWN if signed.signatures else UNSIGNED)


def _keys(connection: sa.Connection, collection: str) -> dict[str, Key]:
    found = {}
    for row in connection.execute(sa.select(evidence_keys).where(evidence_keys.c.collection == collection)):
        key = Key.read(row.name, row.public.encode())
        found[key.keyid] = key
    return found


def of(database: Database, repository: int, digests: Sequence[str]) -> dict[str, Checked]:
    """Return what is known of the signatures of evidence in a repository, by the manifests that carry it."""
    query = sa.select(evidence_checks).where(
        evidence_checks.c.repository == repository, evidence_checks.c.digest.in_(digests)
    )
    with database.read() as connection:
        return {row.digest: Checked(row.state, tuple(row.keys)) for row in connection.execute(query)}


def list_keys(database: Database, collection: str) -> list[TrustedKey]:
    """Return the keys that a collection trusts."""
    columns = (evidence_keys.c[name] for name in TrustedKey.__slots__)
    query = sa.select(*columns).where(evidence_keys.c.collection == collection).order_by(evidence_keys.c.name)
    with database.read() as connection:
        return [TrustedKey(*row) for row in connection.execute(query)]


def add_key(database: Database, collection: str, name: str, text: str, *, added_by: str) -> TrustedKey:
    """Let a collection trust a public key, as `computeops key export` writes it.

    Raises:
        UsageError: it has no name; FormatError: it is no public key that can sign evidence.
        ConflictError: it is trusted already, or there are too many; NotFoundError: there is no such collection.
    """
    if not name or len(name) > _NAME or clean(name) != name:
        raise UsageError(f"a key needs a name of 1 to {_NAME} characters")
    key = Key.read(name, text.encode()) if "-----BEGIN" in text else None
    if key is None or not key.keyid:
        raise FormatError("this is no key that can sign evidence", hint="give what `computeops key export NAME` prints")
    row = {"collection": collection, "keyid": key.keyid, "name": name, "public": key.pem.decode()}
    with database.write() as connection:
        here = sa.select(collections.c.name).where(collections.c.name == collection)
        if connection.execute(here).first() is None:
            raise NotFoundError(f"no collection {collection[:80]}")
        mine = evidence_keys.c.collection == collection
        same = sa.select(evidence_keys.c.keyid).where(
            mine, sa.or_(evidence_keys.c.keyid == key.keyid, evidence_keys.c.name == name)
        )
        count = connection.execute(sa.select(sa.func.count()).select_from(evidence_keys).where(mine)).scalar() or 0
        if connection.execute(same).first() is not None or count >= _MOST:
            raise ConflictError(f"{collection} trusts this key already, or one of this name, or {_MOST} others")
        connection.execute(sa.insert(evidence_keys).values(**row, added_by=added_by, created=int(time.time())))
        _again(connection, collection)
    return next(one for one in list_keys(database, collection) if one.keyid == key.keyid)


def remove_key(database: Database, collection: str, name: str) -> None:
    """Trust a key no longer: what it signed is no longer shown as valid, from this moment on.

    Raises:
        NotFoundError: the collection does not trust such a key.
    """
    with database.write() as connection:
        here = (evidence_keys.c.collection == collection) & (evidence_keys.c.name == name)
        if not connection.execute(sa.delete(evidence_keys).where(here)).rowcount:
            raise NotFoundError(f"{collection} does not trust the key {name[:80]}")
        _again(connection, collection)


def _again(connection: sa.Connection, collection: str) -> None:
    mine = sa.select(repositories.c.id).where(repositories.c.collection == collection)
    here = evidence_checks.c.repository.in_(mine)
    connection.execute(sa.update(evidence_checks).where(here).values(state=WAITING, keys=[], checked=0))
