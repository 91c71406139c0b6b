"""Sections of an ELF program, read where they stand and nowhere else (System V gABI, chapters 4 and 5)."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from computeops.check.inventory.content import Content
from computeops.errors import FormatError
from computeops.limits import KIB

MAGIC = b"\x7fELF"
_IDENT = 16
_HEADER_BYTES = 64
_MOST_SECTIONS = 4096
_NAMES_BYTES = 256 * KIB
_LOAD, _WRITABLE, _NO_BITS = 1, 2, 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is loaded into memory."""

    address: int
    offset: int
    size: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the file with a name."""

    offset: int
    size: int
    compressed: bool


class Elf:
    """The tables of a program."""

    def __init__(self, content: Content) -> None:
        """Read the header.

        Raises:
            FormatError: it is no ELF file, or its header is cut short.
        """
        self.content = content
        head = content.at(0, _HEADER_BYTES)
        if head[:4] != MAGIC or len(head) < 52 or head[4] not in {1, 2} or head[5] not in {1, 2}:
            raise FormatError(f"/{content.path} is no ELF program")
        self.order = "<" if head[5] == 1 else ">"
        self.wide = head[4] == 2
        form = struct.Struct(self.order + ("HHIQQQIHHHHHH" if self.wide else "HHIIIIIHHHHHH"))
        if len(head) < _IDENT + form.size:
            raise FormatError(f"/{content.path}: its ELF header is cut short")
        fields = form.unpack_from(head, _IDENT)
        self._segments, self._sections = fields[4], fields[5]
        self._segment_bytes, self._segment_count = fields[8], fields[9]
        self._section_bytes, self._section_count, self._names = fields[10], fields[11], fields[12]

    def sections(self) -> Mapping[str, Section]:
        """Return the sections that have bytes in the file, by name; none where their table was stripped or is broken.

        Raises:
            FormatError: the image is broken there.
        """
        form = struct.Struct(self.order + ("IIQQQQIIQQ" if self.wide else "IIIIIIIIII"))
        count = min(self._section_count, _MOST_SECTIONS)
        if self._section_bytes != form.size or self._names >= count:
            return {}
        table = self.content.at(self._sections, count * form.size)
        rows = [form.unpack_from(table, at) for at in range(0, len(table) - form.size + 1, form.size)]
        if self._names >= len(rows):
            return {}
        _, _, _, _, start, size, *_ = rows[self._names]
        names = self.content.at(start, min(size, _NAMES_BYTES))
        found: dict[str, Section] = {}
        for place, kind, flags, _, offset, length, *_ in rows:
            end = names.find(b"\0", place)
            if kind != _NO_BITS and 0 <= place < end:
                name = names[place:end].decode(errors="replace")
                found.setdefault(name, Section(offset, length, bool(flags & 0x800)))
        return found

    def segments(self) -> list[Segment]:
        """Return the parts that are loaded.

        Raises:
            FormatError: the image is broken there.
        """
        form = struct.Struct(self.order + ("IIQQQQQQ" if self.wide else "IIIIIIII"))
        if self._segment_bytes != form.size:
            return []
        table = self.content.at(self._segments, self._segment_count * form.size)
        found = []
        for at in range(0, len(table) - form.size + 1, form.size):
            row = form.unpack_from(table, at)
            kind, flags = (row[0], row[1]) if self.wide else (row[0], row[6])
            offset, address = (row[2], row[3]) if self.wide else (row[1], row[2])
            if kind == _LOAD:
                found.append(Segment(address, offset, row[5] if self.wide else row[4], bool(flags & _WRITABLE)))
        return found

    def at_address(self, address: int, size: int) -> bytes:
        """Return at most `size` bytes that stand at `address` in memory.

        Raises:
            FormatError: the image is broken there.
        """
        for one in self.segments():
            if one.address <= address < one.address + one.size:
                skipped = address - one.address
                return self.content.at(one.offset + skipped, min(size, one.size - skipped))
        return b""
