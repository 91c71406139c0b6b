"""Zip archives, read where the wanted members stand, bounded in every direction (PKWARE's APPNOTE.TXT, 6.3)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from computeops.errors import FormatError
from computeops.limits import KIB, MIB

_END, _CENTRAL, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_END_FORM = struct.Struct("<4s4H2IH")
_CENTRAL_FORM = struct.Struct("<4s6H3I5H2I")
_LOCAL_FORM = struct.Struct("<4s5H3I2H")
_TAIL_BYTES = 64 * KIB + _END_FORM.size
_FIRST_TAIL_BYTES = 1024  # hardly any archive has a comment
_TABLE_BYTES = 16 * MIB
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1


class Readable(Protocol):
    """Bytes that can be read at any place."""

    @property
    def path(self) -> str:
        """What errors call it."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive."""

    name: str
    packed: int
    size: int
    """As the table says; what it unpacks to is compared."""
    method: int
    offset: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Inner:
    """A member that is an archive itself, in memory."""

    path: str
    data: bytes

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.data)

    def at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        return self.data[offset : offset + size]


class Archive:
    """An archive whose end was read. A program may stand before it, to start it."""

    def __init__(self, file: Readable) -> None:
        """Find the table of contents.

        Raises:
            FormatError: it is no zip archive, or its table is larger than 16 MiB.
        """
        self._file = file
        for length in (_FIRST_TAIL_BYTES, _TAIL_BYTES):
            base = max(file.size - length, 0)
            tail = file.at(base, length)
            at = tail.rfind(_END)
            if at >= 0 and at + _END_FORM.size <= len(tail):
                break
        else:
            raise FormatError(f"/{file.path} is no zip archive")
        self._size, said = _END_FORM.unpack_from(tail, at)[5:7]
        if self._size > _TABLE_BYTES or self._size > base + at:
            raise FormatError(f"/{file.path}: a table of contents of {self._size} bytes; at most {_TABLE_BYTES}")
        self._start = base + at - self._size
        # Places count from the beginning of the archive.
        self._shift = self._start - said
        if self._shift < 0:
            raise FormatError(f"/{file.path}: its table of contents is not where it says")

    def members(self) -> Iterator[Member]:
        """Yield every member in the table of contents.

        Raises:
            FormatError: the table is broken.
        """
        table = self._file.at(self._start, self._size)
        at = 0
        while at + _CENTRAL_FORM.size <= len(table) and table.startswith(_CENTRAL, at):
            fields = _CENTRAL_FORM.unpack_from(table, at)
            flags, method, packed, size, name, extra, comment = (*fields[3:5], *fields[8:13])
            at += _CENTRAL_FORM.size
            text = table[at : at + name].decode(errors="replace")
            yield Member(text, packed, size, method, fields[16], bool(flags & _ENCRYPTED))
            at += name + extra + comment
        if at != len(table):
            raise FormatError(f"/{self._file.path}: its table of contents is broken at byte {at} of {len(table)}")

    def content(self, member: Member, limit: int) -> bytes:
        """Return the bytes of `member`.

        Raises:
            FormatError: it is broken, encrypted, compressed in a way that is not read, or has more than `limit` bytes.
        """
        where = f"/{self._file.path}!/{member.name[:200]}"
        if member.encrypted or member.method not in {_STORED, _DEFLATED}:
            raise FormatError(f"{where} is encrypted, or compressed by method {member.method}, which is not read")
        if max(member.size, member.packed) > limit:
            raise FormatError(f"{where} has {member.size} bytes; at most {limit} are read")
        place = member.offset + self._shift
        head = self._file.at(place, _LOCAL_FORM.size)
        if len(head) < _LOCAL_FORM.size or not head.startswith(_LOCAL):
            raise FormatError(f"{where} is not where the table of contents says")
        packed = self._file.at(place + _LOCAL_FORM.size + sum(_LOCAL_FORM.unpack(head)[9:11]), member.packed)
        data, whole = (packed, True) if member.method == _STORED else _inflated(packed, limit, where)
        if not whole or len(data) != member.size:
            raise FormatError(f"{where} does not have the {member.size} bytes that the table of contents says")
        return data


def _inflated(packed: bytes, limit: int, where: str) -> tuple[bytes, bool]:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = engine.decompress(packed, limit + 1)
    except zlib.error as error:
        raise FormatError(f"{where} cannot be decompressed: {error}") from error
    return data, engine.eof
