"""What a shared library says of itself: its own name for the loader, and the names of those that it needs.

System V ABI, chapter 5, "Dynamic Section" (https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOAD, _DYNAMIC = 1, 2
"""Kinds of segments."""
_END, _NEEDED, _STRTAB, _SONAME = 0, 1, 5, 14
"""Tags of the dynamic section."""
_MOST_SEGMENTS, _MOST_BYTES, _MOST_NAME = 64, 256 * 1024, 256


@dataclass(frozen=True, slots=True)
class Library:
    """The names in one library; empty for a file that is none."""

    soname: str = ""
    needed: tuple[str, ...] = ()


def read(file: Path) -> Library:
    """Return the names in `file`; nothing for what is no 64-bit ELF file, or is broken."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Library()
    try:
        return _read(descriptor)
    except (struct.error, ValueError, OSError, OverflowError):
        return Library()
    finally:
        os.close(descriptor)


def _read(file: int) -> Library:
    head = os.pread(file, 64, 0)
    if head[:5] != b"\x7fELF\x02":
        return Library()
    order = ">" if head[5] == 2 else "<"
    start = struct.unpack_from(f"{order}Q", head, 32)[0]
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    segments = list(_segments(os.pread(file, size * min(count, _MOST_SEGMENTS), start), size, order))
    entries = [
        entry
        for kind, offset, _, length in segments
        if kind == _DYNAMIC
        for entry in _entries(file, offset, length, order)
    ]
    table = next((_offset(value, segments) for tag, value in entries if tag == _STRTAB), 0)
    names = [_name(file, table + value) for tag, value in entries if tag == _SONAME]
    return Library(
        names[0] if names else "", tuple(_name(file, table + value) for tag, value in entries if tag == _NEEDED)
    )


_Segment = tuple[int, int, int, int]
"""Kind, offset in the file, address in memory, length in the file."""


def _segments(data: bytes, size: int, order: str) -> Iterator[_Segment]:
    for at in range(0, len(data) - 55, max(size, 56)):
        kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data, at)
        yield kind, offset, address, length


def _entries(file: int, offset: int, length: int, order: str) -> Iterator[tuple[int, int]]:
    data = os.pread(file, min(length, _MOST_BYTES), offset)
    for tag, value in struct.iter_unpack(f"{order}QQ", data[: len(data) // 16 * 16]):
        if tag == _END:
            return
        yield tag, value


def _offset(address: int, segments: list[_Segment]) -> int:
    """Return where in the file the byte is that is loaded at `address`."""
    for kind, offset, start, length in segments:
        if kind == _LOAD and start <= address < start + length:
            return address - start + offset
    return 0


def _name(file: int, offset: int) -> str:
    name = os.pread(file, _MOST_NAME, offset).partition(b"\0")[0].decode(errors="replace")
    return name if name.isprintable() and "/" not in name else ""
