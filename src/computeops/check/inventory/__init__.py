"""Which packages an image has: one pass over its tree, and one module for each format in which packages are recorded.

What is recorded in a way that is not read here is listed under `Inventory.unread`: an empty list of packages is never
a silent one. Software that was compiled without a package manager leaves no record that anybody could read.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from computeops.check.inventory import apk, dpkg, python, rpm
from computeops.check.inventory.model import Database, Files, Inventory, Package, System, Unread, shown
from computeops.check.inventory.take import take
from computeops.errors import LimitError
from computeops.image.tree import Tree
from computeops.limits import LIMITS

__all__ = ["Database", "Inventory", "Package", "System", "Unread", "packages"]

_DATABASES: Mapping[str, Database] = {"deb": dpkg, "apk": apk, "rpm": rpm, "pypi": python}
"""Those of distributions first: they say which files of the others are theirs."""
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_OS_RELEASE_BYTES = 65536


def packages(tree: Tree) -> Inventory:
    """Return the packages of a root filesystem.

    Raises:
        FormatError: a package database is broken; the message names the file and the place in it.
        LimitError: the records are larger or more than `LIMITS` allows.
    """
    taken = take(tree, _kind)
    files = taken.files()
    system, records = _system(files), taken.records(files)
    found: list[Package] = []
    unread = list(taken.lost(files))
    owners: dict[str, str] = {}
    for database in _DATABASES.values():
        for one in database.read(files, system, records):
            if isinstance(one, Unread):
                unread.append(one)
                continue
            found.append(replace(one.package, owner=owners.get(one.package.place, "")))
            owners.update(dict.fromkeys(one.files, one.package.purl))
            if len(found) > LIMITS.package_records:
                raise LimitError(f"more than {LIMITS.package_records} packages are recorded")
    unread += taken.traces(owners)
    if all(one.kind == "pypi" for one in found):
        unread.append(Unread("system", "", "there are no packages of a distribution"))
    # The same record may be there twice, by hard links or links of folders.
    once = {replace(one, place=shown(one.place)) for one in found}
    ordered = sorted(once, key=lambda one: (one.kind, one.name, one.version, one.arch, one.place))
    return Inventory(system, tuple(ordered), tuple(replace(one, place=shown(one.place)) for one in unread))


def _kind(path: str) -> str:
    """Return the kind of packages that the file at `path` records, "system" for os-release, else ""."""
    if path in _OS_RELEASE:
        return "system"
    return next((kind for kind, database in _DATABASES.items() if database.wanted(path)), "")


_WORD = re.compile(r"[A-Za-z0-9._-]+")


def _system(files: Files) -> System:
    """Read os-release; lines that are not `NAME=value` say nothing."""
    data = next((found for path in _OS_RELEASE if (found := files.get(path)) is not None), b"")
    fields: dict[str, str] = {}
    for line in data[:_OS_RELEASE_BYTES].decode(errors="replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            quoted = value[:1] in {'"', "'"} and value[:1] == value[-1:]
            fields[name] = re.sub(r"\\(.)", r"\1", value[1:-1] if quoted else value)[:256]
    words = [fields.get(name, "") for name in ("ID", "VERSION_ID", "VERSION_CODENAME")]
    name, version, codename = (one if _WORD.fullmatch(one) else "" for one in words)
    title = "".join(one for one in fields.get("PRETTY_NAME", "") if one.isprintable())
    return System(name.lower() or "linux", version or codename, title)
