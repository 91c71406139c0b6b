"""Signatures inside SIF files, as Apptainer makes and checks them (github.com/apptainer/sif, pkg/integrity).

A signature object covers objects of one group: their data, the descriptors that tell what they are, and the identity
of the file (`image.sif.signed_message`). It holds that message clearsigned by OpenPGP, which is what we write, or in a
DSSE envelope, which `apptainer sign --key` writes. It does not cover the header's architecture and the places of the
objects; `Sif.open` compares these with what is covered.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from computeops.errors import DeniedError, FormatError, LimitError, TrustError
from computeops.image import sif
from computeops.limits import LIMITS
from computeops.model import Signed
from computeops.sign.key import Key

_PAYLOAD = "application/vnd.sylabs.sif-metadata+json"
_CLEARSIGNED = re.compile(
    rb"-----BEGIN PGP SIGNED MESSAGE-----\r?\n(?:Hash: [A-Za-z0-9, -]+\r?\n)*\r?\n([^\r\n]*)\r?\n"
    rb"(-----BEGIN PGP SIGNATURE-----\r?\n[A-Za-z0-9+/=:.(), \r\n-]*-----END PGP SIGNATURE-----)\s*"
)
_CHANGED = "the file was changed after it was signed; do not run it"
_Digests = Mapping[int, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class SifSignature:
    """One signature found in a SIF, whose message holds for the file as it is."""

    signer: str
    """Fingerprint of the OpenPGP key, or keyid of the DSSE key; what the file claims where the key is not known."""
    name: str
    """Of the key in the keyring; "" where it is not known: then nobody vouches for the signature."""
    form: str
    """`pgp` or `dsse`."""
    group: int
    """Group of the objects it covers."""
    objects: frozenset[int]
    """Ids of the objects it covers."""
    complete: bool = False
    """Whether the signatures of this signer together cover every object of the file that is not a signature."""

    @property
    def known(self) -> bool:
        """Whether it was made by a key of the keyring."""
        return bool(self.name)


def sign_sif(path: Path, key: Key, time: int) -> None:
    """Append a signature of all objects by the OpenPGP half of `key`; the object's time is `time`.

    A file that this key has signed already is left as it is. OpenPGP signatures carry the time at which they were made,
    so two of one file differ; `image.sif.unsigned_digest` does not see them.

    Raises:
        DeniedError: the secret of `key` is not here.
        FormatError: it is no SIF, it has objects outside the group that is signed, or no room for a signature.
        TrustError: it was changed since this key signed it.
    """
    from pysequoia import SignatureMode, Tsk
    from pysequoia import sign as pgp_sign

    if not key.secret_certificate:
        raise DeniedError(f"key {key.name} has no secret half here", hint="sign with a key of your own")
    opened = sif.Sif.open(path)
    if outside := [one.id for one in _content(opened) if one.group != 1]:
        raise FormatError(f"{path}: object {outside[0]} is outside group 1, which is what is signed")
    if any(one.complete for one in verify_sif(path, {key.id: key}) if one.form == "pgp" and one.known):
        return
    owned = Tsk.from_bytes(key.secret_certificate)
    data: bytes = pgp_sign(owned.signer(), sif.signed_message(opened), mode=SignatureMode.CLEAR)
    sif.add_signature(path, data, bytes.fromhex(key.fingerprint), time)


def verify_sif(path: Path, keys: Mapping[str, Key]) -> list[SifSignature]:
    """Return the signatures in a SIF, ours and Apptainer's; none for a file that is not signed.

    1. The file is a SIF whose parts do not contradict each other.
    2. The message of every signature holds for the file as it is, whoever signed it.
    3. Every signature in the name of a known key holds. Others are listed, and nobody vouches for them.
    4. Where any key is known: every object is covered by a known key, or something was added.

    Raises:
        FormatError, LimitError: of step 1, or a signature is in no form that is read here.
        TrustError: of steps 2, 3 and 4.
    """
    # (1)
    opened = sif.Sif.open(path)
    expected: dict[int, _Digests] = {}
    found: list[SifSignature] = []
    for one in opened.signatures:
        group = _group(path, one)
        if group not in expected:
            expected[group] = _listed(path, sif.signed_message(opened, group))
        first = min(other.id for other in _content(opened) if other.group == group)
        data = opened.read(one, LIMITS.sif_signature_bytes)
        # (2) and (3)
        for form, signer, name, message in _signers(path, one, data, keys):
            covered = _covered(path, _listed(path, message), expected[group])
            found.append(SifSignature(signer, name, form, group, frozenset(first + number for number in covered)))
    # (4)
    everything = frozenset(one.id for one in _content(opened))
    known = frozenset[int]().union(*(one.objects for one in found if one.known))
    if any(one.known for one in found) and (bare := everything - known):
        raise TrustError(f"{path}: object {min(bare)} is not signed by a known key, others are", hint=_CHANGED)
    return [replace(one, complete=everything <= _by(one.signer, found)) for one in found]


def _content(opened: sif.Sif) -> Sequence[sif.Object]:
    return [one for one in opened.objects if one.type != sif.SIGNATURE]


def _by(signer: str, found: Sequence[SifSignature]) -> frozenset[int]:
    return frozenset[int]().union(*(one.objects for one in found if one.signer == signer))


def _group(path: Path, one: sif.Object) -> int:
    """Return the group that a signature object is linked to."""
    if one.link & sif.NO_GROUP != sif.NO_GROUP or one.link == sif.NO_GROUP:
        raise FormatError(f"{path}: signature {one.id} is linked to no group of objects")
    return one.link & ~sif.NO_GROUP


def _listed(path: Path, message: bytes) -> _Digests:
    """Return what a message says: relative id to digests of descriptor and data; at -1 version and header."""
    try:
        data = json.loads(message.decode())
        listed: dict[int, tuple[Any, Any]] = {-1: (data["version"], data["header"]["digest"])}
        for one in data["objects"]:
            number = one["relativeId"]
            if type(number) is not int or number < 0 or number in listed:
                raise FormatError(f"{path}: a signature lists object {number!r:.80}, or lists it twice")
            listed[number] = (one["descriptorDigest"], one["objectDigest"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = "it may be of the old kind that covers only data: sign the file again"
        raise FormatError(f"{path}: a signature whose message is not known: {error!r:.200}", hint=hint) from None
    return listed


def _covered(path: Path, listed: _Digests, expected: _Digests) -> Iterator[int]:
    """Yield the relative ids of the objects that a message lists, each compared with the file."""
    if len(listed) < 2:
        raise TrustError(f"{path}: a signature that covers no object")
    for number, digests in listed.items():
        if expected.get(number) != digests:
            what = "the header" if number < 0 else f"object {number + 1} of its group"
            raise TrustError(f"{path}: {what} is not what was signed", hint=_CHANGED)
        if number >= 0:
            yield number


def _signers(
    path: Path, one: sif.Object, data: bytes, keys: Mapping[str, Key]
) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield form, signer, name in the keyring ("": not known) and message of the signatures in one object."""
    if data.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
        # The fingerprint in the descriptor only finds the key; what it says is worth nothing until the key has agreed.
        yield "pgp", *_pgp(path, one.extra[4:24].hex(), data, keys)
        return
    try:
        signed = Signed.from_json(json.loads(data.decode()))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: signature {one.id} is neither OpenPGP nor DSSE: {error!s:.200}") from None
    yield from (("dsse", *found, signed.payload) for found in _dsse(path, signed, keys))


def _pgp(path: Path, fingerprint: str, data: bytes, keys: Mapping[str, Key]) -> tuple[str, str, bytes]:
    from pysequoia import Cert, verify

    match = _CLEARSIGNED.fullmatch(data)
    if match is None:
        raise FormatError(f"{path}: an OpenPGP signature that is not one clearsigned line")
    key = next((key for key in keys.values() if key.fingerprint == fingerprint), None)
    if key is None:
        return fingerprint, "", match[1]
    certificate = Cert.from_bytes(key.certificate)
    try:
        result = verify(data, store=lambda _ids: [certificate])
    except (RuntimeError, ValueError):
        raise _forged(path, key) from None
    # Both readers must have seen the same text, and the key must be the one that the descriptor named.
    if result.bytes != match[1] or fingerprint not in {found.certificate.lower() for found in result.valid_sigs}:
        raise _forged(path, key)
    return fingerprint, key.name, match[1]


def _dsse(path: Path, signed: Signed, keys: Mapping[str, Key]) -> Iterator[tuple[str, str]]:
    if signed.payload_type != _PAYLOAD or not signed.signatures:
        raise FormatError(f"{path}: a DSSE envelope of {signed.payload_type!r:.80} is no signature of a SIF")
    if len(signed.signatures) > LIMITS.signatures:
        raise LimitError(f"{path}: {len(signed.signatures)} signatures; at most {LIMITS.signatures} are read")
    for one in signed.signatures:
        # A keyid is only a hint, and may be missing: then every key is asked.
        asked = [key for key in keys.values() if key.pem and one.keyid in {"", key.keyid}]
        holder = next((key for key in asked if key.holds(signed.message, one.sig)), None)
        if holder is None and one.keyid and asked:
            raise _forged(path, asked[0])
        yield (holder.keyid, holder.name) if holder else (one.keyid, "")


def _forged(path: Path, key: Key) -> TrustError:
    return TrustError(f"{path}: a signature in the name of key {key.name} does not hold", hint=_CHANGED)
