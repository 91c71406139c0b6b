"""Where a hub keeps what it holds: objects by key, in a folder (the default) or in an object store.

    blobs/sha256/ab/abcd...          content by digest, manifests too
    repositories/bio/samtools/...    what manifests and tags there are (see `computeops.hub.records`)
    collections/bio                  whether it is private, and how much it may hold
    quarantine/...                   blobs that `hub scrub` found damaged

An object appears whole and durable, or not at all, and a reader never sees a half of one.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from computeops.errors import UsageError
from computeops.model import Digest


@dataclass(frozen=True, slots=True)
class Entry:
    """An object that is there."""

    key: str
    size: int
    modified: float
    """Seconds since 1970, by the clock of the storage."""


class Incoming(Protocol):
    """An object on its way in, in as many requests as the sender likes. `offset` bytes are there."""

    id: str
    offset: int

    async def append(self, chunks: AsyncIterator[bytes], limit_bytes: int) -> None:
        """Add the bytes of `chunks`; what came before a broken connection stays.

        Raises:
            LimitError: together they are more than `limit_bytes`.
        """
        ...

    def digest(self, algorithm: str) -> str:
        """Return the hex digest of what is there."""
        ...

    def publish(self, key: str) -> None:
        """Make what is there the object `key`, durably; may be repeated until `forget`."""
        ...

    def forget(self) -> None:
        """Remove what is there; what was published stays."""
        ...


class Storage(Protocol):
    """Objects by key. Every function may raise StorageError, or UnavailableError when the storage does not answer."""

    def stat(self, key: str) -> Entry | None:
        """Return the object's size and age, or None if it is not there."""
        ...

    def read(self, key: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of an object from `begin` to `end`.

        Raises:
            NotFoundError: it is not there.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Store a small object, over an older one."""
        ...

    def take(self, file: Path, key: str) -> None:
        """Store a file of this machine, which may be moved away by it."""
        ...

    def touch(self, key: str) -> bool:
        """Make an object young again; return whether it could be done: else store it again."""
        ...

    def move(self, key: str, target: str) -> None:
        """Give an object another key."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with `prefix`, which ends with a `/`, in no order."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object piece by piece.

        Raises:
            NotFoundError: it is not there.
        """
        ...

    def stream(self, key: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of an object from `begin` to `end`, as they are sent."""
        ...

    def local(self, key: str) -> Path | None:
        """Return the file that is the object, where it is one of this machine."""
        ...

    def address(self, key: str) -> str:
        """Return a URL under which anybody can read the object for some minutes; empty: there is none."""
        ...

    def begin(self, note: str) -> Incoming:
        """Begin an object; its id cannot be guessed. `note` tells later what it is for."""
        ...

    def resume(self, identity: str, note: str) -> Incoming:
        """Return what was begun with this id and this note.

        Raises:
            NotFoundError: there is none; it may be finished, cancelled or too old.
        """
        ...

    def sweep(self, before: float) -> int:
        """Remove what was begun and not continued since `before`; return how many."""
        ...


def blob_key(digest: Digest) -> str:
    """Return under which key a blob is stored."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def open_storage(
    data: Path, url: str = "", options: Mapping[str, str] | None = None, *, redirect: bool = False
) -> Storage:
    """Return the storage at `url` (`s3://`, `gs://`, `az://`); empty: the folder `data`.

    `redirect`: whether readers are sent to the object store itself.

    Raises:
        UsageError: no such kind of storage, or the extra for it is not installed.
    """
    from computeops.hub.storage.folder import Folder

    if not url:
        return Folder(data)
    try:
        from computeops.hub.storage.objects import Objects
    except ImportError:
        raise UsageError(f"storage {url} needs obstore", hint="pip install 'computeops[hub,s3]'") from None
    return Objects.open(url, options or {}, redirect=redirect)
