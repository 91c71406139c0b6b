"""The index of advisories that a hub asks: where it is, which one was asked last, and what is different in a new one.

The file is only ever replaced as a whole. The hub keeps a link to the one that it has judged by, so that of the next
one only the difference has to be asked: the packages about which an advisory came, went or changed.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from computeops.check.advisories.lookup import Index
from computeops.errors import FormatError, NotFoundError
from computeops.hub.state import Hub

FILE_NAME = "advisories.sqlite"
_JUDGED = ".advisories-judged.sqlite"
_MOST = 20_000
"""Packages; of more the whole hub is matched anew, which is not slower."""
_FEED = "tag, published, newest, records, faulty"
_RECORD = "name, modified, severity, score, summary, vulnerabilities, aliases"
_SPAN = (
    "SELECT package.ecosystem, package.name, advisory.name, low, high, closed, fixed, state, span.severity, module"
    " FROM {0}.span JOIN {0}.advisory ON advisory.id = span.advisory"
    " JOIN {0}.package ON package.id = span.package WHERE advisory.feed = ?"
)
_ABOUT = (
    "SELECT DISTINCT package.ecosystem, package.name FROM {0}.advisory"
    " JOIN {0}.span ON span.advisory = advisory.id JOIN {0}.package ON package.id = span.package"
    " WHERE advisory.feed = ? AND advisory.name = ?"
)


@dataclass(frozen=True, slots=True)
class Touched:
    """What a new index says something else about."""

    packages: frozenset[tuple[str, str]]
    """Ecosystem and name."""
    exploited: frozenset[str]
    """Vulnerabilities that are, or are no longer, known to be exploited."""


def place(hub: Hub) -> Path:
    """Return the file of the index."""
    return hub.data / (hub.settings.advisories or FILE_NAME)


def mark(path: Path) -> str:
    """Return `WHEN-WHAT`: when its feeds were asked last, and what tells its advisories from those of another file."""
    with contextlib.closing(sqlite3.connect(_uri(path), uri=True)) as database:
        rows = database.execute(f"SELECT checked, name, {_FEED} FROM feed ORDER BY name").fetchall()  # noqa: S608
    known = hashlib.sha256(repr([row[1:] for row in rows]).encode()).hexdigest()[:32]
    return f"{max((row[0] for row in rows), default=0)}-{known}"


@contextlib.contextmanager
def opened(hub: Hub) -> Iterator[Index | None]:
    """Give the index, or None where there is none that can be read."""
    try:
        index = Index(place(hub))
    except (NotFoundError, FormatError):
        yield None
        return
    with index:
        yield index


def fault(hub: Hub) -> str:
    """Return why there is no index that can be asked; empty: there is one."""
    try:
        Index(place(hub)).close()
    except (NotFoundError, FormatError) as error:
        return error.message
    return ""


def keep(hub: Hub, index: Index) -> None:
    """Remember that the hub was judged by this index."""
    judged = hub.data / _JUDGED
    new = judged.with_name(f"{_JUDGED}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(index.path, new)
    except OSError:  # on another file system
        shutil.copyfile(index.path, new)
    new.replace(judged)


def touched(hub: Hub, index: Index) -> Touched | None:
    """Return what `index` says something else about than the one the hub was judged by; None: about too much."""
    judged = hub.data / _JUDGED
    if not judged.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(_uri(index.path), uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("ATTACH ? AS old", (_uri(judged),))
            return _difference(database)
    except sqlite3.DatabaseError:
        return None  # of another version, or broken


def _uri(path: Path) -> str:
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{quoted}?mode=ro&immutable=1"


def _difference(database: sqlite3.Connection) -> Touched | None:
    packages: set[tuple[str, str]] = set()
    for name, here, there in _changed_feeds(database):
        # feeds without dates say nothing by their records alone: each span is compared
        packages |= set(_by_record(database, here, there) if name.startswith("osv/") else ())
        packages |= set(() if name.startswith("osv/") else _by_span(database, here, there))
        if len(packages) > _MOST:
            return None
    exploited = database.execute(
        "SELECT name FROM (SELECT * FROM main.exploited EXCEPT SELECT * FROM old.exploited)"
        " UNION SELECT name FROM (SELECT * FROM old.exploited EXCEPT SELECT * FROM main.exploited)"
    )
    names = frozenset(name for (name,) in exploited)
    return None if len(names) > _MOST else Touched(frozenset(packages), names)


def _changed_feeds(database: sqlite3.Connection) -> Iterator[tuple[str, int, int]]:
    """Yield name and numbers, in both files, of the feeds that are not the same; -1: it is not there."""
    found: dict[str, list[tuple[int, tuple[object, ...]]]] = {}
    for schema in ("main", "old"):
        for number, name, *said in database.execute(f"SELECT id, name, {_FEED} FROM {schema}.feed"):  # noqa: S608
            found.setdefault(name, []).append((number if schema == "main" else -number, tuple(said)))
    for name, both in found.items():
        if len(both) != 2 or both[0][1] != both[1][1]:
            numbers = [number for number, _ in both]
            yield name, max((n for n in numbers if n > 0), default=-1), -min((n for n in numbers if n < 0), default=1)


def _by_record(database: sqlite3.Connection, here: int, there: int) -> Iterator[tuple[str, str]]:
    records = {"main": here, "old": there}
    names: set[str] = set()
    for one, other in (("main", "old"), ("old", "main")):
        query = (
            f"SELECT name FROM (SELECT {_RECORD} FROM {one}.advisory WHERE feed = ?"  # noqa: S608  our own words
            f" EXCEPT SELECT {_RECORD} FROM {other}.advisory WHERE feed = ?)"
        )
        names |= {name for (name,) in database.execute(query, (records[one], records[other]))}
    for name in names:
        for schema, feed in records.items():
            yield from database.execute(_ABOUT.format(schema), (feed, name))


def _by_span(database: sqlite3.Connection, here: int, there: int) -> Iterator[tuple[str, str]]:
    main, old = _SPAN.format("main"), _SPAN.format("old")
    for query, feeds in ((f"{main} EXCEPT {old}", (here, there)), (f"{old} EXCEPT {main}", (there, here))):
        for ecosystem, name, *_ in database.execute(query, feeds):
            yield ecosystem, name
