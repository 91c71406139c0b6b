"""The layers of an OCI image merged into one ordered tree, without unpacking them to disk.

Two passes. The first inflates each layer once and puts its headers into a root filesystem in memory, exactly as an
extraction layer by layer would put them on disk: whiteouts, opaque folders, hard links into lower layers, names that
lead through symbolic links (`Overlay`). The second inflates the layers again, side by side, and takes from each the
files that are left, in the order of the normalised layer (`computeops.image.replay`).

Emitting in the order in which entries come would save the second inflate, about a fifth of the time, but the squashfs
and the layer would depend on the order in which somebody wrote their tar: equal trees would not give equal bytes.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from computeops.errors import FormatError, LimitError
from computeops.image.layer import plain
from computeops.image.replay import Replay, Source
from computeops.image.tar import CHUNK, read_tar
from computeops.image.tree import Descend, Entry, Item, Kind, below, everywhere
from computeops.limits import LIMITS
from computeops.model import Digest

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST_LINKS = 40  # symbolic links on the way to one name, as Linux follows them

_MOST_FOLLOWED = 10_000_000  # parts of their targets, in one image


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer to read, as often as wanted."""

    open: Callable[[], AbstractContextManager[BinaryIO]]
    """Opens the layer as it is stored."""
    diff_id: Digest
    """What its uncompressed tar must have."""
    hashed: bool
    """Whether `open` compares the stored bytes with a digest: then their content need not be hashed too."""


@dataclass(slots=True, eq=False)
class _Node:
    """A file, folder or link of the merged filesystem; several names may lead to one."""

    entry: Entry
    layer: int
    at: int = 0
    """Byte in the layer's plain tar at which the data begins."""
    children: "dict[str, _Node]" = field(default_factory=dict)
    """Of a folder."""

    @property
    def is_folder(self) -> bool:
        return self.entry.kind is Kind.DIRECTORY


class Overlay:
    """A root filesystem in memory, to which layers are applied from the lowest to the uppermost."""

    def __init__(self) -> None:
        self.root = _Node(Entry("", Kind.DIRECTORY, 0o755), 0)
        self._layer = -1
        self._followed = 0
        self._last: tuple[str, _Node] | None = None

    def apply(self, found: Sequence[tuple[Entry, int]]) -> None:
        """Lay the entries of the next layer, each with the place of its data, over what is there.

        Raises:
            FormatError: a hard link has no target, or a name leads through a file or round in a circle.
        """
        self._layer += 1
        self._last = None
        pending: list[Entry] = []
        whiteouts = [entry for entry, _ in found if entry.path.rpartition("/")[2].startswith(_WHITEOUT)]
        # A whiteout hides what lower layers have, wherever in its own layer it stands.
        for entry in whiteouts:
            self._whiteout(entry.path)
        hidden = {entry.path for entry in whiteouts}
        for entry, at in found:
            if entry.path in hidden:
                continue
            if entry.kind is Kind.HARDLINK:
                self._link(entry, pending)
            else:
                self._put(entry, at)
        for entry in pending:
            self._link(entry, None)

    def _whiteout(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        above = self._walk(folder)
        if above is None or not above.is_folder:
            return
        if name == _OPAQUE:
            above.children.clear()
        elif not name.startswith(".wh..wh."):  # the others are bookkeeping of AUFS
            above.children.pop(name.removeprefix(_WHITEOUT), None)

    def _put(self, entry: Entry, at: int) -> None:
        if not entry.path:
            if entry.kind is not Kind.DIRECTORY:
                raise FormatError("a layer makes the root of the image something else than a folder")
            self.root.entry = entry
            return
        folder, name = self._folder_of(entry.path)
        there = folder.children.get(name)
        if there and there.is_folder and entry.kind is Kind.DIRECTORY:
            there.entry = entry
        else:
            self._set(folder, name, _Node(entry, self._layer, at))

    def _set(self, folder: _Node, name: str, node: _Node) -> None:
        if name in folder.children:
            self._last = None  # the way to it may have led through what is replaced
        folder.children[name] = node

    def _link(self, entry: Entry, pending: list[Entry] | None) -> None:
        target = self._walk(entry.target, follow=False)
        if target is None and pending is not None:
            pending.append(entry)
            return
        if target is None:
            raise FormatError(f"/{entry.path}: a hard link to /{entry.target}, which is in no layer up to its own")
        if target.is_folder:
            raise FormatError(f"/{entry.path}: a hard link to a folder")
        folder, name = self._folder_of(entry.path)
        self._set(folder, name, target)

    def _folder_of(self, path: str) -> tuple[_Node, str]:
        """Return the folder that a name is put into, made where it is missing, and the last part of the name."""
        above, _, name = path.rpartition("/")
        if self._last and self._last[0] == above:  # names of one folder mostly follow each other
            return self._last[1], name
        node = self._walk(above, make=True)
        assert node is not None
        if not node.is_folder:
            raise FormatError(f"/{path}: its layer puts it below a file")
        self._last = above, node
        return node, name

    def _walk(self, path: str, *, make: bool = False, follow: bool = True) -> _Node | None:
        """Return the node at `path`, never leaving the root; the last part is a link's target only with `follow`."""
        parts, links = path.split("/")[::-1] if path else [], 0
        way = [self.root]
        while parts:
            part = parts.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                way = way[:-1] or way
                continue
            node = self._step(way[-1], part, path, make=make)
            if node is None:
                return None
            if node.entry.kind is Kind.SYMLINK and (parts or follow):
                links += 1
                more = node.entry.target.split("/")[::-1]
                self._followed += len(more)
                if links > _MOST_LINKS or self._followed > _MOST_FOLLOWED:
                    raise FormatError(f"/{path}: too many symbolic links on the way")
                way = [self.root] if node.entry.target.startswith("/") else way
                parts.extend(more)
                continue
            way.append(node)
        return way[-1]

    def _step(self, folder: _Node, part: str, path: str, *, make: bool) -> _Node | None:
        if part in folder.children:
            return folder.children[part]
        if not make:
            return None
        if not folder.is_folder:
            raise FormatError(f"/{path}: its layer puts it below a file")
        made = _Node(Entry(part, Kind.DIRECTORY, 0o755), self._layer)
        folder.children[part] = made
        return made

    def has(self, path: str) -> bool:
        """Whether there is the name `path`."""
        return self._walk(path, follow=False) is not None

    def nodes(self) -> Iterator[tuple[str, _Node]]:
        """Yield path and node of every name, in the order of the normalised layer."""
        pending = [("", self.root)]
        while pending:
            path, node = pending.pop()
            yield path, node
            names = sorted(node.children, key=os.fsencode, reverse=True)
            pending.extend((f"{path}/{name}" if path else name, node.children[name]) for name in names)


class Merged:
    """The layers of an image, lowest first, as an ordered tree."""

    ordered = True

    def __init__(self, layers: Sequence[Packed], *, tmp: Path | None = None) -> None:
        """`tmp`: folder for files that stand in another order than they are wanted in; None: the system's."""
        self._layers, self._tmp = layers, tmp
        self._overlay: Overlay | None = None

    def _merged(self) -> Overlay:
        if self._overlay is None:
            self._overlay = Overlay()
            stop = threading.Event()
            with ThreadPoolExecutor(max_workers=2) as pool:
                try:
                    for found in pool.map(lambda layer: _names(layer, stop), self._layers):
                        self._overlay.apply(found)
                except BaseException:  # Ctrl-C too: no thread reads on for an image that nobody wants any more
                    stop.set()
                    self._overlay = None
                    raise
        return self._overlay

    def has(self, path: str) -> bool:
        """Whether the image has the name `path`."""
        return self._merged().has(path)

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield the entries in order; of several names of one file the first is the file, the others hard links.

        Raises:
            FormatError: a layer is broken, or not what its digest or diff_id says; LimitError: it is too large.
        """
        listed = list(self._merged().nodes())
        firsts: dict[_Node, str] = {}
        sources: dict[_Node, Source] = {}
        for path, node in listed:
            if firsts.setdefault(node, path) == path and node.entry.size:
                sources[node] = Source(node.layer, node.at, node.entry.size, len(sources))
        with Replay([layer.open for layer in self._layers], list(sources.values()), self._tmp) as replay:
            wanted = below(descend)
            for path, node in listed:
                entry = node.entry if node.entry.path == path else replace(node.entry, path=path)
                if not wanted(entry):
                    continue
                if firsts[node] != path:
                    yield replace(entry, kind=Kind.HARDLINK, size=0, target=firsts[node]), ()
                else:
                    yield entry, replay.data(sources[node]) if node in sources else ()


def _names(layer: Packed, stop: threading.Event) -> list[tuple[Entry, int]]:
    return _index(layer, None if layer.hashed else layer.diff_id, stop)


def prove(layer: Packed) -> None:
    """Read a layer to its end, and compare its digest and its diff_id.

    Raises:
        FormatError: it is broken or not what they say; LimitError: it is too large.
    """
    _index(layer, layer.diff_id, threading.Event())


def _index(layer: Packed, diff_id: Digest | None, stop: threading.Event) -> list[tuple[Entry, int]]:
    """Return the entries of a layer and where the data of each begins."""
    found: list[tuple[Entry, int]] = []
    with layer.open() as stored:
        with contextlib.closing(plain(stored, diff_id=diff_id)) as stream:
            for entry, _ in read_tar(stream):
                if stop.is_set():
                    return found
                found.append((entry, stream.tell()))
                if len(found) > LIMITS.entries:
                    raise LimitError(f"a layer has more than {LIMITS.entries} entries")
            while stream.read(CHUNK):  # to the end, where the digest is known
                pass
        while stored.read(CHUNK):
            pass
    return found
