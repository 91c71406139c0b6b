"""The nouns of a scan: Finding, Gap, Scan; and its verdict."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from computeops.check.advisories.index import Feed
from computeops.check.advisories.model import SEVERITIES, State
from computeops.check.inventory import Package, System
from computeops.model import Digest

_NEGLIGIBLE = SEVERITIES.index("negligible")


def rank(severity: str) -> int:
    """Return the place of a severity among all, from 0."""
    return SEVERITIES.index(severity)


class Confidence(StrEnum):
    """How sure it is that a finding is about this package."""

    CONFIRMED = "confirmed"
    """By the distribution of the package, or by its own ecosystem."""
    PROBABLE = "probable"
    """By a package of nearly the same name, or of the distribution that this one is rebuilt from."""

    UPSTREAM = "upstream version"
    """By what the upstream says of its own versions: who packaged it may have repaired it under the same one."""


class Verdict(StrEnum):
    """What a scan says in one word."""

    CLEAN = "clean"
    VULNERABLE = "vulnerable"
    STALE = "stale"
    """Nothing was found, but what was asked is too old to say that there is nothing."""
    UNSCANNABLE = "unscannable"
    """Nothing was found, but there are packages about which nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one package."""

    id: str
    """The CVE where there is one."""
    package: Package
    ecosystem: str
    """Whose advisories say so."""
    asked_name: str
    """The name that the advisories know: of the source package, for most distributions."""
    asked_version: str
    advisories: tuple[str, ...]
    """The records that say so."""
    aliases: tuple[str, ...] = ()
    severity: str = "unknown"
    severity_source: str = ""
    score: float | None = None
    vector: str = ""
    fixed: str = ""
    """The version that is free of it; empty: there is none."""
    state: State = State.AFFECTED
    exploited: str = ""
    """Day since which it is known to be exploited."""
    likely: float | None = None
    confidence: Confidence = Confidence.CONFIRMED
    summary: str = ""
    note: str = ""
    suppressed: str = ""
    """Why it does not count; empty: it counts."""
    suppressed_by: str = ""
    """Who says so: `rule`, the file of an ignore list or of a VEX document."""
    justification: str = ""
    """The word of OpenVEX for why it does not count, where one was given."""

    def without(self, reason: str, by: str, justification: str = "") -> Self:
        """Return it as one that does not count."""
        return replace(self, suppressed=reason, suppressed_by=by, justification=justification)

    @property
    def order(self) -> tuple[int, str, str, str]:
        """The worst first, then by name."""
        return (-rank(self.severity), self.package.name, self.id, self.package.place)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something in the image that could not be judged."""

    kind: str
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is known to be wrong with the packages of an image."""

    subjects: Mapping[str, Digest]
    system: System
    packages: int
    """Packages that were judged."""
    owned: int
    """Packages of languages that belong to a package of the distribution, and were judged as that."""
    findings: tuple[Finding, ...]
    """All that count, and all that do not; the worst first."""
    gaps: tuple[Gap, ...]
    stale: tuple[str, ...]
    """Why the advisories are too old, one line each."""
    warnings: tuple[str, ...]
    feeds: tuple[Feed, ...]
    """The feeds that were asked."""
    time: int
    """Seconds since 1970."""

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The findings that are not suppressed."""
        return tuple(one for one in self.findings if not one.suppressed)

    @property
    def suppressed(self) -> tuple[Finding, ...]:
        """The findings that do not count, each with its reason."""
        return tuple(one for one in self.findings if one.suppressed)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings count, by severity, the worst first."""
        found = Counter(one.severity for one in self.counting)
        return {one: found[one] for one in reversed(SEVERITIES)}

    @property
    def verdict(self) -> Verdict:
        """Clean only if everything was judged, by advisories of today, and nothing but the negligible was found."""
        if any(rank(one.severity) != _NEGLIGIBLE for one in self.counting):
            return Verdict.VULNERABLE
        if self.gaps:
            return Verdict.UNSCANNABLE
        return Verdict.STALE if self.stale else Verdict.CLEAN
