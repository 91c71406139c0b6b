"""Squashfs 4.0, written by ourselves while a tree goes by: data in threads, metadata at the end.

The bytes are a function of the entries and of the recorded writer (`writer`): the compressor's library and its level.
Neither the number of threads nor the machine changes them. As mksquashfs does, a file smaller than a block is packed
into a fragment with its neighbours, equal files are stored once, and blocks of zeros not at all.
"""

import contextlib
import hashlib
import os
import struct
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from computeops.errors import BuildError, StorageError
from computeops.image.squashfs_format import COMPRESSORS, SUPERBLOCK, UNCOMPRESSED_DATA, UNCOMPRESSED_METADATA
from computeops.image.squashfs_tables import Content, Header, Tables
from computeops.image.tree import Item, Kind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_SIZE = 128 * 1024
"""Data block: larger ones save a few percent and cost reading speed."""
FORMAT = 1
"""Number of the way in which we lay out a squashfs; whatever changes the bytes of an image raises it."""
_LEVELS = {"zstd": range(1, 23), "gzip": range(1, 10)}
_ZEROS = bytes(BLOCK_SIZE)
_BATCH = 32  # blocks that go to a thread together
_AHEAD = 16  # batches under way: 64 MiB of data at most

_Buffer = bytes | memoryview
_Compress = Callable[[_Buffer], bytes]


class _Large:
    """A file of at least a block, while its blocks are compressed and written."""

    def __init__(self, content: Content, size: int) -> None:
        self.content = content
        self.known = [b"%d" % size]
        """Size, and digests of what is written, which is much less than what was read; equal files have equal ones."""

    def add(self, packed: "_Packed") -> None:
        """Take the next block."""
        self.content.blocks.append(packed.length)
        self.content.sparse += 0 if packed.length else packed.size
        self.known.append(packed.known)


@dataclass(frozen=True, slots=True)
class _Packed:
    """A block as it is written."""

    data: _Buffer
    length: int
    """As an inode has it: with the flag of a block that is not compressed; 0 for zeros."""
    size: int
    """Before it was compressed; 0 is no block, but the end of a file."""
    known: bytes = b""
    """SHA-256 of `data` where it is a file's; zeros for zeros."""


class SquashfsWriter:
    """Writes a squashfs at byte `offset` of a file that is there; it is whole after `close`."""

    def __init__(self, path: Path, *, offset: int, compression: str, level: int, epoch: int, threads: int = 0) -> None:
        """`epoch`: time of the filesystem, seconds since 1970. `threads` 0: one per CPU.

        Raises:
            BuildError: the compressor, or its level, is none that we can write.
        """
        if level not in _LEVELS.get(compression, ()):
            raise BuildError(
                f"a squashfs cannot be compressed by {compression} {level}",
                hint="; ".join(f"{name}: levels 1 to {levels[-1]}" for name, levels in _LEVELS.items()),
            )
        compress = _compressor(compression, level)
        self._compress = compress
        self._offset = offset
        self._options = _options(compression, level)
        number = next(number for number, name in COMPRESSORS.items() if name == compression)
        self._header = Header(epoch, BLOCK_SIZE, number)
        self._tables = Tables(compress)
        self._at = SUPERBLOCK.size + len(self._options)
        self._fragments: list[tuple[int, int]] = []
        self._fragment: list[bytes] = []
        self._fragment_size = 0
        self._small: dict[bytes, Content] = {}
        self._large: dict[bytes, int] = {}
        self._fragment_number = 0
        self._batch: list[tuple[_Buffer, _Large | None]] = []
        self._under_way: deque[tuple[Future[list[_Packed]], list[_Large | None]]] = deque()
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
        self._file = path.open("r+b", buffering=1024 * 1024)
        self._path = path
        with self._full_disk():
            self._file.seek(offset + self._at)

    def through(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, an ordered tree, as they come; what goes by is written.

        Raises:
            FormatError: an entry comes before its folder; StorageError: the disk is full.
        """
        for entry, data in items:
            node = self._tables.add(entry)
            if entry.kind is not Kind.FILE or not entry.size:
                yield entry, data
            elif entry.size < BLOCK_SIZE:
                whole = b"".join(data)
                node.content = self._tail(whole)
                yield entry, (whole,)
            else:
                node.content = Content()
                yield entry, self._blocks_of(data, _Large(node.content, entry.size))

    def _blocks_of(self, data: Iterable[bytes], large: "_Large") -> Iterator[bytes]:
        rest: _Buffer = b""
        for chunk in data:
            yield chunk
            rest = self._blocks(b"".join((rest, chunk)) if rest else chunk, large)
        if rest:
            self._put(rest, large)
        self._put(b"", large)

    def _blocks(self, data: bytes, large: "_Large") -> _Buffer:
        """Put the whole blocks of `data`; return what is left of it."""
        whole = len(data) - len(data) % BLOCK_SIZE
        view = memoryview(data)
        for at in range(0, whole, BLOCK_SIZE):
            self._put(view[at : at + BLOCK_SIZE], large)
        return view[whole:]

    def _tail(self, data: bytes) -> Content:
        """Return where a small file stands, which goes into the fragment unless an equal one is there."""
        known = hashlib.sha256(data).digest()
        found = self._small.get(known)
        if found is None:
            if self._fragment_size + len(data) > BLOCK_SIZE:
                self._end_fragment()
            found = self._small[known] = Content(fragment=self._fragment_number, offset=self._fragment_size)
            self._fragment.append(data)
            self._fragment_size += len(data)
        return found

    def _end_fragment(self) -> None:
        if self._fragment:
            self._put(b"".join(self._fragment), None)
            self._fragment.clear()
            self._fragment_size = 0
            self._fragment_number += 1

    def _put(self, block: _Buffer, large: _Large | None) -> None:
        """Let a block be compressed; blocks are written in the order in which they come here."""
        self._batch.append((block, large))
        if len(self._batch) == _BATCH:
            self._submit()

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._under_way.append((self._pool.submit(_pack_all, batch, self._compress), [large for _, large in batch]))
        while len(self._under_way) > _AHEAD:
            self._write_next()

    def _write_next(self) -> None:
        future, files = self._under_way.popleft()
        with self._full_disk():
            for packed, large in zip(future.result(), files, strict=True):
                if large is None:
                    self._fragments.append((self._at, packed.length))
                elif not packed.size:
                    self._end_file(large)
                else:
                    large.content.start = large.content.start or self._at
                    large.add(packed)
                self._file.write(packed.data)
                self._at += len(packed.data)

    def _end_file(self, large: _Large) -> None:
        """Take back what was written of a file if an equal one is there."""
        known = hashlib.sha256(b"".join(large.known)).digest()
        first = self._large.setdefault(known, large.content.start)
        if first != large.content.start:
            self._at, large.content.start = large.content.start, first
            self._file.seek(self._offset + self._at)

    def close(self) -> None:
        """Write what is left, and the metadata.

        Raises:
            StorageError: the disk is full; BuildError: there are more owners than squashfs can hold.
        """
        self._end_fragment()
        self._submit()
        while self._under_way:
            self._write_next()
        superblock, tables = self._tables.finish(self._at, self._fragments, self._header)
        with self._full_disk():
            self._file.truncate()
            self._file.write(tables)
            self._file.seek(self._offset)
            self._file.write(superblock + self._options)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):  # the disk is full: what is in the buffer has nowhere to go
            self._file.close()

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error


def _pack_all(batch: Sequence[tuple[_Buffer, _Large | None]], compress: _Compress) -> list[_Packed]:
    return [_pack(block, compress, holes=large is not None) for block, large in batch]


def _pack(block: _Buffer, compress: _Compress, *, holes: bool) -> _Packed:
    """`holes`: whether a block of zeros may be left out, which a fragment may not."""
    size = len(block)
    if not size:
        return _Packed(b"", 0, 0)
    if holes and not block[0] and block == _ZEROS[:size]:
        return _Packed(b"", 0, size, _ZEROS[:32])
    data: _Buffer = compress(block)
    length = len(data)
    if length >= size:
        data, length = block, size | UNCOMPRESSED_DATA
    return _Packed(data, length, size, hashlib.sha256(data).digest() if holes else b"")


def _compressor(compression: str, level: int) -> _Compress:
    """Return a function that any thread may call."""
    if compression == "gzip":
        return lambda block: zlib.compress(block, level)
    own = threading.local()

    def compress(block: _Buffer) -> bytes:
        engine = getattr(own, "engine", None)
        if engine is None:
            engine = own.engine = zstd.ZstdCompressor(level)
        return bytes(engine.compress(block, engine.FLUSH_FRAME))

    return compress


def _options(compression: str, level: int) -> bytes:
    """Return the block of the compressor's options, which only says what was used."""
    data = struct.pack("<i", level) if compression == "zstd" else struct.pack("<iHH", level, 15, 0)
    return struct.pack("<H", len(data) | UNCOMPRESSED_METADATA) + data


def writer(compression: str, level: int) -> str:
    """Return the recorded writer: our way to lay out, the compressor's library and the level."""
    library = f"libzstd {zstd.zstd_version}" if compression == "zstd" else f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"computeops squashfs {FORMAT}, {library}, {compression} {level}"
