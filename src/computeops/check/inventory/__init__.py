"""Which packages an image has: one pass over its tree, and one module for each format in which packages are recorded.

What is recorded in a way that is not read here is listed under `Inventory.unread`: an empty list of packages is never
a silent one. Software that was compiled without a package manager leaves no record that anybody could read.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from computeops.check.inventory import apk, conda, cran, dpkg, julia, maven, npm, program, python, rpm, spack, store
from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Database, Files, Found, Inventory, Package, Records, System, Unread, shown
from computeops.check.inventory.take import take
from computeops.errors import LimitError
from computeops.image.tree import Entry, Tree
from computeops.limits import LIMITS

__all__ = ["Database", "Inventory", "Package", "System", "Unread", "packages"]

_DISTRIBUTIONS: Sequence[Database] = (dpkg, apk, rpm)
_OTHERS: Sequence[Database] = (
    python,
    npm,
    cran,
    julia,
    maven,
    program,
    conda,
    spack,
    store.GUIX,
    store.NIX,
)
"""After those of distributions, which say which files of these are theirs."""
_SYSTEMS = frozenset({"deb", "apk", "rpm", "guix", "nix"})
_UNREAD_OF_A_KIND = 50
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_OS_RELEASE_BYTES = 65536


def packages(tree: Tree) -> Inventory:
    """Return the packages of a root filesystem.

    Raises:
        FormatError: the database of a distribution is broken; the message names the file and the place in it.
        LimitError: the records are larger or more than `LIMITS` allows.
    """
    databases: Sequence[Database] = (*_DISTRIBUTIONS, *_OTHERS)
    taken = take(tree, (*databases, _OsRelease()))
    files = taken.files()
    system, records = _system(files), taken.records(files)
    found: list[Package] = []
    unread = list(taken.lost(files))
    owners: dict[str, str] = {}
    for database in databases:
        for one in database.read(files, system, records):
            if isinstance(one, Unread):
                unread.append(one)
                continue
            found.append(replace(one.package, owner=owners.get(one.package.place, "")))
            if database in _DISTRIBUTIONS:
                owners.update(dict.fromkeys(one.files, one.package.purl))
            if len(found) > LIMITS.package_records:
                raise LimitError(f"more than {LIMITS.package_records} packages are recorded")
    # What a package of the distribution brought along is judged as that, whether it can be read or not.
    unread += [one for one in taken.faults if one.place not in owners]
    unread += taken.traces(owners)
    if all(one.kind not in _SYSTEMS for one in found):
        unread.append(Unread("system", "", "there are no packages of a distribution"))
    # The same record may be there twice, by hard links or links of folders.
    once = {replace(one, place=shown(one.place)) for one in found}
    ordered = sorted(once, key=lambda one: (one.kind, one.name, one.version, one.arch, one.place))
    return Inventory(system, tuple(ordered), tuple(_few(unread)), tuple(sorted(one.KIND for one in databases)))


def _few(unread: Sequence[Unread]) -> Iterator[Unread]:
    """Yield what could not be read, of each kind the first and how many more."""
    count: Counter[str] = Counter()
    for one in unread:
        count[one.kind] += 1
        if count[one.kind] <= _UNREAD_OF_A_KIND:
            yield replace(one, place=shown(one.place))
    for kind, number in count.items():
        if number > _UNREAD_OF_A_KIND:
            yield Unread(kind, "", f"{number - _UNREAD_OF_A_KIND} more of this kind could not be read")


class _OsRelease:
    """The file that says which system it is; it records no packages."""

    KIND = "system"

    def wanted(self, entry: Entry) -> bool:
        return entry.path in _OS_RELEASE

    def kept(self, content: Content) -> bytes | None:
        return content.at(0, _OS_RELEASE_BYTES)

    def read(self, files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
        del files, system, records
        yield from ()


_WORD = re.compile(r"[A-Za-z0-9._-]+")


def _system(files: Files) -> System:
    """Read os-release; lines that are not `NAME=value` say nothing."""
    data = next((found for path in _OS_RELEASE if (found := files.get(path)) is not None), b"")
    fields: dict[str, str] = {}
    for line in data.decode(errors="replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            quoted = value[:1] in {'"', "'"} and value[:1] == value[-1:]
            fields[name] = re.sub(r"\\(.)", r"\1", value[1:-1] if quoted else value)[:256]
    words = [fields.get(name, "") for name in ("ID", "VERSION_ID", "VERSION_CODENAME")]
    name, version, codename = (one if _WORD.fullmatch(one) else "" for one in words)
    title = "".join(one for one in fields.get("PRETTY_NAME", "") if one.isprintable())
    return System(name.lower() or "linux", version or codename, title)
