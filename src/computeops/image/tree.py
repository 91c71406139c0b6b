"""A root filesystem as a stream of entries: what every form of an image is read as and written from.

A `Tree` yields `(Entry, data)` pairs. `data` yields the bytes of a regular file in chunks and nothing for other kinds;
it must be consumed, or left alone, before the next pair is taken. A tree that is *ordered* yields parents before
children and siblings by the bytes of their names, which is the order of the normalised layer.
"""

import enum
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from computeops.errors import FormatError, LimitError


class Kind(enum.Enum):
    """What an entry is. Sockets never enter an image."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and kinds are looked up for every entry

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a root filesystem."""

    path: str
    """Relative, `/`-separated, without `.`, `..` or empty components; "" is the root. Bytes that are not UTF-8 are
    kept as surrogate escapes."""
    kind: Kind
    mode: int = 0o644
    """Permission bits, 0 to 0o7777."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970, UTC."""
    size: int = 0
    """Bytes of a regular file, else 0."""
    target: str = ""
    """Text of a symbolic link, or the path of the entry that a hard link is another name of."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)

    @property
    def order(self) -> tuple[bytes, ...]:
        """The sort key of an ordered tree."""
        return tuple(os.fsencode(self.path).split(b"/")) if self.path else ()


@runtime_checkable
class Seekable(Protocol):
    """The data of an entry that can be read at any place without what stands before it, while its pair is the last."""

    def at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes that begin at `offset`: fewer only where the file ends."""
        ...


Item = tuple[Entry, Iterable[bytes]]
Descend = Callable[[str], bool]
"""Says of a folder's path whether what is below it is wanted."""


def everywhere(_path: str) -> bool:
    """Want what is below every folder."""
    return True


def below(descend: Descend) -> Callable[[Entry], bool]:
    """Return a function that says of each entry, in order, whether every folder above it is to be descended into."""
    refused: list[str] = []

    def wanted(entry: Entry) -> bool:
        if refused and (entry.path.startswith(refused[0]) or not refused[0]):
            return False
        refused.clear()
        if entry.kind is Kind.DIRECTORY and not descend(entry.path):
            refused.append(f"{entry.path}/" if entry.path else "")
        return True

    return wanted


class Tree(Protocol):
    """A root filesystem that can be read, as often as wanted."""

    ordered: bool
    """Whether `items` comes in the order of the normalised layer."""

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield every entry with its data; raise FormatError or LimitError for hostile content.

        Of a folder that `descend` refuses only the folder itself comes.
        """
        ...


KIND_OF_MODE = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
_CHUNK = 1024 * 1024


class Directory:
    """A folder on disk as an ordered tree; symbolic links in it are never followed, sockets are left out."""

    ordered = True

    def __init__(self, path: Path, *, keep_owners: bool = False) -> None:
        """`keep_owners`: take user and group ids as they are on disk, else everything belongs to root."""
        self._top = path
        self._keep = keep_owners

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield the folder's entries; of several names of one file the first is the file, the others hard links.

        Raises:
            FormatError: a file changed its size while it was read.
        """
        first_names: dict[tuple[int, int], str] = {}
        pending, top = [""], os.fspath(self._top)
        while pending:
            path = pending.pop()
            full = f"{top}/{path}" if path else top
            status = os.lstat(full)
            kind = KIND_OF_MODE.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                continue
            if kind is Kind.DIRECTORY and descend(path):
                names = sorted(os.listdir(full), key=os.fsencode, reverse=True)
                pending.extend(f"{path}/{name}" if path else name for name in names)
            elif kind is not Kind.DIRECTORY and status.st_nlink > 1:
                first = first_names.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    yield self._entry(path, Kind.HARDLINK, status, full, target=first), ()
                    continue
            target = os.readlink(full) if kind is Kind.SYMLINK else ""
            entry = self._entry(path, kind, status, full, target=target)
            yield entry, _Opened(full, entry) if kind is Kind.FILE else ()

    def _entry(self, path: str, kind: Kind, status: os.stat_result, full: str, *, target: str) -> Entry:
        device = kind in {Kind.CHARACTER, Kind.BLOCK}
        return Entry(
            path,
            kind,
            stat.S_IMODE(status.st_mode) if kind is not Kind.SYMLINK else 0o777,
            status.st_uid if self._keep else 0,
            status.st_gid if self._keep else 0,
            int(status.st_mtime),
            status.st_size if kind is Kind.FILE else 0,
            target,
            (os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
            _xattrs(full) if kind in {Kind.FILE, Kind.DIRECTORY} else NO_XATTRS,
        )


def _xattrs(full: str) -> Mapping[str, bytes]:
    names = [name for name in os.listxattr(full, follow_symlinks=False) if _belongs(name)]
    return {name: os.getxattr(full, name, follow_symlinks=False) for name in names} if names else NO_XATTRS


class _Opened:
    """The bytes of a file on disk, which is opened when they are asked for."""

    __slots__ = ("_entry", "_full")

    def __init__(self, full: str, entry: Entry) -> None:
        self._full, self._entry = full, entry

    def _open(self) -> int:
        return os.open(self._full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __iter__(self) -> Iterator[bytes]:
        left = self._entry.size
        file = self._open()
        try:
            while left:
                chunk = os.read(file, min(left, _CHUNK))
                if not chunk:
                    raise FormatError(f"{self._full} became shorter while it was read")
                left -= len(chunk)
                yield chunk
        finally:
            os.close(file)

    def at(self, offset: int, size: int) -> bytes:
        with open(self._open(), "rb", buffering=0) as file:
            return os.pread(file.fileno(), min(size, max(self._entry.size - offset, 0)), offset)


def normalised(tree: Tree, epoch: int, extra: Iterable[Item] = (), *, fill: bool = False) -> Iterator[Item]:
    """Yield `tree` with every time set to `epoch` and `extra` laid over it, in the order of the normalised layer.

    An extra entry replaces a file or link of the same name; with `fill` it only takes a place that is free. A folder
    that is there, or a link in its place, always stays; an extra entry below what is no folder is left out.

    Raises:
        FormatError: `tree` is not ordered.
    """
    if not tree.ordered:
        raise FormatError("only an ordered tree can be normalised")
    added = sorted(extra, key=lambda item: item[0].order)
    orders = [entry.order for entry, _ in added]
    parents = {entry.path.rpartition("/")[0] for entry, _ in added}
    at = 0
    for entry, data in tree.items():
        if at < len(added):
            order = entry.order
            while at < len(added) and orders[at] < order:
                yield normal(added[at][0], epoch), added[at][1]
                at += 1
        if at < len(added) and added[at][0].path == entry.path:
            over, at = added[at], at + 1
            if not fill and Kind.DIRECTORY not in {over[0].kind, entry.kind}:
                yield normal(over[0], epoch), over[1]
                continue
        if entry.path in parents and entry.kind is not Kind.DIRECTORY:
            added = [*added[:at], *(one for one in added[at:] if not one[0].path.startswith(f"{entry.path}/"))]
            orders = [one.order for one, _ in added]
        yield normal(entry, epoch), data
    for entry, data in added[at:]:
        yield normal(entry, epoch), data


def normal(entry: Entry, epoch: int) -> Entry:
    """Return `entry` without what differs between the forms of an image or belongs to the host that had it.

    The root is always the same: programs differ in what they take from its entry in a tar.
    """
    if not entry.path:
        return Entry("", Kind.DIRECTORY, 0o755, mtime=epoch)
    kept = entry.xattrs
    if entry.kind not in {Kind.FILE, Kind.DIRECTORY}:
        kept = NO_XATTRS
    elif kept and not all(map(_belongs, kept)):
        kept = {name: value for name, value in kept.items() if _belongs(name)}
    return Entry(
        entry.path,
        entry.kind,
        0o777 if entry.kind is Kind.SYMLINK else entry.mode,
        entry.uid,
        entry.gid,
        epoch,
        entry.size,
        entry.target,
        entry.device if entry.kind in {Kind.CHARACTER, Kind.BLOCK} else (0, 0),
        kept,
    )


def _belongs(attribute: str) -> bool:
    """Whether an attribute belongs to an image: the file's own and its capabilities, no label of the host."""
    return attribute.startswith("user.") or attribute == "security.capability"


def read_files(
    tree: Tree, wanted: Callable[[str], bool], limit_bytes: int, descend: Descend = everywhere
) -> dict[str, bytes]:
    """Return path and content of the files in `tree` whose path is `wanted`; hard links to such a file count too.

    `descend`: leaves out whole folders, which a squashfs or a folder on disk then does not even list.

    Raises:
        LimitError: one of them is larger than `limit_bytes`.
    """
    found: dict[str, bytes] = {}
    for entry, data in tree.items(descend):
        if entry.kind is Kind.HARDLINK and wanted(entry.path) and entry.target in found:
            found[entry.path] = found[entry.target]
        if entry.kind is not Kind.FILE or not wanted(entry.path):
            continue
        if entry.size > limit_bytes:
            raise LimitError(f"/{entry.path} has {entry.size} bytes; at most {limit_bytes} are read")
        found[entry.path] = b"".join(data)
    return found
