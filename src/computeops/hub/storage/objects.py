"""Objects in S3, Google Cloud Storage or Azure, through obstore; several hubs may share one bucket.

An upload is a list of objects `uploads/<id>/<first byte>-<random>`, one for each request that sent a part, beside one
that says what it is for: so the next part may come to another hub. Its end is a copy inside the object store where
one part is all, and is written anew from the parts otherwise. At most `_IN_FLIGHT` pieces of `_PIECE` bytes are in
memory for each transfer.

Credentials and region come from the settings or, without them, from where the provider's own programs find them
(AWS_ACCESS_KEY_ID ..., a role of the machine).
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from computeops.errors import LimitError, NotFoundError, StorageError, UnavailableError, UsageError
from computeops.hub.storage import Entry

_PIECE = 32 * 1024 * 1024  # S3 takes at most 10,000 pieces of one object: 312 GiB
_IN_FLIGHT = 2
_SMALL = 8 * 1024 * 1024
_READ = 4 * 1024 * 1024
_COPY = 5 * 1024**3  # what S3 copies in one request
_SIGNED = timedelta(minutes=15)
_PART = re.compile(r"([0-9]{16})-([0-9a-f]{16})")
_RETRY: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
_CLIENT: Any = {"connect_timeout": "5s", "timeout": "120s"}
_OF_CLIENT = frozenset({"allow_http", "connect_timeout", "timeout", "proxy_url", "proxy_ca_certificate", "user_agent"})
"""Options of the connection, whichever the object store."""


@contextmanager
def _told(key: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what obstore raises into errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        if writing:
            raise StorageError(
                f"the object store has no such place: {_short(error)}", hint="check its bucket"
            ) from error
        raise NotFoundError(f"no object {key}") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StorageError(f"the object store refuses: {_short(error)}", hint="check its credentials") from error
    except (BaseError, OSError) as error:
        raise UnavailableError(f"the object store does not answer: {_short(error)}", hint="try again later") from error


def _short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


class Objects:
    """The storage in a bucket, below the prefix of its URL."""

    def __init__(self, store: Any, *, redirect: bool) -> None:
        self._store, self._redirect = store, redirect

    @classmethod
    def open(cls, url: str, options: Mapping[str, str], *, redirect: bool) -> "Objects":
        """Return the storage at `url`.

        Raises:
            UsageError: `url` or an option is not one.
        """
        client = _CLIENT | {name: value for name, value in options.items() if name in _OF_CLIENT}
        if any("http://" in value for value in options.values()):  # a server behind the same firewall
            client |= {"allow_http": True}
        config = {name: value for name, value in options.items() if name not in _OF_CLIENT}
        try:
            store = from_url(url, config=config, client_options=client, retry_config=_RETRY)  # type: ignore[call-overload]  # the options are checked by obstore
        except (BaseError, ValueError) as error:
            raise UsageError(f"not a storage: {url}: {_short(error)}", hint="write s3://BUCKET/PREFIX") from None
        return cls(store, redirect=redirect)

    def local(self, key: str) -> Path | None:  # noqa: ARG002  nothing is here
        """Return None: no object is a file of this machine."""
        return None

    def address(self, key: str) -> str:
        """Return a URL that is good for 15 minutes, where readers are sent to the object store itself."""
        if not self._redirect:
            return ""
        with suppress(NotSupportedError), _told(key):
            return str(obstore.sign(self._store, "GET", key, _SIGNED))
        return ""

    def stat(self, key: str) -> Entry | None:
        """Return size and age."""
        try:
            with _told(key):
                found = obstore.head(self._store, key)
        except NotFoundError:
            return None
        return Entry(key, found["size"], found["last_modified"].timestamp())

    def read(self, key: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            NotFoundError: it is not there.
        """
        with _told(key):
            if end is None and not begin:
                return bytes(obstore.get(self._store, key).bytes())
            size = obstore.head(self._store, key)["size"]
            end = size if end is None else min(end, size)
            return bytes(obstore.get_range(self._store, key, start=begin, end=end)) if begin < end else b""

    def write(self, key: str, data: bytes) -> None:
        """Store a small object."""
        with _told(key, writing=True):
            obstore.put(self._store, key, data, use_multipart=len(data) > _PIECE)

    def take(self, file: Path, key: str) -> None:
        """Send a file of this machine."""
        with _told(key, writing=True):
            large = file.stat().st_size > _SMALL
            sent: Any = file if large else file.read_bytes()
            obstore.put(self._store, key, sent, use_multipart=large, chunk_size=_PIECE, max_concurrency=_IN_FLIGHT)

    def touch(self, key: str) -> bool:  # noqa: ARG002  no object store can
        """Return False: the age of an object is when it was written."""
        return False

    def move(self, key: str, target: str) -> None:
        """Give an object another key."""
        self._copy(key, target)
        self.delete(key)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(NotFoundError), _told(key):
            obstore.delete(self._store, key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects below `prefix`."""
        with _told(prefix):
            for page in obstore.list(self._store, prefix.rstrip("/"), chunk_size=1000):
                for one in page:
                    yield Entry(one["path"], one["size"], one["last_modified"].timestamp())

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object piece by piece.

        Raises:
            NotFoundError: it is not there.
        """
        with _told(key):
            size = obstore.head(self._store, key)["size"]
            for begin in range(0, size, _READ):
                yield bytes(obstore.get_range(self._store, key, start=begin, end=min(size, begin + _READ)))

    async def stream(self, key: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `begin` to `end`; the next piece is fetched while one is sent."""

        async def piece(at: int) -> bytes:
            with _told(key):
                return bytes(await obstore.get_range_async(self._store, key, start=at, end=min(end, at + _READ)))

        coming = asyncio.create_task(piece(begin)) if begin < end else None
        try:
            for at in range(begin, end, _READ):
                assert coming is not None
                chunk = await coming
                coming = asyncio.create_task(piece(at + _READ)) if at + _READ < end else None
                if len(chunk) != min(end, at + _READ) - at:
                    raise UnavailableError(f"object {key} ends at {at + len(chunk)}")
                yield chunk
        finally:
            if coming is not None:
                coming.cancel()

    def begin(self, note: str) -> "Parts":
        """Begin an object."""
        identity = secrets.token_hex(16)
        self.write(f"uploads/{identity}/note", note.encode())
        return Parts(self, self._store, identity)

    def resume(self, identity: str, note: str) -> "Parts":
        """Return what was begun.

        Raises:
            NotFoundError: there is none.
        """
        known = identity.isascii() and identity.isalnum() and len(identity) == 32
        with suppress(NotFoundError):
            if known and self.read(f"uploads/{identity}/note") == note.encode():
                return Parts(self, self._store, identity)
        raise NotFoundError("no such upload; it may be finished, cancelled or too old")

    def sweep(self, before: float) -> int:
        """Remove the uploads of which nothing is younger than `before`."""
        youngest: dict[str, float] = {}
        keys: dict[str, list[str]] = {}
        for entry in self.entries("uploads/"):
            identity = entry.key.split("/")[1]
            youngest[identity] = max(entry.modified, youngest.get(identity, 0))
            keys.setdefault(identity, []).append(entry.key)
        old = [identity for identity, modified in youngest.items() if modified < before]
        for identity in old:
            for key in keys[identity]:
                self.delete(key)
        return len(old)

    def _copy(self, key: str, target: str) -> None:
        entry = self.stat(key)
        if entry is None:
            raise NotFoundError(f"no object {key}")
        if entry.size < _COPY:
            with _told(key):
                obstore.copy(self._store, key, target)
        else:
            self.join([key], target)

    def join(self, keys: list[str], target: str) -> None:
        """Make one object of several, in their order."""
        if len(keys) == 1 and (entry := self.stat(keys[0])) is not None and entry.size < _COPY:
            with _told(target):
                obstore.copy(self._store, keys[0], target)
            return

        with _told(target, writing=True):
            # not `put` with an iterator: obstore cannot read from within what it writes
            writer = obstore.open_writer(self._store, target, buffer_size=_PIECE, max_concurrency=_IN_FLIGHT)
            for key in keys:
                for chunk in self.chunks(key):
                    writer.write(chunk)
            writer.close()


class Parts:
    """An upload: its parts follow each other without a gap, each written once under a name of its own."""

    def __init__(self, storage: Objects, store: Any, identity: str) -> None:
        self._storage, self._store, self.id = storage, store, identity
        self._keys: list[str] = []
        self._hash: Any = hashlib.sha256()
        self.offset = 0
        self._find()

    def _find(self) -> None:
        """Take over the parts that are there, the longest of those that begin at the same byte."""
        parts: dict[int, Entry] = {}
        for entry in self._storage.entries(f"uploads/{self.id}/"):
            if match := _PART.fullmatch(entry.key.rpartition("/")[2]):
                at = int(match[1])
                if at not in parts or parts[at].size < entry.size:
                    parts[at] = entry
        while entry_at := parts.get(self.offset):
            self._keys.append(entry_at.key)
            self.offset += entry_at.size
            self._hash = None  # hashed at the end
            if not entry_at.size:
                break

    async def append(self, chunks: AsyncIterator[bytes], limit_bytes: int) -> None:
        """Add a part.

        Raises:
            LimitError: it is larger than `limit_bytes`.
        """
        key = f"uploads/{self.id}/{self.offset:016}-{secrets.token_hex(8)}"
        reading = _Reading(chunks, limit_bytes - self.offset, self._hash.update if self._hash else None)
        first = await reading.small()
        if not first and reading.failure is None:
            return
        with _told(key, writing=True):
            if reading.ended:
                if first:
                    await obstore.put_async(self._store, key, first, use_multipart=False)
            else:
                await obstore.put_async(
                    self._store,
                    key,
                    reading.rest(first),
                    use_multipart=True,
                    chunk_size=_PIECE,
                    max_concurrency=_IN_FLIGHT,
                )
        if reading.count:
            self._keys.append(key)
            self.offset += reading.count
        if reading.failure is not None:
            raise reading.failure

    def digest(self, algorithm: str) -> str:
        """Return the digest of what is there."""
        if algorithm == "sha256" and self._hash is not None:
            return str(self._hash.hexdigest())
        found = hashlib.new(algorithm)
        for key in self._keys:
            for chunk in self._storage.chunks(key):
                found.update(chunk)
        return found.hexdigest()

    def publish(self, key: str) -> None:
        """Make it the object `key`."""
        if self._keys:
            self._storage.join(self._keys, key)
        else:
            self._storage.write(key, b"")

    def forget(self) -> None:
        """Remove the parts."""
        with suppress(StorageError):  # what is left is swept
            for entry in list(self._storage.entries(f"uploads/{self.id}/")):
                self._storage.delete(entry.key)


class _Reading:
    """The body of one request, which may break off: then it ends, and `failure` says why."""

    def __init__(self, chunks: AsyncIterator[bytes], limit: int, update: Callable[[bytes], None] | None) -> None:
        self._chunks, self._limit, self._update = chunks, limit, update
        self.count, self.ended = 0, False
        self.failure: BaseException | None = None

    async def small(self) -> bytes:
        """Return all of it, or its first MiB if it is large."""
        data = bytearray()
        while len(data) < _SMALL and (chunk := await self._next()):
            data += chunk
        return bytes(data)

    async def rest(self, first: bytes) -> AsyncIterator[bytes]:
        """Yield `first` and what follows it."""
        yield first
        while chunk := await self._next():
            yield chunk

    def _count(self, size: int) -> None:
        if self.count + size > self._limit:
            raise LimitError("more bytes than are taken")
        self.count += size

    async def _next(self) -> bytes:
        if self.ended:
            return b""
        try:
            async for chunk in self._chunks:
                self._count(len(chunk))
                if self._update is not None:
                    # the hash needs a second for each GB: not in the way of others
                    await asyncio.to_thread(self._update, chunk) if len(chunk) > _READ else self._update(chunk)
                return bytes(chunk)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  raised again by `append`
            self.failure = error
        self.ended = True
        return b""
