"""Content by digest in a folder: `blobs/sha256/ab/abcd...`, and uploads on their way in `uploads/<id>/`.

A blob appears by a rename after `fsync`, so a half-written one is never served. An upload survives a restart: its state
is the length of its file. Files are plain, so that other storage (S3) can stand behind the same functions.
"""

import hashlib
import os
import secrets
import shutil
import time
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.limits import LIMITS
from computeops.model import Digest

_FLUSH = 1024 * 1024
_STALE_SECONDS = 24 * 3600
_SWEEP_SECONDS = 3600


class Blobs:
    """The content store of one hub. `uploads`: a folder on the same disk, in which what is left is removed."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMITS.file_bytes) -> None:
        self._blobs, self.uploads, self._limit = folder / "blobs", folder / "uploads", limit_bytes
        self._open: dict[str, Upload] = {}
        self._swept = 0.0
        for algorithm in ("sha256", "sha512"):
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True)
        self.uploads.mkdir(exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies if it is there."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size in bytes, or None if it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: Digest, limit_bytes: int) -> bytes:
        """Return the blob.

        Raises:
            NotFoundError: it is not there.
            LimitError: it is larger than `limit_bytes`.
        """
        size = self.size(digest)
        if size is None:
            raise NotFoundError(f"no blob {digest}")
        if size > limit_bytes:
            raise LimitError(f"blob {digest} has {size} bytes, {limit_bytes} are read")
        return self.path(digest).read_bytes()

    def put(self, data: bytes, digest: Digest) -> None:
        """Store `data`, whose digest the caller has computed, durably."""
        if self.size(digest) == len(data):
            return
        temporary = self.uploads / secrets.token_hex(16)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)

    def take(self, file: Path, digest: Digest) -> None:
        """Make `file`, which lies on the same disk and whose digest the caller has computed, the blob; durably."""
        if self.size(digest) is None:
            _sync(file)
            self._publish(file, digest)

    def begin(self, repository: str) -> "Upload":
        """Begin an upload to `repository`; its id cannot be guessed."""
        self._sweep()
        folder = self.uploads / secrets.token_hex(16)
        folder.mkdir()
        (folder / "repository").write_text(repository)
        (folder / "data").touch()
        upload = Upload(folder, self._limit)
        self._open[upload.id] = upload
        return upload

    def upload(self, identity: str, repository: str) -> "Upload":
        """Return the upload `identity` to `repository`.

        Raises:
            NotFoundError: there is none, or it belongs to another repository.
        """
        folder = self.uploads / identity
        known = identity.isalnum() and len(identity) == 32 and (folder / "repository").is_file()
        if not known or (folder / "repository").read_text() != repository:
            raise NotFoundError("no such upload; it may be finished, cancelled or too old")
        found = self._open.get(identity)
        return found or self._open.setdefault(identity, Upload(folder, self._limit))

    def finish(self, upload: "Upload", digest: Digest) -> int:
        """Make the upload the blob `digest`, durably, and return its size in bytes; the upload ends in any case.

        Raises:
            FormatError: its content has another digest.
            ConflictError: another request is adding to it; then it goes on.
        """
        with upload.claimed():
            try:
                if upload.digest(digest.algorithm) != digest:
                    raise FormatError(f"the content is not {digest}", hint="upload it again")
                self.take(upload.data, digest)
                return upload.offset
            finally:
                self._forget(upload)

    def cancel(self, upload: "Upload") -> None:
        """Forget the upload and what it holds.

        Raises:
            ConflictError: another request is adding to it.
        """
        with upload.claimed():
            self._forget(upload)

    def _forget(self, upload: "Upload") -> None:
        self._open.pop(upload.id, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def _publish(self, temporary: Path, digest: Digest) -> None:
        target = self.path(digest)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            _sync(target.parent.parent)
        temporary.replace(target)
        _sync(target.parent)

    def _sweep(self) -> None:
        """Remove uploads that nobody continued for a day."""
        now = time.time()
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        for left in self.uploads.iterdir():
            data = left / "data"
            with suppress(FileNotFoundError):  # finished in this moment
                if now - (data if data.exists() else left).stat().st_mtime > _STALE_SECONDS:
                    self._open.pop(left.name, None)
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


class Upload:
    """A blob on its way in. `offset` bytes are there."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.id, self.data = folder, folder.name, folder / "data"
        self.offset = self.data.stat().st_size
        self._limit = limit_bytes
        self._lock = Lock()
        self._hash = hashlib.sha256() if self.offset == 0 else None  # None: after a restart, hashed at the end

    async def append(self, chunks: AsyncIterator[bytes]) -> None:
        """Add the bytes of `chunks`; what came before a broken connection stays.

        Raises:
            ConflictError: another request is adding to it.
            LimitError: it is larger than a blob may be.
        """
        with self.claimed():
            waiting = bytearray()
            try:
                async for chunk in chunks:
                    waiting += chunk
                    if self.offset + len(waiting) > self._limit:
                        waiting.clear()
                        raise LimitError(f"a blob may have at most {self._limit} bytes")
                    if len(waiting) >= _FLUSH:
                        full, waiting = waiting, bytearray()
                        await to_thread(self._write, full)
            finally:
                if waiting:
                    await to_thread(self._write, waiting)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other requests from changing the upload.

        Raises:
            ConflictError: one is changing it now.
        """
        if not self._lock.acquire(blocking=False):
            raise ConflictError("another request is writing to this upload")
        try:
            yield
        finally:
            self._lock.release()

    def digest(self, algorithm: str) -> Digest:
        """Return the digest of what is there."""
        if algorithm == "sha256" and self._hash is not None:
            return Digest("sha256", self._hash.hexdigest())
        with self.data.open("rb") as file:
            return Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())

    def _write(self, data: bytearray) -> None:
        with self.data.open("r+b") as file:
            file.seek(self.offset)  # over what a failed write may have left
            file.truncate()
            file.write(data)
        if self._hash is not None:
            self._hash.update(data)
        self.offset += len(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
