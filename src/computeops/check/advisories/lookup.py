"""Asking the index of advisories."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

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
        return self.packages(ecosystem, (name,)).get(name)

    def packages(self, ecosystem: str, names: Iterable[str]) -> Mapping[str, int]:
        """Return the numbers of packages by name; those that no advisory was ever about are left out."""
        rows = self._database.execute(
            "SELECT package.name, package.id FROM json_each(?) AS one CROSS JOIN package"
            " ON package.ecosystem = ? AND package.name = one.value",
            (_list(names), ecosystem),
        )
        return dict(rows.fetchall())

    def folded(self, ecosystem: str) -> Mapping[str, str]:
        """Return the names of a small ecosystem's packages by their lower case."""
        rows = self._database.execute("SELECT name FROM package WHERE ecosystem = ?", (ecosystem,))
        return {name.lower(): name for (name,) in rows}

    def in_pypi(self, names: Iterable[str]) -> Mapping[str, Sequence[str]]:
        """Return how packages of conda are called in PyPI; none for what is not of Python; others are left out."""
        rows = self._database.execute(
            "SELECT named.name, other FROM json_each(?) AS one CROSS JOIN named ON named.name = one.value"
            " GROUP BY named.name, other",
            (_list(names),),
        )
        found: dict[str, list[str]] = {}
        for name, other in rows:
            found.setdefault(name, []).extend([other] if other else ())
        return found

    def hits(self, package: int, key: bytes) -> Iterator[Hit]:
        """Yield what speaks about the version with `key` of a package."""
        yield from self.hits_of([(package, key)])[package, key]

    def hits_of(self, asked: Collection[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], Sequence[Hit]]:
        """Return what speaks about each of several versions: pairs of a package and a key."""
        found: dict[tuple[int, bytes], list[Hit]] = {one: [] for one in asked}
        numbered = list(found)
        with self._asked_table(numbered):
            rows = self._database.execute(
                "SELECT asked.id, advisory, fixed, state, severity, module, high FROM asked CROSS JOIN span"
                " ON span.package = asked.package AND low <= key"
                " AND (high IS NULL OR high > key OR (closed AND high = key))"
            )
            for number, advisory, fixed, state, severity, module, high in rows:
                found[numbered[number]].append(Hit(advisory, fixed, State(state), severity, module, high))
        return found

    @contextmanager
    def _asked_table(self, asked: Sequence[tuple[int, bytes]]) -> Iterator[None]:
        """Make a table of what is asked, beside the index: one join is faster than a question for each."""
        self._database.execute(
            "CREATE TEMP TABLE IF NOT EXISTS asked (id INTEGER PRIMARY KEY, package INTEGER, key BLOB)"
        )
        rows = ((number, *one) for number, one in enumerate(asked))
        self._database.executemany("INSERT INTO asked VALUES (?, ?, ?)", rows)
        try:
            yield
        finally:
            self._database.execute("DELETE FROM asked")

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
        return self.notices((advisory,))[advisory]

    def notices(self, advisories: Iterable[int]) -> Mapping[int, Notice]:
        """Return the advisories with these numbers."""
        rows = self._database.execute(
            "SELECT advisory.id, name, feed, modified, summary, vulnerabilities, aliases, severity, score, vector"
            " FROM json_each(?) AS one CROSS JOIN advisory ON advisory.id = one.value",
            (_list(advisories),),
        )
        return {
            id_: Notice(
                name, self._names[feed], modified, summary, _words(several), _words(others), severity, score, vector
            )
            for id_, name, feed, modified, summary, several, others, severity, score, vector in rows
        }

    def cves(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return the CVE that other records give to vulnerabilities of these `names`, where one does."""
        rows = self._database.execute(
            "SELECT alias.name, vulnerabilities FROM json_each(?) AS one CROSS JOIN alias ON alias.name = one.value"
            " CROSS JOIN advisory ON advisory.id = alias.advisory WHERE vulnerabilities LIKE '[\"CVE-%'",
            (_list(names),),
        )
        found: dict[str, str] = {}
        for name, listed in rows:
            cve, *others = _words(listed)
            if not others:
                found.setdefault(name, cve)
        return found

    def facts(self, names: Iterable[str]) -> Facts:
        """Return what is known of a vulnerability under any of its `names`."""
        return merged(self.facts_of(names).values())

    def facts_of(self, names: Iterable[str]) -> Mapping[str, Facts]:
        """Return what is known of vulnerabilities by name; those of which nothing is known are left out."""
        listed = _list(names)
        scored: dict[str, tuple[float, str, str]] = {}
        # An advisory about several vulnerabilities rates the worst of them: it says nothing about each.
        rows = self._database.execute(
            "SELECT alias.name, score, vector, advisory.name FROM json_each(?) AS one"
            " CROSS JOIN alias ON alias.name = one.value CROSS JOIN advisory ON advisory.id = alias.advisory"
            " WHERE score IS NOT NULL AND json_array_length(vulnerabilities) = 1"
            " ORDER BY alias.name, score DESC, advisory.name",
            (listed,),
        )
        for name, score, vector, by in rows:
            scored.setdefault(name, (score, vector, by))
        exploited: dict[str, str] = {}
        likely: dict[str, tuple[float, float]] = {}
        if self._asked["exploited"]:
            asked = "SELECT name, since FROM exploited WHERE name IN (SELECT value FROM json_each(?))"
            exploited = dict(self._database.execute(asked, (listed,)).fetchall())
        if self._asked["likely"]:
            asked = "SELECT name, score, percentile FROM likely WHERE name IN (SELECT value FROM json_each(?))"
            likely = {name: (score, place) for name, score, place in self._database.execute(asked, (listed,))}
        return {
            name: Facts(exploited.get(name, ""), *likely.get(name, (None, None)), *scored.get(name, (None, "", "")))
            for name in {*scored, *exploited, *likely}
        }


def _list(values: Iterable[object]) -> str:
    """Return values as the text that `json_each` takes apart; what is no character stands in no index."""
    return json.dumps(list(values))


_words = msgspec.json.Decoder(tuple[str, ...]).decode
_NOTHING = Facts()


def merged(several: Iterable[Facts]) -> Facts:
    """Return what is known of one vulnerability that has several names."""
    found = _NOTHING
    for one in several:
        found = one if found is _NOTHING else _merged(found, one)
    return found


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
