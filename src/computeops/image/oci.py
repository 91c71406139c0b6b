"""OCI image-spec 1.1: configs, manifests, image layouts as folders and archives.

A layout is read where it lies: a folder, or an uncompressed tar of one (`oci-archive`), or what `docker save` writes.
Every blob is hashed while it is read; a blob that is not what its digest says is never believed.
"""

import contextlib
import hashlib
import io
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.image.layer import Layer
from computeops.image.tar import CHUNK, read_tar, write_tar
from computeops.image.tree import Directory, Entry, Item, Kind
from computeops.limits import LIMITS
from computeops.model import Digest

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONFIGS = {CONFIG, "application/vnd.docker.container.image.v1+json"}
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
WRITER = "org.computeops.writer"
"""Annotation of a manifest: what compressed its layers."""

# What refers to an image in a registry (manifest.md, "Guidelines for Artifact Usage"): a manifest with this
# artifactType and the image's manifest as its subject. Each layer is one file, named by the annotation
# org.opencontainers.image.title.
SIF_ARTIFACT = "application/vnd.sylabs.sif.layer.v1.sif"
RECIPE_ARTIFACT = "application/vnd.computeops.recipe.v1"
SOURCES_ARTIFACT = "application/vnd.computeops.sources.v1"
INPUTS_ARTIFACT = "application/vnd.computeops.inputs.v1"
EVIDENCE_ARTIFACT = "application/vnd.in-toto+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
"""Media type of the one layer of an evidence artifact."""
PREDICATE_TYPE = "in-toto.io/predicate-type"
"""Annotation of an evidence artifact and of its layer: the kind of evidence."""
CREATED_BY = "computeops"
"""In the history of a config: who made the layer."""
_INDEX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Description:
    """What an image config says besides the content."""

    arch: str
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    arguments: tuple[str, ...] = ()
    """What the command gets when nothing else is given (Cmd)."""


def canonical(document: Any) -> bytes:
    """Return a JSON document as bytes that depend on nothing but its content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def config_json(description: Description, entrypoint: Sequence[str], diff_ids: Sequence[Digest], epoch: int) -> bytes:
    """Return the bytes of an image config (config.md); their digest is the image ID."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **description.env}
    running: dict[str, Any] = {"Env": [f"{name}={value}" for name, value in sorted(env.items())]}
    if entrypoint:
        running["Entrypoint"] = list(entrypoint)
    if description.labels:
        running["Labels"] = dict(description.labels)
    if description.working_dir:
        running["WorkingDir"] = description.working_dir
    return canonical(
        {
            "architecture": description.arch,
            "os": "linux",
            "created": created,
            "config": running,
            "rootfs": {"type": "layers", "diff_ids": [str(one) for one in diff_ids]},
            "history": [{"created": created, "created_by": CREATED_BY}],
        }
    )


def describe(config: Mapping[str, Any]) -> Description:
    """Return what an image config (config.md) says.

    Raises:
        FormatError: it is broken.
    """
    running = config.get("config") or {}
    if not isinstance(running, dict):
        raise FormatError("an image config whose config is no object")
    labels = running.get("Labels") or {}
    if not isinstance(labels, dict):
        raise FormatError("an image config whose Labels are no object")
    env = dict(one.partition("=")[::2] for one in _texts(running, "Env"))
    return Description(
        str(config.get("architecture") or ""),
        {name: value for name, value in env.items() if name},
        _texts(running, "Entrypoint"),
        labels={str(name): str(value) for name, value in labels.items()},
        working_dir=str(running.get("WorkingDir") or ""),
        arguments=_texts(running, "Cmd"),
    )


def _texts(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    listed = found.get(key) or []
    if not isinstance(listed, list) or not all(isinstance(one, str) and "\0" not in one for one in listed):
        raise FormatError(f"an image config whose {key} is no list of texts")
    return tuple(listed)


def manifest_json(config: bytes, layers: Sequence[Layer], annotations: Mapping[str, str]) -> bytes:
    """Return the bytes of an image manifest (manifest.md)."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [{"mediaType": one.media_type, "digest": str(one.digest), "size": one.size} for one in layers],
            "annotations": dict(annotations),
        }
    )


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """Return the descriptor of a blob (descriptor.md)."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


class LayoutWriter:
    """An image layout that appears whole: written into a temporary folder beside `target`, renamed at the end."""

    def __init__(self, target: Path, *, archive: bool = False) -> None:
        """Raise ConflictError if `target` is there and no image layout. `archive`: make it a tar of a layout."""
        if not archive and target.exists() and not (target / "oci-layout").is_file():
            raise ConflictError(f"{target} exists and is no OCI image layout", hint="choose another name, or remove it")
        if archive and target.is_dir():
            raise ConflictError(f"{target} is a folder", hint="choose another name, or remove it")
        self._target, self._archive = target, archive
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            self._folder.chmod(0o755)
            (self._folder / "blobs/sha256").mkdir(parents=True)
        except BaseException:  # an interrupt too
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_blob(self) -> Path:
        """Return the path of a blob to write before its digest is known; give it to `name_blob` then."""
        return self._folder / "blobs/sha256/.new"

    def name_blob(self, digest: Digest) -> None:
        """Put the blob of `new_blob` in its place."""
        self.new_blob().rename(self.place(digest))

    def place(self, digest: Digest) -> Path:
        """Return the path of the blob `digest`, for a caller who writes and checks it."""
        path = self._folder / "blobs" / digest.algorithm / digest.hex
        path.parent.mkdir(exist_ok=True)
        return path

    def add(self, data: bytes) -> None:
        """Write a small blob."""
        (self._folder / "blobs/sha256" / Digest.of(data).hex).write_bytes(data)

    def close(self, manifest: bytes, name: str) -> None:
        """Write manifest and index, sync all, and rename the folder to its target."""
        self.add(manifest)
        entry = descriptor(MANIFEST, manifest) | {"annotations": {"org.opencontainers.image.ref.name": name}}
        index = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        (self._folder / "index.json").write_bytes(index)
        (self._folder / "oci-layout").write_bytes(_LAYOUT)
        if self._archive:
            self._close_archive()
            return
        for path in (p for p in self._folder.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if self._target.exists():
            self._target.rename(self._folder.with_name(f"{self._folder.name}.old"))
        self._folder.rename(self._target)
        shutil.rmtree(self._folder.with_name(f"{self._folder.name}.old"), ignore_errors=True)

    def _close_archive(self) -> None:
        """Write the tar, index.json first, so that a reader of a stream knows at once what it gets."""
        new = self._folder / ".archive"
        with new.open("wb") as out:
            write_tar(_members(self._folder), out.write)
            out.flush()
            os.fsync(out.fileno())
        new.replace(self._target)


def _members(folder: Path) -> Iterator[Item]:
    for name in ("index.json", "oci-layout"):
        content = (folder / name).read_bytes()
        yield Entry(name, Kind.FILE, size=len(content)), (content,)
    for entry, data in Directory(folder / "blobs").items():
        path = f"blobs/{entry.path}" if entry.path else "blobs"
        yield Entry(path, entry.kind, 0o755 if entry.kind is Kind.DIRECTORY else 0o644, size=entry.size), data


class Layout:
    """An image layout to read: a folder, or a tar of one, or what `docker save` of before version 25 wrote."""

    def __init__(self, path: Path) -> None:
        """Raise FormatError if `path` is neither a layout folder nor an uncompressed tar with a layout in it."""
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        if path.is_file():
            self._scan()
        elif not (path / "oci-layout").is_file():
            raise FormatError(f"{path} is no OCI image layout: it has no file oci-layout")

    def _scan(self) -> None:
        with self.path.open("rb") as file:
            for entry, _ in read_tar(file):
                if entry.kind is Kind.FILE:
                    self._places[entry.path] = (file.tell(), entry.size)
                elif entry.kind is Kind.SYMLINK:  # old `docker save` stores equal layers once
                    self._links[entry.path] = posixpath.normpath(f"{posixpath.dirname(entry.path)}/{entry.target}")
        if not {"index.json", "manifest.json"} & self._places.keys():
            raise FormatError(f"{self.path} is no OCI archive: it has no index.json")

    @property
    def saved_by_docker(self) -> bool:
        """Whether this is the older form of `docker save`, which has a list of files instead of an index."""
        return self.path.is_file() and "index.json" not in self._places

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Open the file `name` of the layout; give it with its size.

        Raises:
            FormatError: there is none.
        """
        if self.path.is_file():
            name = self._links.get(name, name)
            if name not in self._places:
                raise FormatError(f"{self.path} lacks {name}")
            offset, size = self._places[name]
            with self.path.open("rb") as file:
                file.seek(offset)
                yield file, size
            return
        try:
            handle = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise FormatError(f"{self.path} lacks {name}: {error.strerror}") from error
        with os.fdopen(handle, "rb") as file:
            yield file, os.fstat(handle).st_size

    def small(self, name: str, limit: int = LIMITS.manifest_bytes) -> bytes:
        """Return the content of the file `name`.

        Raises:
            FormatError: there is none; LimitError: it has more than `limit` bytes.
        """
        with self.open(name) as (file, size):
            if size > limit:
                raise LimitError(f"{self.path}: {name} has {size} bytes; at most {limit} are read")
            return bytes(file.read(size))

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        name = f"blobs/{digest.algorithm}/{digest.hex}"
        return name in self._places if self.path.is_file() else (self.path / name).is_file()

    def read(self, digest: Digest, limit: int = LIMITS.manifest_bytes) -> bytes:
        """Return a small blob.

        Raises:
            FormatError: it is missing or does not have its digest; LimitError: it has more than `limit` bytes.
        """
        data = self.small(f"blobs/{digest.algorithm}/{digest.hex}", limit)
        if Digest.of(data, digest.algorithm) != digest:
            raise FormatError(f"{self.path}: the blob {digest} has another digest: {Digest.of(data, digest.algorithm)}")
        return data

    @contextlib.contextmanager
    def blob(self, digest: Digest) -> Iterator[BinaryIO]:
        """Open a blob as a binary stream; at its end its digest is checked, and FormatError raised if it differs."""
        with self.open(f"blobs/{digest.algorithm}/{digest.hex}") as (file, size):
            yield io.BufferedReader(_Part(file, size, digest), CHUNK)

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Open the file `name` of the layout as a binary stream."""
        with self.open(name) as (file, size):
            yield io.BufferedReader(_Part(file, size, None), CHUNK)

    def choose(self, arch: str = "") -> bytes:
        """Return the manifest for `arch` (`arm64`, or `arm/v7`), or the only one.

        Raises:
            NotFoundError: there is none for `arch`; FormatError: the index is broken.
        """
        found = list(self._manifests(document(self.small("index.json")), 0))
        fitting = found
        if arch and len(found) > 1:
            fitting = [one for one in found if arch in {one[0], one[0].partition("/")[0]}]
        if len(fitting) != 1:
            known = ", ".join(sorted(one[0] or "unknown" for one in found)) or "none"
            raise NotFoundError(
                f"{self.path} has {len(fitting)} images for architecture {arch or 'any'}; it has: {known}",
                hint="choose one with --arch" if len(found) > 1 else "",
            )
        return fitting[0][1]

    def _manifests(self, index: Mapping[str, Any], depth: int) -> Iterator[tuple[str, bytes]]:
        """Yield platform and manifest of every image that is here; signatures and other artifacts are no images."""
        if depth > _INDEX_DEPTH:
            raise LimitError(f"{self.path}: indexes nested more than {_INDEX_DEPTH} deep")
        for entry in items(index, "manifests"):
            digest = Digest.parse(str(entry.get("digest")))
            if not self.has(digest):  # Docker saves one platform with the index of all
                continue
            if entry.get("mediaType") in {INDEX, _DOCKER_INDEX}:
                yield from self._manifests(document(self.read(digest)), depth + 1)
            elif entry.get("mediaType") in {MANIFEST, _DOCKER_MANIFEST}:
                data = self.read(digest)
                if _is_image(document(data)):
                    yield _platform(entry.get("platform")), data


def _is_image(manifest: Mapping[str, Any]) -> bool:
    config = manifest.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else ""
    return kind in _CONFIGS and all(".tar" in str(one.get("mediaType")) for one in items(manifest, "layers"))


def _platform(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    variant = f"/{found['variant']}" if found.get("variant") else ""
    return f"{found.get('architecture', '')}{variant}"


def is_archive(path: Path) -> bool:
    """Whether the tar at `path` holds images, not a root filesystem.

    Raises:
        FormatError: it is no tar.
    """
    with path.open("rb") as file:
        return any(entry.path in {"index.json", "manifest.json", "oci-layout"} for entry, _ in read_tar(file))


class _Part(io.RawIOBase):
    """The next bytes of a file, compared at their end with the digest that they must have."""

    def __init__(self, file: BinaryIO, size: int, expected: Digest | None) -> None:
        self._file, self._left, self._expected = file, size, expected
        self._known = hashlib.new(expected.algorithm) if expected else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        if self._known:
            self._known.update(data)
            if not data and self._expected and self._known.hexdigest() != self._expected.hex:
                raise FormatError(f"the blob {self._expected} has another digest: {self._known.hexdigest()}")
        return len(data)


def document(data: bytes) -> dict[str, Any]:
    """Return a JSON object from outside.

    Raises:
        FormatError: it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError("a JSON object was expected")
    return found


def items(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under `key` of a manifest or index.

    Raises:
        FormatError: it is not one; LimitError: it has more members than layers are read.
    """
    listed = found.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise FormatError(f"{key} is not a list of descriptors")
    if len(listed) > LIMITS.layers:
        raise LimitError(f"{len(listed)} {key}; at most {LIMITS.layers} are read")
    return listed
