"""Packages: rpm's Berkeley DB hash (dbinc/db_page.h of Berkeley DB 5.3), as RHEL 8 and older have it.

Pages of one size. Page 0 describes the file; a hash page has pairs of keys and values, and a large value is a chain of
overflow pages. The key is the number of a package, 0 for rpm's own counter; the value is its header.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from computeops.errors import FormatError

_MAGIC = 0x061561
_META = 8
_HASH_PAGES = {2, 13}  # unsorted (before 4.6) and sorted
_OVERFLOW = 7
_SIZES = {2**bits for bits in range(9, 17)}
_PAGE_HEADER = 26
_IN_PAGE, _OFF_PAGE = 1, 3
_COUNTER = bytes(4)


def blobs(data: bytes, where: str) -> Iterator[bytes]:
    """Yield the header of each package in the order of the pages.

    Raises:
        FormatError: the file is broken; the message names the page.
    """
    pages = _Pages.of(data, where)
    for number in range(1, len(data) // pages.size):
        if pages.kind(number) in _HASH_PAGES:
            for key, value in pages.pairs(number):
                if key != _COUNTER:
                    yield value


@dataclass(frozen=True, slots=True)
class _Pages:
    data: bytes
    where: str
    size: int
    order: str
    """`<` or `>`: as the machine that wrote the file."""
    seen: set[int] = field(default_factory=set)
    """Overflow pages that were read: each belongs to one value, so nobody gets more bytes than the file has."""

    @classmethod
    def of(cls, data: bytes, where: str) -> "_Pages":
        head = data[:72].ljust(72, b"\0")
        order = next((one for one in "<>" if struct.unpack_from(f"{one}I", head, 12)[0] == _MAGIC), "")
        if not order or head[25] != _META:
            raise FormatError(f"/{where} is no hash of Berkeley DB")
        (size,) = struct.unpack_from(f"{order}I", head, 20)
        if size not in _SIZES:
            raise FormatError(f"/{where} has pages of {size} bytes")
        if head[24] or head[26]:
            raise FormatError(f"/{where} is encrypted or has checksums, which rpm never uses")
        if len(data) % size:
            raise FormatError(f"/{where} is cut short: {len(data)} bytes are no whole pages of {size}")
        return cls(data, where, size, order)

    def kind(self, number: int) -> int:
        return self.data[number * self.size + 25]

    def pairs(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each pair on a hash page."""
        page = self.data[number * self.size : (number + 1) * self.size]
        (count,) = struct.unpack_from(f"{self.order}H", page, 20)
        if count % 2 or _PAGE_HEADER + 2 * count > self.size:
            raise self._broken(number, f"{count} items")
        offsets = struct.unpack_from(f"{self.order}{count}H", page, _PAGE_HEADER)
        # Items grow from the end of the page: each ends where the one before it begins.
        items = [
            self._item(page, start, end, number) for start, end in zip(offsets, (self.size, *offsets), strict=False)
        ]
        yield from zip(items[::2], items[1::2], strict=True)

    def _item(self, page: bytes, start: int, end: int, number: int) -> bytes:
        if not _PAGE_HEADER <= start < end:
            raise self._broken(number, f"an item from byte {start} to {end}")
        if page[start] == _IN_PAGE:
            return page[start + 1 : end]
        if page[start] != _OFF_PAGE or end - start < 12:
            raise self._broken(number, f"an item of kind {page[start]}")
        first, length = struct.unpack_from(f"{self.order}II", page, start + 4)
        return self._overflow(first, length)

    def _overflow(self, number: int, length: int) -> bytes:
        parts, left = list[bytes](), length
        while left > 0:
            start = number * self.size
            if number in self.seen or start + self.size > len(self.data) or self.kind(number) != _OVERFLOW:
                raise self._broken(number, "it continues no value")
            self.seen.add(number)
            following, held = struct.unpack_from(f"{self.order}I2xH", self.data, start + 16)
            if not 0 < held <= min(left, self.size - _PAGE_HEADER):
                raise self._broken(number, f"{held} bytes of a value that lacks {left}")
            parts.append(self.data[start + _PAGE_HEADER : start + _PAGE_HEADER + held])
            number, left = following, left - held
        return b"".join(parts)

    def _broken(self, number: int, what: str) -> FormatError:
        return FormatError(f"/{self.where}, page {number}: {what}")
