"""The header of one rpm package (https://rpm-software-management.github.io/rpm/manual/format_header.html).

Two numbers, entries and bytes of data; the index, 16 bytes for each entry; the data. In a database it stands without
the magic that it has in a .rpm file. Every number is big-endian.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from computeops.errors import FormatError

NAME, VERSION, RELEASE, EPOCH = 1000, 1001, 1002, 1003
LICENSE, ARCH, SOURCE = 1014, 1022, 1044
DIRINDEXES, BASENAMES, DIRNAMES = 1116, 1117, 1118
MODULE = 5096

_ENTRY = struct.Struct(">IIII")
_START = 8
_MOST_ENTRIES = 0xFFFF
_MOST_VALUES = 1 << 20
_INT32 = 4
_STRINGS = {6, 8, 9}  # one text, an array of them, one in several languages


@dataclass(frozen=True, slots=True)
class Header:
    """One header, read within its bounds."""

    where: str
    """For messages: database and number of the package."""
    blob: bytes
    data: int
    """Where the data begins in `blob`."""
    index: Mapping[int, tuple[int, int, int]]
    """Tag to type, offset in the data and count."""

    @classmethod
    def parse(cls, blob: bytes, where: str) -> Self:
        """Read the index of a header.

        Raises:
            FormatError: it is longer than `blob`.
        """
        count, size = int.from_bytes(blob[:4], "big"), int.from_bytes(blob[4:_START], "big")
        data = _START + _ENTRY.size * count
        if len(blob) < _START or count > _MOST_ENTRIES or data + size > len(blob):
            raise FormatError(f"{where}: the header has {len(blob)} bytes, not as many as it says")
        index: dict[int, tuple[int, int, int]] = {}
        for tag, kind, offset, many in _ENTRY.iter_unpack(blob[_START:data]):
            index.setdefault(tag, (kind, offset, many))
        return cls(where, blob, data, index)

    def text(self, tag: int) -> str:
        """Return the first text of `tag`, "" without one."""
        return next(iter(self.texts(tag, 1)), "")

    def texts(self, tag: int, most: int = _MOST_VALUES) -> list[str]:
        """Return the texts of `tag`, at most `most`; bytes that are not UTF-8 as surrogate escapes.

        Raises:
            FormatError: they end after the header.
        """
        kind, offset, count = self._find(tag)
        at, found = self.data + offset, list[str]()
        for _ in range(min(count, most) if kind in _STRINGS else 0):
            end = self.blob.find(b"\0", at)
            if end < 0:
                raise FormatError(f"{self.where}: tag {tag} ends after the header")
            found.append(self.blob[at:end].decode(errors="surrogateescape"))
            at = end + 1
        return found

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the 32-bit numbers of `tag`.

        Raises:
            FormatError: they end after the header.
        """
        kind, offset, count = self._find(tag)
        if kind != _INT32:
            return ()
        start = self.data + offset
        if start + 4 * count > len(self.blob):
            raise FormatError(f"{self.where}: tag {tag} ends after the header")
        return struct.unpack_from(f">{count}I", self.blob, start)

    def _find(self, tag: int) -> tuple[int, int, int]:
        kind, offset, count = self.index.get(tag, (0, 0, 0))
        if count > _MOST_VALUES:
            raise FormatError(f"{self.where}: tag {tag} has {count} values")
        return kind, offset, count
