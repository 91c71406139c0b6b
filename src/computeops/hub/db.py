"""The index of a hub: the two kinds of transaction, on SQLite and PostgreSQL; the truth is in the storage.

Every write is durable when its block ends, so that what was answered 201 survives a crash. Its tables are in
`computeops.hub.tables`, what the two databases do differently in `computeops.hub.dialects`.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from computeops.errors import ComputeOpsError, NotFoundError, StorageError
from computeops.hub import migrations, records
from computeops.hub.dialects import Dialect, open_dialect, told
from computeops.hub.storage import Storage, blob_key
from computeops.hub.storage.folder import Folder
from computeops.hub.tables import collections, links, manifests, notes, repositories, tags
from computeops.model import Digest

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

_T = TypeVar("_T")
_REMEMBERED_BYTES = 128 * 1024 * 1024
_ANSWER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that exists."""

    id: int
    name: str
    public: bool


class Database:
    """Connections to the index, and the questions that more than one door asks."""

    def __init__(self, url: str, storage: Storage) -> None:
        self.storage = storage
        """Where the truth is that this is the index of."""
        self._dialect: Dialect = open_dialect(url)
        self.engine = self._dialect.engine
        try:
            migrations.upgrade(self._dialect)
        except Exception:
            self._dialect.close()
            raise
        self._version: Hashable = None
        self._remembered: dict[Hashable, Any] = {}
        self._remembered_bytes = 0
        self._remembering = Lock()

    @classmethod
    def in_folder(cls, data: Path, url: str = "", storage: Storage | None = None) -> "Database":
        """Open, or begin, the index of the hub in the folder `data`.

        `url`: of the server that has it instead; `storage`: what has the content instead.

        Raises:
            StorageError: a newer version of the hub made it.
            UnavailableError: it does not answer.
        """
        return cls(url or f"sqlite:///{data / 'hub.sqlite'}", storage or Folder(data))

    def close(self) -> None:
        """Close all connections."""
        self._dialect.close()
        self.engine.dispose()

    def exclusive(self, name: str) -> AbstractContextManager[bool]:
        """Hold the work `name` for this process alone of all; the block is told whether it was free."""
        return self._dialect.exclusive(name)

    def remember(
        self, key: Hashable, find: Callable[[], _T], size: Callable[[_T], int] = lambda _: _ANSWER_BYTES
    ) -> _T:
        """Return what `find` returns, from memory if nothing at all was committed since; `key` names the question.

        It is what makes the reads of the registry fast. `size`: about how many bytes the answer takes in memory.
        """
        with self._remembering:
            version = self._dialect.version()
            if version != self._version or self._remembered_bytes > _REMEMBERED_BYTES:
                self._remembered.clear()
                self._remembered_bytes, self._version = 0, version
            if key in self._remembered:
                known: _T = self._remembered[key]
                return known
        found = find()
        with self._remembering:
            if version == self._version:  # else it may be older than what others remember by now
                self._remembered[key] = found
                self._remembered_bytes += size(found)
        return found

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give one consistent view.

        Raises:
            UnavailableError: the database does not answer.
        """
        with _told(reading=True), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *locks: str) -> Iterator[sa.Connection]:
        """Give a writing transaction; it is durable when the block ends well, and gone otherwise.

        No two transactions with one of `locks` in common run at once; those without any are one after the other.

        Raises:
            UnavailableError: the database does not answer; StorageError: it has no room.
        """
        with _told(), self._dialect.writing.begin() as connection:
            self._dialect.lock(connection, locks or ("",))
            yield connection

    def repository(self, name: str) -> Repository | None:
        """Return the repository called `name`, whoever asks."""
        query = sa.select(repositories.c.id, collections.c.public).join_from(repositories, collections)
        with self.read() as connection:
            row = connection.execute(query.where(repositories.c.name == name)).first()
        return None if row is None else Repository(row.id, name, row.public)

    def create_repository(self, name: str) -> Repository:
        """Return the repository `name`, made now if it is new; a new collection is public."""
        if (found := self.repository(name)) is not None:
            return found
        now = int(time.time())
        collection = name.rpartition("/")[0]
        with self.write() as connection:
            known = sa.select(collections.c.name).where(collections.c.name == collection)
            if connection.execute(known).first() is None:
                upsert(connection, collections, {"name": collection, "public": True, "created": now}, keep=True)
                self.record_collection(connection, collection)
            upsert(
                connection,
                repositories,
                {"name": name, "collection": collection, "created": now},
                on=["name"],
                keep=True,
            )
        made = self.repository(name)
        assert made is not None
        return made

    def set_public(self, collection: str, *, public: bool) -> None:
        """Make `collection` public or private, also before anything is pushed to it."""
        row = {"name": collection, "public": public, "created": int(time.time())}
        with self.write() as connection:
            upsert(connection, collections, row, change=["public"])
            self.record_collection(connection, collection)

    def set_quota(self, collection: str, quota: int | None) -> None:
        """Let `collection` hold at most `quota` bytes; None: as much as there is."""
        row = {"name": collection, "public": True, "created": int(time.time()), "quota": quota}
        with self.write() as connection:
            upsert(connection, collections, row, change=["quota"])
            self.record_collection(connection, collection)

    def record_collection(self, connection: sa.Connection, name: str) -> None:
        """Write what the row of a collection says to the storage: the last step of a transaction that changes it."""
        row = connection.execute(sa.select(collections).where(collections.c.name == name)).one()
        records.write(
            self.storage, records.collection_key(name), records.Collection(row.public, row.quota, row.created)
        )

    def is_empty(self) -> bool:
        """Return whether there is no repository."""
        with self.read() as connection:
            return connection.execute(sa.select(repositories.c.id).limit(1)).first() is None

    def note(self, name: str, value: str) -> str:
        """Return the note `name` that all processes of the hub share; the first one writes `value` there."""
        with self.write() as connection:
            upsert(connection, notes, {"name": name, "value": value}, keep=True)
            return str(connection.execute(sa.select(notes.c.value).where(notes.c.name == name)).scalar_one())

    def tags(self, repository: Repository, *, after: str = "", limit: int | None = None) -> list[str]:
        """Return the tags in their order, at most `limit` of those behind `after`."""
        query = sa.select(tags.c.name).where(tags.c.repository == repository.id, sa.not_(tags.c.retired))
        query = query.where(tags.c.name > after).order_by(tags.c.name).limit(limit)
        with self.read() as connection:
            return list(connection.scalars(query))

    def link(self, repository: Repository, digest: str, size: int, store: Callable[[], object] | None = None) -> None:
        """Let `repository` serve the blob `digest`, which the caller has stored and, with `store`, can store again.

        Raises:
            NotFoundError: the blob is not there and cannot be stored again.
            StorageError: its collection may not hold so much.
        """
        row = {"repository": repository.id, "digest": digest, "size": size, "created": int(time.time())}
        key = blob_key(Digest.parse(digest))
        # what is removed as unused is removed under the same lock: from here on it is used
        with self.write(repository_lock(repository), blob_lock(digest)) as connection:
            self._require_room(connection, repository.name, digest, size)
            if (entry := self.storage.stat(key)) is None or entry.size != size:
                if store is None:
                    raise NotFoundError(f"no blob {digest}")
                store()
            upsert(connection, links, row, change=["created"])

    def _require_room(self, connection: sa.Connection, repository: str, digest: str, size: int) -> None:
        collection = repository.rpartition("/")[0]
        left = room(connection, collection)
        if left is not None and left < size and not _held(connection, collection, digest):
            raise StorageError(f"the collection {collection} has room for {max(0, left)} bytes more, not {size}")

    def room(self, repository: str) -> int | None:
        """Return how many bytes more the collection of `repository` may hold; None: no quota."""
        with self.read() as connection:
            return room(connection, repository.rpartition("/")[0])

    def linked(self, repository: Repository, digest: str) -> int | None:
        """Return the size of the blob `digest` in bytes if `repository` may serve it, else None."""
        query = sa.select(links.c.size).where(links.c.repository == repository.id, links.c.digest == digest)
        with self.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else int(row.size)

    def holders(self, digest: str) -> list[Repository]:
        """Return the repositories that may serve the blob `digest`."""
        query = (
            sa.select(repositories.c.id, repositories.c.name, collections.c.public)
            .join_from(links, repositories)
            .join(collections)
            .where(links.c.digest == digest)
        )
        with self.read() as connection:
            return [Repository(row.id, row.name, row.public) for row in connection.execute(query)]

    def manifest(self, repository: Repository, reference: str) -> sa.Row[Any] | None:
        """Return the manifest with this tag or digest."""
        query = sa.select(manifests).where(manifests.c.repository == repository.id)
        if ":" in reference:
            query = query.where(manifests.c.digest == reference)
        else:
            query = query.join(
                tags, (tags.c.repository == manifests.c.repository) & (tags.c.digest == manifests.c.digest)
            ).where(tags.c.name == reference, sa.not_(tags.c.retired))
        with self.read() as connection:
            return connection.execute(query).first()

    def referrers(self, repository: Repository, subject: str) -> list[sa.Row[Any]]:
        """Return the manifests whose subject is `subject`, oldest first."""
        query = (
            sa.select(manifests)
            .where(manifests.c.repository == repository.id, manifests.c.subject == subject)
            .order_by(manifests.c.place)
        )
        with self.read() as connection:
            return list(connection.execute(query))


def room(connection: sa.Connection, collection: str) -> int | None:
    """Return how many bytes more a collection may hold: each blob counts once; None: it has no quota."""
    query = sa.select(collections.c.quota).where(collections.c.name == collection)
    quota = connection.execute(query).scalar()
    return None if quota is None else int(quota) - used(connection, collection)


def used(connection: sa.Connection, collection: str) -> int:
    """Return how many bytes the blobs of a collection have, each counted once."""
    mine = repositories.c.collection == collection
    each = sa.select(links.c.digest, links.c.size).join_from(links, repositories).where(mine).distinct().subquery()
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(each.c.size), 0))).scalar_one())


def _held(connection: sa.Connection, collection: str, digest: str) -> bool:
    query = sa.select(links.c.digest).join_from(links, repositories)
    return (
        connection.execute(
            query.where(repositories.c.collection == collection, links.c.digest == digest).limit(1)
        ).first()
        is not None
    )


def repository_lock(repository: Repository) -> str:
    """Return the lock of those who change what a repository has."""
    return f"repository {repository.id}"


def blob_lock(digest: str) -> str:
    """Return the lock of those who link or remove the blob `digest`."""
    return f"blobs {digest.partition(':')[2][:2]}"


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    row: Mapping[str, Any],
    *,
    on: list[str] | None = None,
    change: list[str] | None = None,
    keep: bool = False,
) -> None:
    """Insert `row`; where its key (`on`, else the primary key) exists, keep the old row or change columns of it."""
    key = on or [column.name for column in table.primary_key]
    statement = _insert(connection, table).values(**row)
    if keep:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))
        return
    columns = change or [name for name in row if name not in key]
    new = {name: statement.excluded[name] for name in columns}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=new))


def _insert(connection: sa.Connection, table: sa.Table) -> "postgresql.Insert | sqlite.Insert":
    if connection.dialect.name == "postgresql":  # its module costs a start of the hub more than any other
        from sqlalchemy.dialects.postgresql import insert

        return insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


@contextmanager
def _told(*, reading: bool = False) -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        meant = told(error, reading=reading)
        if isinstance(meant, ComputeOpsError):
            raise meant from error
        raise
