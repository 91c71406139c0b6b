"""Python's packages: METADATA of a .dist-info folder (PEP 376, 566, 639), PKG-INFO or a file of .egg-info.

A folder of test data often holds broken ones on purpose, so a faulty record is `Unread` and does not stop the rest.
"""

import re
from collections.abc import Iterator

from computeops.check.inventory.content import Content
from computeops.check.inventory.fields import Paragraph, paragraphs, values
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.image.tree import Entry, Kind
from computeops.limits import KIB

KIND = "pypi"
_NAMES = ("/METADATA", "/PKG-INFO", ".egg-info")
_HEADER_BYTES = 256 * KIB
_PLACE = re.compile(
    r"(?:.*/)?(?:[^/]+\.dist-info/METADATA|[^/]+\.egg-info/PKG-INFO|[^/]+\.egg-info|[^/]+\.egg/EGG-INFO/PKG-INFO)"
)
# https://packaging.python.org/en/latest/specifications/name-normalization
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[!-~]{1,256}")
_CLASSIFIER = "License :: "
_FIELDS = frozenset({"name", "version", "license", "license-expression"})
_LONGEST_NAME = 80


def wanted(entry: Entry) -> bool:
    """Return whether `entry` has the metadata of a Python package."""
    path = entry.path
    return path.endswith(_NAMES) and entry.kind is not Kind.DIRECTORY and _PLACE.fullmatch(path) is not None


def kept(content: Content) -> bytes | None:
    """Return the headers: the description that follows them may be a book."""
    return content.at(0, _HEADER_BYTES).replace(b"\r\n", b"\n").partition(b"\n\n")[0]


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every Python package, and what looks like the record of one but has no name and version."""
    del system, records  # packages of PyPI belong to no distribution, and own no records of others
    for place, data in files.of(KIND):
        fields = next((fields for _, fields in paragraphs(data, place, _FIELDS, strict=False)), Paragraph())
        name, version = fields.get("name", ""), fields.get("version", "")
        if _NAME.fullmatch(name) and _VERSION.fullmatch(version):
            made = purl("pypi", "", name, version, {})
            yield Found(Package("pypi", name, version, made, place, license=_license(fields, data)))
        else:
            yield Unread("pypi", place, f"no name and version of a package: {name[:80]!r} {version[:80]!r}")


def _license(fields: Paragraph, data: bytes) -> str:
    if text := fields.get("license-expression"):
        return expression(text)
    text = fields.get("license", "")
    if len(text) <= _LONGEST_NAME and "\n" not in text and (made := expression(text)):
        return made
    said = {one.rpartition(" :: ")[2] for one in values(data, "classifier") if one.startswith(_CLASSIFIER)}
    said.discard("OSI Approved")
    # Several classifiers do not say whether all of the licences apply, or any.
    return expression(said.pop()) if len(said) == 1 else ""
