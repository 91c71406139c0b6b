"""The index of advisories: its tables, and how it is written.

A version is its key (`check.versions`), so that SQLite compares versions as bytes. A reader keeps the file that it has
opened; a writer works on a copy, which replaces the file when it is whole.
"""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import msgspec

from computeops.check.advisories.model import Advisory
from computeops.errors import FormatError, StorageError
from computeops.limits import LIMITS

SCHEMA = 2
"""Version of the tables; an index of another one is not read but made anew."""
TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE feed (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, origin TEXT NOT NULL, tag TEXT NOT NULL,
    published INTEGER NOT NULL, checked INTEGER NOT NULL, newest TEXT NOT NULL, records INTEGER NOT NULL,
    faulty INTEGER NOT NULL
);
CREATE TABLE package (
    id INTEGER PRIMARY KEY, ecosystem TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (ecosystem, name)
);
CREATE TABLE advisory (
    id INTEGER PRIMARY KEY, feed INTEGER NOT NULL, name TEXT NOT NULL, modified TEXT NOT NULL, summary TEXT NOT NULL,
    vulnerabilities TEXT NOT NULL, aliases TEXT NOT NULL, severity TEXT NOT NULL, score REAL, vector TEXT NOT NULL
);
CREATE TABLE span (
    package INTEGER NOT NULL, advisory INTEGER NOT NULL, low BLOB NOT NULL, high BLOB, closed INTEGER NOT NULL,
    fixed TEXT NOT NULL, state INTEGER NOT NULL, severity TEXT NOT NULL, module TEXT NOT NULL,
    PRIMARY KEY (package, advisory, low)
) WITHOUT ROWID;
CREATE TABLE alias (name TEXT NOT NULL, advisory INTEGER NOT NULL, PRIMARY KEY (name, advisory)) WITHOUT ROWID;
CREATE TABLE exploited (name TEXT PRIMARY KEY, since TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE named (channel TEXT, name TEXT, other TEXT, PRIMARY KEY (name, channel, other)) WITHOUT ROWID;
CREATE TABLE likely (name TEXT PRIMARY KEY, score REAL NOT NULL, percentile REAL NOT NULL) WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX IF NOT EXISTS advisory_name ON advisory (feed, name);
CREATE INDEX IF NOT EXISTS span_advisory ON span (advisory);
CREATE INDEX IF NOT EXISTS alias_advisory ON alias (advisory);
"""
"""Made after the rows of a new file: to sort once is faster than to insert each in its place."""
_CLEAR = {
    "span": "DELETE FROM span WHERE advisory IN (SELECT id FROM advisory WHERE feed = ?)",
    "alias": "DELETE FROM alias WHERE advisory IN (SELECT id FROM advisory WHERE feed = ?)",
}
_BATCH = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is known of one feed in the index."""

    name: str
    """`osv/PyPI`, `debian`, `kev` ..."""
    origin: str
    """The address or file that it came from."""
    tag: str = ""
    """What the server calls this version of the file (ETag)."""
    published: int = 0
    """When its publisher changed it, seconds since 1970; 0: not known."""
    checked: int = 0
    """When it was last asked for, seconds since 1970."""
    newest: str = ""
    """The last `modified` of its records."""
    records: int = 0
    faulty: int = 0
    """Records that could not be read."""


class Writer:
    """Writes feeds into an index that nobody reads yet."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._packages: dict[tuple[str, str], int] = {}

    def feeds(self) -> Mapping[str, Feed]:
        """Return the feeds by name."""
        return {feed.name: feed for feed in feeds(self._database)}

    @contextmanager
    def feed(self, name: str) -> Iterator[int]:
        """Give the number of feed `name`; what is written to it in the block counts whole or not at all."""
        self._database.execute("BEGIN")
        try:
            row = self._database.execute("SELECT id FROM feed WHERE name = ?", (name,)).fetchone()
            if row is None:
                made = self._database.execute("INSERT INTO feed VALUES (NULL, ?, '', '', 0, 0, '', 0, 0)", (name,))
                row = (made.lastrowid,)
            yield int(row[0])
        except BaseException:
            self._database.execute("ROLLBACK")
            self._packages.clear()  # those that the block made are gone with it
            raise
        self._database.execute("COMMIT")

    def describe(self, feed: Feed) -> None:
        """Keep what is known of `feed`."""
        self._database.execute(
            "UPDATE feed SET origin = ?, tag = ?, published = ?, checked = ?, newest = ?, records = ?, faulty = ?"
            " WHERE name = ?",
            (feed.origin, feed.tag, feed.published, feed.checked, feed.newest, feed.records, feed.faulty, feed.name),
        )

    def count(self, feed: int) -> int:
        """Return how many advisories the feed with this number has."""
        return int(self._database.execute("SELECT count(*) FROM advisory WHERE feed = ?", (feed,)).fetchone()[0])

    def clear(self, feed: int) -> None:
        """Remove every advisory of the feed with this number."""
        if not self.count(feed):
            return
        for table in ("span", "alias"):
            self._database.execute(_CLEAR[table], (feed,))
        self._database.execute("DELETE FROM advisory WHERE feed = ?", (feed,))

    def remove(self, feed: int, name: str) -> bool:
        """Remove the advisories called `name` of a feed, and return whether there were any."""
        rows = self._database.execute("SELECT id FROM advisory WHERE feed = ? AND name = ?", (feed, name)).fetchall()
        for number in rows:
            self._database.execute("DELETE FROM span WHERE advisory = ?", number)
            self._database.execute("DELETE FROM alias WHERE advisory = ?", number)
            self._database.execute("DELETE FROM advisory WHERE id = ?", number)
        return bool(rows)

    def add(self, feed: int, advisories: Iterable[Advisory]) -> int:
        """Add advisories to a feed and return how many there were."""
        last = int(self._database.execute("SELECT coalesce(max(id), 0) FROM advisory").fetchone()[0])
        number = last
        rows: list[tuple[object, ...]] = []
        spans: list[tuple[object, ...]] = []
        names: list[tuple[str, int]] = []
        for number, one in enumerate(advisories, last + 1):
            rows.append(_row(number, feed, one))
            names += ((name, number) for name in {*one.vulnerabilities, *one.aliases, one.id})
            for affected in one.affected:
                package = self._package(affected.ecosystem, affected.name)
                spans += (
                    (
                        package,
                        number,
                        span.low,
                        span.high,
                        span.closed,
                        span.fixed,
                        int(affected.state),
                        affected.severity,
                        affected.module,
                    )
                    for span in affected.spans
                )
            if len(spans) + len(rows) > _BATCH:
                self._flush(rows, spans, names)
        self._flush(rows, spans, names)
        return number - last

    def _flush(
        self, rows: list[tuple[object, ...]], spans: list[tuple[object, ...]], names: list[tuple[str, int]]
    ) -> None:
        self._database.executemany("INSERT INTO advisory VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        spans.sort(key=_place)  # neighbours in the file are written together
        # One record may name a package twice; of the same beginning the span that reaches farther counts.
        self._database.executemany(
            "INSERT INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " high = excluded.high, closed = excluded.closed, fixed = excluded.fixed, state = excluded.state"
            " WHERE high IS NOT NULL AND (excluded.high IS NULL OR excluded.high > high)",
            spans,
        )
        self._database.executemany("INSERT OR IGNORE INTO alias VALUES (?, ?)", names)
        for one in (rows, spans, names):
            one.clear()

    def _package(self, ecosystem: str, name: str) -> int:
        known = self._packages.get((ecosystem, name))
        if known is not None:
            return known
        asked = "SELECT id FROM package WHERE ecosystem = ? AND name = ?"
        found = self._database.execute(asked, (ecosystem, name)).fetchone()
        if found is None:
            made = self._database.execute("INSERT INTO package VALUES (NULL, ?, ?)", (ecosystem, name))
            found = (made.lastrowid,)
        number = self._packages[ecosystem, name] = int(found[0])
        return number

    def exploited(self, rows: Iterable[tuple[str, str]]) -> int:
        """Replace what is known to be exploited: vulnerability and since when; return how many there are."""
        self._database.execute("DELETE FROM exploited")
        return self._database.executemany("INSERT OR REPLACE INTO exploited VALUES (?, ?)", rows).rowcount

    def named(self, channel: str, rows: Iterable[tuple[str, str]]) -> int:
        """Replace how packages of a channel of conda are called in PyPI; return how many names there are."""
        self._database.execute("DELETE FROM named WHERE channel = ?", (channel,))
        told = ((channel, *row) for row in rows)
        return self._database.executemany("INSERT OR IGNORE INTO named VALUES (?, ?, ?)", told).rowcount

    def likely(self, rows: Iterable[tuple[str, float, float]]) -> int:
        """Replace how likely vulnerabilities are exploited: probability and percentile; return how many there are."""
        self._database.execute("DELETE FROM likely")
        return self._database.executemany("INSERT OR REPLACE INTO likely VALUES (?, ?, ?)", rows).rowcount


_place = itemgetter(0, 1)


def _row(number: int, feed: int, one: Advisory) -> tuple[object, ...]:
    return (
        number,
        feed,
        one.id,
        one.modified,
        one.summary,
        msgspec.json.encode(one.vulnerabilities).decode(),
        msgspec.json.encode(one.aliases).decode() if one.aliases else "[]",
        one.severity,
        one.score,
        one.vector,
    )


def feeds(database: sqlite3.Connection) -> Iterator[Feed]:
    """Yield the feeds of an index in the order of their names."""
    asked = "SELECT name, origin, tag, published, checked, newest, records, faulty FROM feed ORDER BY name"
    for name, origin, tag, published, checked, newest, records, faulty in database.execute(asked):
        yield Feed(
            name=name,
            origin=origin,
            tag=tag,
            published=published,
            checked=checked,
            newest=newest,
            records=records,
            faulty=faulty,
        )


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Give a writer of the index at `path`, which is replaced if the block ends well, and left as it is if not.

    Raises:
        StorageError: the folder is not ours to write in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".new-{secrets.token_hex(12)}"
    try:
        if path.exists() and _readable(path):
            shutil.copyfile(path, temporary)
        with _connection(temporary) as database:
            yield Writer(database)
            database.executescript(INDEXES)
            database.execute("INSERT OR REPLACE INTO about VALUES ('schema', ?)", (str(SCHEMA),))
            database.execute("PRAGMA optimize")
        replace(temporary, path)
    except sqlite3.DatabaseError as error:
        raise StorageError(f"the index of advisories cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _connection(file: Path) -> Iterator[sqlite3.Connection]:
    new = not file.exists()
    database = sqlite3.connect(file, isolation_level=None)
    try:
        # Nobody reads the file yet, and a crash throws it away: only a feed that fails must be undone.
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -262144"):
            database.execute(f"PRAGMA {pragma}")
        if new:
            database.executescript(TABLES)
        yield database
    finally:
        database.close()


def _readable(path: Path) -> bool:
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            row = database.execute("SELECT value FROM about WHERE name = 'schema'").fetchone()
            return row is not None and row[0] == str(SCHEMA)
        finally:
            database.close()
    except sqlite3.DatabaseError:
        return False  # a broken index is made anew, from all feeds


def replace(new: Path, path: Path) -> None:
    """Put the file `new` in the place of `path`, durably."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.chmod(0o644)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check(path: Path) -> None:
    """Raise unless the file at `path` is a whole index with exactly our tables.

    Raises:
        FormatError: it is not.
    """
    if path.stat().st_size > LIMITS.index_bytes:
        raise FormatError(f"an index of {path.stat().st_size} bytes; at most {LIMITS.index_bytes} are read")
    expected = sqlite3.connect(":memory:")
    try:
        expected.executescript(TABLES + INDEXES)
        wanted = _tables(expected)
    finally:
        expected.close()
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            if _tables(database) != wanted:
                raise FormatError("the index has other tables than ours")
            said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        raise FormatError(f"not an index of advisories: {error}") from error
    if said != "ok":
        raise FormatError(f"the index is broken: {said[:200]}")


def _tables(database: sqlite3.Connection) -> set[tuple[str, str]]:
    rows = database.execute("SELECT name, coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {(name, " ".join(sql.split())) for name, sql in rows}
