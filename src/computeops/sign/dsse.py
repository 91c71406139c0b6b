"""DSSE envelopes (protocol 1.0) with in-toto Statements v1 in them: writing, signing, strict reading, verifying.

A statement that we write is canonical: JSON without spaces, keys and subjects sorted. Equal evidence gives equal bytes,
and with Ed25519 equal signatures. Of others every statement is read that says one thing in one way: no key twice.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from computeops.errors import FormatError, LimitError, TrustError
from computeops.limits import LIMITS
from computeops.model import IN_TOTO_PAYLOAD, IN_TOTO_STATEMENT, Digest, Evidence, Signature, Signed
from computeops.sign.key import Key

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,1000}")
_SUBJECTS = 1000
_NAME_LENGTH = 256


def statement(evidence: Evidence) -> bytes:
    """Return `evidence` as the canonical bytes of an in-toto Statement.

    Raises:
        FormatError: it has no subject, or holds what JSON cannot say.
    """
    subjects = [{"name": name, "digest": {one.algorithm: one.hex}} for name, one in sorted(evidence.subjects.items())]
    data = {
        "_type": IN_TOTO_STATEMENT,
        "subject": subjects,
        "predicateType": evidence.kind,
        "predicate": dict(evidence.predicate),
    }
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        payload = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"evidence of {evidence.kind} cannot be written as JSON: {error}") from error
    read_statement(payload)  # what we could not read again must not be signed
    return payload


def sign(evidence: Evidence, key: Key) -> Signed:
    """Return `evidence` in an envelope with one signature.

    Raises:
        FormatError: `evidence` has no subject, or holds what JSON cannot say.
        DeniedError: the secret of `key` is not here.
    """
    return add_signature(Signed(statement(evidence), IN_TOTO_PAYLOAD), key)


def add_signature(signed: Signed, key: Key) -> Signed:
    """Return the envelope with a signature by `key` added; one by the same key is replaced.

    Raises:
        DeniedError: the secret of `key` is not here.
        LimitError: the envelope has no room for another.
    """
    others = tuple(one for one in signed.signatures if one.keyid != key.keyid)
    if len(others) >= LIMITS.signatures:
        raise LimitError(f"an envelope with {len(others)} signatures; at most {LIMITS.signatures} are read")
    return replace(signed, signatures=(*others, Signature(key.keyid, key.sign(signed.message))))


def verify(signed: Signed, keys: Mapping[str, Key]) -> tuple[Evidence, frozenset[str]]:
    """Return the evidence in the envelope and the ids of the keys that signed it.

    Raises:
        FormatError, LimitError: it is no envelope with a statement that is read here.
        TrustError: a signature by a known key does not hold, or none is by a known key.
    """
    evidence = read(signed)
    found = signers(signed, keys)
    if not found:
        claimed = ", ".join(one.keyid or "without a keyid" for one in signed.signatures[:3]) or "nobody"
        raise TrustError(
            f"the evidence of {evidence.kind} is signed by {claimed}; no key of these is known",
            hint="`computeops key import NAME FILE` trusts a key; get it from its owner, not from where the image is",
        )
    return evidence, found


def signers(signed: Signed, keys: Mapping[str, Key]) -> frozenset[str]:
    """Return the ids of those of `keys` that signed the envelope; signatures by other keys are not looked at.

    Raises:
        LimitError: it has too many signatures.
        TrustError: a signature that names a known key does not hold.
    """
    if len(signed.signatures) > LIMITS.signatures:
        raise LimitError(f"{len(signed.signatures)} signatures; at most {LIMITS.signatures} are read")
    known = {key.keyid: key for key in keys.values() if key.keyid}
    message = signed.message
    found = set()
    for one in signed.signatures:
        key = known.get(one.keyid)
        if key is None:
            continue
        if not key.holds(message, one.sig):
            raise TrustError(
                f"a signature in the name of key {key.name} ({one.keyid}) does not hold",
                hint="the evidence or its signature was changed after it was signed; do not use the image",
            )
        found.add(key.keyid)  # as computed from the key: twice by one key is one signer
    return frozenset(found)


def read(signed: Signed) -> Evidence:
    """Return the evidence in the envelope; its signatures are not looked at.

    Raises:
        FormatError: the payload is no in-toto Statement v1 with a subject.
        LimitError: it is too large or too deep.
    """
    if signed.payload_type != IN_TOTO_PAYLOAD:
        raise FormatError(f"an envelope of {signed.payload_type[:80]!r}; evidence is {IN_TOTO_PAYLOAD}")
    return read_statement(signed.payload)


def read_statement(payload: bytes) -> Evidence:
    """Return the evidence that an in-toto Statement v1 says.

    Raises:
        FormatError: it is none, it has no subject, or a key of an object or the name of a subject stands there twice.
        LimitError: it is too large or too deep.
    """
    if len(payload) > LIMITS.evidence_bytes:
        raise LimitError(f"a statement of {len(payload)} bytes; at most {LIMITS.evidence_bytes} are read")
    try:
        data = json.loads(payload.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise LimitError(f"a statement of JSON deeper than {LIMITS.json_depth}") from None
    except ValueError as error:
        raise FormatError(f"a statement that is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("_type") != IN_TOTO_STATEMENT:
        raise FormatError(f"not an in-toto Statement v1: its _type is not {IN_TOTO_STATEMENT}")
    _check_depth(data)
    kind, predicate = data.get("predicateType"), data.get("predicate", {})
    if not isinstance(kind, str) or not _URI.fullmatch(kind):
        raise FormatError(f"a statement whose predicateType is not a URI: {kind!r:.80}")
    if not isinstance(predicate, dict):
        raise FormatError(f"a statement of {kind} whose predicate is not an object")
    return Evidence(kind, _subjects(data.get("subject")), predicate)


def _subjects(listed: Any) -> Mapping[str, Digest]:
    if not isinstance(listed, list) or not listed:
        raise FormatError("a statement without a subject says nothing about any image")
    if len(listed) > _SUBJECTS:
        raise LimitError(f"a statement about {len(listed)} subjects; at most {_SUBJECTS} are read")
    subjects: dict[str, Digest] = {}
    for one in listed:
        if not isinstance(one, dict) or not isinstance(one.get("digest"), dict):
            raise FormatError(f"a subject without a digest: {one!r:.80}")
        name = one.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH or not name.isprintable():
            raise FormatError(f"a subject without a name: {name!r:.80}")
        if name in subjects:
            raise FormatError(f"a statement with two subjects called {name!r}")
        subjects[name] = _digest(name, one["digest"])
    return subjects


def _digest(name: str, digests: Mapping[str, Any]) -> Digest:
    for algorithm in ("sha256", "sha512"):
        if algorithm in digests:
            return Digest.parse(f"{algorithm}:{digests[algorithm]}")
    raise FormatError(f"subject {name!r} has no sha256 or sha512 digest")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says one key twice: two readers could take two meanings from one signature."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _check_depth(data: dict[str, Any]) -> None:
    level: list[Any] = [data]
    for _ in range(LIMITS.json_depth + 1):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise LimitError(f"a statement of JSON deeper than {LIMITS.json_depth}")
