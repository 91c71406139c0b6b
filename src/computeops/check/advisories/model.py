"""The nouns of advisories: Span, Affected, Advisory, and what a distribution says about a package."""

from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """What an advisory says about the versions of a span; the numbers stand in the index."""

    AFFECTED = 0
    NOT_AFFECTED = 1
    WILL_NOT_FIX = 2
    DEFERRED = 3
    """Affected, and not worth an update of its own: Debian's no-dsa and postponed."""
    END_OF_LIFE = 4
    UNDER_INVESTIGATION = 5

    @property
    def word(self) -> str:
        """The state in words for people and documents."""
        return self.name.lower().replace("_", " ")


SEVERITIES = ("unknown", "negligible", "low", "medium", "high", "critical")
"""From the least to the worst; of what is unknown nothing can be said, so a gate that is asked for names it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Versions from `low` on and up to `high`, as keys of their order."""

    low: bytes = b""
    """The first; empty: from the beginning."""
    high: bytes | None = None
    """The end, which is not in it unless `closed`; None: there is no end."""
    closed: bool = False
    fixed: str = ""
    """The version that ends it, as the advisory writes it; empty: there is no fix."""

    def holds(self, key: bytes) -> bool:
        """Return whether the version with `key` is in the span."""
        return self.low <= key and (self.high is None or key < self.high or (self.closed and key == self.high))


@dataclass(frozen=True, slots=True)
class Affected:
    """What an advisory says about one package of one ecosystem."""

    ecosystem: str
    """As `ecosystem.normal` writes it: `Debian:12`, `PyPI`."""
    name: str
    spans: tuple[Span, ...]
    state: State = State.AFFECTED
    severity: str = ""
    """A word of SEVERITIES, where the vendor rates the package itself."""
    module: str = ""
    """`nodejs:12`: the stream of a module that it is about; empty: none is named."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One record of a feed."""

    id: str
    modified: str
    """RFC 3339; empty: not said."""
    summary: str
    vulnerabilities: tuple[str, ...]
    """The vulnerabilities that it is about, each by itself: the CVEs of a DSA, or one id of the record."""
    aliases: tuple[str, ...]
    """Other names of the one vulnerability it is about; empty where it is about several."""
    severity: str
    """A word of SEVERITIES."""
    score: float | None
    vector: str
    """CVSS."""
    affected: tuple[Affected, ...]


def plain(text: str, longest: int = 256) -> str:
    """Return `text` if it can be shown anywhere, else ""."""
    return text if len(text) <= longest and text.isprintable() else ""
