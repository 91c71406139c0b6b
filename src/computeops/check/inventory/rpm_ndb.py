"""Packages.db: rpm's own format `ndb` (lib/backend/ndb/rpmpkg.c of rpm).

A header of 32 bytes; pages of slots of 16 bytes, each the place of one blob; the blobs, each between a head with its
number and length and a tail with its Adler-32 checksum. Every number is little-endian, every place a block of 16 bytes.
"""

import struct
import zlib
from collections.abc import Iterator

from computeops.errors import FormatError

_HEADER = struct.Struct("<4sIII")  # magic, version, generation, pages of slots
_SLOT = struct.Struct("<4sIII")  # magic, number of the package, first block, blocks
_HEAD = struct.Struct("<4sIII")  # magic, number of the package, time, bytes
_TAIL = struct.Struct("<II4s")  # checksum, bytes, magic
_BLOCK = 16
_PAGE = 4096
_FIRST_SLOT = 32


def blobs(data: bytes, where: str) -> Iterator[bytes]:
    """Yield the header of each package in the order of its number.

    Raises:
        FormatError: the file is broken; the message names the place.
    """
    magic, version, _, pages = _HEADER.unpack_from(data.ljust(_HEADER.size, b"\0"))
    if magic != b"RpmP" or version != 0:
        raise FormatError(f"/{where} is no package database of rpm (ndb, version 0)")
    if pages * _PAGE > len(data):
        raise FormatError(f"/{where} is cut short: {pages} pages of slots in {len(data)} bytes")
    slots = sorted(_slots(data, pages, where))
    if len({number for number, _, _ in slots}) != len(slots):
        raise FormatError(f"/{where} has two packages of one number")
    end = 0
    for _, first, count in sorted(slots, key=lambda slot: slot[1]):
        if first < end:  # else one large blob in a million slots would be a million packages
            raise FormatError(f"/{where}, byte {first * _BLOCK}: two packages overlap")
        end = first + count
    for number, first, count in slots:
        yield _blob(data[first * _BLOCK : (first + count) * _BLOCK], number, f"/{where}, byte {first * _BLOCK}")


def _slots(data: bytes, pages: int, where: str) -> Iterator[tuple[int, int, int]]:
    for at in range(_FIRST_SLOT, pages * _PAGE, _SLOT.size):
        magic, number, first, count = _SLOT.unpack_from(data, at)
        if magic != b"Slot":
            raise FormatError(f"/{where}, byte {at}: no slot")
        if first:
            if not number or first * _BLOCK < pages * _PAGE or (first + count) * _BLOCK > len(data):
                raise FormatError(f"/{where}, byte {at}: a slot outside of the file")
            yield number, first, count


def _blob(data: bytes, number: int, where: str) -> bytes:
    if len(data) < _HEAD.size + _TAIL.size:
        raise FormatError(f"{where}: a package of {len(data)} bytes")
    magic, said, _, size = _HEAD.unpack_from(data)
    checksum, again, end = _TAIL.unpack_from(data, len(data) - _TAIL.size)
    if (magic, end) != (b"BlbS", b"BlbE") or said != number or size != again:
        raise FormatError(f"{where}: not the package {number}")
    if size > len(data) - _HEAD.size - _TAIL.size or zlib.adler32(data[: -_TAIL.size]) != checksum:
        raise FormatError(f"{where}: the checksum of package {number} does not hold")
    return data[_HEAD.size : _HEAD.size + size]
