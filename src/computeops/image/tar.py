"""The normalised layer tar, written; and any tar from outside, read strictly and within bounds.

Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header". What is written is a function of the
entries alone: no user or group names, no access times, PAX records only for what a ustar header cannot hold, two zero
blocks at the end and no padding beyond them.
"""

import functools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from computeops.errors import FormatError, LimitError
from computeops.image.tree import Entry, Item, Kind
from computeops.limits import LIMITS

BLOCK = 512
CHUNK = 1024 * 1024
END = bytes(2 * BLOCK)

_TYPES = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_KINDS = {code: kind for kind, code in _TYPES.items()} | {b"\0": Kind.FILE, b"7": Kind.FILE}
_OCTAL_11, _OCTAL_7 = 8**11, 8**7
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse"
"""Begins the names of several records, of which one is enough to know."""
_BLANKS = 8 * 32  # the checksum counts itself as spaces
_ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb"[0-7]*")
_LENGTH = re.compile(rb"(\d{1,10}) ")
_DECIMAL = re.compile(rb"-?\d{1,20}(\.\d{0,20})?")
_META_BYTES = 2 * LIMITS.xattr_bytes  # a PAX header or GNU long name: attributes and two paths


def write_tar(items: Iterable[Item], write: Callable[[bytes], object]) -> None:
    """Write `items`, in the order they come, as a whole tar.

    Raises:
        FormatError: the data of a file does not have the size its entry says.
    """
    for entry, data in items:
        write(header(entry))
        if entry.kind is Kind.FILE and entry.size:
            _write_data(entry, data, write)
    write(END)


def _write_data(entry: Entry, data: Iterable[bytes], write: Callable[[bytes], object]) -> None:
    written = 0
    for chunk in data:
        written += len(chunk)
        write(chunk)
    if written != entry.size:
        raise FormatError(f"/{entry.path}: {written} bytes of data where {entry.size} were announced")
    if tail := written % BLOCK:
        write(bytes(BLOCK - tail))


def header(entry: Entry) -> bytes:
    """Return the header blocks of `entry`, with a PAX header before it where needed."""
    name = os.fsencode(entry.path or ".")
    if entry.kind is Kind.DIRECTORY:
        name += b"/"
    link = os.fsencode(entry.target) if entry.target else b""
    pax = {_XATTR + os.fsencode(k): v for k, v in entry.xattrs.items()} if entry.xattrs else dict[bytes, bytes]()
    prefix, short = _split(name)
    if short is None or (not name.isascii() and _is_utf8(name)):
        pax[b"path"] = name
    if len(link) > 100 or (not link.isascii() and _is_utf8(link)):
        pax[b"linkpath"] = link
    if not (0 <= entry.size < _OCTAL_11 and 0 <= entry.mtime < _OCTAL_11):
        pax |= {key: b"%d" % n for key, n in ((b"size", entry.size), (b"mtime", entry.mtime)) if not 0 <= n < _OCTAL_11}
    if not (0 <= entry.uid < _OCTAL_7 and 0 <= entry.gid < _OCTAL_7):
        pax |= {key: b"%d" % n for key, n in ((b"uid", entry.uid), (b"gid", entry.gid)) if not 0 <= n < _OCTAL_7}
    blocks = _ustar(entry, prefix, short if short is not None else name[:100], link[:100])
    return _pax(pax, name) + blocks if pax else blocks


def _ustar(entry: Entry, prefix: bytes, name: bytes, link: bytes, kind: bytes = b"") -> bytes:
    fixed = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        entry.mode,
        entry.uid if entry.uid < _OCTAL_7 else 0,
        entry.gid if entry.gid < _OCTAL_7 else 0,
        entry.size if entry.size < _OCTAL_11 else 0,
        entry.mtime if 0 <= entry.mtime < _OCTAL_11 else 0,
    )
    rest = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (
        kind or _TYPES[entry.kind],
        link.ljust(100, b"\0"),
        bytes(64),
        *entry.device,
        prefix.ljust(167, b"\0"),
    )
    checksum = _sum(fixed) + _sum(rest[:255]) + _sum(rest[255:]) + _BLANKS
    return b"%b%06o\0 %b" % (fixed, checksum, rest)


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return ustar's prefix and name, or no name if `name` fits neither."""
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, 156) if len(name) <= 256 else -1
    while cut > 0 and len(name) - cut - 1 <= 100:
        if cut <= 155 and len(name) - cut - 1 > 0:
            return name[:cut], name[cut + 1 :]
        cut = name.rfind(b"/", 0, cut)
    return b"", None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pax(records: Mapping[bytes, bytes], name: bytes) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    entry = Entry("", Kind.FILE, 0o644, size=len(body))
    base = name.rstrip(b"/").rpartition(b"/")[2][:80]
    return _ustar(entry, b"", b"PaxHeaders/" + base, b"", b"x") + body + bytes(-len(body) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d%b" % (length, rest)


class Stream(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


@runtime_checkable
class Skips(Protocol):
    """A stream that can go forward without giving what is there."""

    def skip(self, size: int) -> int:
        """Go `size` bytes forward, or to the end; return how many they were."""
        ...


class _Input:
    """A stream with exact reads."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._skips = stream if isinstance(stream, Skips) else None

    def exactly(self, size: int, what: str) -> bytes:
        data = self._stream.read(size)
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise FormatError(f"tar ends in the middle of {what}")
            data += more
        return data

    def block(self) -> bytes:
        data = self._stream.read(BLOCK)
        return data if len(data) in {0, BLOCK} else data + self.exactly(BLOCK - len(data), "a header")

    def part(self, size: int, what: str) -> bytes:
        chunk = self._stream.read(min(size, CHUNK))
        if not chunk:
            raise FormatError(f"tar ends in the middle of {what}")
        return chunk

    def skip(self, size: int, what: str) -> None:
        if self._skips:
            if self._skips.skip(size) != size:
                raise FormatError(f"tar ends in the middle of {what}")
            return
        while size:
            size -= len(self.part(size, what))


class _Data:
    """The bytes of a file in a tar; what nobody took is skipped."""

    __slots__ = ("_left", "_padding", "_source", "_what")

    def __init__(self, source: _Input, size: int, what: str) -> None:
        self._source, self._left, self._padding, self._what = source, size, -size % BLOCK, what

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            chunk = self._source.part(self._left, self._what)
            self._left -= len(chunk)
            yield chunk

    def end(self) -> None:
        """Go behind it."""
        self._source.skip(self._left + self._padding, self._what)
        self._left = self._padding = 0


def read_tar(stream: Stream) -> Iterator[Item]:
    """Yield the entries of a tar in the order they stand there; `stream` is read forward only.

    Leading `./` and `/` of names are dropped, as every tar program does; names that climb out are refused. Of one name
    the later entry counts, which is the caller's to apply. GNU long names, PAX records and base-256 numbers are
    understood; GNU sparse files are refused.

    Raises:
        FormatError: it is not a tar, ends too early, or is hostile.
        LimitError: it is larger than `computeops.limits` allows.
    """
    source = _Input(stream)
    world: dict[bytes, bytes] = {}
    count = total = 0
    while True:
        extended, block = _extended(source, world)
        if block is None:
            return
        entry = _entry(block, world | extended if world else extended)
        count, total = count + 1, total + entry.size
        if count > LIMITS.entries:
            raise LimitError(f"tar has more than {LIMITS.entries} entries")
        if total > LIMITS.image_bytes:
            raise LimitError(f"tar holds more than {LIMITS.image_bytes} bytes at /{entry.path}")
        if not entry.size:
            yield entry, ()
            continue
        data = _Data(source, entry.size, f"/{entry.path}")
        yield entry, data
        data.end()


def _extended(source: _Input, world: dict[bytes, bytes]) -> tuple[dict[bytes, bytes], bytes | None]:
    """Read up to the next real header; return the records that hold for it, and the header or None at the end."""
    extended: dict[bytes, bytes] = {}
    while True:
        block = source.block()
        if not block or block == _ZEROS:
            if extended:
                raise FormatError("tar ends after an extended header")
            return extended, None
        kind = block[156:157]
        _check(block)
        if kind not in b"xgLK":
            return extended, block
        size = _number(block[124:136], "size")
        if not 0 <= size <= _META_BYTES:
            raise LimitError(f"extended tar header of {size} bytes; at most {_META_BYTES} are read")
        body = source.exactly(size, "an extended header")
        source.skip(-size % BLOCK, "an extended header")
        if kind == b"x":
            extended |= _records(body)
        elif kind == b"g":
            world |= _records(body)
        else:
            extended[b"path" if kind == b"L" else b"linkpath"] = body.rstrip(b"\0")


def _check(block: bytes) -> None:
    wanted = _number(block[148:156], "checksum")
    plain = _sum(block[:148]) + _sum(block[156:256]) + _sum(block[256:]) + _BLANKS
    if wanted != plain:
        raise FormatError(f"not a tar header: checksum {wanted}, computed {plain}")


def _sum(part: bytes) -> int:
    """Return the sum of at most 256 bytes, as Adler-32 has it in its lower half: ten times faster than `sum`."""
    return (zlib.adler32(part) & 0xFFFF) - 1


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # GNU base-256, two's complement
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") - ((field[0] & 0x40) << (8 * len(field) - 7))
    text = field.strip(b" \0").partition(b"\0")[0]
    if not _OCTAL.fullmatch(text):
        raise FormatError(f"tar header with {what} {field!r}, which is no octal number")
    return int(text or b"0", 8)


_repeated = functools.lru_cache(4096)(_number)  # modes, owners and times of a whole layer are few


def _records(body: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body) and body[at]:
        match = _LENGTH.match(body, at)
        end = at + int(match[1]) if match else 0
        if not match or end > len(body) or end <= match.end() or body[end - 1 : end] != b"\n":
            raise FormatError(f"broken PAX record at byte {at} of an extended header")
        key, equals, value = body[match.end() : end - 1].partition(b"=")
        if not equals:
            raise FormatError(f"PAX record without '=': {body[at:end][:80]!r}")
        records[_SPARSE if key.startswith(_SPARSE) else key] = value
        at = end
    return records


def _entry(block: bytes, pax: Mapping[bytes, bytes]) -> Entry:
    if block[156:157] == b"S" or _SPARSE in pax:
        raise FormatError(
            f"/{os.fsdecode(_cstring(block[:100]))}: GNU sparse files are not read",
            hint="write the tar without --sparse",
        )
    kind = _KINDS.get(block[156:157])
    if kind is None:
        raise FormatError(f"tar entry of unknown type {block[156:157]!r}")
    raw = pax.get(b"path") or _name(block)
    if kind is Kind.FILE and raw.endswith(b"/"):
        kind = Kind.DIRECTORY  # as tar before 1988 wrote folders
    path = clean(raw)
    target = pax.get(b"linkpath", _cstring(block[157:257])) if kind in {Kind.SYMLINK, Kind.HARDLINK} else b""
    if len(target) > LIMITS.path_bytes:
        raise LimitError(f"/{path}: link target of {len(target)} bytes; at most {LIMITS.path_bytes}")
    size = _pax_number(pax, b"size", block[124:136]) if kind is Kind.FILE else 0
    if not 0 <= size <= LIMITS.file_bytes:
        raise LimitError(f"/{path}: a file of {size} bytes; at most {LIMITS.file_bytes}")
    device = kind in {Kind.CHARACTER, Kind.BLOCK}
    return Entry(
        path,
        kind,
        _repeated(block[100:108], "mode") & 0o7777,
        _id(pax, b"uid", block[108:116], path),
        _id(pax, b"gid", block[116:124], path),
        _pax_number(pax, b"mtime", block[136:148]),
        size,
        clean(target) if kind is Kind.HARDLINK else _target(target, path),
        _device(block, path) if device else (0, 0),
        _xattrs(pax, path),
    )


def _device(block: bytes, path: str) -> tuple[int, int]:
    major, minor = _number(block[329:337], "device"), _number(block[337:345], "device")
    if not (0 <= major < 2**12 and 0 <= minor < 2**20):  # what Linux and squashfs can hold
        raise FormatError(f"/{path}: a device with the numbers {major} and {minor}")
    return major, minor


def _name(block: bytes) -> bytes:
    name = _cstring(block[:100])
    prefix = _cstring(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _cstring(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _pax_number(pax: Mapping[bytes, bytes], key: bytes, field: bytes) -> int:
    text = pax.get(key)
    if text is None:
        return _repeated(field, key.decode())
    if not _DECIMAL.fullmatch(text):
        raise FormatError(f"PAX {key.decode()} {text[:40]!r} is no number")
    return int(text.split(b".")[0] or 0)


def _id(pax: Mapping[bytes, bytes], key: bytes, field: bytes, path: str) -> int:
    number = _pax_number(pax, key, field)
    if not 0 <= number < 2**32 - 1:
        raise FormatError(f"/{path}: {key.decode()} {number} is not a user or group id")
    return number


def _target(target: bytes, path: str) -> str:
    if b"\0" in target:
        raise FormatError(f"/{path}: a link target with a NUL byte")
    return os.fsdecode(target)


def _xattrs(pax: Mapping[bytes, bytes], path: str) -> dict[str, bytes]:
    found = {os.fsdecode(k[len(_XATTR) :]): v for k, v in pax.items() if k.startswith(_XATTR)}
    if found and sum(len(k) + len(v) for k, v in found.items()) > LIMITS.xattr_bytes:
        raise LimitError(f"/{path}: more than {LIMITS.xattr_bytes} bytes of extended attributes")
    return found


def clean(raw: bytes) -> str:
    """Return the path of an entry, relative and without `.` components.

    Raises:
        FormatError: it climbs out by `..` or holds a NUL byte.
        LimitError: it is too long or too deep.
    """
    if len(raw) > LIMITS.path_bytes:
        raise LimitError(f"a path of {len(raw)} bytes in an archive; at most {LIMITS.path_bytes}")
    if b"\0" in raw:
        raise FormatError(f"a path with a NUL byte in an archive: {raw[:80]!r}")
    parts = [part for part in raw.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise FormatError(f"a path that climbs out of its archive: {raw[:200]!r}")
    if len(parts) > LIMITS.path_depth:
        raise LimitError(f"a path of {len(parts)} components in an archive; at most {LIMITS.path_depth}")
    if len(raw) > LIMITS.name_bytes and any(len(part) > LIMITS.name_bytes for part in parts):
        raise LimitError(f"a name of more than {LIMITS.name_bytes} bytes in an archive: {raw[:80]!r}")
    return os.fsdecode(b"/".join(parts))
