"""What SQLite and PostgreSQL do differently, behind one shape; nothing else in the hub asks which of them it is.

`version` is a value that changes with every commit of anyone: what was read before may be kept until then.
`lock` keeps others out of a write transaction: SQLite has one writer at any time anyway.
"""

import fcntl
import sqlite3
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import sqlalchemy as sa

from computeops.errors import ComputeOpsError, NotFoundError, StorageError, UnavailableError, UsageError

_FULL = ("disk is full", "disk full", "no space left")
_DAMAGED = ("malformed", "not a database", "disk I/O error")
_POOL = 10
_MORE = 20


class Dialect(Protocol):
    """One kind of database, opened."""

    @property
    def engine(self) -> sa.Engine:
        """Of transactions that read."""
        ...

    @property
    def writing(self) -> sa.Engine:
        """Of transactions that write."""
        ...

    def version(self) -> Hashable:
        """Return what changes with every commit."""
        ...

    def lock(self, connection: sa.Connection, names: tuple[str, ...]) -> None:
        """Wait until no other write transaction has one of the locks `names`, and hold them until this one ends."""
        ...

    @contextmanager
    def exclusive(self, name: str) -> Iterator[bool]:
        """Hold the work `name` for one process of all, longer than a transaction; give whether it was free."""
        ...

    def close(self) -> None:
        """Close what is open beside the engine."""
        ...


class Sqlite:
    """A file in WAL mode. Every write is committed with `synchronous=FULL`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.engine: sa.Engine = sa.create_engine(f"sqlite:///{file}")
        sa.event.listen(self.engine, "connect", _pragmas)
        sa.event.listen(self.engine, "begin", _begin)
        self.writing: sa.Engine = self.engine.execution_options(write=True)
        self._watch: sqlite3.Connection | None = None

    def version(self) -> Hashable:
        """Return SQLite's own counter: it changes with every commit of any other connection, here or elsewhere."""
        if self._watch is None:
            self._watch = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
        found: int = self._watch.execute("PRAGMA data_version").fetchone()[0]
        return found

    def lock(self, connection: sa.Connection, names: tuple[str, ...]) -> None:
        """Do nothing: `BEGIN IMMEDIATE` has waited for every other writer."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[bool]:
        """Hold a lock file beside the database."""
        with self._file.with_name(f"{name}.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def close(self) -> None:
        """Close the watching connection."""
        if self._watch is not None:
            self._watch.close()


def _pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin in `_begin`, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # IMMEDIATE: a reader that turns writer could find its view outdated and fail
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


class Postgresql:
    """A server, shared by any number of hubs."""

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
            settings = {"connect_timeout": "5", "application_name": "computeops", "options": _OPTIONS}
            self._url = parsed
            plain = sa.create_engine(
                parsed, connect_args=settings, pool_pre_ping=True, pool_size=_POOL, max_overflow=_MORE
            )
        except (sa.exc.ArgumentError, ImportError) as error:
            raise UsageError(
                f"not a database: {_without_password(url)}: {error}",
                hint="write postgresql://USER@HOST/NAME, and pip install 'computeops[hub,postgresql]'",
            ) from None
        self._plain = plain
        # one view for all questions of a block, as SQLite gives it
        self.engine: sa.Engine = plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self.writing: sa.Engine = plain.execution_options(isolation_level="READ COMMITTED")
        self._watch: Any = None
        self._watching = Lock()

    def version(self) -> Hashable:
        """Return the server's own view of who has committed: two equal ones see the same rows.

        Raises:
            UnavailableError: it does not answer.
        """
        with self._watching:
            try:
                return self._snapshot()
            except sa.exc.DBAPIError:
                self._forget_watch()
            try:
                return self._snapshot()  # a server that was restarted
            except sa.exc.DBAPIError as error:
                self._forget_watch()
                raise told(error) from error

    def _snapshot(self) -> str:
        if self._watch is None:
            self._watch = self._plain.execution_options(isolation_level="AUTOCOMMIT").connect()
        found: str = self._watch.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one()
        return found

    def _forget_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.invalidate()
            watch.close()

    def lock(self, connection: sa.Connection, names: tuple[str, ...]) -> None:
        """Take advisory locks that end with the transaction, in one order for all."""
        for name in sorted(names):
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    @contextmanager
    def exclusive(self, name: str) -> Iterator[bool]:
        """Hold an advisory lock on a connection of its own; UnavailableError: the server does not answer."""
        asked = "SELECT pg_try_advisory_lock(hashtextextended(%s, 1))"
        try:
            connection = self._plain.execution_options(isolation_level="AUTOCOMMIT").connect()
        except sa.exc.DBAPIError as error:
            raise told(error) from error
        with connection:
            try:
                free = bool(connection.exec_driver_sql(asked, (name,)).scalar_one())
            except sa.exc.DBAPIError as error:
                raise told(error) from error
            try:
                yield free
            finally:
                if free and not connection.invalidated:  # the lock ended with a connection that was lost
                    with suppress(sa.exc.DBAPIError):
                        connection.exec_driver_sql("SELECT pg_advisory_unlock(hashtextextended(%s, 1))", (name,))

    def close(self) -> None:
        """Close the watching connection and the pool."""
        with self._watching:
            self._forget_watch()
        self._plain.dispose()


# no statement is so long that compiling it would pay
_OPTIONS = "-c jit=off -c statement_timeout=120s -c lock_timeout=30s -c idle_in_transaction_session_timeout=300s"


def open_dialect(url: str) -> Dialect:
    """Return the database at `url`: `sqlite:///FILE` or `postgresql://...`.

    Raises:
        UsageError: it is neither.
    """
    if url.startswith("sqlite:///"):
        return Sqlite(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql:", "postgres:")):
        return Postgresql(url.replace("postgres:", "postgresql:", 1))
    raise UsageError(f"unknown kind of database: {_without_password(url)}", hint="write postgresql://USER@HOST/NAME")


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


def told(error: sa.exc.DBAPIError, *, reading: bool = False) -> ComputeOpsError | sa.exc.DBAPIError:
    """Return what a failed statement means to who asked; what is a bug stays what it is."""
    said = str(error.orig or error).partition("\n")[0][:300]
    if any(one in said for one in _FULL):
        return StorageError(f"the database has no room: {said}", hint="free some space on its disk")
    if any(one in said for one in _DAMAGED):
        return StorageError(f"the database is damaged: {said}", hint="restore a backup, or run computeops hub reindex")
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return UnavailableError(f"the database does not answer: {said}", hint="try again later")
    if isinstance(error, sa.exc.DataError) and reading:
        return NotFoundError("no such thing")  # what cannot be stored is not there
    if isinstance(error, sa.exc.DataError):
        return UsageError("a value that cannot be stored, for example a text with a zero byte")
    return error
