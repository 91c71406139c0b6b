"""Alpine's packages: lib/apk/db/installed (https://wiki.alpinelinux.org/wiki/Apk_spec, "Installed database V2")."""

import re
from collections.abc import Iterator
from itertools import chain

from computeops.check.inventory.content import Content
from computeops.check.inventory.fields import lines
from computeops.check.inventory.license import all_of, expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.errors import FormatError
from computeops.image.tree import Entry

KIND = "apk"
_PLACES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._-]*")
_VERSION = re.compile(r"[!-~]{1,256}")
_OPERATOR = re.compile(r"\b(?:AND|OR|WITH)\b", re.IGNORECASE)


def wanted(entry: Entry) -> bool:
    """Return whether `entry` is apk's database."""
    return entry.path in _PLACES


def kept(content: Content) -> bytes | None:
    """Return the database.

    Raises:
        LimitError: it is too large.
    """
    return content.whole()


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every installed package.

    Raises:
        FormatError: a record has no name or version, or a line is no field.
    """
    for place in dict.fromkeys(files.real(path) for path in _PLACES):
        if (data := files.get(place)) is not None:
            yield from _packages(data, place, system, records)


def _packages(data: bytes, place: str, system: System, records: Records) -> Iterator[Found]:
    fields: dict[str, str] = {}
    owned: set[str] = set()
    folder, first = "", 1
    for number, line in enumerate(chain(lines(data), [""]), 1):
        if not line.strip():
            if fields:
                yield Found(_package(fields, system, place, first), owned)
            fields, owned, folder, first = {}, set(), "", number + 1
            continue
        key, colon, value = line[:1], line[1:2], line[2:].strip()
        if colon != ":":
            raise FormatError(f"/{place}, line {number}: not a field: {line[:80]!r}")
        if key == "F":
            folder = value
        elif key == "R" and (path := records(f"{folder}/{value}")):
            owned.add(path)
        fields.setdefault(key, value)


def _package(fields: dict[str, str], system: System, place: str, line: int) -> Package:
    name, version, arch = (fields.get(key, "") for key in "PVA")
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or (arch and not _NAME.fullmatch(arch)):
        raise FormatError(f"/{place}, line {line}: not a package: {name[:80]!r} {version[:80]!r} {arch[:80]!r}")
    origin = fields.get("o", "")
    return Package(
        "apk",
        name,
        version,
        purl("apk", system.id, name, version, {"arch": arch, "distro": system.distro}),
        place,
        arch,
        origin if _NAME.fullmatch(origin) else name,
        version,
        _license(fields.get("L", "")),
    )


def _license(text: str) -> str:
    # Until 2019 several licences stood side by side without an operator; all of them applied.
    return expression(text) if _OPERATOR.search(text) or " " not in text else all_of(text.split())
