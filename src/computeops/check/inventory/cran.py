"""Packages of R: the file DESCRIPTION of an installed package, of CRAN, Bioconductor or R itself.

https://cran.r-project.org/doc/manuals/r-release/R-exts.html#The-DESCRIPTION-file
"""

import re
from collections.abc import Iterator

from computeops.check.inventory.content import Content
from computeops.check.inventory.fields import paragraphs
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import named, packed, unpacked
from computeops.image.tree import Entry, Kind
from computeops.limits import MIB

KIND = "cran"
BIOCONDUCTOR = "bioconductor"
_NAME = "/DESCRIPTION"
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9.]*")
_FIELDS = frozenset({"package", "version", "license", "built", "biocviews"})
_BYTES = 1 * MIB
_FILE = re.compile(r"\s*[+|]?\s*file LICEN[CS]E\s*")


def wanted(entry: Entry) -> bool:
    """Return whether `entry` may describe a package."""
    return entry.path.endswith(_NAME) and entry.kind is not Kind.DIRECTORY


def kept(content: Content) -> bytes | None:
    """Return what is said of the package; None for source code, and for what is not of R.

    Raises:
        FormatError, LimitError: it is broken.
    """
    found = next((fields for _, fields in paragraphs(content.whole(_BYTES), content.path, _FIELDS, strict=False)), {})
    if "package" not in found or "built" not in found:  # R writes "Built" when it installs
        return None
    name, version = named(found["package"], found.get("version"), _PACKAGE, content.path)
    return packed(BIOCONDUCTOR if found.get("biocviews") else KIND, name, version, found.get("license", ""))


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package."""
    del system, records  # packages of R belong to no distribution, and own no records of others
    for place, data in files.of(KIND):
        kind, name, version, said = unpacked(data)
        yield Found(Package(kind, name, version, purl(kind, "", name, version, {}), place, license=_license(said)))


def _license(said: str) -> str:
    """Return the expression; `GPL (>= 2) | file LICENSE` is how R says GPL-2.0-or-later."""
    text = re.sub(r"\b([AL]?GPL)\s*\(>=?\s*([\d.]+)\)", r"\1-\2+", _FILE.sub("", " ".join(said.split())))
    return expression(text.replace("|", " or "))
