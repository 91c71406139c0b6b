"""Bills of materials that lie in an image, as builders leave them: Bitnami, Python wheels (PEP 770), Docker, Spack ...

What they name counts where nothing better is there: a package manager that was read knows what was changed since.
"""

import re
from collections import Counter
from collections.abc import Iterator

from computeops.check.inventory import bom, dialect
from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.image.tree import Entry, Kind
from computeops.limits import MIB

KIND = "sbom"
_SUFFIXES = (".spdx.json", ".cdx.json", ".bom.json", ".sbom.json", ".syft.json", ".spdx", ".cdx.xml", ".bom.xml")
_NAMES = ("bom.json", "sbom.json", "cyclonedx.json", "spdx.json", "bom.xml", "sbom.spdx", "sbom.cdx")
_FOLDERS = ("usr/share/sbom/", "usr/local/share/sbom/")
_BYTES = 16 * MIB
_RUN = re.compile(r"[-_.]+")


def wanted(entry: Entry) -> bool:
    """Return whether `entry` has the name of a bill of materials."""
    path = entry.path
    if entry.kind is Kind.DIRECTORY:
        return False
    if path.endswith(_SUFFIXES) or path.startswith(_FOLDERS):
        return True
    return path.endswith(_NAMES) and path.rpartition("/")[2] in _NAMES


def kept(content: Content) -> bytes | None:
    """Return the components that it names.

    Raises:
        FormatError, LimitError: it cannot be read.
    """
    return bom.packed(bom.components(content.whole(_BYTES), content.path))


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package that a document names."""
    del system, records
    for place, data in files.of(KIND):
        yield from of_components(bom.unpacked(data), place)


def of_components(found: Iterator[bom.Component], place: str) -> Iterator[Found | Unread]:
    """Yield the packages that components are, and how many are none."""
    without = 0
    for one in found:
        if one.system:
            continue
        package = dialect.package(one, place)
        if package is None:
            without += 1
        else:
            yield Found(package)
    if without:
        yield Unread(KIND, place, f"{without} components without a name or version")


def system_of(found: list[bom.Component]) -> System:
    """Return the system that a document is about: what it says, else what most of its packages say."""
    said = [one for component in found if component.system and (one := dialect.system(component))]
    if said:
        return said[0]
    counted = Counter(one for component in found if (one := dialect.system(component)))
    return max(counted, key=lambda one: (counted[one], one.id, one.version), default=System())


def beside(found: list[Package], known: list[Package]) -> Iterator[Package]:
    """Yield those of the packages `found` in documents that the packages `known` from records do not settle."""
    managed = {one.kind for one in known if one.kind in dialect.DISTRIBUTIONS}
    there = {_identity(one) for one in known}
    for one in found:
        if one.kind not in managed and _identity(one) not in there:
            there.add(_identity(one))
            yield one


def _identity(one: Package) -> tuple[str, str, str]:
    return one.kind, _RUN.sub("-", one.name).lower(), one.version.removeprefix("v")
