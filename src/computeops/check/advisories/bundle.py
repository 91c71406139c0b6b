"""The index as one file, to be carried to a site without Internet: a tar of its manifest and of the compressed index.

    manifest.dsse.json      a DSSE envelope; its payload names digest, size and age of the index, and its feeds
    index.sqlite.zst

Who signed it decides whether it is taken; that is asked by the caller, who has the keys. What the manifest says is
checked here: bytes that are not those which were signed are never put in place.
"""

import hashlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from computeops.check.advisories.index import SCHEMA, check, replace
from computeops.check.advisories.lookup import Index
from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.files import whole_file
from computeops.limits import LIMITS
from computeops.model import Digest, Signed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAYLOAD = "application/vnd.computeops.advisories.v1+json"
ARTIFACT = "application/vnd.computeops.advisories.v1.tar"
"""What a bundle is in a registry."""
_MANIFEST, _INDEX = "manifest.dsse.json", "index.sqlite.zst"
_LEVEL = 9
_CHUNK = 1024 * 1024
_MANIFEST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of the index in it."""

    created: int
    """When it was written, seconds since 1970."""
    checked: int
    """When the feed that was asked last was asked."""
    digest: Digest
    size: int

    @classmethod
    def read(cls, signed: Signed) -> Self:
        """Return the manifest in the envelope of a bundle; its signatures are not looked at.

        Raises:
            FormatError: it is none, or of another version.
        """
        if signed.payload_type != PAYLOAD:
            raise FormatError(f"an envelope of {signed.payload_type[:80]!r}, not of advisories")
        try:
            data = json.loads(signed.payload)
            found = cls(
                int(data["created"]),
                int(data["checked"]),
                Digest.parse(data["index"]["digest"]),
                int(data["index"]["size"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"the manifest of the advisories cannot be read: {error!r:.200}") from error
        if data.get("schema") != SCHEMA:
            raise FormatError(
                f"advisories of version {data.get('schema')!r:.20}; this computeops reads version {SCHEMA}",
                hint="export them with the same version of computeops as here",
            )
        return found


def export(path: Path, target: Path, sign: Callable[[Signed], Signed], *, now: int) -> Manifest:
    """Write the index at `path` to the file `target`, which appears whole; `sign` adds signatures to its manifest.

    Raises:
        NotFoundError: there is no index; FormatError: it is broken.
    """
    with Index(path) as index:
        feeds = index.feeds()
    check(path)
    with tempfile.TemporaryFile(dir=target.absolute().parent) as packed:
        digest, size = _pack(path, packed)
        checked = max((one.checked for one in feeds), default=0)
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "created": now,
            "checked": checked,
            "index": {"digest": str(digest), "size": size},
            "feeds": [asdict(one) for one in feeds],
        }
        payload = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        signed = sign(Signed(payload, PAYLOAD))
        with whole_file(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, _MANIFEST, io.BytesIO(json.dumps(signed.as_json()).encode()))
            _add(tar, _INDEX, packed)
    return Manifest(now, checked, digest, size)


def _pack(path: Path, packed: IO[bytes]) -> tuple[Digest, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, zstd.ZstdFile(packed, "wb", level=_LEVEL) as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return Digest("sha256", digest.hexdigest()), size


def _add(tar: tarfile.TarFile, name: str, data: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = data.seek(0, io.SEEK_END)
    data.seek(0)
    tar.addfile(entry, data)


def envelope(file: Path) -> Signed:
    """Return the signed manifest of a bundle.

    Raises:
        FormatError: it is no bundle.
    """
    with _members(file) as tar:
        data = _open(tar, _MANIFEST).read(_MANIFEST_BYTES + 1)
    if len(data) > _MANIFEST_BYTES:
        raise LimitError(f"the manifest of {file.name} is larger than {_MANIFEST_BYTES} bytes")
    try:
        return Signed.from_json(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file.name} is no file of advisories: {error!r:.200}") from error


def install(file: Path, signed: Signed, path: Path, *, older: bool = False) -> Manifest:
    """Put the index in the bundle `file` at `path`, if it is the one that `signed`, its trusted manifest, names.

    Raises:
        FormatError: it is another one, or broken; the index at `path` stays.
        ConflictError: the one at `path` is newer, and `older` was not asked for.
    """
    manifest = Manifest.read(signed)
    if manifest.size > LIMITS.index_bytes:
        raise LimitError(f"an index of {manifest.size} bytes; at most {LIMITS.index_bytes} are read")
    if not older and (here := _age(path)) > manifest.checked:
        raise ConflictError(
            f"{file.name} is older than the index that is here, by {(here - manifest.checked) // 3600} hours",
            hint="import it nevertheless with --older",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as work:
        new = Path(work) / "index"
        with _members(file) as tar, new.open("wb") as target:
            _unpack(_open(tar, _INDEX), target, manifest, file.name)
        check(new)
        replace(new, path)
    return manifest


def _age(path: Path) -> int:
    try:
        with Index(path) as index:
            return max((one.checked for one in index.feeds()), default=0)
    except (FormatError, NotFoundError):
        return 0


def _unpack(packed: IO[bytes], target: IO[bytes], manifest: Manifest, name: str) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with zstd.ZstdFile(packed, "rb") as source:
            while size <= manifest.size and (chunk := source.read(_CHUNK)):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
    except (zstd.ZstdError, EOFError, tarfile.TarError) as error:
        raise FormatError(f"{name} is no whole file of advisories: {error}") from error
    if size != manifest.size or digest.hexdigest() != manifest.digest.hex:
        raise FormatError(f"the index in {name} is not the one that its manifest names", hint="nothing was changed")


@contextmanager
def _members(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{file.name} is no file of advisories: {error}") from error


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    for _ in range(2):
        member = tar.next()
        if member is None:
            break
        if member.name == name and member.isfile() and (opened := tar.extractfile(member)) is not None:
            return opened
    raise FormatError(f"{Path(str(tar.name)).name} is no file of advisories: it has no {name}")
