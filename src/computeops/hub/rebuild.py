"""The index made anew from the storage alone: collections, repositories, manifests, tags, deposits, catalogue.

What only the database has stays as it is: people, tokens, roles. What the index has and the storage does not know is
taken out. Others may push meanwhile: each step looks again, under the locks of those who push.
"""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from computeops.errors import ComputeOpsError, ConflictError, FormatError
from computeops.hub import catalogue, manifests, records
from computeops.hub.db import Repository, blob_lock, repository_lock, upsert
from computeops.hub.deposits import index as deposits
from computeops.hub.manifests import Manifest
from computeops.hub.records import Found
from computeops.hub.state import Hub
from computeops.hub.storage import blob_key
from computeops.hub.tables import collections, links, repositories, tags
from computeops.hub.tables import manifests as manifest_rows
from computeops.limits import LIMITS
from computeops.model import Digest


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found."""

    repositories: int
    manifests: int
    tags: int
    removed: int
    """Rows that the storage knows nothing of."""
    faults: tuple[str, ...]
    """Records that could not be used, with the reason."""


def rebuild(hub: Hub, progress: Callable[[str], None]) -> Rebuilt:
    """Make the index anew.

    Raises:
        ConflictError: `hub gc`, `hub backup` or another `hub reindex` is at work.
    """
    with hub.database.exclusive("storage") as free:
        if not free:
            raise ConflictError("another verb works on the storage of this hub", hint="try again when it has ended")
        found = list(records.find(hub.database.storage))
        progress(f"{len(found)} records")
        work = _Work(hub)
        for one in found:
            work.guarded(work.collection, one)
        for one in found:
            work.guarded(work.manifest, one)
        for one in found:
            work.guarded(work.tag, one)
            work.guarded(work.deposit, one)
        deposits.record_all(hub.database)
        removed = work.forget({one.key for one in found})
    progress("catalogue")
    catalogue.reindex(hub)
    counts = [sum(one.kind is kind for one in found) for kind in (records.Manifest, records.Tag)]
    return Rebuilt(len(work.known), counts[0], counts[1], removed, tuple(work.faults))


class _Work:
    def __init__(self, hub: Hub) -> None:
        self._hub, self._database, self._storage = hub, hub.database, hub.database.storage
        self.known: dict[str, Repository] = {}
        self.faults: list[str] = []

    def guarded(self, step: Callable[[Found], None], one: Found) -> None:
        """Do a step for one record; what cannot be used is told, and the rest goes on."""
        try:
            step(one)
        except FormatError as error:
            self.faults.append(f"{one.key}: {error.message}")
        except ComputeOpsError as error:
            if error.status >= 500:
                raise
            self.faults.append(f"{one.key}: {error.message}")

    def collection(self, one: Found) -> None:
        """Make the row of a collection."""
        if one.kind is not records.Collection:
            return
        record = records.read(self._storage, one.key, records.Collection)
        if record is None:  # nobody is shown what may be private
            self.faults.append(f"{one.key}: cannot be read; the collection is private now")
            record = records.Collection(public=False)
        row = {"name": one.name, "public": record.public, "quota": record.quota, "created": record.created}
        with self._database.write() as connection:
            upsert(connection, collections, row)

    def manifest(self, one: Found) -> None:
        """Make the rows of a manifest, and let the repository serve those of its parts that are there."""
        if one.kind is not records.Manifest:
            return
        record = records.read(self._storage, one.key, records.Manifest)
        digest = Digest.parse(one.value)
        body = self._storage.read(blob_key(digest), 0, LIMITS.manifest_bytes + 1)
        if record is None or Digest.of(body, digest.algorithm) != digest:
            raise FormatError("damaged")
        manifest = Manifest.read(body, digest, record.media_type)
        repository = self._repository(one.name)
        with self._database.write(repository_lock(repository)) as connection:
            if self._storage.stat(one.key) is not None:
                manifests.restore(connection, repository, manifest, record.created, record.place)
        for part in manifest.parts:
            self._link(repository, part.digest, part.size, record.created)

    def _link(self, repository: Repository, digest: str, size: int, created: int) -> None:
        with self._database.write(repository_lock(repository), blob_lock(digest)) as connection:
            entry = self._storage.stat(blob_key(Digest.parse(digest)))
            if entry is not None and entry.size == size:
                row = {"repository": repository.id, "digest": digest, "size": size, "created": created}
                upsert(connection, links, row, keep=True)

    def tag(self, one: Found) -> None:
        """Make the row of a tag."""
        if one.kind is not records.Tag:
            return
        repository = self._repository(one.name)
        with self._database.write(repository_lock(repository)) as connection:
            record = records.read(self._storage, one.key, records.Tag)
            if record is None:
                raise FormatError("damaged")
            row = {
                "repository": repository.id,
                "name": one.value,
                "digest": record.digest,
                "moved": record.moved,
                "retired": record.retired,
            }
            upsert(connection, tags, row)

    def deposit(self, one: Found) -> None:
        """Make the row of a deposit, and let the repository serve its archive."""
        if one.kind is not records.Deposit:
            return
        record = records.read(self._storage, one.key, records.Deposit)
        if record is None:
            raise FormatError("damaged")
        self._link(self._repository(one.name), record.archive, record.size, record.created)
        deposits.restore(self._database, one.name, record)

    def _repository(self, name: str) -> Repository:
        if name not in self.known:
            self.known[name] = self._database.create_repository(name)
        return self.known[name]

    def forget(self, keys: set[str]) -> int:
        """Take out what the storage does not know; return how many rows."""
        with self._database.read() as connection:
            known = {
                row.id: Repository(row.id, row.name, row.public)
                for row in connection.execute(
                    sa.select(repositories.c.id, repositories.c.name, collections.c.public).join_from(
                        repositories, collections
                    )
                )
            }
            tagged = connection.execute(sa.select(tags.c.repository, tags.c.name)).all()
            listed = connection.execute(sa.select(manifest_rows.c.repository, manifest_rows.c.digest)).all()
        gone = 0
        for row in tagged:
            repository = known[row.repository]
            gone += self._forget(repository, records.tag_key(repository.name, row.name), keys, tag=row.name)
        for row in listed:
            repository = known[row.repository]
            gone += self._forget(repository, records.manifest_key(repository.name, row.digest), keys, digest=row.digest)
        return gone

    def _forget(self, repository: Repository, key: str, keys: set[str], *, tag: str = "", digest: str = "") -> bool:
        if key in keys:
            return False
        with self._database.write(repository_lock(repository)) as connection:
            if self._storage.stat(key) is not None:  # pushed meanwhile
                return False
            manifests.forget(connection, repository, tag=tag, digest=digest)
        return True
