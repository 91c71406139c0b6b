"""Small ELF files for tests: sections with a name, and what is loaded into memory."""

import struct
from collections.abc import Mapping


def elf(
    sections: Mapping[str, bytes] | None = None, segments: Mapping[int, bytes] | None = None, *, big: bool = False
) -> bytes:
    """Return a file of 64 bits with these sections by name, and these writable segments by address."""
    order = ">" if big else "<"
    body = bytearray(64)
    loaded = []
    for address, data in (segments or {}).items():
        loaded.append(struct.pack(f"{order}IIQQQQQQ", 1, 6, len(body), address, address, len(data), len(data), 16))
        body += data
    names, rows = bytearray(b"\0"), [bytes(64)]
    for name, data in (sections or {}).items():
        rows.append(struct.pack(f"{order}IIQQQQIIQQ", len(names), 1, 0, 0, len(body), len(data), 0, 0, 1, 0))
        names += name.encode() + b"\0"
        body += data
    rows.append(struct.pack(f"{order}IIQQQQIIQQ", len(names), 3, 0, 0, len(body), len(names) + 10, 0, 0, 1, 0))
    body += names + b".shstrtab\0"
    program, table = len(body), len(body) + 56 * len(loaded)
    body += b"".join(loaded)
    count = len(rows) if sections is not None else 0
    body += b"".join(rows[:count])
    tail = (2, 62, 1, 0, program, table, 0, 64, 56, len(loaded), 64, count, max(count - 1, 0))
    body[:64] = (
        b"\x7fELF\2" + (b"\2" if big else b"\1") + b"\1" + bytes(9) + struct.pack(f"{order}HHIQQQIHHHHHH", *tail)
    )
    return bytes(body) + bytes(max(0, 1024 - len(body)))
