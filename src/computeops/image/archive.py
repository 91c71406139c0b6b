"""An uncompressed tar on disk as an ordered tree: one pass for the index, then every entry in its place."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from computeops.errors import FormatError
from computeops.image.tar import CHUNK, read_tar
from computeops.image.tree import Descend, Entry, Item, Kind, below, everywhere


class TarFile:
    """A tar as an ordered tree. Of one name the last entry counts; parents that are missing are added."""

    ordered = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield the entries in order; of several names of one file the first in order is the file.

        Raises:
            FormatError: it is not a tar, or a hard link has no target.
        """
        with self._path.open("rb") as stream:
            index: dict[str, tuple[Entry, int]] = {}
            for entry, _ in read_tar(stream):
                index[entry.path] = (entry, stream.tell())
        links = _Links({path: entry for path, (entry, _) in index.items()})
        for path in list(index):
            _add_parents(index, path)
        with self._path.open("rb") as stream:
            wanted = below(descend)
            for entry, offset in sorted(index.values(), key=lambda found: found[0].order):
                if not wanted(entry):
                    continue
                first, source = links.first(entry)
                if first != entry.path:
                    yield replace(index[source][0], path=entry.path, kind=Kind.HARDLINK, size=0, target=first), ()
                elif source == entry.path:
                    yield entry, _Stored(stream, offset, entry)
                else:
                    content, at = index[source]
                    yield replace(content, path=entry.path), _Stored(stream, at, content)


class _Links:
    """Which names are one file: the first in order, and the one that has the data."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._first: dict[str, str] = {}
        for entry in entries.values():
            if entry.kind is Kind.HARDLINK:
                source = self._source(entry)
                names = (entries[self._first.get(source, source)], entry)
                self._first[source] = min(names, key=lambda one: one.order).path

    def first(self, entry: Entry) -> tuple[str, str]:
        source = self._source(entry)
        return self._first.get(source, entry.path), source

    def _source(self, entry: Entry) -> str:
        link, seen = entry, set[str]()
        while entry.kind is Kind.HARDLINK:
            if entry.target in seen or entry.target not in self._entries:
                raise FormatError(f"/{entry.path}: a hard link to /{entry.target}, which is not in the archive")
            seen.add(entry.target)
            entry = self._entries[entry.target]
        if link is not entry and entry.kind is Kind.DIRECTORY:
            raise FormatError(f"/{link.path}: a hard link to a folder")
        return entry.path


def _add_parents(index: dict[str, tuple[Entry, int]], path: str) -> None:
    while path:
        path = path.rpartition("/")[0]
        if path not in index:
            index[path] = (Entry(path, Kind.DIRECTORY, 0o755), 0)


class _Stored:
    """The bytes of a file in the archive."""

    __slots__ = ("_entry", "_offset", "_stream")

    def __init__(self, stream: IO[bytes], offset: int, entry: Entry) -> None:
        self._stream, self._offset, self._entry = stream, offset, entry

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while chunk := self.at(at, CHUNK):
            at += len(chunk)
            yield chunk

    def at(self, offset: int, size: int) -> bytes:
        wanted = min(size, max(self._entry.size - offset, 0))
        self._stream.seek(self._offset + offset)
        found = self._stream.read(wanted)
        if len(found) != wanted:
            raise FormatError(f"/{self._entry.path}: the archive became shorter while it was read")
        return found
