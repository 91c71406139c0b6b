"""Content by digest, whole and durable or not there, whatever happens in between; and uploads on their way in.

A blob that is in the storage already is not stored again, but becomes young: `hub gc` removes only what is old and
unused, and looks at both while nothing can be linked (see `Database.link`).
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.hub import clock
from computeops.hub.storage import Incoming, Storage, blob_key
from computeops.hub.storage.folder import Folder
from computeops.limits import LIMITS
from computeops.model import Digest

FRESH_SECONDS = 3600
"""A blob younger than this is not made younger."""
_STALE_SECONDS = 24 * 3600
_SWEEP_SECONDS = 3600
_HEAD_BYTES = 4 * 1024 * 1024


class Blobs:
    """The content store of one hub. `work`: a folder of this machine for what is being made."""

    def __init__(self, storage: Storage, scratch: Folder, *, limit_bytes: int = LIMITS.file_bytes) -> None:
        self.storage, self.work, self._scratch, self._limit = storage, scratch.uploads, scratch, limit_bytes
        self._open: dict[str, Upload] = {}
        self._swept = 0.0

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size in bytes, or None if it is not there."""
        entry = self.storage.stat(blob_key(digest))
        return None if entry is None else entry.size

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
        return self.storage.read(blob_key(digest))

    @contextmanager
    def file(self, digest: Digest) -> Iterator[Path]:
        """Give the blob as a file of this machine, fetched for this block if it is elsewhere.

        Raises:
            NotFoundError: it is not there.
        """
        local = self.storage.local(blob_key(digest))
        if local is not None:
            if not local.is_file():
                raise NotFoundError(f"no blob {digest}")
            yield local
            return
        with TemporaryDirectory(dir=self.work) as folder, (Path(folder) / "blob").open("wb") as file:
            for chunk in self.storage.chunks(blob_key(digest)):
                file.write(chunk)
            file.flush()
            yield Path(file.name)

    @contextmanager
    def head(self, digest: Digest) -> Iterator[Path]:
        """Give a file as long as the blob with its first 4 MiB, for readers of headers.

        Raises:
            NotFoundError: it is not there.
        """
        if self.storage.local(blob_key(digest)) is not None:
            with self.file(digest) as local:
                yield local
            return
        size = self.size(digest)
        if size is None:
            raise NotFoundError(f"no blob {digest}")
        with TemporaryDirectory(dir=self.work) as folder, (Path(folder) / "blob").open("wb") as file:
            file.write(self.storage.read(blob_key(digest), 0, _HEAD_BYTES))
            file.truncate(size)
            file.flush()
            yield Path(file.name)

    def put(self, data: bytes, digest: Digest) -> None:
        """Store `data`, whose digest the caller has computed, durably."""
        if not self.fresh(digest, len(data)):
            self.storage.write(blob_key(digest), data)

    def take(self, file: Path, digest: Digest) -> None:
        """Make `file`, made in `work`, whose digest the caller has computed, the blob; durably."""
        if not self.fresh(digest, file.stat().st_size):
            self.storage.take(file, blob_key(digest))

    def fresh(self, digest: Digest, size: int) -> bool:
        """Return whether the blob is there with this size and young, or could be made young."""
        entry = self.storage.stat(blob_key(digest))
        if entry is None or entry.size != size:
            return False
        return entry.modified > time.time() - FRESH_SECONDS or self.storage.touch(blob_key(digest))

    def begin(self, repository: str) -> "Upload":
        """Begin an upload to `repository`; its id cannot be guessed."""
        self._sweep()
        upload = Upload(self.storage.begin(repository), self._limit)
        self._open[upload.id] = upload
        return upload

    def upload(self, identity: str, repository: str) -> "Upload":
        """Return the upload `identity` to `repository`.

        Raises:
            NotFoundError: there is none, or it belongs to another repository.
        """
        found = self.storage.resume(identity, repository)
        known = self._open.get(identity)
        # another hub may have taken a part of it since
        if known is not None and (known.busy or known.offset == found.offset):
            return known
        return self._renewed(Upload(found, self._limit))

    def _renewed(self, upload: "Upload") -> "Upload":
        self._open[upload.id] = upload
        return upload

    def publish(self, upload: "Upload", digest: Digest) -> int:
        """Make the upload the blob `digest`, durably, and return its size in bytes; until `forget` it stays.

        Raises:
            FormatError: its content has another digest; then it is forgotten.
        """
        if upload.digest(digest.algorithm) != digest:
            self.forget(upload)
            raise FormatError(f"the content is not {digest}", hint="upload it again")
        if not self.fresh(digest, upload.offset):
            upload.incoming.publish(blob_key(digest))
        return upload.offset

    def cancel(self, upload: "Upload") -> None:
        """Forget the upload and what it holds.

        Raises:
            ConflictError: another request is adding to it.
        """
        with upload.claimed():
            self.forget(upload)

    def forget(self, upload: "Upload") -> None:
        """Forget the upload; what was published stays."""
        self._open.pop(upload.id, None)
        upload.incoming.forget()

    def _sweep(self) -> None:
        """Remove uploads that nobody continued for a day."""
        now = time.time()
        if abs(now - self._swept) >= _SWEEP_SECONDS:
            self._swept = now
            if clock.steady(self.work.parent) < _STALE_SECONDS:
                return  # what looks old may be young
            self.storage.sweep(now - _STALE_SECONDS)
            self._scratch.sweep(now - _STALE_SECONDS)
            self._open = {name: one for name, one in self._open.items() if one.busy or now - one.used < _STALE_SECONDS}


class Upload:
    """A blob on its way in, which one request at a time may change."""

    def __init__(self, incoming: Incoming, limit_bytes: int) -> None:
        self.incoming, self.id = incoming, incoming.id
        self.used = time.time()
        self._limit = limit_bytes
        self._lock = Lock()

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self.incoming.offset

    @property
    def busy(self) -> bool:
        """Whether a request is changing it."""
        return self._lock.locked()

    async def append(self, chunks: AsyncIterator[bytes]) -> None:
        """Add the bytes of `chunks`; what came before a broken connection stays.

        Raises:
            ConflictError: another request is adding to it.
            LimitError: it is larger than a blob may be.
        """
        with self.claimed():
            await self.incoming.append(chunks, self._limit)
            self.used = time.time()

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
        return Digest(algorithm, self.incoming.digest(algorithm))
