"""Compressed OCI layers, written deterministically and read within bounds.

zstd with a fixed job size and at least one worker gives the same bytes for any number of threads. gzip is written by
zlib in one stream, without name or time.
"""

import hashlib
import sys
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from isal import igzip_lib

from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS, MIB
from computeops.model import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
ZSTD_LEVEL = 3
GZIP_LEVEL = 6
_JOB_BYTES = 4 * MIB
_CHUNK = 1 * MIB
_FREE_BYTES = 64 * MIB
_AHEAD = 8  # pieces of 4 MiB that wait to be hashed
_INFLATED = 4 * MIB  # of one step: handing less from thread to thread costs more than it gains
_INFLATED_AHEAD = 2
BROKEN: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    zstd.ZstdError,
    cast("type[Exception]", igzip_lib.IsalError),  # its stub declares an instance
)
"""What decompressors raise for data that is broken."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Descriptor of a layer, and the digest of its uncompressed tar."""

    media_type: str
    digest: Digest
    size: int
    diff_id: Digest


class LayerWriter:
    """Takes the bytes of a tar, hashes and compresses them into `out`."""

    def __init__(self, out: BinaryIO | None, *, compression: str = "zstd", threads: int = 0) -> None:
        """`out`: where the bytes go; None computes the digests only. `threads` 0: one per CPU.

        `compression`: zstd, gzip, or "" for a layer that stays a tar.
        """
        self._out = out
        self._compression = compression
        self._compressor: Any = _zstd(threads) if compression == "zstd" else _gzip() if compression else _Nothing()
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        self._waiting: list[bytes] = []
        self._gathered = 0
        self._thread = ThreadPoolExecutor(1)
        self._under_way: deque[Future[None]] = deque()

    def write(self, block: bytes) -> None:
        """Take the next bytes of the tar."""
        self._waiting.append(block)
        self._gathered += len(block)
        if self._gathered >= _JOB_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Let what was gathered be hashed and compressed in its turn, while more is gathered."""
        if len(self._under_way) == _AHEAD:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(self._take, self._waiting))
        self._waiting, self._gathered = [], 0

    def _take(self, blocks: list[bytes]) -> None:
        data = b"".join(blocks)
        self._plain.update(data)
        self._put(self._compressor.compress(data))

    def _put(self, packed: bytes) -> None:
        if self._compression:
            self._packed.update(packed)
        self._size += len(packed)
        if self._out is not None:
            self._out.write(packed)

    def close(self) -> Layer:
        """End the layer and return what it became."""
        self._flush()
        for one in self._under_way:
            one.result()
        self._thread.shutdown()
        self._put(self._compressor.flush())
        diff_id = Digest("sha256", self._plain.hexdigest())
        if not self._compression:
            return Layer(MEDIA_TYPE, diff_id, self._size, diff_id)
        return Layer(
            f"{MEDIA_TYPE}+{self._compression}", Digest("sha256", self._packed.hexdigest()), self._size, diff_id
        )


class _Nothing:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _zstd(threads: int) -> Any:
    import os

    wanted = zstd.CompressionParameter
    return zstd.ZstdCompressor(
        options={
            wanted.compression_level: ZSTD_LEVEL,
            wanted.nb_workers: threads or os.cpu_count() or 1,
            wanted.job_size: _JOB_BYTES,
            wanted.checksum_flag: 1,
        }
    )


def _gzip() -> Any:
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)


def writer(compression: str) -> str:
    """Return the recorded writer of layers: library, version and level."""
    if compression == "zstd":
        return f"libzstd {zstd.zstd_version} level {ZSTD_LEVEL}, jobs of {_JOB_BYTES // MIB} MiB"
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {GZIP_LEVEL}"


class Plain:
    """Uncompressed bytes, read forward only; they are inflated in a thread, a few blocks ahead."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = _ahead(chunks)
        self._chunk = b""
        self._before = self._from = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or all; fewer than `size` do not mean the end, none do."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if self._from == len(self._chunk) and not self._next():
            return b""
        data = self._chunk[self._from : self._from + size]
        self._from += len(data)
        return data

    def skip(self, size: int) -> int:
        """Go `size` bytes forward, or to the end; return how many they were."""
        left = size
        while left:
            if self._from == len(self._chunk) and not self._next():
                break
            step = min(left, len(self._chunk) - self._from)
            self._from += step
            left -= step
        return size - left

    def tell(self) -> int:
        """Return how many bytes were read or skipped."""
        return self._before + self._from

    def close(self) -> None:
        """End the thread; nothing can be read any more."""
        self._chunks.close()

    def _next(self) -> bool:
        chunk = next(self._chunks, b"")
        self._before += len(self._chunk)
        self._chunk, self._from = chunk, 0
        return bool(chunk)


def _ahead(chunks: Iterator[bytes]) -> Generator[bytes]:
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, chunks, b"") for _ in range(_INFLATED_AHEAD))
        while chunk := waiting.popleft().result():
            waiting.append(thread.submit(next, chunks, b""))
            yield chunk


def _checked(chunks: Iterator[bytes], expected: Digest) -> Iterator[bytes]:
    known = hashlib.new(expected.algorithm)
    for chunk in chunks:
        known.update(chunk)
        yield chunk
    if known.hexdigest() != expected.hex:
        raise FormatError(f"a layer's content has {known.name}:{known.hexdigest()}, not {expected}")


def plain(file: BinaryIO, *, diff_id: Digest | None = None) -> Plain:
    """Return the uncompressed bytes of the layer in `file`, whatever compresses it (gzip, zstd, nothing).

    Raises while it is read:
        FormatError: it is broken, or its content does not have `diff_id`.
        LimitError: it unpacks to a suspicious multiple of its size.
    """
    head = file.read(4)
    chunks = _inflated(file, head)
    return Plain(_checked(chunks, diff_id) if diff_id else chunks)


def _inflated(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    if head[:2] == b"\x1f\x8b":
        return _bounded(file, head, _new_gzip)
    if head == b"\x28\xb5\x2f\xfd":
        return _bounded(file, head, zstd.ZstdDecompressor)
    return _as_it_is(file, head)


def _new_gzip() -> Any:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _as_it_is(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = file.read(_CHUNK)


def _bounded(file: BinaryIO, data: bytes, new: Any) -> Iterator[bytes]:
    """Inflate frame after frame; output per step is bounded, so a bomb is seen before it fills the memory."""
    packed, unpacked = len(data), 0
    engine = new()
    while True:
        try:
            out = engine.decompress(data, _INFLATED)
        except BROKEN as error:
            raise FormatError(f"a layer cannot be decompressed: {error}") from error
        unpacked += len(out)
        if unpacked > _FREE_BYTES + packed * LIMITS.inflate_ratio or unpacked > LIMITS.image_bytes:
            raise LimitError(f"a layer of {packed} bytes unpacks to more than {unpacked} bytes: it looks like a bomb")
        if out:
            yield out
        data = b""
        if engine.eof:
            data = engine.unused_data.lstrip(b"\0") or file.read(_CHUNK).lstrip(b"\0")
            if not data:
                return
            engine = new()
        elif engine.needs_input:
            data = file.read(_CHUNK)
            packed += len(data)
            if not data:
                raise FormatError("a layer ends in the middle of its compressed data")
