"""Packages of Guix and Nix: what lies in the store, by its name; the profile of Guix says where a name ends.

https://guix.gnu.org/manual/en/html_node/The-Store.html, https://nix.dev/manual/nix/latest/store
"""

import re
from collections.abc import Iterator

from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import LONGEST
from computeops.image.tree import Entry, Kind
from computeops.limits import MIB

_HASH = "[0-9abcdfghijklmnpqrsvwxyz]{32}"  # the base 32 of both
_OUTPUTS = re.compile(
    r"(bin|data|debug|dev|devdoc|dist|doc|fonts|gui|include|info|lib|man|out|py|python|static|tools|utils)"
)
_VERSION = re.compile(r"[!-~]{1,256}")
_NO_PACKAGE = (".drv", "-checkout", ".lock", ".check")
_MANIFEST_BYTES = 16 * MIB
# ("hello" "2.12.1" "out" "/gnu/store/...": the beginning of each entry of a manifest of Guix, versions 2 to 4.
_ENTRY = re.compile(
    rb'\(\s*"((?:[^"\\]|\\.){1,256})"\s+"((?:[^"\\]|\\.){1,256})"\s+"([^"\\]{1,64})"\s+"(/gnu/store/[^"\\]{1,512})"'
)


class Store:
    """A store as a database of packages; each folder directly in it is one output of one package."""

    def __init__(self, kind: str, folder: str) -> None:
        """`folder`: where the store is in an image, as `gnu/store/`."""
        self.KIND = kind
        self._folder = folder

    def wanted(self, entry: Entry) -> bool:
        """Return whether `entry` is a folder in the store, or the manifest of a profile."""
        if not entry.path.startswith(self._folder):
            return False
        rest = entry.path[len(self._folder) :]
        if entry.kind is Kind.DIRECTORY:
            return "/" not in rest and _split(rest) is not None
        return entry.kind is Kind.FILE and rest.count("/") == 1 and rest.endswith("-profile/manifest")

    def kept(self, content: Content) -> bytes | None:
        """Return a manifest.

        Raises:
            LimitError: it is too large.
        """
        return content.whole(_MANIFEST_BYTES)

    def read(self, files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
        """Yield every output of every package."""
        del system, records
        said = {path: one for _, data in files.of(self.KIND) for path, one in _manifest(data)}
        for place, _ in files.of(self.KIND):
            if place.endswith("/manifest"):
                continue
            item = place.removeprefix(self._folder)
            name, version, output = said.get(place) or _split(item) or ("", "", "")
            facts = {"output": output if output != "out" else "", "hash": item.partition("-")[0]}
            yield Found(Package(self.KIND, name, version, purl(self.KIND, "", name, version, facts), place))


GUIX = Store("guix", "gnu/store/")
NIX = Store("nix", "nix/store/")
_ITEM = re.compile(rf"{_HASH}-([A-Za-z0-9+._?=-]{{1,{LONGEST}}})")


def _split(item: str) -> tuple[str, str, str] | None:
    """Return name, version and output of `HASH-hello-2.12.1-lib`; None for what is no package with a version.

    The version begins at the first hyphen before a digit: `package-name->name+version` of Guix, `parseDrvName` of Nix.
    """
    match = _ITEM.fullmatch(item)
    if match is None or item.endswith(_NO_PACKAGE):
        return None
    parts = re.fullmatch(r"(.+?)-([0-9].*)", match[1])
    if parts is None or not _VERSION.fullmatch(parts[2]):
        return None
    version, output = parts[2], ""
    head, hyphen, tail = version.rpartition("-")
    if hyphen and _OUTPUTS.fullmatch(tail):
        version, output = head, tail
    return parts[1], version, output


def _manifest(data: bytes) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield place in the image, and name, version and output of each package in a manifest of Guix."""
    for match in _ENTRY.finditer(data):
        name, version, output, path = (one.decode(errors="replace") for one in match.groups())
        if name.isprintable() and _VERSION.fullmatch(version):
            yield path.lstrip("/"), (name, version, output)
