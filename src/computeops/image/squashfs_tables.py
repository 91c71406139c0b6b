"""The metadata of a squashfs that is being written: names, inodes, attributes, owners, and the superblock.

Everything is kept until the data is written, because an inode tells how many names it has; then folders are written
from the last to the first, so that what a folder lists already has its place.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from computeops.errors import BuildError, FormatError
from computeops.image.squashfs_format import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    EXTENDED,
    FIFO,
    FILE,
    FRAGMENT,
    INODE,
    LISTING,
    LISTING_INDEX,
    LONG_DIRECTORY,
    LONG_FILE,
    MAGIC,
    METADATA_BYTES,
    NAME,
    NONE_32,
    NONE_64,
    PREFIXES,
    SHORT_DIRECTORY,
    SHORT_FILE,
    SUPERBLOCK,
    SYMLINK,
    U32,
    UNCOMPRESSED_METADATA,
    XATTR_ID,
    XATTR_KEY,
)
from computeops.image.tree import Entry, Kind

Compress = Callable[[bytes], bytes]
_TYPES = {
    Kind.DIRECTORY: DIRECTORY,
    Kind.FILE: FILE,
    Kind.SYMLINK: SYMLINK,
    Kind.BLOCK: BLOCK,
    Kind.CHARACTER: CHARACTER,
    Kind.FIFO: FIFO,
}
_MOST_IDS = 0xFFFF
_LISTED = 256  # names behind one header of a listing
_NEAR = 0x7FFF  # of inode numbers behind one header
_LISTING_EXTRA = 3  # a folder's size counts `.` and `..`
_HAS_OPTIONS, _DUPLICATES_LEFT_OUT = 0x400, 0x40
_ALIGNMENT = 4096


@dataclass(slots=True)
class Content:
    """Where the data of a file stands."""

    start: int = 0
    blocks: list[int] = field(default_factory=list)
    """Lengths on disk, with the flag of an uncompressed one; 0 is a block of zeros."""
    fragment: int = NONE_32
    offset: int = 0
    sparse: int = 0
    """Bytes in blocks of zeros."""


NO_CONTENT = Content()


@dataclass(slots=True)
class Node:
    """An inode to be written; several names may lead to one."""

    entry: Entry
    number: int
    parent: int
    """Number of the folder that it was first seen in."""
    content: Content = field(default_factory=lambda: NO_CONTENT)
    """Of a file."""
    children: "dict[bytes, Node]" = field(default_factory=dict)
    """Of a folder, in the order of their names."""
    names: int = 1
    place: tuple[int, int] = (-1, 0)
    """Metadata block and byte in it, once it is written."""


class Metadata:
    """A table of metadata: blocks of 8 KiB, each compressed, with its length in front."""

    def __init__(self, compress: Compress) -> None:
        self._compress = compress
        self._waiting = bytearray()
        self.packed = bytearray()
        """The blocks that are complete; all of them after `close`."""
        self.starts: list[int] = []
        """Where each block begins in `packed`."""

    @property
    def place(self) -> tuple[int, int]:
        """Where the next byte will stand: its block, and the byte in it."""
        return len(self.packed), len(self._waiting)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._waiting += data
        while len(self._waiting) >= METADATA_BYTES:
            self._block(bytes(self._waiting[:METADATA_BYTES]))
            del self._waiting[:METADATA_BYTES]

    def close(self) -> None:
        """Complete the last block."""
        if self._waiting:
            self._block(bytes(self._waiting))
            self._waiting.clear()

    def _block(self, plain: bytes) -> None:
        packed = self._compress(plain)
        small = len(packed) < len(plain)
        self.starts.append(len(self.packed))
        self.packed += struct.pack("<H", len(packed) if small else len(plain) | UNCOMPRESSED_METADATA)
        self.packed += packed if small else plain


class Tables:
    """Takes the entries of a tree in order, and gives the bytes that stand behind the data of its squashfs."""

    def __init__(self, compress: Compress) -> None:
        """`compress` packs a metadata block."""
        self._compress = compress
        self._folders: dict[str, Node] = {}
        self._count = 0
        self._ids: dict[int, int] = {}
        self._xattrs: dict[tuple[tuple[str, bytes], ...], int] = {}
        self._inodes, self._listings = Metadata(compress), Metadata(compress)

    def add(self, entry: Entry) -> Node:
        """Return the node of the next entry; of a hard link that of the file.

        Raises:
            FormatError: it is out of order, or a hard link to what has not come before it.
        """
        if not entry.path:
            return self._new(entry, 0)
        above, _, text = entry.path.rpartition("/")
        folder, name = self._folders.get(above), os.fsencode(text)
        if folder is None or (folder.children and next(reversed(folder.children)) >= name):
            raise FormatError(f"/{entry.path} comes out of order")
        if entry.kind is Kind.HARDLINK:
            node = self._find(entry)
            node.names += 1
        else:
            node = self._new(entry, folder.number)
        folder.children[name] = node
        return node

    def _new(self, entry: Entry, parent: int) -> Node:
        self._count += 1
        node = Node(entry, self._count, parent)
        if entry.kind is Kind.DIRECTORY:
            self._folders[entry.path] = node
        return node

    def _find(self, link: Entry) -> Node:
        above, _, name = link.target.rpartition("/")
        found = self._folders[above].children.get(os.fsencode(name)) if above in self._folders else None
        if found is None or found.entry.kind is Kind.DIRECTORY:
            raise FormatError(f"/{link.path}: a hard link to /{link.target}, which does not come before it")
        return found

    # The end

    def finish(self, at: int, fragments: list[tuple[int, int]], header: "Header") -> tuple[bytes, bytes]:
        """Return the superblock, and the tables that stand at byte `at`, padded to 4 KiB.

        `fragments`: place and length on disk of each.

        Raises:
            BuildError: there are more owners than squashfs can hold.
        """
        if "" not in self._folders:
            raise FormatError("a tree without a root")
        for folder in reversed(self._folders.values()):
            self._folder(folder)
        self._inodes.close()
        self._listings.close()
        out = bytearray(self._inodes.packed)
        listings_at = at + len(out)
        out += self._listings.packed
        table = b"".join(FRAGMENT.pack(place, size, 0) for place, size in fragments)
        fragments_at = self._table(out, at, table)
        ids_at = self._table(out, at, b"".join(map(U32.pack, self._ids)))
        xattrs_at = self._xattr_table(out, at)
        used = at + len(out)
        root = self._folders[""].place
        superblock = SUPERBLOCK.pack(
            int.from_bytes(MAGIC, "little"),
            self._count,
            header.mtime,
            header.block_size,
            len(fragments),
            header.compressor,
            header.block_size.bit_length() - 1,
            _HAS_OPTIONS | _DUPLICATES_LEFT_OUT,
            len(self._ids),
            4,
            0,
            root[0] << 16 | root[1],
            used,
            ids_at,
            xattrs_at,
            at,
            listings_at,
            fragments_at,
            NONE_64,  # no table for export by NFS
        )
        return superblock, bytes(out).ljust(-(-used // _ALIGNMENT) * _ALIGNMENT - at, b"\0")

    def _table(self, out: bytearray, at: int, data: bytes) -> int:
        """Append a table and the list of its blocks to `out`, which stands at `at`; return where the list stands."""
        table = Metadata(self._compress)
        table.write(data)
        table.close()
        first = at + len(out)
        out += table.packed
        place = at + len(out)
        out += b"".join(struct.pack("<Q", first + start) for start in table.starts)
        return place

    def _xattr_table(self, out: bytearray, at: int) -> int:
        if not self._xattrs:
            return NONE_64
        pairs, records = Metadata(self._compress), bytearray()
        for attributes in self._xattrs:
            block, offset = pairs.place
            data = b"".join(_xattr(name, value) for name, value in attributes)
            pairs.write(data)
            records += XATTR_ID.pack(block << 16 | offset, len(attributes), len(data))
        pairs.close()
        first = at + len(out)
        out += pairs.packed
        head = len(out)
        listed = bytearray()
        place = self._table(listed, at + head, bytes(records))
        blocks = place - at - head
        out += listed[:blocks] + XATTR_ID.pack(first, len(self._xattrs), 0) + listed[blocks:]
        return at + head + blocks

    # Inodes

    def _folder(self, folder: Node) -> None:
        for child in folder.children.values():
            if child.place[0] < 0:
                self._leaf(child)
        start, offset = self._listings.place
        size, index = self._list(folder)
        subfolders = sum(child.entry.kind is Kind.DIRECTORY for child in folder.children.values())
        links, xattr = 2 + subfolders, self._xattr_of(folder.entry.xattrs)
        parent = folder.parent or self._count + 1
        if size > 0xFFFF or index or xattr != NONE_32:
            body = LONG_DIRECTORY.pack(links, size, start, parent, len(index), offset, xattr) + b"".join(index)
            self._write(folder, DIRECTORY + EXTENDED, body)
        else:
            self._write(folder, DIRECTORY, SHORT_DIRECTORY.pack(start, links, size, offset, parent))

    def _list(self, folder: Node) -> tuple[int, list[bytes]]:
        """Write the listing of a folder; return its size and, of a long one, an index of its later blocks."""
        size, index, last = _LISTING_EXTRA, list[bytes](), self._listings.place[0]
        for run in _runs(folder):
            block = self._listings.place[0]
            name, first = run[0]
            if block != last:
                index.append(LISTING_INDEX.pack(size - _LISTING_EXTRA, block, len(name) - 1) + name)
                last = block
            data = [LISTING.pack(len(run) - 1, first.place[0], first.number)]
            for name, node in run:
                basic = _TYPES[node.entry.kind]
                data.append(NAME.pack(node.place[1], node.number - first.number, basic, len(name) - 1) + name)
            listed = b"".join(data)
            self._listings.write(listed)
            size += len(listed)
        return size, index

    def _leaf(self, node: Node) -> None:
        entry, xattr = node.entry, self._xattr_of(node.entry.xattrs)
        basic, body = _TYPES[entry.kind], U32.pack(node.names)
        if entry.kind is Kind.FILE:
            self._file(node, xattr)
            return
        if entry.kind is Kind.SYMLINK:
            target = os.fsencode(entry.target)
            body += U32.pack(len(target)) + target
        elif basic in {BLOCK, CHARACTER}:
            major, minor = entry.device
            body += U32.pack(major << 8 | minor & 0xFF | (minor & ~0xFF) << 12)
        if xattr == NONE_32:
            self._write(node, basic, body)
        else:
            self._write(node, basic + EXTENDED, body + U32.pack(xattr))

    def _file(self, node: Node, xattr: int) -> None:
        found, size = node.content, node.entry.size
        blocks = struct.pack(f"<{len(found.blocks)}I", *found.blocks)
        if max(size, found.start) > NONE_32 or node.names > 1 or found.sparse or xattr != NONE_32:
            fields = (found.start, size, found.sparse, node.names, found.fragment, found.offset, xattr)
            self._write(node, FILE + EXTENDED, LONG_FILE.pack(*fields) + blocks)
        else:
            self._write(node, FILE, SHORT_FILE.pack(found.start, found.fragment, found.offset, size) + blocks)

    def _write(self, node: Node, kind: int, body: bytes) -> None:
        entry = node.entry
        node.place = self._inodes.place
        owner, group = self._id(entry.uid), self._id(entry.gid)
        self._inodes.write(INODE.pack(kind, entry.mode, owner, group, entry.mtime, node.number) + body)

    def _id(self, number: int) -> int:
        known = self._ids.setdefault(number, len(self._ids))
        if known >= _MOST_IDS:
            raise BuildError(f"more than {_MOST_IDS} user and group ids, which no squashfs can hold")
        return known

    def _xattr_of(self, attributes: Mapping[str, bytes]) -> int:
        if not attributes:
            return NONE_32
        return self._xattrs.setdefault(tuple(sorted(attributes.items())), len(self._xattrs))


@dataclass(frozen=True, slots=True)
class Header:
    """What the superblock says besides where the tables are."""

    mtime: int
    block_size: int
    compressor: int


def _runs(folder: Node) -> Iterator[list[tuple[bytes, Node]]]:
    """Yield the names of a folder in groups that one header of a listing can stand for."""
    run: list[tuple[bytes, Node]] = []
    for name, node in folder.children.items():
        if run:
            first = run[0][1]
            near = abs(node.number - first.number) <= _NEAR
            if len(run) == _LISTED or node.place[0] != first.place[0] or not near:
                yield run
                run = []
        run.append((name, node))
    if run:
        yield run


def _xattr(name: str, value: bytes) -> bytes:
    for kind, prefix in PREFIXES.items():
        if name.startswith(prefix):
            key = os.fsencode(name.removeprefix(prefix))
            return XATTR_KEY.pack(kind, len(key)) + key + U32.pack(len(value)) + value
    raise BuildError(f"an extended attribute {name!r}, which no squashfs can hold")
