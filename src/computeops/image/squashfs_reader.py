"""Squashfs 4.0, read strictly: superblock, tables, inodes, folders, attributes and data, at any offset of a file.

A reference to an inode is the place of its metadata block in the inode table (shifted by 16) and the byte in that
block. Every length is checked before memory is taken for it; nothing is believed because a table before it was well
formed.
"""

import itertools
import lzma
import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from isal import igzip_lib

from computeops.errors import FormatError, LimitError
from computeops.image.layer import BROKEN
from computeops.image.squashfs_format import (
    BLOCK,
    CHARACTER,
    COMPRESSORS,
    DIRECTORY,
    EXTENDED,
    FILE,
    FRAGMENT,
    INODE,
    LISTING,
    LONG_DIRECTORY,
    LONG_FILE,
    MAGIC,
    METADATA_BYTES,
    MODES,
    NAME,
    NONE_32,
    NONE_64,
    PREFIXES,
    SHORT_DIRECTORY,
    SHORT_FILE,
    SUPERBLOCK,
    SYMLINK,
    U32,
    UNCOMPRESSED_DATA,
    UNCOMPRESSED_METADATA,
    XATTR_ID,
    XATTR_KEY,
)
from computeops.limits import LIMITS, MIB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAX_NAME = 256
_BROKEN: tuple[type[Exception], ...] = (*BROKEN, lzma.LZMAError)
_METADATA_CACHED = 1024  # blocks of 8 KiB
_CACHED_BYTES = 16 * MIB  # of fragments
_FREE_BYTES = 64 * MIB
_FREE_NAMES = 4096
_XZ_MEMORY = 64 * MIB  # dictionaries in a squashfs have at most a block
_ZSTD_WINDOW = 23  # 8 MiB


@dataclass(frozen=True, slots=True)
class Inode:
    """What an inode says; fields that its kind does not have are 0 or empty."""

    reference: int
    """Where it stands: two names with one reference are hard links."""
    mode: int
    """Type and permission bits, as in `stat`."""
    uid: int
    gid: int
    mtime: int
    size: int = 0
    """Bytes of a file, or of a folder's listing and 3 more."""
    start: int = 0
    """First data block of a file, or metadata block of a folder's listing."""
    offset: int = 0
    """Byte of a file's tail in its fragment, or of a folder's listing in its metadata block."""
    fragment: int = NONE_32
    blocks: tuple[int, ...] = ()
    """Lengths of a file's data blocks on disk, with the flag of an uncompressed one."""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattr: int = NONE_32


class Filesystem:
    """An open squashfs. Not for several threads at once.

    `most_bytes` and `most_names` are what a filesystem of its size may unpack to: beyond them it is a bomb.
    """

    def __init__(self, file: BinaryIO, offset: int, length: int, name: str) -> None:
        """Read the superblock and the table of ids of the squashfs in `length` bytes at `offset` of `file`.

        Raises:
            FormatError: it is no squashfs 4.0, is cut short, or is compressed by what we cannot read.
        """
        self._file, self._offset, self._name = file, offset, name
        raw = self._pread(0, min(SUPERBLOCK.size, length), "the superblock")
        if len(raw) < SUPERBLOCK.size or raw[:4] != MAGIC:
            raise self._broken("no squashfs magic")
        fields = SUPERBLOCK.unpack(raw)
        self.inodes, self.mtime, self.block_size, self._fragments = fields[1:5]
        compressor, log, _, ids, major, minor = fields[5:11]
        self.root, self.bytes_used, id_table, xattr_table, self._inode_table, self._directory_table = fields[11:17]
        fragment_table = fields[17]
        if (major, minor) != (4, 0):
            raise self._broken(f"squashfs {major}.{minor}; only 4.0 is read")
        if not 12 <= log <= 20 or self.block_size != 1 << log:
            raise self._broken(f"blocks of {self.block_size} bytes")
        if not SUPERBLOCK.size <= self.bytes_used <= length:
            raise self._broken(f"{self.bytes_used} bytes in a place of {length} bytes")
        self.compressor = COMPRESSORS.get(compressor, f"number {compressor}")
        self.most_bytes = min(_FREE_BYTES + self.bytes_used * LIMITS.inflate_ratio, LIMITS.image_bytes)
        self.most_names = min(_FREE_NAMES + self.bytes_used, LIMITS.entries)
        self._inflate = self._decompressor()
        self._metadata: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._tails: OrderedDict[int, bytes] = OrderedDict()
        self._ids = struct.unpack(f"<{ids}I", b"".join(self._table(id_table, 4 * ids, "ids")))
        self._fragment_blocks = self._pointers(fragment_table, 16 * self._fragments, "fragments")
        self._open_xattrs(xattr_table)

    @classmethod
    def open(cls, path: Path, offset: int = 0, length: int | None = None) -> Self:
        """Open the squashfs at byte `offset` of `path`; close it with `close`.

        Raises:
            FormatError: as the constructor.
        """
        file = path.open("rb", buffering=0)
        try:
            size = os.fstat(file.fileno()).st_size - offset
            return cls(file, offset, min(size, length) if length is not None else size, str(path))
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _broken(self, what: str) -> FormatError:
        return FormatError(f"{self._name}: broken squashfs: {what}")

    def _pread(self, at: int, size: int, what: str) -> bytes:
        # an offset beyond what the system call takes is beyond every file
        data = os.pread(self._file.fileno(), size, self._offset + at) if self._offset + at < 2**63 else b""
        if len(data) != size:
            raise self._broken(f"it ends in the middle of {what}")
        return data

    # Compression

    def _decompressor(self) -> Callable[[bytes, int], tuple[bytes, bool]]:
        """Return a function of packed bytes and a limit; it returns at most limit bytes, and whether that is all."""
        engines = {"gzip": _gunzip, "zstd": _unzstd, "xz": _unxz, "lzma": _unlzma}
        if self.compressor not in engines:
            raise FormatError(
                f"{self._name}: its squashfs is compressed by {self.compressor}, which is not read",
                hint=f"known are {', '.join(engines)}; convert it with: unsquashfs, then mksquashfs -comp zstd",
            )
        return engines[self.compressor]

    def _unpack(self, packed: bytes, limit: int, what: str) -> bytes:
        try:
            data, whole = self._inflate(packed, limit)
        except _BROKEN as error:
            raise self._broken(f"{what} cannot be decompressed: {error}") from error
        if not whole:
            raise self._broken(f"{what} unpacks to more than {limit} bytes, or ends too early")
        return data

    # Metadata: blocks of 8 KiB, each with its length on disk in front

    def _block(self, at: int, what: str) -> tuple[bytes, int]:
        """Return the content of the metadata block at byte `at`, and where the next one stands."""
        found = self._metadata.get(at)
        if found is not None:
            return found
        if at + 2 > self.bytes_used:
            raise self._broken(f"{what} leave the filesystem")
        (header,) = struct.unpack("<H", self._pread(at, 2, what))
        size = header & ~UNCOMPRESSED_METADATA
        if not 0 < size <= METADATA_BYTES or at + 2 + size > self.bytes_used:
            raise self._broken(f"{what} have a metadata block of {size} bytes")
        data = self._pread(at + 2, size, what)
        if not header & UNCOMPRESSED_METADATA:
            data = self._unpack(data, METADATA_BYTES, what)
        self._metadata[at] = found = (data, at + 2 + size)
        if len(self._metadata) > _METADATA_CACHED:
            self._metadata.popitem(last=False)
        return found

    def _stream(self, at: int, offset: int, what: str) -> "_Cursor":
        return _Cursor(self, at, offset, what)

    def _pointers(self, at: int, size: int, what: str) -> tuple[int, ...]:
        """Return the places of the metadata blocks of a table with `size` bytes, whose list stands at `at`."""
        count = -(-size // METADATA_BYTES)
        if count and at + 8 * count > self.bytes_used:
            raise self._broken(f"the table of {what} leaves the filesystem")
        return struct.unpack(f"<{count}Q", self._pread(at, 8 * count, what)) if count else ()

    def _table(self, at: int, size: int, what: str) -> Iterator[bytes]:
        for number, place in enumerate(self._pointers(at, size, what)):
            wanted = min(size - number * METADATA_BYTES, METADATA_BYTES)
            data, _ = self._block(place, what)
            if len(data) < wanted:
                raise self._broken(f"the table of {what} is too short")
            yield data[:wanted]

    def _record(self, pointers: tuple[int, ...], number: int, form: struct.Struct, what: str) -> tuple[Any, ...]:
        """Return one record of a table whose metadata blocks stand at `pointers`."""
        block, at = divmod(number * form.size, METADATA_BYTES)
        data = self._block(pointers[block], what)[0] if block < len(pointers) else b""
        if len(data) < at + form.size:
            raise self._broken(f"there is no number {number} in the table of {what}")
        return form.unpack_from(data, at)

    # Inodes

    def inode(self, reference: int) -> Inode:
        """Return the inode at `reference`.

        Raises:
            FormatError, LimitError: it is broken or hostile.
        """
        at = self._inode_table + (reference >> 16)
        if at >= self._directory_table:
            raise self._broken(f"an inode at {at}, outside the table of inodes")
        source = self._stream(at, reference & 0xFFFF, "the inodes")
        kind, mode, uid, gid, mtime, _ = source.take(INODE)
        basic = kind - EXTENDED if kind > EXTENDED else kind
        if basic not in MODES or uid >= len(self._ids) or gid >= len(self._ids):
            raise self._broken(f"an inode of type {kind}, owner {uid} and group {gid}")
        common = (reference, MODES[basic] | mode & 0o7777, self._ids[uid], self._ids[gid], mtime)
        extended = kind > EXTENDED
        if basic == DIRECTORY:
            return _directory(common, source, extended=extended)
        if basic == FILE:
            return self._regular(common, source, extended=extended)
        return self._special(common, source, basic, extended=extended)

    def _regular(self, common: tuple[int, int, int, int, int], source: "_Cursor", *, extended: bool) -> Inode:
        xattr = NONE_32
        if extended:
            start, size, _, _, fragment, offset, xattr = source.take(LONG_FILE)
        else:
            start, fragment, offset, size = source.take(SHORT_FILE)
        if size > min(LIMITS.file_bytes, self.most_bytes):
            raise LimitError(f"{self._name}: a file of {size} bytes in a squashfs of {self.bytes_used} bytes: a bomb")
        tail = size % self.block_size
        if fragment != NONE_32 and (not tail or fragment >= self._fragments):
            raise self._broken(f"a file of {size} bytes has its tail in fragment {fragment} of {self._fragments}")
        count = size // self.block_size + (1 if tail and fragment == NONE_32 else 0)
        blocks = struct.unpack(f"<{count}I", source.read(4 * count))
        return Inode(*common, size, start, offset, fragment, blocks, xattr=xattr)

    def _special(
        self, common: tuple[int, int, int, int, int], source: "_Cursor", basic: int, *, extended: bool
    ) -> Inode:
        source.read(4)  # number of links
        target, device = b"", (0, 0)
        if basic == SYMLINK:
            (size,) = source.take(U32)
            if size > LIMITS.path_bytes:
                raise LimitError(f"{self._name}: a symbolic link of {size} bytes; at most {LIMITS.path_bytes}")
            target = source.read(size)
            if not target or b"\0" in target:
                raise self._broken(f"a symbolic link to {target[:80]!r}")
        elif basic in {BLOCK, CHARACTER}:
            (number,) = source.take(U32)
            device = ((number & 0xFFF00) >> 8, (number & 0xFF) | (number >> 12 & 0xFFF00))
        (xattr,) = source.take(U32) if extended else (NONE_32,)
        return Inode(*common, target=target, device=device, xattr=xattr)

    # Folders

    def names(self, folder: Inode) -> list[tuple[bytes, int]]:
        """Return name and inode reference of what is in `folder`, sorted by name.

        Raises:
            FormatError: a name is hostile or there twice; LimitError: there are too many.
        """
        found: list[tuple[bytes, int]] = []
        left = folder.size - 3
        if left <= 0:
            return found
        source = self._stream(self._directory_table + folder.start, folder.offset, "the folders")
        while left > 0:
            count, block, _ = source.take(LISTING)
            left -= LISTING.size
            if count >= _MAX_NAME:
                raise self._broken(f"a folder listing of {count + 1} names in a row")
            for _ in range(count + 1):
                offset, _, _, length = source.take(NAME)
                name = source.read(length + 1)
                left -= NAME.size + len(name)
                found.append((self._checked(name), block << 16 | offset))
            if len(found) > self.most_names:
                raise LimitError(f"{self._name}: more than {self.most_names} names in a folder: a bomb")
        if left < 0:
            raise self._broken("a folder listing is longer than its folder")
        found.sort()
        for (one, _), (other, _) in itertools.pairwise(found):
            if one == other:
                raise self._broken(f"a folder has the name {one[:80]!r} twice")
        return found

    def _checked(self, name: bytes) -> bytes:
        if name in {b".", b".."} or b"/" in name or b"\0" in name or len(name) > _MAX_NAME:
            raise self._broken(f"a file called {name[:80]!r}")
        return name

    # Extended attributes

    def _open_xattrs(self, at: int) -> None:
        self._xattr_ids: tuple[int, ...] = ()
        self._xattr_start = self._xattr_count = 0
        if at == NONE_64:
            return
        if at + 16 > self.bytes_used:
            raise self._broken("the table of attributes leaves the filesystem")
        self._xattr_start, self._xattr_count, _ = struct.unpack("<QII", self._pread(at, 16, "the attributes"))
        self._xattr_ids = self._pointers(at + 16, 16 * self._xattr_count, "attributes")

    def xattrs(self, inode: Inode) -> Mapping[str, bytes]:
        """Return the extended attributes of `inode`.

        Raises:
            FormatError, LimitError: they are broken or too large.
        """
        if inode.xattr == NONE_32:
            return {}
        if inode.xattr >= self._xattr_count:
            raise self._broken(f"attributes number {inode.xattr} of {self._xattr_count}")
        place, count, size = self._record(self._xattr_ids, inode.xattr, XATTR_ID, "attributes")
        if size > LIMITS.xattr_bytes or count > size:
            raise LimitError(f"{self._name}: {count} attributes of {size} bytes; at most {LIMITS.xattr_bytes} bytes")
        source = self._stream(self._xattr_start + (place >> 16), place & 0xFFFF, "the attributes")
        found: dict[str, bytes] = {}
        total = 0
        for _ in range(count):
            kind, length = source.take(XATTR_KEY)
            key = source.read(length)
            if kind & 0xFF not in PREFIXES or b"\0" in key:
                raise self._broken(f"an attribute {key[:80]!r} of type {kind}")
            value = self._value(source, elsewhere=bool(kind & 0x100))
            total += len(value) + len(key)
            if total > LIMITS.xattr_bytes:
                raise LimitError(f"{self._name}: attributes of more than {LIMITS.xattr_bytes} bytes")
            found[PREFIXES[kind & 0xFF] + os.fsdecode(key)] = value
        return found

    def _value(self, source: "_Cursor", *, elsewhere: bool) -> bytes:
        (size,) = source.take(U32)
        if elsewhere:
            (place,) = struct.unpack("<Q", source.read(8))
            source = self._stream(self._xattr_start + (place >> 16), place & 0xFFFF, "the attributes")
            (size,) = source.take(U32)
        if size > LIMITS.xattr_bytes:
            raise LimitError(f"{self._name}: an attribute of {size} bytes; at most {LIMITS.xattr_bytes}")
        return source.read(size)

    # Data

    def data(self, inode: Inode) -> Iterator[bytes]:
        """Yield the bytes of a file in chunks of at most a block.

        Raises:
            FormatError: a block is broken.
        """
        at, left = inode.start, inode.size
        for packed in inode.blocks:
            wanted = min(left, self.block_size)
            size = packed & ~UNCOMPRESSED_DATA
            yield self._data_block(at, size, wanted, plain=bool(packed & UNCOMPRESSED_DATA)) if size else bytes(wanted)
            at += size
            left -= wanted
        if left:
            tail = self._tail(inode.fragment)[inode.offset : inode.offset + left]
            if len(tail) != left:
                raise self._broken("a file's tail leaves its fragment")
            yield tail

    def part(self, inode: Inode, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of a file from `offset` on: only the blocks that hold them are decompressed.

        Raises:
            FormatError: a block is broken.
        """
        end = min(offset + size, inode.size)
        if offset >= end:
            return b""
        first, last = offset // self.block_size, (end - 1) // self.block_size
        at = inode.start + sum(packed & ~UNCOMPRESSED_DATA for packed in inode.blocks[:first])
        parts: list[bytes] = []
        for number in range(first, last + 1):
            place = number * self.block_size
            wanted = min(inode.size - place, self.block_size)
            if number < len(inode.blocks):
                packed = inode.blocks[number]
                parts.append(self._beginning(at, packed, wanted, min(end - place, wanted)))
                at += packed & ~UNCOMPRESSED_DATA
            else:
                parts.append(self._tail(inode.fragment)[inode.offset : inode.offset + wanted])
        found = b"".join(parts)[offset - first * self.block_size :][: end - offset]
        if len(found) != end - offset:
            raise self._broken("a file's tail leaves its fragment")
        return found

    def _beginning(self, at: int, packed: int, wanted: int, needed: int) -> bytes:
        """Return the first `needed` bytes, or more, of a data block that has `wanted`."""
        size, plain = packed & ~UNCOMPRESSED_DATA, bool(packed & UNCOMPRESSED_DATA)
        if not size:
            return bytes(needed)
        if plain or needed > wanted // 2 or size > self.block_size or at + size > self.bytes_used:
            return self._data_block(at, size, wanted, plain=plain)
        try:
            data, _ = self._inflate(self._pread(at, size, "a data block"), needed)
        except _BROKEN as error:
            raise self._broken(f"a data block cannot be decompressed: {error}") from error
        return data

    def _data_block(self, at: int, size: int, wanted: int, *, plain: bool) -> bytes:
        if size > self.block_size or at + size > self.bytes_used:
            raise self._broken(f"a data block of {size} bytes at {at}")
        data = self._pread(at, size, "a data block")
        if not plain:
            data = self._unpack(data, self.block_size, "a data block")
        if len(data) != wanted:
            raise self._broken(f"a data block has {len(data)} bytes, not {wanted}")
        return data

    def _tail(self, number: int) -> bytes:
        found = self._tails.get(number)
        if found is not None:
            self._tails.move_to_end(number)
            return found
        start, packed, _ = self._record(self._fragment_blocks, number, FRAGMENT, "fragments")
        size = packed & ~UNCOMPRESSED_DATA
        if not 0 < size <= self.block_size or start + size > self.bytes_used:
            raise self._broken(f"a fragment of {size} bytes at {start}")
        found = self._pread(start, size, "a fragment")
        if not packed & UNCOMPRESSED_DATA:
            found = self._unpack(found, self.block_size, "a fragment")
        self._tails[number] = found
        if len(self._tails) * self.block_size > _CACHED_BYTES:
            self._tails.popitem(last=False)
        return found


def _directory(common: tuple[int, int, int, int, int], source: "_Cursor", *, extended: bool) -> Inode:
    if extended:
        _, size, start, _, _, offset, xattr = source.take(LONG_DIRECTORY)
        return Inode(*common, size, start, offset, xattr=xattr)
    start, _, size, offset, _ = source.take(SHORT_DIRECTORY)
    return Inode(*common, size, start, offset)


class _Cursor:
    """Reads on through the metadata blocks that follow each other."""

    __slots__ = ("_at", "_data", "_fs", "_next", "_what")

    def __init__(self, fs: Filesystem, block: int, offset: int, what: str) -> None:
        self._fs, self._at, self._what = fs, offset, what
        self._data, self._next = fs._block(block, what)  # noqa: SLF001  one class in two parts
        if offset > len(self._data):
            raise fs._broken(f"{what} begin at byte {offset} of a block of {len(self._data)}")  # noqa: SLF001

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        end = self._at + form.size
        if end <= len(self._data):
            at, self._at = self._at, end
            return form.unpack_from(self._data, at)
        return form.unpack(self.read(form.size))

    def read(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._data):
            at, self._at = self._at, end
            return self._data[at:end]
        parts, left = [self._data[self._at :]], end - len(self._data)
        while left > 0:
            self._data, self._next = self._fs._block(self._next, self._what)  # noqa: SLF001
            parts.append(self._data[:left])
            self._at = len(parts[-1])
            left -= self._at
            if not self._data:
                raise self._fs._broken(f"{self._what} hold an empty block")  # noqa: SLF001
        return b"".join(parts)


def _gunzip(packed: bytes, limit: int) -> tuple[bytes, bool]:
    engine = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
    data = engine.decompress(packed, limit + 1)
    return data, engine.eof and len(data) <= limit


def _unzstd(packed: bytes, limit: int) -> tuple[bytes, bool]:
    engine = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})
    data = engine.decompress(packed, limit + 1)
    return data, engine.eof and len(data) <= limit


def _unxz(packed: bytes, limit: int) -> tuple[bytes, bool]:
    engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    data = engine.decompress(packed, limit + 1)
    return data, engine.eof and len(data) <= limit


def _unlzma(packed: bytes, limit: int) -> tuple[bytes, bool]:
    engine = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY)
    data = engine.decompress(packed, limit + 1)
    return data, engine.eof and len(data) <= limit
