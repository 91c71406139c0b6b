"""Layers read a second time, side by side: files come in the order they are wanted in, not the one they stand in.

A file that stands before the one wanted now and is wanted later is kept in a spool, in memory up to 64 MiB and then in
an unnamed temporary file. Writers of layers sort by name, so the spool holds what sorts otherwise (`a-b` before `a/c`);
at worst, with layers in reverse order, it holds the files of the image once.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from computeops.errors import FormatError
from computeops.image.layer import plain
from computeops.image.tar import CHUNK
from computeops.limits import MIB

_SPOOL_MEMORY = 64 * MIB
_SHORTER = "a layer became shorter between two readings"
_MOST_OPEN = 8  # a decompressor may need more than 100 MiB


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a file stands."""

    layer: int
    at: int
    size: int
    rank: int
    """The place in the order of what is wanted."""


class Replay:
    """Gives the data of `sources` in the order of their ranks; one may be left out, never asked for twice."""

    def __init__(
        self,
        layers: Sequence[Callable[[], AbstractContextManager[BinaryIO]]],
        sources: Sequence[Source],
        tmp: Path | None,
    ) -> None:
        self._layers = layers
        self._wanted: dict[int, list[Source]] = {}
        for source in sorted(sources, key=lambda one: one.at, reverse=True):
            self._wanted.setdefault(source.layer, []).append(source)
        self._streams: dict[int, _Stream] = {}
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, dir=str(tmp) if tmp else None)  # noqa: SIM115  closed in __exit__
        self._kept: dict[tuple[int, int], int] = {}

    def data(self, source: Source) -> Iterator[bytes]:
        """Yield the bytes of one file.

        Raises:
            FormatError: the layer changed since it was read first.
        """
        place = self._kept.pop((source.layer, source.at), None)
        if place is not None:
            yield from self._from_spool(place, source.size)
            return
        stream = self._stream(source.layer, source.rank)
        wanted = self._wanted[source.layer]
        while wanted and wanted[-1].at < source.at:
            self._keep(stream, wanted.pop(), source.rank)
        if wanted and wanted[-1] == source:
            wanted.pop()
        yield from stream.read(source.at, source.size)
        if not wanted:
            self._streams.pop(source.layer).close()

    def _keep(self, stream: "_Stream", source: Source, rank: int) -> None:
        if source.rank < rank:
            return  # its turn has passed: nobody wants it any more
        self._kept[source.layer, source.at] = self._spool.seek(0, 2)
        for chunk in stream.read(source.at, source.size):
            self._spool.write(chunk)

    def _from_spool(self, place: int, size: int) -> Iterator[bytes]:
        left = size
        while left:
            self._spool.seek(place + size - left)
            chunk = self._spool.read(min(left, CHUNK))
            left -= len(chunk)
            yield chunk

    def _stream(self, layer: int, rank: int) -> "_Stream":
        if layer not in self._streams:
            if len(self._streams) >= _MOST_OPEN:
                self._drain(min(self._streams, key=lambda one: sum(s.size for s in self._wanted[one])), rank)
            self._streams[layer] = _Stream(self._layers[layer])
        return self._streams[layer]

    def _drain(self, layer: int, rank: int) -> None:
        """Keep all that is wanted of a layer, and close it."""
        stream = self._streams.pop(layer)
        while self._wanted[layer]:
            self._keep(stream, self._wanted[layer].pop(), rank)
        stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in self._streams.values():
            stream.close()
        self._spool.close()


class _Stream:
    """The plain bytes of a layer, read forward."""

    def __init__(self, layer: Callable[[], AbstractContextManager[BinaryIO]]) -> None:
        self._stack = contextlib.ExitStack()
        stored = self._stack.enter_context(layer())
        self._plain = self._stack.enter_context(contextlib.closing(plain(stored)))

    def read(self, at: int, size: int) -> Iterator[bytes]:
        gap = at - self._plain.tell()
        if self._plain.skip(gap) != gap:
            raise FormatError(_SHORTER)
        while size:
            chunk = self._plain.read(min(size, CHUNK))
            if not chunk:
                raise FormatError(_SHORTER)
            size -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._stack.close()
