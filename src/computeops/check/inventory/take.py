"""The one pass over a tree: the few files that record packages are kept, the traces of other packages are noted."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from computeops.check.inventory.model import Files, Records, Unread, shown
from computeops.errors import LimitError
from computeops.image.tree import Item, Kind, Tree
from computeops.limits import LIMITS

# Traces of packages in formats that are not read; the name of the group is the kind.
_TRACES = re.compile(
    r"""
      (?P<conda>(?:.*/)?conda-meta/[^/]+\.json)
    | (?P<npm>(?:.*/)?node_modules/(?:@[^/]+/)?[^/]+/package\.json)
    | (?P<cran>(?:.*/)?(?:site-)?library/[^/]+/DESCRIPTION)
    | (?P<gem>(?:.*/)?specifications/(?:default/)?[^/]+\.gemspec)
    | (?P<maven>.*\.jar)
    | (?P<julia>(?:.*/)?packages/[^/]+/[^/]+/Project\.toml)
    | (?P<spack>(?:.*/)?\.spack/spec\.json)
    | (?P<easybuild>(?:.*/)?easybuild/[^/]+\.eb)
    | (?P<guix>gnu/store/[^/]+)
    | (?P<nix>nix/store/[^/]+)
    | (?P<pypi>.*\.egg)
    | (?P<alpm>var/lib/pacman/local/[^/]+/desc)
    | (?P<ebuild>var/db/pkg/[^/]+/[^/]+/PF)
    | (?P<opkg>(?:usr/)?lib/opkg/status)
    """,
    re.VERBOSE | re.DOTALL,
)
_SUFFIXES = (".json", "/DESCRIPTION", ".gemspec", ".jar", ".toml", ".eb", ".egg", "/desc", "/PF", "/status")
_RECORDS = (*_SUFFIXES, "/METADATA", "/PKG-INFO", ".egg-info")
_STORES = ("gnu/store/", "nix/store/")
_MERGED = {"lib", "lib64", "bin", "sbin"}
"""Links at the root of a merged /usr: package databases name files by either path."""
_DOCUMENTATION = "usr/share/doc/"


@dataclass(slots=True)
class Taken:
    """What the pass leaves in memory."""

    content: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Path and text of symbolic links."""
    elsewhere: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name of a wanted file to its kind, and the file that it is a link to."""
    found: dict[str, list[str]] = field(default_factory=dict)
    """Kind to the traces of packages that are not read."""

    def files(self) -> Files:
        """Return what was kept."""
        return Files(self.content, self.links)

    def records(self, files: Files) -> Records:
        """Return the function that says which of a package's files record packages of other kinds."""
        there = {path for paths in self.found.values() for path in paths} | self.content.keys()

        def record(path: str) -> str:
            if len(path) > LIMITS.path_bytes or not path.endswith(_RECORDS):
                return ""
            real = files.real(path.lstrip("/"))
            return real if real in there else ""

        return record

    def lost(self, files: Files) -> Iterator[Unread]:
        """Yield wanted names that lead to no file that was kept: else a link could hide a database."""
        folders = {posixpath.dirname(path) for path in self.content}
        for path, (kind, target) in self.elsewhere.items():
            known = files.get(path) is not None or files.real(path) in folders
            # The documentation of one package may be a link to that of another, or to anything.
            if not known and not path.startswith(_DOCUMENTATION):
                yield Unread(kind, path, f"a link to {shown(target)}, which was not read")

    def traces(self, owned: Mapping[str, str]) -> Iterator[Unread]:
        """Yield one entry for each kind with the number of its traces that are not among the `owned` files."""
        for kind, paths in sorted(self.found.items()):
            if alone := [path for path in paths if path not in owned]:
                yield Unread(kind, alone[0], f"packages of this kind are not read: {len(alone)}")


def take(tree: Tree, kind_of: Callable[[str], str]) -> Taken:
    """Return what records packages in `tree`; `kind_of` names the kind of packages that a path records, or "".

    Raises:
        LimitError: the records are larger or more than `LIMITS` allows.
    """
    taken = Taken()
    records, left = 0, LIMITS.package_files_bytes
    for entry, data in tree.items():
        kind = kind_of(entry.path)
        if kind:
            left -= entry.size
            if entry.size > LIMITS.package_database_bytes or left < 0:
                raise LimitError(f"/{entry.path} has {entry.size} bytes, more than is read of package databases")
            _keep(taken, (entry, data), kind)
        elif entry.kind is Kind.SYMLINK and entry.path in _MERGED:
            taken.links[entry.path] = entry.target
        elif trace := _trace(entry.path):
            taken.found.setdefault(trace, []).append(entry.path)
        else:
            continue
        records += 1
        if records > LIMITS.package_records:
            raise LimitError(f"more than {LIMITS.package_records} files record packages")
    return taken


def _trace(path: str) -> str:
    if not path.endswith(_SUFFIXES) and not path.startswith(_STORES):
        return ""
    match = _TRACES.fullmatch(path)
    return (match.lastgroup or "") if match else ""


def _keep(taken: Taken, item: Item, kind: str) -> None:
    entry, data = item
    if entry.kind is Kind.FILE:
        taken.content[entry.path] = b"".join(data)
    elif entry.kind is Kind.HARDLINK and entry.target in taken.content:
        taken.content[entry.path] = taken.content[entry.target]
    elif entry.kind is Kind.HARDLINK:
        taken.elsewhere[entry.path] = (kind, f"/{entry.target}")
    elif entry.kind is Kind.SYMLINK:
        taken.links[entry.path] = entry.target
        taken.elsewhere[entry.path] = (kind, entry.target)
