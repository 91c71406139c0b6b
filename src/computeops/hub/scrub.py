"""Every stored blob is read and hashed again; a damaged one is moved aside and served no longer.

Who pushes it again heals it: no repository says any more that it has it. Blobs that should be there and are not are
found too.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from computeops.errors import ConflictError, NotFoundError
from computeops.hub.db import blob_lock
from computeops.hub.state import Hub
from computeops.hub.storage import Entry, blob_key
from computeops.hub.tables import links, repositories
from computeops.hub.tables import manifests as manifest_rows
from computeops.model import Digest

_ALGORITHMS = ("sha256", "sha512")
_BUCKETS = tuple(f"{number:02x}" for number in range(256))
_QUARANTINE = "quarantine/"


@dataclass(frozen=True, slots=True)
class Bad:
    """A blob that is damaged or missing."""

    digest: str
    fault: str
    repositories: tuple[str, ...]
    """Those that served it."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What was read."""

    blobs: int
    bytes: int
    seconds: float
    bad: tuple[Bad, ...]


def scrub(hub: Hub, *, dry_run: bool = False, progress: Callable[[str], None] = lambda _: None) -> Scrubbed:
    """Hash every blob; with `dry_run` nothing is moved.

    Raises:
        ConflictError: `hub gc`, `hub backup` or `hub reindex` is at work.
    """
    began = time.monotonic()
    blobs = size = 0
    bad: list[Bad] = []
    with hub.database.exclusive("storage") as free:
        if not free:
            raise ConflictError("another verb works on the storage of this hub", hint="try again when it has ended")
        for bucket in _BUCKETS:
            progress(f"blobs {bucket}")
            seen: set[str] = set()
            for algorithm in _ALGORITHMS:
                for entry in hub.blobs.storage.entries(f"blobs/{algorithm}/{bucket}/"):
                    digest = f"{algorithm}:{entry.key.rpartition('/')[2]}"
                    seen.add(digest)
                    blobs, size = blobs + 1, size + entry.size
                    if fault := _fault(hub, entry, digest):
                        bad.append(_put_aside(hub, entry, digest, fault, dry_run=dry_run))
            bad += _missing(hub, bucket, seen, dry_run=dry_run)
    return Scrubbed(blobs, size, time.monotonic() - began, tuple(bad))


def _fault(hub: Hub, entry: Entry, digest: str) -> str:
    algorithm, _, wanted = digest.partition(":")
    found = hashlib.new(algorithm)
    count = 0
    try:
        for chunk in hub.blobs.storage.chunks(entry.key):
            found.update(chunk)
            count += len(chunk)
    except NotFoundError:
        return ""  # removed as unused in this moment
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return "" if found.hexdigest() == wanted else f"has {count} bytes with digest {algorithm}:{found.hexdigest()}"


def _put_aside(hub: Hub, entry: Entry, digest: str, fault: str, *, dry_run: bool) -> Bad:
    holders = _holders(hub, digest)
    if not dry_run:
        with hub.database.write(blob_lock(digest)) as connection:
            hub.blobs.storage.move(entry.key, _QUARANTINE + entry.key)
            connection.execute(sa.delete(links).where(links.c.digest == digest))
    if not dry_run and (body := _body(hub, digest)) is not None:
        hub.blobs.storage.write(blob_key(Digest.parse(digest)), body)  # a manifest: the index has it whole
    return Bad(digest, fault, holders)


def _missing(hub: Hub, bucket: str, seen: set[str], *, dry_run: bool) -> list[Bad]:
    found = []
    for algorithm in _ALGORITHMS:
        prefix = f"{algorithm}:{bucket}"
        between = links.c.digest.between(prefix, prefix + "g")
        with hub.database.read() as connection:
            wanted = set(connection.scalars(sa.select(links.c.digest).where(between)))
        for digest in sorted(wanted - seen):
            if hub.blobs.size(Digest.parse(digest)) is not None:
                continue  # pushed in this moment
            found.append(Bad(digest, "is not there", _holders(hub, digest)))
            if not dry_run:
                with hub.database.write(blob_lock(digest)) as connection:
                    if hub.blobs.size(Digest.parse(digest)) is None:
                        connection.execute(sa.delete(links).where(links.c.digest == digest))
    return found


def _body(hub: Hub, digest: str) -> bytes | None:
    with hub.database.read() as connection:
        body: bytes | None = connection.scalar(
            sa.select(manifest_rows.c.body).where(manifest_rows.c.digest == digest).limit(1)
        )
    return body if body is not None and Digest.of(body, digest.partition(":")[0]) == Digest.parse(digest) else None


def _holders(hub: Hub, digest: str) -> tuple[str, ...]:
    query = sa.select(repositories.c.name).join_from(repositories, links).where(links.c.digest == digest)
    with hub.database.read() as connection:
        return tuple(connection.scalars(query.order_by(repositories.c.name)))
