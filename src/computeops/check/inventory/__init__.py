"""Which packages an image has: one pass over its tree, and one module for each format in which packages are recorded.

What is recorded in a way that is not read here is listed under `Inventory.unread`: an empty list of packages is never
a silent one. Software that was compiled without a package manager leaves no record that anybody could read.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from computeops.check.inventory import (
    apk,
    bom,
    conda,
    cran,
    dpkg,
    embedded,
    julia,
    maven,
    npm,
    program,
    python,
    rpm,
    spack,
    store,
)
from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Database, Files, Found, Inventory, Package, Records, System, Unread, shown
from computeops.check.inventory.take import take
from computeops.errors import FormatError, LimitError
from computeops.image.sif import SBOM, Sif
from computeops.image.source import open_source
from computeops.image.tree import Entry, Tree
from computeops.limits import LIMITS

__all__ = ["Database", "Inventory", "Package", "System", "Unread", "is_document", "of_document", "of_image", "packages"]

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
_ALL: Sequence[Database] = (*_DISTRIBUTIONS, *_OTHERS, embedded)
_SYSTEMS = frozenset({"deb", "apk", "rpm", "guix", "nix"})
_UNREAD_OF_A_KIND = 50
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_OS_RELEASE_BYTES = 65536


def packages(tree: Tree, attached: Iterable[tuple[str, bytes]] = ()) -> Inventory:
    """Return the packages of a root filesystem.

    `attached`: name and content of each bill of materials that came with the image, not in it.

    Raises:
        FormatError: the database of a distribution is broken; the message names the file and the place in it.
        LimitError: the records are larger or more than `LIMITS` allows.
    """
    taken = take(tree, (*_ALL, _OsRelease()))
    files = taken.files()
    system, records = _system(files), taken.records(files)
    found: list[Package] = []
    unread = list(taken.lost(files))
    owners: dict[str, str] = {}
    held: dict[Package, Collection[str]] = {}
    for database in (*_DISTRIBUTIONS, *_OTHERS):
        for one in _read(database.read(files, system, records), found, unread):
            found.append(replace(one.package, owner=owners.get(one.package.place, "")))
            if database in _DISTRIBUTIONS:
                owners.update(dict.fromkeys(one.files, one.package.purl))
            elif one.files and not found[-1].owner:
                held[found[-1]] = one.files
    found = _holding(found, held)
    if all(one.kind not in _SYSTEMS for one in found):
        unread.append(Unread("system", "", "there are no packages of a distribution"))
    documents = [*embedded.read(files, system, records), *_attached(attached)]
    found += embedded.beside([one.package for one in _read(documents, found, unread)], found)
    # What a package of the distribution brought along is judged as that, whether it can be read or not.
    unread = [one for one in (*unread, *taken.faults) if one.place not in owners]
    unread += taken.traces(owners)
    return _inventory(system, found, unread)


def _holding(found: list[Package], held: Mapping[Package, Collection[str]]) -> list[Package]:
    """Let packages name those that their files record."""
    recorded: dict[str, list[str]] = {}
    for one in found:
        recorded.setdefault(one.place, []).append(one.purl)
    purls = {one: sorted({purl for file in files for purl in recorded.get(file, ())}) for one, files in held.items()}
    return [replace(one, holds=tuple(purls[one])) if one in purls else one for one in found]


def of_image(
    path: Path, arch: str = "", tmp: Path | None = None, attached: Iterable[tuple[str, bytes]] = ()
) -> Inventory:
    """Return the packages of what is at `path`, and what bills of materials in a SIF, and those `attached`, add.

    It is an image, a root filesystem (a folder, an archive), or a bill of materials.

    `arch`: which image of an OCI layout; `tmp`: folder for spooled files; `attached`: as in `packages`.

    Raises:
        FormatError, LimitError: as `packages`, or it is broken; NotFoundError: there is nothing.
    """
    if is_document(path):
        return of_document(path.read_bytes(), path.name)
    source = open_source(path, arch)
    return packages(source.tree(tmp), [*(_objects(source.sif) if source.sif else ()), *attached])


def is_document(path: Path) -> bool:
    """Return whether the file at `path` is text as a bill of materials is, and no image.

    Raises:
        LimitError: it is, and has more than `LIMITS.evidence_bytes` bytes.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(1024).lstrip()
    if b"\0" in head or not head.startswith((b"{", b"<", b"SPDXVersion:")):
        return False
    if (size := path.stat().st_size) > LIMITS.evidence_bytes:
        raise LimitError(f"{path} has {size} bytes; at most {LIMITS.evidence_bytes} are read")
    return True


def _objects(sif: Sif) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the bills of materials that `apptainer sif add --datatype 9` put beside the image."""
    for one in sif.objects:
        if one.type == SBOM:
            yield one.name or f"object-{one.id}", sif.read(one, LIMITS.evidence_bytes)


def of_document(data: bytes, name: str) -> Inventory:
    """Return the packages that a bill of materials names: CycloneDX, SPDX or Syft's, by whatever tool.

    Raises:
        FormatError: it is none; `name` says which file it was.
        LimitError: it names more than `LIMITS` allows.
    """
    components = bom.components(data, name)
    unread: list[Unread] = []
    found = [one.package for one in _read(embedded.of_components(iter(components), name), [], unread)]
    return _inventory(embedded.system_of(components), found, unread)


def _read(records: Iterable[Found | Unread], found: Sequence[Package], unread: list[Unread]) -> Iterator[Found]:
    """Yield what was found, beside what is `found` already; what was not understood goes to `unread`."""
    count = len(found)
    for one in records:
        if isinstance(one, Unread):
            unread.append(one)
            continue
        count += 1
        if count > LIMITS.package_records:
            raise LimitError(f"more than {LIMITS.package_records} packages are recorded")
        yield one


def _attached(documents: Iterable[tuple[str, bytes]]) -> Iterator[Found | Unread]:
    for name, data in documents:
        try:
            yield from embedded.of_components(iter(bom.components(data, name)), name)
        except (FormatError, LimitError) as error:
            yield Unread(embedded.KIND, name, error.message)


def _inventory(system: System, found: Iterable[Package], unread: Sequence[Unread]) -> Inventory:
    # The same record may be there twice, by hard links or links of folders.
    once = {replace(one, place=shown(one.place)) for one in found}
    ordered = sorted(once, key=lambda one: (one.kind, one.name, one.version, one.arch, one.place))
    return Inventory(system, tuple(ordered), tuple(_few(unread)), tuple(sorted(one.KIND for one in _ALL)))


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
