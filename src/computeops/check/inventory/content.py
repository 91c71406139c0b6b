"""The bytes of one file of a tree at any place: where the tree cannot jump, they are kept on disk as far as needed."""

import io
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from computeops.errors import LimitError
from computeops.image.tree import Entry, Seekable
from computeops.limits import LIMITS, MIB

_MEMORY = 8 * MIB


class Content:
    """The content of the file `entry`; valid as long as its tree stands at it. Used as a context manager."""

    def __init__(self, entry: Entry, data: Iterable[bytes]) -> None:
        self.entry = entry
        self._data = data
        self._rest: Iterator[bytes] | None = None
        self._spool: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._spooled = 0

    @property
    def path(self) -> str:
        """Its path in the image."""
        return self.entry.path

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.entry.size

    def at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on: fewer only where the file ends.

        Raises:
            FormatError: the image is broken there.
            LimitError: it is larger than what is kept of a file, in a tree that cannot jump.
        """
        if offset >= self.size or size <= 0 or offset < 0:
            return b""
        if isinstance(self._data, Seekable):
            return self._data.at(offset, size)
        return self._from_spool(offset, size)

    def whole(self, limit: int = LIMITS.package_database_bytes) -> bytes:
        """Return all of it.

        Raises:
            FormatError: the image is broken there.
            LimitError: it is larger than `limit`, in bytes.
        """
        if self.size > limit:
            raise LimitError(f"/{self.path} has {self.size} bytes, more than is read of package databases: {limit}")
        return b"".join(self._data) if self._spool is None else self.at(0, self.size)

    def _from_spool(self, offset: int, size: int) -> bytes:
        if self._spool is None:
            if self.size > LIMITS.program_bytes:
                raise LimitError(f"/{self.path} has {self.size} bytes; of programs at most {LIMITS.program_bytes}")
            self._spool = tempfile.SpooledTemporaryFile(max_size=_MEMORY)  # noqa: SIM115  closed in __exit__
            self._rest = iter(self._data)
        assert self._rest is not None
        self._spool.seek(0, io.SEEK_END)
        while self._spooled < min(offset + size, self.size):
            chunk = next(self._rest, b"")
            if not chunk:
                break
            self._spool.write(chunk)
            self._spooled += len(chunk)
        self._spool.seek(offset)
        return self._spool.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._spool is not None:
            self._spool.close()
