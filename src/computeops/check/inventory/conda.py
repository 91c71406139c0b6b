"""Packages of conda, mamba, micromamba and pixi: conda-meta/*.json of an environment.

https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html
"""

import posixpath
import re
from collections.abc import Iterator

from computeops.check.inventory.content import Content
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import named, packed, parsed, unpacked, word
from computeops.image.tree import Entry, Kind

KIND = "conda"
_FOLDER = "conda-meta"
_PACKAGE = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_CHANNEL = re.compile(r"(?:.*/)?(?:t/[^/]+/)?([\w.-]+)/*", re.ASCII)
_INSIDE = (".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info", "/DESCRIPTION", "/package.json", ".jar")
_MOST_FILES = 200_000


def wanted(entry: Entry) -> bool:
    """Return whether `entry` is the record of a package."""
    path = entry.path
    if not path.endswith(".json") or entry.kind is Kind.DIRECTORY:
        return False
    return posixpath.basename(posixpath.dirname(path)) == _FOLDER


def kept(content: Content) -> bytes | None:
    """Return what is said of the package, and which of its files may record packages of languages.

    Raises:
        FormatError, LimitError: it is broken.
    """
    found = parsed(content)
    name, version = named(found.get("name"), found.get("version"), _PACKAGE, content.path)
    build, subdir = word(found.get("build")), word(found.get("subdir"))
    channel = _CHANNEL.fullmatch(word(found.get("channel")).removesuffix(f"/{subdir}" if subdir else ""))
    listed = found.get("files")
    inside = [one for one in listed[:_MOST_FILES] if _records(one)] if isinstance(listed, list) else []
    kind = "conda" if word(found.get("fn")).endswith(".conda") else "tar.bz2"
    source = word(found.get("url")) and kind
    return packed(
        name, version, build, subdir, channel[1] if channel else "", source, word(found.get("license")), inside
    )


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package."""
    del system
    for place, data in files.of(KIND):
        name, version, build, subdir, channel, archive, said, inside = unpacked(data)
        facts = {"build": build, "channel": channel, "subdir": subdir, "type": archive}
        prefix = posixpath.dirname(posixpath.dirname(place))
        holds = {real for one in inside if (real := records(f"{prefix}/{one}"))}
        made = purl(KIND, "", name, version, facts)
        yield Found(Package(KIND, name, version, made, place, subdir, license=expression(said)), holds)


def _records(file: object) -> bool:
    return isinstance(file, str) and file.endswith(_INSIDE)
