"""Packages of Node.js: package.json in a folder node_modules, or where Debian keeps them.

https://docs.npmjs.com/cli/v10/configuring-npm/package-json
"""

import re
from collections.abc import Iterator
from typing import Any

from computeops.check.inventory.content import Content
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import named, packed, parsed, unpacked, word
from computeops.image.tree import Entry, Kind
from computeops.limits import MIB

KIND = "npm"
_NAME = "/package.json"
_PLACE = re.compile(r"(?:(?:.*/)?node_modules|usr/(?:share|lib)/nodejs)/(?:@[^/]+/)?[^/@][^/]*/package\.json")
_PACKAGE = re.compile(r"(?:@[\w.~!*'()-]+/)?[\w.~!*'()-]+", re.ASCII)
_BYTES = 4 * MIB


def wanted(entry: Entry) -> bool:
    """Return whether `entry` describes an installed package."""
    path = entry.path
    return path.endswith(_NAME) and entry.kind is not Kind.DIRECTORY and _PLACE.fullmatch(path) is not None


def kept(content: Content) -> bytes | None:
    """Return name, version and licence; None for a folder that is no package.

    Raises:
        FormatError, LimitError: it is broken.
    """
    found = parsed(content, _BYTES)
    if not found.get("name") and not found.get("version"):
        return None  # tells node how to read the files beside it, and nothing else
    name, version = named(found.get("name"), found.get("version"), _PACKAGE, content.path)
    return packed(name, version, _license(found))


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package."""
    del system, records  # packages of npm belong to no distribution, and own no records of others
    for place, data in files.of(KIND):
        name, version, said = unpacked(data)
        scope, _, short = name.rpartition("/")
        made = purl(KIND, scope, short, version, {})
        yield Found(Package(KIND, name, version, made, place, license=expression(said)))


def _license(found: dict[str, Any]) -> str:
    said = found.get("license") or found.get("licenses")
    if isinstance(said, list):
        said = said[0] if len(said) == 1 else ""  # several do not say whether all of them apply, or any
    if isinstance(said, dict):
        said = said.get("type")
    return "" if str(said).upper().startswith("SEE LICENSE") else word(said)
