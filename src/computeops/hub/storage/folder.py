"""Objects as plain files below one folder, each of which appears by a link or rename after `fsync`."""

import hashlib
import os
import secrets
import shutil
import time
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

from computeops.errors import LimitError, NotFoundError
from computeops.hub.storage import Entry

_FLUSH = 1024 * 1024
_CHUNK = 512 * 1024
_LEAST, _MOST = 64 * 1024, 1024 * 1024  # of what is read at once to be sent: many small pieces cost three times as much
_SLOW_SECONDS = 0.02
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)  # Linux
_GONE = "no such upload; it may be finished, cancelled or too old"


class Folder:
    """The storage below `root`; `uploads` in it is for what is on its way, of which only what is old is removed."""

    def __init__(self, root: Path) -> None:
        self._root, self.uploads = root, root / "uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)

    def local(self, key: str) -> Path:
        """Return the file of an object, whether it is there or not."""
        return self._root / key

    def address(self, key: str) -> str:  # noqa: ARG002  the folder has none
        """Return nothing: a folder has no address."""
        return ""

    def stat(self, key: str) -> Entry | None:
        """Return size and age."""
        try:
            found = self.local(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(key, found.st_size, found.st_mtime)

    def read(self, key: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of an object.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            with self.local(key).open("rb") as file:
                file.seek(begin)
                return file.read(-1 if end is None else end - begin)
        except FileNotFoundError:
            raise NotFoundError(f"no object {key}") from None

    def write(self, key: str, data: bytes) -> None:
        """Store a small object, over an older one."""
        temporary = self.uploads / secrets.token_hex(16)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._place(temporary, key)
        finally:
            temporary.unlink(missing_ok=True)

    def take(self, file: Path, key: str) -> None:
        """Move a file of the same disk to its place."""
        _sync(file)
        self._place(file, key)

    def touch(self, key: str) -> bool:
        """Make an object young again."""
        try:
            os.utime(self.local(key))
        except FileNotFoundError:
            return False
        return True

    def move(self, key: str, target: str) -> None:
        """Give an object another key."""
        self._place(self.local(key), target)
        _sync(self.local(key).parent)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError):
            self.local(key).unlink()

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects below the folder `prefix`."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            with suppress(FileNotFoundError), os.scandir(self.local(folder)) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}{one.name}/")
                    elif entry := self.stat(f"{folder}{one.name}"):
                        yield entry

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object piece by piece.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            with self.local(key).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise NotFoundError(f"no object {key}") from None

    async def stream(self, key: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `begin` to `end`.

        The pieces grow while they are taken at once and shrink when one has to wait, because the server keeps a few for
        each reader: a thousand slow ones must not fill the memory.
        """
        path, size = self.local(key), _LEAST
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while begin < end:
                count = min(size, end - begin)
                if _in_memory(descriptor, begin, count):
                    chunk = os.pread(descriptor, count, begin)
                else:
                    chunk = await to_thread(os.pread, descriptor, count, begin)
                if not chunk:
                    raise OSError(f"{path} ends at {begin}, not {end}")
                begin += len(chunk)
                given = time.monotonic()
                yield chunk
                slow = time.monotonic() - given > _SLOW_SECONDS
                size = max(size // 2, _LEAST) if slow else min(size * 2, _MOST)
        finally:
            os.close(descriptor)

    def begin(self, note: str) -> "Upload":
        """Begin an object."""
        folder = self.uploads / secrets.token_hex(16)
        folder.mkdir()
        (folder / "note").write_text(note)
        (folder / "data").touch()
        return Upload(self, folder)

    def resume(self, identity: str, note: str) -> "Upload":
        """Return what was begun.

        Raises:
            NotFoundError: there is none.
        """
        folder = self.uploads / identity
        try:
            known = identity.isalnum() and len(identity) == 32 and (folder / "note").read_text() == note
        except (FileNotFoundError, NotADirectoryError):
            known = False
        if not known:
            raise NotFoundError(_GONE)
        return Upload(self, folder)

    def sweep(self, before: float) -> int:
        """Remove what nobody continued."""
        swept = 0
        for left in self.uploads.iterdir():
            data = left / "data"
            with suppress(FileNotFoundError):  # finished in this moment
                if (data if data.exists() else left).stat().st_mtime < before:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                    swept += 1
        return swept

    def place_link(self, file: Path, key: str) -> None:
        """Let `file`, which is on the disk already, be the object `key` too."""
        target = self._parent(key)
        with suppress(FileExistsError):
            target.hardlink_to(file)
        _sync(target.parent)

    def _place(self, file: Path, key: str) -> None:
        target = self._parent(key)
        file.replace(target)
        _sync(target.parent)

    def _parent(self, key: str) -> Path:
        """Return the file of `key`, in a folder that is there and stays there."""
        target = self.local(key)
        missing = []
        folder = target.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            _sync(one.parent)
        return target


class Upload:
    """A file on its way in; its state is its length, so it survives a restart."""

    def __init__(self, storage: Folder, folder: Path) -> None:
        self._storage, self._folder, self.id = storage, folder, folder.name
        self._data = folder / "data"
        try:
            self.offset = self._data.stat().st_size
        except FileNotFoundError:
            raise NotFoundError(_GONE) from None
        self._hash = hashlib.sha256() if self.offset == 0 else None  # None: after a restart, hashed at the end

    async def append(self, chunks: AsyncIterator[bytes], limit_bytes: int) -> None:
        """Add the bytes of `chunks`.

        Raises:
            LimitError: it is larger than `limit_bytes`.
        """
        waiting = bytearray()
        try:
            async for chunk in chunks:
                waiting += chunk
                if self.offset + len(waiting) > limit_bytes:
                    waiting.clear()
                    raise LimitError(f"at most {limit_bytes} bytes are taken")
                if len(waiting) >= _FLUSH:
                    full, waiting = waiting, bytearray()
                    await to_thread(self._write, full)
        finally:
            if waiting:
                await to_thread(self._write, waiting)

    def digest(self, algorithm: str) -> str:
        """Return the digest of what is there."""
        if algorithm == "sha256" and self._hash is not None:
            return self._hash.hexdigest()
        with self._data.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    def publish(self, key: str) -> None:
        """Make it the object `key`; it stays here too, until it is forgotten."""
        _sync(self._data)
        self._storage.place_link(self._data, key)

    def forget(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, data: bytearray) -> None:
        with self._data.open("r+b") as file:
            file.seek(self.offset)  # over what a failed write may have left
            file.truncate()
            file.write(data)
        if self._hash is not None:
            self._hash.update(data)
        self.offset += len(data)


def _in_memory(descriptor: int, begin: int, count: int) -> bool:
    """Return whether these bytes are in the page cache, as far as their ends tell: reading them then waits for no disk.

    A thread for each piece would cost a quarter of all the time that sending takes.
    """
    if not _NO_WAIT:
        return False
    probe = bytearray(1)
    try:
        for at in (begin, begin + count - 1):
            os.preadv(descriptor, [probe], at, _NO_WAIT)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
