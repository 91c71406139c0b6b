"""The nouns of other scanners: Reported, Report; and the Protocol of a plugin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One vulnerability of one package, as another scanner says it."""

    id: str
    """The CVE where there is one."""
    names: tuple[str, ...]
    """Every name that the scanner gives it, `id` too."""
    package: str
    version: str
    purl: str = ""
    fixed: str = ""
    severity: str = "unknown"
    """A word of SEVERITIES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What another scanner says of an image."""

    scanner: str
    """Its name, as that of its plugin."""
    uri: str
    """Where it comes from."""
    version: str
    database: str
    """When its database was made, RFC 3339; empty: it does not say."""
    findings: tuple[Reported, ...]


class Scanner(Protocol):
    """A module of `computeops.check.scanner`: one scanner of others."""

    def argv(self, layout: Path) -> Sequence[str]:
        """Return the command that writes a report about an OCI layout to its standard output."""
        ...

    def knows(self, document: Mapping[str, Any]) -> bool:
        """Return whether a JSON document looks like its report."""
        ...

    def read(self, document: Mapping[str, Any]) -> Report:
        """Return what a report of it says.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: it is broken.
        """
        ...
