"""The one pass over a tree: what says which packages there are is kept, traces that nobody reads are noted."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Database, Files, Records, Unread, shown
from computeops.errors import FormatError, LimitError
from computeops.image.tree import Entry, Kind, Tree
from computeops.limits import LIMITS

# Traces of packages in formats that are not read; the name of the group is the kind.
_TRACES = re.compile(
    r"""
      (?P<gem>(?:.*/)?specifications/(?:default/)?[^/]+\.gemspec)
    | (?P<easybuild>(?:.*/)?easybuild/[^/]+\.eb)
    | (?P<pypi>.*\.egg)
    | (?P<alpm>var/lib/pacman/local/[^/]+/desc)
    | (?P<ebuild>var/db/pkg/[^/]+/[^/]+/PF)
    | (?P<opkg>(?:usr/)?lib/opkg/status)
    """,
    re.VERBOSE | re.DOTALL,
)
_SUFFIXES = (".gemspec", ".eb", ".egg", "/desc", "/PF", "/status")
_MERGED = {"lib", "lib64", "bin", "sbin"}
"""Links at the root of a merged /usr: package databases name files by either path."""
_DOCUMENTATION = "usr/share/doc/"
_DISTRIBUTIONS = frozenset({"deb", "apk", "rpm", "system"})


@dataclass(slots=True)
class Taken:
    """What the pass leaves in memory."""

    content: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Path and text of symbolic links."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """Kind of packages to the files that were kept for it."""
    elsewhere: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name of a wanted file to its kind, and the file that it is a link to."""
    faults: list[Unread] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)
    """Kind to the traces of packages that are not read."""
    bytes_kept: int = 0

    def files(self) -> Files:
        """Return what was kept."""
        return Files(self.content, self.links, self.places)

    def records(self, files: Files) -> Records:
        """Return the function that says which of a package's files record packages of other kinds."""
        there = {path for paths in self.found.values() for path in paths} | self.content.keys()
        there |= {one.place for one in self.faults}
        names = {posixpath.basename(path) for path in there}

        def record(path: str) -> str:
            path = path.lstrip("/")
            if path in there:
                return path
            if len(path) > LIMITS.path_bytes or posixpath.basename(path) not in names:
                return ""
            real = files.real(path)
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


def take(tree: Tree, databases: Iterable[Database]) -> Taken:
    """Return what the `databases` want of `tree`.

    Raises:
        FormatError: the image is broken.
        LimitError: the records are larger or more than `LIMITS` allows.
    """
    taken = Taken()
    wanting = [(one, one.wanted) for one in databases]
    records = 0
    for entry, data in tree.items():
        databases_of_it = [one for one, wanted in wanting if wanted(entry)]
        if databases_of_it:
            _keep(taken, databases_of_it, entry, data)
        elif entry.kind is Kind.SYMLINK and entry.path in _MERGED:
            taken.links[entry.path] = entry.target
        elif trace := _trace(entry.path):
            taken.found.setdefault(trace, []).append(entry.path)
            records += 1
        if records + len(taken.content) + len(taken.elsewhere) + len(taken.faults) > LIMITS.package_records:
            raise LimitError(f"more than {LIMITS.package_records} files record packages")
    return taken


def _trace(path: str) -> str:
    if not path.endswith(_SUFFIXES):
        return ""
    match = _TRACES.fullmatch(path)
    return (match.lastgroup or "") if match else ""


def _keep(taken: Taken, databases: list[Database], entry: Entry, data: Iterable[bytes]) -> None:
    kind = databases[0].KIND
    match entry.kind:
        case Kind.FILE:
            with Content(entry, data) as content:
                for database in databases:
                    _read(taken, database, content)
        case Kind.DIRECTORY:
            _store(taken, kind, entry.path, b"")
        case Kind.HARDLINK if entry.target in taken.content:
            _store(taken, kind, entry.path, taken.content[entry.target])
        case Kind.HARDLINK:
            taken.elsewhere[entry.path] = (kind, f"/{entry.target}")
        case Kind.SYMLINK:
            taken.links[entry.path] = entry.target
            taken.elsewhere[entry.path] = (kind, entry.target)
        case _:
            pass


def _read(taken: Taken, database: Database, content: Content) -> None:
    try:
        found = database.kept(content)
    except (FormatError, LimitError) as error:
        # Without the database of its distribution nothing can be said about an image; without one of many others, much.
        if database.KIND in _DISTRIBUTIONS:
            raise
        taken.faults.append(Unread(database.KIND, content.path, error.message))
        return
    if found is not None:
        _store(taken, database.KIND, content.path, found)


def _store(taken: Taken, kind: str, path: str, found: bytes) -> None:
    taken.bytes_kept += len(found)
    if taken.bytes_kept > LIMITS.package_files_bytes:
        raise LimitError(f"the records of packages have more than {LIMITS.package_files_bytes} bytes, with /{path}")
    taken.content[path] = found
    taken.places.setdefault(kind, []).append(path)
