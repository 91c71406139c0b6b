"""The squashfs in a file as an ordered tree: of a SIF's partition, without mounting or unpacking it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from computeops.errors import FormatError, LimitError
from computeops.image.squashfs_reader import Filesystem, Inode
from computeops.image.tree import KIND_OF_MODE, NO_XATTRS, Descend, Entry, Item, Kind, everywhere
from computeops.limits import LIMITS


class SquashfsTree:
    """The squashfs at byte `offset` of `path` as an ordered tree.

    Only metadata is read for an entry; its data is decompressed when it is iterated.
    """

    ordered = True

    def __init__(self, path: Path, offset: int = 0, length: int | None = None) -> None:
        self._path, self._offset, self._length = path, offset, length

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield the entries in order; of folders that `descend` refuses only the folder itself.

        Of several names of one inode the first is the file, the others hard links. Sockets are left out.

        Raises:
            FormatError: it is no squashfs, or a broken or hostile one.
            LimitError: it is larger than `computeops.limits` allows, or looks like a bomb.
        """
        filesystem = Filesystem.open(self._path, self._offset, self._length)
        try:
            yield from _Walk(filesystem, str(self._path)).items(descend)
        finally:
            filesystem.close()


class _Walk:
    """One pass through a filesystem, with what it must remember against loops and bombs."""

    def __init__(self, filesystem: Filesystem, name: str) -> None:
        self._filesystem, self._name = filesystem, name
        self._first_names: dict[int, str] = {}
        self._folders: set[int] = set()
        self._bytes = self._entries = 0

    def items(self, descend: Descend) -> Iterator[Item]:
        root = self._filesystem.inode(self._filesystem.root)
        if not stat.S_ISDIR(root.mode):
            raise FormatError(f"{self._name}: the root of its squashfs is no folder")
        yield self._entry("", Kind.DIRECTORY, root), ()
        pending = [("", iter(self._enter("", root) if descend("") else ()))]
        while pending:
            path, names = pending[-1]
            found = next(names, None)
            if found is None:
                pending.pop()
                continue
            child = f"{path}/{os.fsdecode(found[0])}" if path else os.fsdecode(found[0])
            inode = self._filesystem.inode(found[1])
            kind = KIND_OF_MODE.get(stat.S_IFMT(inode.mode))
            if kind is Kind.DIRECTORY:
                yield self._entry(child, kind, inode), ()
                if descend(child):
                    pending.append((child, iter(self._enter(child, inode))))
            elif kind is not None:
                yield self._leaf(child, kind, inode)

    def _enter(self, path: str, folder: Inode) -> list[tuple[bytes, int]]:
        if folder.reference in self._folders:
            raise FormatError(f"{self._name}: the folder /{path} of its squashfs is reached twice")
        if path.count("/") >= LIMITS.path_depth:
            raise LimitError(f"{self._name}: folders nested more than {LIMITS.path_depth} deep")
        self._folders.add(folder.reference)
        names = self._filesystem.names(folder)
        self._entries += len(names)
        if self._entries > self._filesystem.most_names:
            raise LimitError(f"{self._name}: its squashfs has more than {self._filesystem.most_names} names: a bomb")
        return names

    def _leaf(self, path: str, kind: Kind, inode: Inode) -> Item:
        first = self._first_names.setdefault(inode.reference, path)
        if first != path:
            return self._entry(path, Kind.HARDLINK, inode, target=first), ()
        self._bytes += inode.size
        most = self._filesystem.most_bytes
        if self._bytes > most:
            raise LimitError(f"{self._name}: its squashfs unpacks to more than {most} bytes: a bomb")
        entry = self._entry(path, kind, inode, target=os.fsdecode(inode.target))
        return entry, _Data(self._filesystem, inode) if kind is Kind.FILE else ()

    def _entry(self, path: str, kind: Kind, inode: Inode, *, target: str = "") -> Entry:
        if len(os.fsencode(path)) > LIMITS.path_bytes:
            raise LimitError(f"{self._name}: a path of {len(path)} characters; at most {LIMITS.path_bytes} bytes")
        return Entry(
            path,
            kind,
            stat.S_IMODE(inode.mode),
            inode.uid,
            inode.gid,
            inode.mtime,
            inode.size if kind is Kind.FILE else 0,
            target,
            inode.device,
            self._filesystem.xattrs(inode) if kind is not Kind.HARDLINK else NO_XATTRS,
        )


class _Data:
    """The bytes of a file, decompressed when they are asked for."""

    __slots__ = ("_filesystem", "_inode")

    def __init__(self, filesystem: Filesystem, inode: Inode) -> None:
        self._filesystem, self._inode = filesystem, inode

    def __iter__(self) -> Iterator[bytes]:
        return self._filesystem.data(self._inode)

    def at(self, offset: int, size: int) -> bytes:
        return self._filesystem.part(self._inode, offset, size)
