"""Crates of Rust in a program: the section that `cargo auditable` writes (github.com/rust-secure-code/cargo-auditable).

The section .dep-v0 holds JSON, compressed by zlib: package, version, source, and whether it is only used for the build.
"""

import re
import zlib
from collections.abc import Iterator, Mapping

from computeops.check.inventory.elf import Elf, Section
from computeops.check.inventory.model import Found, Package, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import members, named, object_of, packed, unpacked, word
from computeops.errors import FormatError
from computeops.limits import MIB

KIND = "cargo"
SECTION = ".dep-v0"
_PACKED_BYTES, _BYTES = 4 * MIB, 16 * MIB
_PACKAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def information(elf: Elf, section: Section) -> bytes:
    """Return the crates that are in a program.

    Raises:
        FormatError: they cannot be read.
    """
    path = elf.content.path
    if section.size > _PACKED_BYTES:
        raise FormatError(f"/{path}: {section.size} bytes in {SECTION}; at most {_PACKED_BYTES} are read")
    engine = zlib.decompressobj()
    try:
        data = engine.decompress(elf.content.at(section.offset, section.size), _BYTES)
    except zlib.error as error:
        raise FormatError(f"/{path}: {SECTION} cannot be decompressed: {error}") from error
    if not engine.eof:
        raise FormatError(f"/{path}: {SECTION} unpacks to more than {_BYTES} bytes, or ends too early")
    found = object_of(data, path)
    if not isinstance(found.get("packages"), list):
        raise FormatError(f"/{path}: {SECTION} names no packages")
    crates = (one for one in members(found, "packages") if one.get("kind") != "build")
    return packed(*([*named(one.get("name"), one.get("version"), _PACKAGE, path), _source(one)] for one in crates))


def packages(data: bytes, place: str) -> Iterator[Found | Unread]:
    """Yield every crate of a program, itself among them."""
    for name, version, source in unpacked(data):
        facts = {} if source in {"crates.io", "local"} else {"source": source}
        yield Found(Package(KIND, name, version, purl(KIND, "", name, version, facts), place))


def _source(crate: Mapping[str, object]) -> str:
    return word(crate.get("source")) or "crates.io"
