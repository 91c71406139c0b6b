"""Values as people read them: sizes, days, digests, and evidence in badges."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from computeops.check import kinds
from computeops.check.advisories.model import SEVERITIES
from computeops.hub.listed import Item, Listed

_UNIT = 1000
_UNITS = ("kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Badge:
    """What the evidence of a release amounts to, in two words."""

    text: str
    tone: str
    """`good`, `bad` or `plain`."""
    title: str


def size(count: int) -> str:
    """Return a number of bytes: `12.3 MB`."""
    if count < _UNIT:
        return f"{count} B"
    value, power = count / _UNIT, 0
    while value >= _UNIT and power < len(_UNITS) - 1:
        value, power = value / _UNIT, power + 1
    return f"{value:.0f} {_UNITS[power]}" if value >= 100 else f"{value:.1f} {_UNITS[power]}"


def day(seconds: int) -> str:
    """Return a time as a day: `24 Nov 2026`."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at.day} {at:%b %Y}"


def moment(seconds: int) -> str:
    """Return a time for the attribute `datetime`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(digest: str) -> str:
    """Return the beginning of a digest or key id: enough to tell two apart."""
    algorithm, colon, value = digest.partition(":")
    return f"{algorithm[:12]}{colon}{value[:10]}" + ("…" if len(value) > 10 else "")


def badges(items: Iterable[Item]) -> list[Badge]:
    """Return what the evidence amounts to; one failed test cannot be outvoted."""
    counting = [item for item in items if not item.fault]
    by_kind = {kind: [item for item in counting if item.kind == kind] for kind in {item.kind for item in counting}}
    found = []
    if verdicts := {item.passed for item in by_kind.get(kinds.TEST, ()) if item.passed is not None}:
        good = False not in verdicts
        found.append(
            Badge("Tests passed", "good", "The signers say that its tests passed")
            if good
            else Badge("Tests failed", "bad", "A signer says that a test failed")
        )
    if kinds.PROVENANCE in by_kind:
        found.append(Badge("Provenance", "plain", "It has a signed record of how it was built"))
    sboms = [item for kind in (kinds.CYCLONEDX, kinds.SPDX) for item in by_kind.get(kind, ())]
    if sboms:
        packages = next((item.packages for item in sboms if item.packages is not None), None)
        found.append(Badge("SBOM", "plain", "It has a list of the software in it" + _counted(packages)))
    if scans := by_kind.get(kinds.VULNS):
        found.append(Badge("Scanned", "plain", f"Known vulnerabilities, at the last scan: {scans[-1].words}"))
    return found


_VERDICTS = {
    "clean": ("No known vulnerabilities", "good", "Every package in it was compared with advisories of today"),
    "stale": ("Advisories too old", "plain", "Nothing was found, but the advisories are too old to say so"),
    "unscannable": ("Not fully scanned", "plain", "Nothing was found, but not all in it could be judged"),
}


def verdict_badges(release: Listed) -> list[Badge]:
    """Return what its known vulnerabilities amount to, and whether its collection keeps it back."""
    found = [Badge("Kept back", "bad", f"Readers cannot pull it: {release.why}")] if kept_back(release) else []
    if release.verdict in _VERDICTS:
        return [*found, Badge(*_VERDICTS[release.verdict])]
    if release.verdict == "vulnerable":
        grave = any(release.counts[-2:])
        title = "Known vulnerabilities in its packages"
        found.append(Badge(verdict_words(release), "bad" if grave else "plain", title))
    return found


def verdict_words(release: Listed) -> str:
    """Return what its known vulnerabilities amount to: `2 critical, 7 high`."""
    if release.verdict == "waiting":
        return "not looked into yet"
    if release.verdict != "vulnerable":
        return _VERDICTS[release.verdict][0]
    named = [(count, name) for count, name in zip(release.counts, SEVERITIES, strict=False) if count]
    return ", ".join(f"{count} {name}" for count, name in reversed(named[-2:])) or "vulnerable"


def kept_back(release: Listed) -> bool:
    """Return whether readers cannot pull it now."""
    return release.blocked_from is not None and release.blocked_from <= time.time()


def _counted(packages: int | None) -> str:
    return "" if packages is None else f": {packages:,} packages"


def architectures(release: Listed) -> list[str]:
    """Return the architectures of all images of this version."""
    return sorted({one.arch for one in (release, *release.siblings) if one.arch})


def variants(release: Listed) -> list[str]:
    """Return the variants of this version; the generic one has no name."""
    return sorted({one.variant for one in (release, *release.siblings) if one.variant})


def sentence(text: str) -> str:
    """Return text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
