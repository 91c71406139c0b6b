"""Modules of Go in a program: what `go version -m` prints (https://pkg.go.dev/debug/buildinfo).

Since Go 1.18 version and modules stand in the section itself; before, pointers to them.
"""

import re
from collections.abc import Iterator
from typing import Literal

from computeops.check.inventory.elf import Elf
from computeops.check.inventory.model import Found, Package, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import LONGEST
from computeops.errors import FormatError
from computeops.limits import KIB, MIB

KIND = "golang"
SECTION = ".go.buildinfo"
_MAGIC = b"\xff Go buildinf:"
_ALIGNED, _INLINE_AT = 16, 32
_SEARCHED = 64 * KIB
_INLINE = 2
_BYTES = 4 * MIB
_SENTINEL = 16
"""Bytes before and after the list of modules."""
_MOST_MODULES = 20_000
_MODULE = re.compile(r"[A-Za-z0-9._~!/+-]+")
_VERSION = re.compile(r"v[0-9][!-~]*")
_TOOLCHAIN = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?(?:(beta|rc)(\d+))?(?:[ .+-].*)?", re.DOTALL)
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z")
_GO_ITSELF = "path\tcmd/go\n"
_REVISION = re.compile(r"[0-9a-f]{12,64}")


def information(elf: Elf, offset: int | None) -> bytes | None:
    """Return version and modules of a Go program, a line each; None for a program of something else.

    `offset`: where its section is; None: it has no table of sections.

    Raises:
        FormatError: it is one, but they cannot be read.
    """
    head = elf.content.at(offset, _SEARCHED) if offset is not None else _searched(elf)
    if not head.startswith(_MAGIC):
        if offset is not None:
            raise FormatError(f"/{elf.content.path}: its section {SECTION} is no build information of Go")
        return None
    if len(head) < _INLINE_AT:
        raise FormatError(f"/{elf.content.path}: its build information of Go is cut short")
    if head[15] & _INLINE:
        version, modules = _inline(elf, head, offset)
    else:
        version, modules = _pointed(elf, head)
    if modules[_SENTINEL:][-_SENTINEL - 1 : -_SENTINEL] == b"\n":
        modules = modules[_SENTINEL:-_SENTINEL]
    return version + b"\n" + modules


def packages(data: bytes, place: str) -> Iterator[Found | Unread]:
    """Yield the standard library and every module of a program; of Go's own command the toolchain, too."""
    first, _, rest = data.decode(errors="replace").partition("\n")
    if version := toolchain(first):
        yield _found("stdlib", version, place)
        if rest.startswith(_GO_ITSELF):
            yield _found("toolchain", version, place)
    elif not first.startswith("devel"):
        yield Unread(KIND, place, f"no version of Go: {first[:80]!r}")
    else:
        yield Unread(KIND, place, f"made by an unreleased Go: {first[:80]!r}")
    rows = [line.split("\t") for line in rest.split("\n", _MOST_MODULES)[:_MOST_MODULES]]
    settings = dict(row[1].partition("=")[::2] for row in rows if row[0] == "build" and len(row) > 1)
    modules: list[tuple[str, str, bool]] = []
    for row in rows:
        if row[0] in {"mod", "dep"} and len(row) > 2:
            modules.append((row[1], row[2], row[0] == "mod"))
        elif row[0] == "=>" and len(row) > 2 and modules:
            modules[-1] = (row[1], row[2], modules[-1][2])  # replaced by this one
    for name, said, main in modules:
        version = said if _VERSION.fullmatch(said) else (_pseudo(settings) if main else "")
        if _MODULE.fullmatch(name) and 0 < len(version) <= LONGEST:
            yield _found(name, version, place)
        else:
            yield Unread(KIND, place, f"a module without a version: {name[:80]!r}")


def toolchain(text: str) -> str:
    """Return `1.21.0-rc.2` for `go1.21rc2`: as advisories write it; "" for an unreleased Go."""
    match = _TOOLCHAIN.fullmatch(text)
    if match is None:
        return ""
    before = f"-{match[4]}.{match[5]}" if match[4] else ""
    return f"{match[1]}.{match[2]}.{match[3] or 0}{before}"


def _found(name: str, version: str, place: str) -> Found:
    namespace, _, short = name.rpartition("/")
    return Found(Package(KIND, name, version, purl(KIND, namespace, short, version, {}), place))


def _pseudo(settings: dict[str, str]) -> str:
    """Return the version of what was built from a commit, as Go writes it (https://go.dev/ref/mod#pseudo-versions)."""
    stamp, revision = _STAMP.fullmatch(settings.get("vcs.time", "")), settings.get("vcs.revision", "")
    if stamp is None or not _REVISION.fullmatch(revision):
        return ""
    return f"v0.0.0-{''.join(stamp.groups())}-{revision[:12]}"


def _searched(elf: Elf) -> bytes:
    """Return what begins with the magic in a program whose sections were stripped: in its first writable segment."""
    for one in elf.segments():
        if one.writable:
            data = elf.content.at(one.offset, min(one.size, _SEARCHED))
            at = data.find(_MAGIC)
            while at >= 0 and at % _ALIGNED:
                at = data.find(_MAGIC, at + 1)
            return elf.content.at(one.offset + at, _BYTES) if at >= 0 else b""
    return b""


def _inline(elf: Elf, head: bytes, offset: int | None) -> tuple[bytes, bytes]:
    where = elf.content.path
    size, at = _varint(head, _INLINE_AT, where)
    version, at = head[at : at + size], at + size
    size, at = _varint(head, at, where)
    if size > _BYTES:
        raise FormatError(f"/{where}: {size} bytes of modules of Go; at most {_BYTES} are read")
    if at + size > len(head) and offset is not None:
        head = elf.content.at(offset, at + size)
    modules = head[at : at + size]
    if len(version) > LONGEST or len(modules) != size:
        raise FormatError(f"/{where}: its build information of Go is cut short")
    return version, modules


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """Return a number of 7 bits in each byte, the lowest first, and what follows it."""
    value = 0
    for number in range(9):
        if at + number >= len(data):
            break
        value |= (data[at + number] & 0x7F) << 7 * number
        if not data[at + number] & 0x80:
            return value, at + number + 1
    raise FormatError(f"/{where}: its build information of Go is cut short")


def _pointed(elf: Elf, head: bytes) -> tuple[bytes, bytes]:
    width = head[14]
    order: Literal["big", "little"] = "big" if head[15] & 1 else "little"
    if width not in {4, 8}:
        raise FormatError(f"/{elf.content.path}: its build information of Go has pointers of {width} bytes")
    return _string(elf, head[16 : 16 + width], order), _string(elf, head[16 + width : 16 + 2 * width], order)


def _string(elf: Elf, pointer: bytes, order: Literal["big", "little"]) -> bytes:
    """Return a string of Go: at the pointer stand its address and its length."""
    width = len(pointer)
    header = elf.at_address(int.from_bytes(pointer, order), 2 * width)
    address, size = int.from_bytes(header[:width], order), int.from_bytes(header[width:], order)
    if size > _BYTES:
        raise FormatError(f"/{elf.content.path}: {size} bytes of modules of Go; at most {_BYTES} are read")
    return elf.at_address(address, size)
