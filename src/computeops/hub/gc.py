"""What nobody needs any more is removed while the hub serves: old tags by rules, manifests, links, blobs, uploads.

Who uses a blob is known from the index, so nothing is walked but the list of what is stored. A blob is removed inside
a transaction that holds the lock of those who link it, after a second look at its age and its uses: so a push of a blob
that is on the disk already either links it first, or finds it gone and stores it again. Work is done in batches, 256
for the blobs; what is done is noted, so that a run that was stopped goes on where it was.

A release (a tag whose manifest has a recipe or evidence, or had: a retired one) and all it has is never removed.
"""

import fnmatch
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from computeops.errors import ConflictError
from computeops.hub import catalogue, clock, manifests
from computeops.hub.db import Database, Repository, blob_lock, repository_lock, upsert
from computeops.hub.deposits.tables import deposits
from computeops.hub.pipelines.tables import pipelines
from computeops.hub.settings import Retention
from computeops.hub.state import Hub
from computeops.hub.storage import Entry
from computeops.hub.tables import collections, links, notes, parts, repositories, tags
from computeops.hub.tables import manifests as manifest_rows

_DAY = 24 * 3600
_BATCH = 200
_PROGRESS = "gc"
_BUCKETS = [f"{number:02x}" for number in range(256)]
_ALGORITHMS = ("sha256", "sha512")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    tags: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    uploads: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Work:
    hub: Hub
    before: float
    dry_run: bool
    done: Removed = field(default_factory=Removed)

    @property
    def database(self) -> Database:
        return self.hub.database

    def count(self, **more: int) -> None:
        self.done = replace(self.done, **{name: getattr(self.done, name) + value for name, value in more.items()})


def collect(
    hub: Hub,
    *,
    dry_run: bool = False,
    grace_seconds: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Removed:
    """Remove what nobody needs; with `dry_run` only count it.

    Raises:
        ConflictError: `hub gc`, `hub backup` or `hub reindex` is at work, or the clock was changed.
    """
    began = time.monotonic()
    grace = hub.settings.grace_hours * 3600 if grace_seconds is None else grace_seconds
    with hub.database.exclusive("storage") as free:
        if not free:
            raise ConflictError("another verb works on the storage of this hub", hint="try again when it has ended")
        if not dry_run and (steady := clock.steady(hub.data)) < grace:
            raise ConflictError(
                "the clock of this machine was changed: what is young cannot be told from what is old",
                hint=f"see that it is right; in {math.ceil((grace - steady) / 3600)} hours hub gc will go on",
            )
        work = _Work(hub, time.time() - grace, dry_run)
        progress("tags")
        for rule in hub.settings.retention:
            _old_tags(work, rule)
        if hub.settings.untagged_days:
            progress("manifests")
            _untagged(work, time.time() - hub.settings.untagged_days * _DAY)
        progress("links")
        _links(work)
        for bucket in _left(work):
            progress(f"blobs {bucket}")
            _blobs(work, bucket)
        if not dry_run:
            work.count(uploads=hub.blobs.storage.sweep(work.before))
    return replace(work.done, seconds=time.monotonic() - began)


# tags and manifests


def _known(database: Database) -> list[Repository]:
    query = sa.select(repositories.c.id, repositories.c.name, collections.c.public).join_from(repositories, collections)
    with database.read() as connection:
        return [
            Repository(row.id, row.name, row.public) for row in connection.execute(query.order_by(repositories.c.id))
        ]


def _old_tags(work: _Work, rule: Retention) -> None:
    matches = re.compile(fnmatch.translate(rule.tags)).fullmatch
    before = time.time() - rule.days * _DAY
    for repository in _known(work.database):
        if not fnmatch.fnmatchcase(repository.name, rule.repositories):
            continue
        query = sa.select(tags.c.name, tags.c.digest).where(
            tags.c.repository == repository.id, tags.c.moved < before, sa.not_(tags.c.retired)
        )
        with work.database.read() as connection:
            old = [row for row in connection.execute(query) if matches(row.name)]
        for row in old:
            if catalogue.is_release(work.hub, repository, row.digest):
                continue
            work.count(tags=1)
            if not work.dry_run and manifests.untag(work.database, repository, row.name, released=False):
                catalogue.removed(work.hub, repository, tag=row.name)


def _untagged(work: _Work, before: float) -> None:
    for repository in _known(work.database):
        for digest in _unreached(work.database, repository, before):
            work.count(manifests=1)
            if not work.dry_run and _delete(work, repository, digest):
                catalogue.removed(work.hub, repository, digest=digest)


def _unreached(database: Database, repository: Repository, before: float) -> Sequence[str]:
    """Return the old manifests that no tag reaches: by itself, through an index, or as the subject of something.

    What was a release stays: its retired tag reaches it. So does what has a recipe or evidence.
    """
    mine = manifest_rows.c.repository == repository.id
    with database.read() as connection:
        rows = connection.execute(
            sa.select(
                manifest_rows.c.digest, manifest_rows.c.subject, manifest_rows.c.artifact_type, manifest_rows.c.created
            ).where(mine)
        ).all()
        tagged = connection.scalars(sa.select(tags.c.digest).where(tags.c.repository == repository.id)).all()
        inside: dict[str, list[str]] = {}
        pairs = sa.select(parts.c.manifest, parts.c.digest).where(parts.c.repository == repository.id)
        for manifest, digest in connection.execute(pairs):
            inside.setdefault(manifest, []).append(digest)
    known = {row.digest for row in rows}
    of_subject: dict[str, list[str]] = {}
    for row in rows:
        if row.subject:
            of_subject.setdefault(row.subject, []).append(row.digest)
    kept: set[str] = set()
    waiting = [*tagged, *(row.subject for row in rows if row.artifact_type in manifests.RELEASING)]
    while waiting:
        digest = waiting.pop()
        if digest not in kept:
            kept.add(digest)
            waiting += [one for one in inside.get(digest, ()) if one in known] + of_subject.get(digest, [])
    # those that consist of others go first
    gone = [row.digest for row in rows if row.digest not in kept and row.created < before]
    return sorted(gone, key=lambda digest: -len([one for one in inside.get(digest, ()) if one in known]))


def _delete(work: _Work, repository: Repository, digest: str) -> bool:
    try:
        return manifests.delete(work.database, repository, digest)
    except ConflictError:  # pushed into an index meanwhile
        return False


# links and blobs


def _links(work: _Work) -> None:
    """Let repositories serve no longer what none of their manifests consists of."""
    used = sa.exists().where(parts.c.repository == links.c.repository, parts.c.digest == links.c.digest)
    idle = sa.select(links.c.digest).where(links.c.created < work.before, ~used)
    wanted = _sources(work.database)
    for repository in _known(work.database):
        after = ""
        while True:
            query = idle.where(links.c.repository == repository.id, links.c.digest > after)
            with work.database.read() as connection:
                found = list(connection.scalars(query.order_by(links.c.digest).limit(_BATCH)))
            if not found:
                break
            after = found[-1]
            found = [one for one in found if one not in wanted]
            work.count(links=len(found))
            if not work.dry_run:
                with work.database.write(repository_lock(repository)) as connection:
                    mine = links.c.repository == repository.id, links.c.digest.in_(found)
                    connection.execute(sa.delete(links).where(*mine, links.c.created < work.before, ~used))


def _sources(database: Database) -> frozenset[str]:
    """Return the archives that were deposited, and those from which something may be built: a month after it failed."""
    recent = pipelines.c.ended.is_(None) | (pipelines.c.ended > int(time.time()) - 30 * _DAY)
    query = sa.select(pipelines.c.source).where(pipelines.c.state != "succeeded", recent)
    with database.read() as connection:
        found = {one["archive"] for one in connection.scalars(query) if one.get("archive")}
        return frozenset(found | set(connection.scalars(sa.select(deposits.c.archive))))


def _left(work: _Work) -> Iterator[str]:
    """Yield the batches of blobs that the last run has not done, and note each that is done."""
    with work.database.read() as connection:
        last = connection.execute(sa.select(notes.c.value).where(notes.c.name == _PROGRESS)).scalar() or ""
    begin = 0 if work.dry_run or last not in _BUCKETS else _BUCKETS.index(last) + 1
    for bucket in _BUCKETS[begin:]:
        yield bucket
        if not work.dry_run:
            _note(work.database, bucket)
    if not work.dry_run:
        _note(work.database, "")


def _note(database: Database, value: str) -> None:
    with database.write() as connection:
        upsert(connection, notes, {"name": _PROGRESS, "value": value})


def _blobs(work: _Work, bucket: str) -> None:
    for algorithm in _ALGORITHMS:
        old: list[Entry] = []
        for entry in work.hub.blobs.storage.entries(f"blobs/{algorithm}/{bucket}/"):
            if entry.modified < work.before:
                old.append(entry)
            if len(old) == _BATCH:
                _remove(work, algorithm, old)
                old = []
        _remove(work, algorithm, old)


def _remove(work: _Work, algorithm: str, old: Sequence[Entry]) -> None:
    digests = {f"{algorithm}:{entry.key.rpartition('/')[2]}": entry for entry in old}
    if not digests:
        return
    with work.database.read() as connection:
        idle = digests.keys() - _used(connection, digests)
    if not idle or work.dry_run:
        work.count(blobs=len(idle), blob_bytes=sum(digests[digest].size for digest in idle))
        return
    storage = work.hub.blobs.storage
    with work.database.write(blob_lock(next(iter(idle)))) as connection:
        for digest in idle - _used(connection, idle):
            now = storage.stat(digests[digest].key)
            if now is not None and now.modified < work.before:  # not pushed again since
                storage.delete(now.key)
                work.count(blobs=1, blob_bytes=now.size)


def _used(connection: sa.Connection, digests: Iterable[str]) -> set[str]:
    """Return those of `digests` that a repository serves, or that are manifests."""
    wanted = list(digests)
    found = set(connection.scalars(sa.select(links.c.digest).where(links.c.digest.in_(wanted))))
    return found | set(connection.scalars(sa.select(manifest_rows.c.digest).where(manifest_rows.c.digest.in_(wanted))))
