"""Asking the index of advisories."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from computeops.check.advisories.index import SCHEMA, Feed, feeds
from computeops.check.advisories.model import State
from computeops.errors import FormatError, NotFoundError

_HINT = "`computeops advisories update` makes it, or `computeops advisories import FILE` where there is no Internet"


@dataclass(frozen=True, slots=True)
class Hit:
    """An advisory that speaks about a version of a package."""

    advisory: int
    """Its number in the index."""
    fixed: str
    state: State
    severity: str
    module: str
    high: bytes | None
    """Key of the version that ends the affected ones; None: none does."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an advisory says of a vulnerability of a package."""

    record: str
    """Name of the advisory."""
    high: bytes | None
    """As in `Hit`."""
    fixed: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What an advisory says, whichever package it is asked about."""

    id: str
    feed: str
    modified: str
    summary: str
    vulnerabilities: tuple[str, ...]
    aliases: tuple[str, ...]
    severity: str
    score: float | None
    vector: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a vulnerability itself."""

    exploited: str = ""
    """The day since which it is known to be exploited (KEV); empty: it is not known to be."""
    likely: float | None = None
    """Probability that it is exploited in the next 30 days (EPSS)."""
    percentile: float | None = None
    score: float | None = None
    """The highest CVSS base score that any advisory gives."""
    vector: str = ""
    scored_by: str = ""


class Index:
    """An index of advisories, read-only; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the index at `path`, which may lie on a read-only file system.

        Raises:
            NotFoundError: there is none; FormatError: it is no index of ours.
        """
        if not path.exists():
            raise NotFoundError(f"there are no advisories at {path}", hint=_HINT)
        quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            # A file that is only ever replaced as a whole needs no lock, and a read-only folder has no place for one.
            self._database = sqlite3.connect(f"file:{quoted}?mode=ro&immutable=1", uri=True)
            self._database.execute("PRAGMA trusted_schema = OFF")
            row = self._database.execute("SELECT value FROM about WHERE name = 'schema'").fetchone()
        except sqlite3.DatabaseError as error:
            raise FormatError(f"{path} is no index of advisories: {error}", hint=_HINT) from error
        if row is None or row[0] != str(SCHEMA):
            self._database.close()
            raise FormatError(f"{path} is an index of another version", hint=_HINT)
        self.path = path
        self._names = dict(self._database.execute("SELECT id, name FROM feed").fetchall())
        # Most names are in neither table; where a table is empty it is not asked at all.
        self._asked = {table: self._any(table) for table in ("exploited", "likely")}

    def _any(self, table: Literal["exploited", "likely"]) -> bool:
        asked = {"exploited": "SELECT 1 FROM exploited LIMIT 1", "likely": "SELECT 1 FROM likely LIMIT 1"}
        return self._database.execute(asked[table]).fetchone() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def feeds(self) -> Sequence[Feed]:
        """Return every feed in the order of the names."""
        return list(feeds(self._database))

    def ecosystems(self) -> Mapping[str, int]:
        """Return the ecosystems with the number of their packages."""
        rows = self._database.execute("SELECT ecosystem, count(*) FROM package GROUP BY ecosystem ORDER BY ecosystem")
        return dict(rows.fetchall())

    def covers(self, ecosystem: str) -> bool:
        """Return whether there are advisories about any package of `ecosystem`."""
        asked = "SELECT 1 FROM package JOIN span ON span.package = package.id WHERE ecosystem = ? LIMIT 1"
        return self._database.execute(asked, (ecosystem,)).fetchone() is not None

    def package(self, ecosystem: str, name: str) -> int | None:
        """Return the number of a package, or None for one that no advisory was ever about."""
        asked = "SELECT id FROM package WHERE ecosystem = ? AND name = ?"
        row = self._database.execute(asked, (ecosystem, name)).fetchone()
        return None if row is None else int(row[0])

    def hits(self, package: int, key: bytes) -> Iterator[Hit]:
        """Yield what speaks about the version with `key` of a package."""
        rows = self._database.execute(
            "SELECT advisory, fixed, state, severity, module, high FROM span WHERE package = ?1 AND low <= ?2"
            " AND (high IS NULL OR high > ?2 OR (closed AND high = ?2))",
            (package, key),
        )
        for advisory, fixed, state, severity, module, high in rows:
            yield Hit(advisory, fixed, State(state), severity, module, high)

    def about(self, package: int, vulnerability: str) -> Iterator[Said]:
        """Yield what every advisory about a vulnerability of a package says, whichever versions it is about."""
        rows = self._database.execute(
            "SELECT advisory.name, span.high, span.fixed FROM alias"
            " JOIN span ON span.advisory = alias.advisory AND span.package = ?"
            " JOIN advisory ON advisory.id = alias.advisory WHERE alias.name = ?",
            (package, vulnerability),
        )
        yield from (Said(*row) for row in rows)

    def notice(self, advisory: int) -> Notice:
        """Return the advisory with this number."""
        row = self._database.execute(
            "SELECT name, feed, modified, summary, vulnerabilities, aliases, severity, score, vector"
            " FROM advisory WHERE id = ?",
            (advisory,),
        ).fetchone()
        name, feed, modified, summary, vulnerabilities, aliases, severity, score, vector = row
        several, others = tuple(json.loads(vulnerabilities)), () if aliases == "[]" else tuple(json.loads(aliases))
        return Notice(name, self._names[feed], modified, summary, several, others, severity, score, vector)

    def cve(self, names: Iterable[str]) -> str:
        """Return the CVE that other records give as a name of the vulnerability with one of these `names`, or ""."""
        for name in names:
            rows = self._database.execute(
                "SELECT vulnerabilities FROM alias JOIN advisory ON advisory.id = alias.advisory WHERE alias.name = ?",
                (name,),
            )
            for (listed,) in rows:
                found: list[str] = json.loads(listed)
                if len(found) == 1 and found[0].startswith("CVE-"):
                    return found[0]
        return ""

    def facts(self, names: Iterable[str]) -> Facts:
        """Return what is known of a vulnerability under any of its `names`."""
        found = _NOTHING
        for name in names:
            one = self._facts(name)
            found = one if found is _NOTHING else found if one is _NOTHING else _merged(found, one)
        return found

    def _facts(self, name: str) -> Facts:
        # An advisory about several vulnerabilities rates the worst of them: it says nothing about each.
        scored = self._database.execute(
            "SELECT score, vector, advisory.name FROM alias JOIN advisory ON advisory.id = alias.advisory"
            " WHERE alias.name = ? AND score IS NOT NULL AND json_array_length(vulnerabilities) = 1"
            " ORDER BY score DESC, advisory.name LIMIT 1",
            (name,),
        ).fetchone()
        exploited = likely = None
        if self._asked["exploited"]:
            exploited = self._database.execute("SELECT since FROM exploited WHERE name = ?", (name,)).fetchone()
        if self._asked["likely"]:
            likely = self._database.execute("SELECT score, percentile FROM likely WHERE name = ?", (name,)).fetchone()
        if not (scored or exploited or likely):
            return _NOTHING
        return Facts(exploited[0] if exploited else "", *(likely or (None, None)), *(scored or (None, "", "")))


_NOTHING = Facts()


def _merged(first: Facts, second: Facts) -> Facts:
    scored = max(first, second, key=lambda one: -1.0 if one.score is None else one.score)
    probable = max(first, second, key=lambda one: -1.0 if one.likely is None else one.likely)
    return Facts(
        first.exploited or second.exploited,
        probable.likely,
        probable.percentile,
        scored.score,
        scored.vector,
        scored.scored_by,
    )
