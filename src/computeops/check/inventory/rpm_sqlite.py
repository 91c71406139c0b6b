"""rpmdb.sqlite: the table `Packages` of rpm's SQLite database, one header in each row."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from computeops.errors import FormatError

_STEPS = 100_000
_MOST_CALLS = 10_000
"""One thousand million steps of SQLite's machine: a database of 100,000 packages needs a thousandth of it."""


def blobs(data: bytes, wal: bytes, where: str) -> Iterator[bytes]:
    """Yield the header of each package; `wal` is the write-ahead log beside the database, if it has content.

    Raises:
        FormatError: it is no database of rpm, or a broken one.
    """
    with tempfile.TemporaryDirectory(prefix="computeops-rpm-") as folder:
        path = Path(folder) / "rpmdb.sqlite"
        path.write_bytes(data)
        if wal:
            path.with_name(path.name + "-wal").write_bytes(wal)
        try:
            with closing(sqlite3.connect(path)) as database:
                yield from _rows(database, len(data) + len(wal), where)
        except UnicodeDecodeError as error:  # SQLite quotes a broken schema in its message
            raise FormatError(f"/{where} is broken: its schema is no text") from error
        except sqlite3.Error as error:
            raise FormatError(f"/{where} is broken: {error}") from error


def _rows(database: sqlite3.Connection, size: int, where: str) -> Iterator[bytes]:
    """A hostile schema cannot compute: only a plain table is read, in bounded steps and bytes."""
    database.text_factory = bytes  # names of a broken schema are not UTF-8
    calls = iter(range(_MOST_CALLS))
    database.set_progress_handler(lambda: next(calls, None) is None, _STEPS)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(size, 1024))
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    (plain,) = database.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'Packages' AND type = 'table' AND rootpage > 0"
    ).fetchone()
    hidden = [row for row in database.execute("PRAGMA table_xinfo('Packages')") if row[1] == b"blob" and row[6] == 0]
    if plain != 1 or len(hidden) != 1:
        raise FormatError(f"/{where} has no table of packages")
    total = 0
    for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY rowid"):
        total += len(blob) if isinstance(blob, bytes) else size + 1
        if total > size:
            raise FormatError(f"/{where} has a package that is no header")
        yield blob
