"""Packages of Julia: those that lie in a depot, and those that the manifest of an environment names.

https://pkgdocs.julialang.org/v1/toml-files
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import LONGEST, named, packed, unpacked, word
from computeops.errors import FormatError
from computeops.image.tree import Entry, Kind
from computeops.limits import MIB

KIND = "julia"
_PLACE = re.compile(r"(?:.*/)?(?:packages/[^/]+/[A-Za-z0-9]{4,8}|stdlib/v[0-9.]+/[^/]+)/(?:Julia)?Project\.toml")
_INSIDE = re.compile(r"(?:^|/)packages/[^/]+/[A-Za-z0-9]{4,8}/")
_MANIFEST = re.compile(r"(?:Julia)?Manifest(?:-v[\d.]+)?\.toml")
_PACKAGE = re.compile(r"[A-Za-z_][\w+!-]*")
_UUID = re.compile(r"[0-9a-fA-F-]{36}")
_BYTES = 16 * MIB


def wanted(entry: Entry) -> bool:
    """Return whether `entry` describes an installed package or an environment; no environment of a package's tests."""
    path = entry.path
    if not path.endswith(".toml") or entry.kind is Kind.DIRECTORY:
        return False
    if _is_manifest(path):
        return _INSIDE.search(path) is None
    return _PLACE.fullmatch(path) is not None


def kept(content: Content) -> bytes | None:
    """Return the packages that it names.

    Raises:
        FormatError, LimitError: it is broken.
    """
    try:
        found = tomllib.loads(content.whole(_BYTES).decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"/{content.path} is not TOML: {error}") from error
    if _is_manifest(content.path):
        return packed(*_manifest(found, content.path))
    if "name" not in found or "version" not in found:
        return None  # an application, or a library of a Julia that gives its libraries no versions
    return packed([*named(found["name"], found["version"], _PACKAGE, content.path), _uuid(found.get("uuid"))])


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package that lies in a depot, then those that only a manifest names."""
    del system, records  # packages of Julia belong to no distribution, and own no records of others
    installed: set[tuple[str, str]] = set()
    for place, data in sorted(files.of(KIND), key=lambda one: _is_manifest(one[0])):
        for name, version, uuid in unpacked(data):
            if _is_manifest(place) and (name, version) in installed:
                continue
            installed.add((name, version))
            yield Found(Package(KIND, name, version, purl(KIND, "", name, version, {"uuid": uuid}), place))


def _is_manifest(path: str) -> bool:
    return _MANIFEST.fullmatch(path.rpartition("/")[2]) is not None


def _manifest(found: dict[str, Any], path: str) -> Iterator[list[str]]:
    """Yield name, version and UUID of each package; the standard library without versions is that of the Julia."""
    listed = found.get("deps", {}) if "manifest_format" in found else found
    for name, versions in listed.items() if isinstance(listed, dict) else ():
        for one in versions if isinstance(versions, list) and len(name) <= LONGEST else ():
            if isinstance(one, dict) and "version" in one:
                yield [*named(name, one["version"], _PACKAGE, path), _uuid(one.get("uuid"))]


def _uuid(value: object) -> str:
    text = word(value)
    return text.lower() if _UUID.fullmatch(text) else ""
