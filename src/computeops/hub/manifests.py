"""Manifests and tags: what may be pushed, moved and deleted, each change in one transaction.

Each is recorded in the storage too, before its transaction ends (`computeops.hub.records`). A tag whose manifest has a
recipe or evidence is a release: it never moves, and once deleted its name is never used again in that repository. Every
other tag behaves as in any registry.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa

from computeops.errors import ConflictError, FormatError
from computeops.hub import records
from computeops.hub.db import Database, Repository, blob_lock, repository_lock, upsert
from computeops.hub.oci_error import OciError
from computeops.hub.storage import blob_key
from computeops.hub.tables import links, manifests, parts, tags
from computeops.image import oci
from computeops.model import Digest

IMAGES = frozenset({oci.MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
INDEXES = frozenset({oci.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})
RELEASING = (oci.RECIPE_ARTIFACT, oci.EVIDENCE_ARTIFACT)
_FOREIGN = "nondistributable"


@dataclass(frozen=True, slots=True)
class Part:
    """One descriptor in a manifest."""

    digest: str
    size: int
    optional: bool = False
    """Whether the manifest may be stored without it: layers that may not be distributed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as it was pushed."""

    digest: Digest
    media_type: str
    artifact_type: str
    """Empty for an index that declares none."""
    subject: str
    annotations: Mapping[str, str]
    parts: tuple[Part, ...]
    body: bytes

    @classmethod
    def read(cls, body: bytes, digest: Digest, content_type: str) -> Self:
        """Read what was pushed with the header `Content-Type: content_type`.

        Raises:
            OciError: it is no manifest or index, says two media types, or a descriptor is broken.
        """
        try:
            found = oci.document(body)
            media_type = _media_type(found, content_type.partition(";")[0].strip())
            config = found.get("config")
            artifact_type = _text(found, "artifactType")
            if media_type in IMAGES and not artifact_type:
                artifact_type = _text(config, "mediaType") if isinstance(config, dict) else ""
            subject = str(_part(found["subject"]).digest) if found.get("subject") is not None else ""
            listed = tuple(_parts(found, media_type))
            return cls(digest, media_type, artifact_type, subject, _annotations(found), listed, body)
        except FormatError as error:
            raise OciError("MANIFEST_INVALID", 400, error.message) from error

    @property
    def releasing(self) -> bool:
        """Whether this makes a release of its subject."""
        return bool(self.subject) and self.artifact_type in RELEASING


def _media_type(found: Mapping[str, Any], content_type: str) -> str:
    declared = _text(found, "mediaType")
    media_type = content_type or declared
    if declared and declared != media_type:
        raise FormatError(f"pushed as {media_type!r}, but it says it is {declared!r}")
    if media_type not in IMAGES | INDEXES:
        raise FormatError(f"unknown media type {media_type[:200]!r}")
    if found.get("schemaVersion") != 2:
        raise FormatError("schemaVersion is not 2")
    return media_type


def _parts(found: Mapping[str, Any], media_type: str) -> Iterator[Part]:
    if media_type in INDEXES:
        yield from (_part(entry) for entry in oci.items(found, "manifests"))
        return
    config = found.get("config")
    if not isinstance(config, dict):
        raise FormatError("an image manifest needs a config")
    yield _part(config)
    yield from (_part(layer) for layer in oci.items(found, "layers"))


def _part(entry: Any) -> Part:
    if not isinstance(entry, dict):
        raise FormatError("a descriptor is not an object")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise FormatError(f"a descriptor's size is {str(size)[:40]}")
    kind = _text(entry, "mediaType")
    return Part(str(Digest.parse(_text(entry, "digest"))), size, optional=_FOREIGN in kind and bool(entry.get("urls")))


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise FormatError(f"{key} is not a text")
    return value


def _annotations(found: Mapping[str, Any]) -> dict[str, str]:
    annotations = found.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise FormatError("annotations are not texts")
    return annotations


def put(
    database: Database, repository: Repository, manifest: Manifest, names: tuple[str, ...], *, sparse: bool = False
) -> None:
    """Store `manifest` and let the tags `names` point to it: all or nothing, durable when this returns.

    `sparse`: what it consists of may come later.

    Raises:
        OciError: a part of it is not in the repository, or has another size.
        ConflictError: a tag is a release, or was one.
    """
    now = int(time.time())
    digest = str(manifest.digest)
    key = blob_key(manifest.digest)
    database.storage.write(key, manifest.body)  # also over the same bytes: it is young then
    with database.write(repository_lock(repository), blob_lock(digest)) as connection:
        if not sparse:
            _require_parts(connection, repository, manifest)
        known = _place(connection, repository, digest)
        place = known or _next_place(connection, repository)
        restore(connection, repository, manifest, now, place)
        for name in names:
            _move(connection, repository, name, digest, now)
        if database.storage.stat(key) is None:  # removed as unused just before this transaction
            database.storage.write(key, manifest.body)
        if not known:
            record = records.Manifest(manifest.media_type, now, place)
            records.write(database.storage, records.manifest_key(repository.name, digest), record)
        for name in names:
            records.write(database.storage, records.tag_key(repository.name, name), records.Tag(digest, now))


def restore(connection: sa.Connection, repository: Repository, manifest: Manifest, created: int, place: int) -> None:
    """Make the rows of a manifest, if there are none."""
    row = {
        "repository": repository.id,
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "artifact_type": manifest.artifact_type,
        "subject": manifest.subject,
        "annotations": dict(manifest.annotations),
        "body": manifest.body,
        "created": created,
        "place": place,
    }
    upsert(connection, manifests, row, keep=True)
    for part in dict.fromkeys(part.digest for part in manifest.parts):
        used = {"repository": repository.id, "manifest": str(manifest.digest), "digest": part}
        upsert(connection, parts, used, keep=True)


def forget(connection: sa.Connection, repository: Repository, *, tag: str = "", digest: str = "") -> None:
    """Delete the row of a tag, or those of a manifest, without asking whether it is in use."""
    for table, column, value in (
        (tags, tags.c.name, tag),
        (manifests, manifests.c.digest, digest),
        (parts, parts.c.manifest, digest),
    ):
        if value:
            connection.execute(sa.delete(table).where(table.c.repository == repository.id, column == value))


def _place(connection: sa.Connection, repository: Repository, digest: str) -> int | None:
    here = (manifests.c.repository == repository.id) & (manifests.c.digest == digest)
    return connection.execute(sa.select(manifests.c.place).where(here)).scalar()


def _next_place(connection: sa.Connection, repository: Repository) -> int:
    """Return a place behind all others; it counts time, so that lists of several repositories are in order too."""
    query = sa.select(sa.func.max(manifests.c.place)).where(manifests.c.repository == repository.id)
    return max(time.time_ns() // 1000, int(connection.execute(query).scalar() or 0) + 1)


def _require_parts(connection: sa.Connection, repository: Repository, manifest: Manifest) -> None:
    wanted = {part.digest: part for part in manifest.parts if not part.optional}
    if manifest.media_type in INDEXES:
        size = sa.func.length(manifests.c.body).label("size")
        query = sa.select(manifests.c.digest, size).where(manifests.c.repository == repository.id)
        column = manifests.c.digest
    else:
        query = sa.select(links.c.digest, links.c.size).where(links.c.repository == repository.id)
        column = links.c.digest
    found = {row.digest: row.size for row in connection.execute(query.where(column.in_(list(wanted))))}
    for digest, part in wanted.items():
        if digest not in found:
            raise OciError("MANIFEST_BLOB_UNKNOWN", 404, f"{digest} is not in {repository.name}; push it first")
        if found[digest] != part.size:
            raise OciError("MANIFEST_INVALID", 400, f"{digest} has {found[digest]} bytes, not {part.size}")


def _move(connection: sa.Connection, repository: Repository, name: str, digest: str, now: int) -> None:
    where = (tags.c.repository == repository.id) & (tags.c.name == name)
    old = connection.execute(sa.select(tags).where(where)).first()
    if old is not None and (old.retired or old.digest != digest):
        if old.retired:
            raise ConflictError(f"{repository.name}:{name} was a release and is never used again")
        if _is_release(connection, repository, old.digest):
            raise ConflictError(f"{repository.name}:{name} is a release and never moves", hint="push a new version")
    row = {"repository": repository.id, "name": name, "digest": digest, "moved": now, "retired": False}
    upsert(connection, tags, row)


def _is_release(connection: sa.Connection, repository: Repository, digest: str) -> bool:
    query = sa.select(manifests.c.digest).where(
        manifests.c.repository == repository.id,
        manifests.c.subject == digest,
        manifests.c.artifact_type.in_(RELEASING),
    )
    return connection.execute(query.limit(1)).first() is not None


def untag(database: Database, repository: Repository, name: str, *, released: bool = True) -> bool:
    """Delete a tag; return whether there was one. `released`: also if it is a release."""
    where = (tags.c.repository == repository.id) & (tags.c.name == name) & sa.not_(tags.c.retired)
    with database.write(repository_lock(repository)) as connection:
        old = connection.execute(sa.select(tags.c.digest).where(where)).first()
        if old is not None and not released and _is_release(connection, repository, old.digest):
            return False
        if old is not None:
            _untag(database, connection, repository, where, old.digest)
        return old is not None


def _untag(
    database: Database, connection: sa.Connection, repository: Repository, where: sa.ColumnElement[bool], digest: str
) -> None:
    gone = connection.execute(sa.select(tags).where(where, sa.not_(tags.c.retired))).all()
    if _is_release(connection, repository, digest):
        connection.execute(sa.update(tags).where(where).values(retired=True))
        for row in gone:
            record = records.Tag(row.digest, row.moved, retired=True)
            records.write(database.storage, records.tag_key(repository.name, row.name), record)
    else:
        connection.execute(sa.delete(tags).where(where))
        for row in gone:
            database.storage.delete(records.tag_key(repository.name, row.name))


def delete(database: Database, repository: Repository, digest: str) -> bool:
    """Delete a manifest and the tags that point to it; return whether it was there.

    Raises:
        ConflictError: an index consists of it, or it is the recipe or evidence of a release that stands.
    """
    here = (manifests.c.repository == repository.id) & (manifests.c.digest == digest)
    with database.write(repository_lock(repository)) as connection:
        row = connection.execute(sa.select(manifests.c.subject, manifests.c.artifact_type).where(here)).first()
        if row is None:
            return False
        _require_unused(connection, repository, digest)
        if row.artifact_type in RELEASING and _tagged(connection, repository, row.subject):
            raise ConflictError(f"{digest} belongs to a release, of which nothing is taken away")
        tagged = (tags.c.repository == repository.id) & (tags.c.digest == digest)
        _untag(database, connection, repository, tagged, digest)
        connection.execute(sa.delete(manifests).where(here))
        belongs = (parts.c.repository == repository.id) & (parts.c.manifest == digest)
        connection.execute(sa.delete(parts).where(belongs))
        database.storage.delete(records.manifest_key(repository.name, digest))
        return True


def unlink(database: Database, repository: Repository, digest: str) -> bool:
    """Let `repository` serve the blob `digest` no longer; return whether it did.

    Raises:
        ConflictError: a manifest consists of it.
    """
    with database.write(repository_lock(repository)) as connection:
        _require_unused(connection, repository, digest)
        here = (links.c.repository == repository.id) & (links.c.digest == digest)
        return connection.execute(sa.delete(links).where(here)).rowcount > 0


def _require_unused(connection: sa.Connection, repository: Repository, digest: str) -> None:
    used = sa.select(parts.c.manifest).where(parts.c.repository == repository.id, parts.c.digest == digest)
    row = connection.execute(used.limit(1)).first()
    if row is not None:
        raise ConflictError(f"{digest} is a part of {row.manifest}", hint="delete that first")


def _tagged(connection: sa.Connection, repository: Repository, digest: str) -> bool:
    query = sa.select(tags.c.name).where(
        tags.c.repository == repository.id, tags.c.digest == digest, sa.not_(tags.c.retired)
    )
    return connection.execute(query.limit(1)).first() is not None


def users(database: Database, repository: Repository, digests: Sequence[str]) -> list[str]:
    """Return the manifests and indexes that consist of any of `digests`."""
    query = sa.select(parts.c.manifest).distinct().where(parts.c.repository == repository.id)
    with database.read() as connection:
        return list(connection.scalars(query.where(parts.c.digest.in_(digests)).order_by(parts.c.manifest)))


def names(database: Database, repository: Repository, blob: str) -> list[str]:
    """Return the tags behind which `blob` is: of the manifest it is a part of, of that one's subject, of indexes."""
    holders = users(database, repository, [blob])
    here = manifests.c.repository == repository.id
    query = sa.select(manifests.c.subject).where(here, manifests.c.digest.in_(holders), manifests.c.subject != "")
    with database.read() as connection:
        holders += connection.scalars(query)
    holders += users(database, repository, holders)
    tagged = sa.select(tags.c.name).where(tags.c.repository == repository.id, sa.not_(tags.c.retired))
    with database.read() as connection:
        return list(connection.scalars(tagged.where(tags.c.digest.in_(holders)).order_by(tags.c.name)))
