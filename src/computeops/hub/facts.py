"""What one piece of evidence says, in a few words and numbers for lists and pages.

Nothing here is a proof: signatures are checked where the image is used. Whatever an envelope holds, it is read within
bounds and never refused; what cannot be read is shown as that.
"""

import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from computeops.check.kinds import CYCLONEDX, PROVENANCE, SPDX, TEST, VULNS
from computeops.errors import FormatError
from computeops.limits import LIMITS
from computeops.model import Signed

_TITLES = {
    TEST: "Tests",
    PROVENANCE: "Build provenance",
    CYCLONEDX: "SBOM (CycloneDX)",
    SPDX: "SBOM (SPDX)",
    VULNS: "Vulnerability scan",
}
_MAX_SIGNERS = 64
_MAX_SUBJECTS = 64
_UNREADABLE = "cannot be read"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one piece of evidence, unverified."""

    kind: str = ""
    passed: bool | None = None
    signers: tuple[str, ...] = ()
    """Key ids that the envelope names."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`subjects` (digests), `words` (for people), `packages` (of an SBOM), `fault` (why it cannot be read)."""


class _Subject(Struct):
    digest: dict[str, str] = {}


class _Statement(Struct):
    predicateType: str  # noqa: N815  in-toto's name
    subject: list[_Subject] = []
    predicate: Raw = Raw(b"{}")


class _Verdict(Struct):
    result: str = ""


class _Tests(Struct):
    passedTests: list[Raw] = []  # noqa: N815  in-toto's names
    warnedTests: list[Raw] = []  # noqa: N815
    failedTests: list[Raw] = []  # noqa: N815


class _CycloneDx(Struct):
    components: list[Raw] = []


class _Spdx(Struct):
    packages: list[Raw] = []


class _Scanner(Struct):
    result: list[Raw] = []


class _Vulns(Struct):
    scanner: _Scanner = msgspec.field(default_factory=_Scanner)


class _Builder(Struct):
    id: str = ""


class _RunDetails(Struct):
    builder: _Builder = msgspec.field(default_factory=_Builder)


class _Provenance(Struct):
    runDetails: _RunDetails = msgspec.field(default_factory=_RunDetails)  # noqa: N815  SLSA's name


def read(data: bytes) -> Known:
    """Return what the bytes of a DSSE envelope say; an unreadable one has a `fault` among its facts."""
    try:
        signed = Signed.from_json(json.loads(data))
        statement = msgspec.json.decode(signed.payload, type=_Statement)
    except (FormatError, ValueError, RecursionError, binascii.Error):
        return Known(facts={"fault": _UNREADABLE})
    kind = clean(statement.predicateType)
    signers = tuple(dict.fromkeys(clean(one.keyid) for one in signed.signatures[:_MAX_SIGNERS] if one.keyid))
    subjects = [
        f"{algorithm}:{value}"[:160]
        for one in statement.subject[:_MAX_SUBJECTS]
        for algorithm, value in one.digest.items()
        if algorithm in {"sha256", "sha512"}
    ]
    facts: dict[str, Any] = {"subjects": subjects}
    try:
        passed = _verdict(statement.predicate)
        facts |= _FACTS.get(kind, _nothing)(statement.predicate)
    except (ValueError, RecursionError):
        return Known(kind, None, signers, facts | {"fault": _UNREADABLE})
    return Known(kind, passed, signers, facts)


def title(kind: str) -> str:
    """Return a kind of evidence in words for people."""
    if kind in _TITLES:
        return _TITLES[kind]
    try:
        address = urlsplit(kind)
    except ValueError:
        return kind[:60]
    return f"{address.hostname or ''}{address.path}"[:60].strip("/") or kind[:60] or "Unknown"


def clean(text: str, limit: int = LIMITS.about_chars) -> str:
    """Return text from outside as it can be stored and shown: no control characters, no half characters, bounded."""
    whole = text[:limit].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c in _KEPT else " " for c in whole).strip()


_KEPT = frozenset("\u200c\u200d")  # the joiners, which some scripts and emoji need


def _verdict(predicate: Raw) -> bool | None:
    try:
        result = msgspec.json.decode(predicate, type=_Verdict).result
    except msgspec.ValidationError:
        return None
    return None if result not in {"PASSED", "WARNED", "FAILED"} else result != "FAILED"


def _tests(predicate: Raw) -> dict[str, Any]:
    found = msgspec.json.decode(predicate, type=_Tests)
    counts = {"passed": found.passedTests, "with warnings": found.warnedTests, "failed": found.failedTests}
    return {"words": ", ".join(f"{len(names)} {word}" for word, names in counts.items() if names)}


def _cyclonedx(predicate: Raw) -> dict[str, Any]:
    return _packages(len(msgspec.json.decode(predicate, type=_CycloneDx).components))


def _spdx(predicate: Raw) -> dict[str, Any]:
    return _packages(len(msgspec.json.decode(predicate, type=_Spdx).packages))


def _packages(count: int) -> dict[str, Any]:
    return {"packages": count, "words": _counted(count, "package")}


def _vulns(predicate: Raw) -> dict[str, Any]:
    found = len(msgspec.json.decode(predicate, type=_Vulns).scanner.result)
    return {"findings": found, "words": _counted(found, "finding") if found else "nothing found"}


def _provenance(predicate: Raw) -> dict[str, Any]:
    builder = clean(msgspec.json.decode(predicate, type=_Provenance).runDetails.builder.id, 200)
    return {"words": f"by {builder.partition('://')[2] or builder}" if builder else ""}


def _nothing(_predicate: Raw) -> dict[str, Any]:
    return {}


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


_FACTS: Mapping[str, Callable[[Raw], dict[str, Any]]] = {
    TEST: _tests,
    PROVENANCE: _provenance,
    CYCLONEDX: _cyclonedx,
    SPDX: _spdx,
    VULNS: _vulns,
}
