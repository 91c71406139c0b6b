"""SIF files of a repository as the Library API sees them: ids, uploads, and tags with an architecture."""

import base64
import binascii
import contextlib
import re
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from threading import Lock
from typing import Any

from computeops.errors import ConflictError, FormatError, NotFoundError, UsageError
from computeops.hub import catalogue, manifests, sifs, webhooks
from computeops.hub.blobs import Upload
from computeops.hub.db import Repository
from computeops.hub.making import CONFIG, EMPTY
from computeops.hub.manifests import INDEXES, Manifest
from computeops.hub.sifs import SifFile
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.limits import LIMITS
from computeops.model import Digest

_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LISTED = 1000
_LATEST_ARCH = Lock()  # a tag with several architectures is read, extended and written


def identity(name: str) -> str:
    """Return the id of what is called `name`."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def name_of(text: str) -> str:
    """Return the name of an entity, a collection or a container from its id.

    Raises:
        NotFoundError: it is no id of this hub.
    """
    try:
        name = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        name = ""
    if not _NAME.fullmatch(name.partition("@")[0]):
        raise NotFoundError(f"unknown id {text[:100]!r}")
    return name


def image_of(text: str) -> tuple[str, Digest]:
    """Return the repository and the digest of an image from its id.

    Raises:
        NotFoundError: it is no id of this hub.
    """
    repository, _, digest = name_of(text).partition("@")
    try:
        return repository, Digest.parse(digest)
    except FormatError as error:
        raise NotFoundError(f"unknown id {text[:100]!r}") from error


def has(hub: Hub, repository: str, digest: Digest) -> bool:
    """Return whether the file was uploaded to `repository`."""
    found = hub.database.repository(repository)
    return found is not None and hub.database.linked(found, str(digest)) is not None


def require_room(hub: Hub, repository: str, size: Any) -> None:
    """Refuse a file before it is sent, if it cannot be kept.

    Raises:
        UsageError: `size` is no number of bytes; LimitError, StorageError: it is too large, for the hub or its disk.
    """
    if not isinstance(size, int) or not 0 < size <= LIMITS.file_bytes:
        raise UsageError(f"a file has 1 to {LIMITS.file_bytes} bytes, not {str(size)[:40]}")
    hub.require_room(repository, size)


async def receive(hub: Hub, upload: Upload, chunks: AsyncIterator[bytes], repository: str, digest: Digest) -> None:
    """Store a file, durably, as `digest` of `repository`.

    Raises:
        ConflictError: something was sent to this upload before.
        FormatError: the file has another digest.
    """
    if upload.offset:
        raise ConflictError("this upload was begun before", hint="push again")
    await upload.append(chunks)
    await to_thread(hub.finish, upload, repository, digest)


def tag(hub: Hub, name: str, digest: Digest, tag: str, arch: str) -> None:
    """Let `tag` mean the file for `arch`; what it means for other architectures stays.

    Raises:
        UsageError: the tag is none, or the file is for another architecture.
        NotFoundError: the file was not uploaded, or is no SIF.
        ConflictError: the tag is a release.
    """
    if not _TAG.fullmatch(tag):
        raise UsageError(f"not a tag: {tag[:140]!r}")
    repository = hub.database.create_repository(name)
    file = sifs.described(hub, repository, digest)
    if arch and file.arch and arch != file.arch:
        raise UsageError(f"the image is for {file.arch}, not {arch}")
    hub.blobs.put(EMPTY, Digest.of(EMPTY))
    hub.database.link(repository, str(Digest.of(EMPTY)), len(EMPTY), lambda: hub.blobs.put(EMPTY, Digest.of(EMPTY)))
    new = sifs.manifest(file, f"{name.rpartition('/')[2]}_{tag}.sif")
    with _LATEST_ARCH:
        index = _index(hub, repository, tag, file, new)
        _push(hub, repository, new, "" if index else tag)
        if index:
            _push(hub, repository, index, tag)


def _push(hub: Hub, repository: Repository, data: bytes, tag: str) -> None:
    manifest = Manifest.read(data, Digest.of(data), "")
    manifests.put(hub.database, repository, manifest, (tag,) if tag else ())
    catalogue.manifest_pushed(hub, repository, str(manifest.digest), tag)
    webhooks.announce(hub, repository, str(manifest.digest), tag)


def _index(hub: Hub, repository: Repository, tag: str, file: SifFile, new: bytes) -> bytes:
    """Return the index that the tag needs to keep its files of other architectures; empty if there are none."""
    others = {arch: entry for arch, entry in _entries(hub, repository, tag).items() if arch != file.arch}
    if not others:
        return b""
    entries = others | {file.arch: _entry(new, file.arch)}
    listed = [entries[arch] for arch in sorted(entries)]
    return oci.canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed})


def _entries(hub: Hub, repository: Repository, tag: str) -> dict[str, dict[str, Any]]:
    row = hub.database.manifest(repository, tag)
    if row is None:
        return {}
    if row.media_type not in INDEXES:
        if sifs.layer(row) is None:
            return {}
        arch = sifs.file_of(hub, repository, row).arch
        return {arch: _entry(row.body, arch)}
    listed = oci.items(oci.document(row.body), "manifests")
    return {one["platform"]["architecture"]: one for one in listed if one.get("artifactType") == CONFIG}


def _entry(manifest: bytes, arch: str) -> dict[str, Any]:
    platform = {"architecture": arch or "unknown", "os": "linux"}
    return oci.descriptor(oci.MANIFEST, manifest) | {"artifactType": CONFIG, "platform": platform}


def tags(hub: Hub, repository: Repository) -> dict[str, dict[str, str]]:
    """Return architecture, tag and image id of every SIF that has a tag."""
    found: dict[str, dict[str, str]] = {}
    for name in hub.database.tags(repository, limit=_LISTED):
        for file in _files(hub, repository, name):
            found.setdefault(file.arch, {})[name] = identity(f"{repository.name}@{file.digest}")
    return found


def _files(hub: Hub, repository: Repository, tag: str) -> Iterator[SifFile]:
    for reference in [one["digest"] for one in _entries(hub, repository, tag).values()] or [tag]:
        with contextlib.suppress(NotFoundError):  # not every image has a SIF
            yield sifs.file_of(hub, repository, sifs.manifest_of(hub, repository, reference))


def delete(hub: Hub, repository: Repository, reference: Digest | str) -> None:
    """Delete a tag, or the file with this digest with all that means it.

    Raises:
        NotFoundError: there is none.
        ConflictError: a manifest that is more than this file consists of it.
    """
    if isinstance(reference, str):
        if not manifests.untag(hub.database, repository, reference):
            raise NotFoundError(f"no tag {reference!r} in {repository.name}")
        catalogue.removed(hub, repository, tag=reference)
        return
    for digest in manifests.users(hub.database, repository, [str(reference)]):
        manifests.delete(hub.database, repository, digest)
        catalogue.removed(hub, repository, digest=digest)
    if not manifests.unlink(hub.database, repository, str(reference)):
        raise NotFoundError(f"no image {reference} in {repository.name}")
