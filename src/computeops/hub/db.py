"""The index of a hub: tables, and the two kinds of transaction, on SQLite and PostgreSQL; the truth is in the storage.

Every write is durable when its block ends, so that what was answered 201 survives a crash. Who adds or changes a table
adds a migration too (`computeops.hub.migrations`); a test compares them. What the two databases do differently is in
`computeops.hub.dialects`.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from computeops.errors import ComputeOpsError, NotFoundError, StorageError
from computeops.hub import migrations, records
from computeops.hub.deposits import tables as _of_deposits  # noqa: F401  its table is of the same index
from computeops.hub.dialects import Dialect, open_dialect, told
from computeops.hub.pipelines import tables as _of_pipelines  # noqa: F401  its tables are of the same index
from computeops.hub.schema import Sorted as _Sorted
from computeops.hub.schema import metadata
from computeops.hub.storage import Storage, blob_key
from computeops.hub.storage.folder import Folder
from computeops.hub.vulnerabilities import tables as _of_vulnerabilities  # noqa: F401  its tables too
from computeops.model import Digest

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("name", _Sorted, primary_key=True),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("quota", sa.BigInteger),  # bytes that it may hold; null: as much as there is
)
repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", _Sorted, nullable=False, unique=True),
    sa.Column("collection", _Sorted, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("created", sa.BigInteger, nullable=False),
)
_repository = "repositories.id"
links = sa.Table(  # which repository may serve which blob
    "links",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("media_type", sa.String, nullable=False),
    sa.Column("artifact_type", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("annotations", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),  # in the order of their coming, whatever the clock says
    sa.Index("manifests_in_order", "repository", "place"),
    sa.Index("manifests_by_digest", "digest"),
)
parts = sa.Table(  # what a manifest consists of: nothing of it may be deleted while it stands
    "parts",
    metadata,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("manifest", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
)
tags = sa.Table(
    "tags",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("name", _Sorted, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, index=True),
    sa.Column("moved", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.Boolean, nullable=False),  # deleted: remembered, so that a version is never used again
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False, unique=True),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String, nullable=False, server_default="operator"),  # or personal, robot, ci, browser
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), index=True),  # whose roles bound it
    sa.Column("collection", sa.String, index=True),  # whose robot it is
    sa.Column("publisher", sa.Integer, sa.ForeignKey("publishers.id"), index=True),  # what let CI have it
)
people = sa.Table(
    "people",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("title", sa.String, nullable=False),  # as they call themselves
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
identities = sa.Table(  # by which account elsewhere a person signs in
    "identities",
    metadata,
    sa.Column("issuer", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),  # never the name there, which may become another's
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("login", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
members = sa.Table(
    "members",
    metadata,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True, index=True),
    sa.Column("role", sa.String, nullable=False),  # reader, contributor, maintainer or owner
    sa.Column("created", sa.BigInteger, nullable=False),
)
experts = sa.Table(
    "experts",
    metadata,
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),  # scientific or technical
    sa.Column("domain", sa.String, primary_key=True),
)
publishers = sa.Table(  # which CI project may publish what, without a secret
    "publishers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False),  # empty: any of the collection
    sa.Column("issuer", sa.String, nullable=False),
    sa.Column("project", sa.String, nullable=False, index=True),
    sa.Column("ref", sa.String, nullable=False),  # empty: any
    sa.Column("project_id", sa.String, nullable=False),  # of the first exchange: a project of the same name is another
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
audit = sa.Table(  # every write; rows are added and nothing else
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("address", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False, index=True),
    sa.Column("status", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
)
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
deliveries = sa.Table(  # what webhooks are still to be told, and what became of the rest
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("webhook", sa.Integer, sa.ForeignKey("webhooks.id"), nullable=False, index=True),
    sa.Column("event", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, index=True),  # when it is tried next; null: never again
    sa.Column("outcome", sa.String, nullable=False),
    sqlite_autoincrement=True,
)
releases = sa.Table(  # one row for each image that a tag offers: an index of two architectures has two
    "releases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # grows with the time of publication: newest first is by id
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False, index=True),  # what the tag points to: the manifest or an index
    sa.Column("digest", sa.String, nullable=False, index=True),  # the manifest of the image
    sa.Column("version", sa.String, nullable=False),
    sa.Column("variant", sa.String, nullable=False),
    sa.Column("arch", sa.String, nullable=False),
    sa.Column("image", sa.String, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("summary", sa.String, nullable=False),
    sa.Column("license", sa.String, nullable=False),
    sa.Column("domains", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("repository", "tag", "digest"),
    sa.Index("release_versions", "repository", "version"),
    sqlite_autoincrement=True,  # an id is never used again, so that it can be the cursor of a list
)
# The terms of a release, row for row of `releases`, as `hub.terms` makes and asks for them
words = sa.table("words", sa.column("rowid"), sa.column("terms"))
recipes = sa.Table(  # the recipe of an image: the first that was pushed
    "recipes",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),  # the manifest that carries it
    sa.Column("about", sa.JSON, nullable=False),  # the tables of computeops.toml; empty where it is broken
    sa.Column("fault", sa.String, nullable=False),  # why it is broken
    sa.Column("files", sa.JSON, nullable=False),  # name, digest and size of each
)
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("blob", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean),
    sa.Column("signers", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),  # a few words and numbers of the predicate
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
pgp_keys = sa.Table(  # OpenPGP certificates, for those who verify the signature of a SIF
    "pgp_keys",
    metadata,
    sa.Column("fingerprint", sa.String, primary_key=True),  # of the primary key, lower case hex
    sa.Column("armored", sa.String, nullable=False),
    sa.Column("users", sa.String, nullable=False),  # one a line
    sa.Column("line", sa.String, nullable=False),  # what a search answers
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
)
pgp_key_ids = sa.Table(  # the fingerprints of primary keys and subkeys, backwards: a key id is the end of one
    "pgp_key_ids",
    metadata,
    sa.Column("backwards", sa.String, primary_key=True),
    sa.Column("fingerprint", sa.String, sa.ForeignKey("pgp_keys.fingerprint"), primary_key=True),
)
notes = sa.Table(  # what all processes of a hub must agree about
    "notes",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)

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
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(**row)
    if keep:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))
        return
    columns = change or [name for name in row if name not in key]
    new = {name: statement.excluded[name] for name in columns}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=new))


@contextmanager
def _told(*, reading: bool = False) -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        meant = told(error, reading=reading)
        if isinstance(meant, ComputeOpsError):
            raise meant from error
        raise
