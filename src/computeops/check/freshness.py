"""Is an image up to date? Its packages against what the archive of its distribution has now.

This asks no advisory: whatever the last security release of a package repaired, an image that has it has the repair.
An index is a `Packages` file of the archive (deb822), plain, gzip or xz, or a table of four columns: package, version,
source, source version.
"""

import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeops.check.advisories import ecosystem
from computeops.check.advisories.bounded import whole
from computeops.check.inventory import Inventory, Package, System
from computeops.check.versions import deb
from computeops.errors import FormatError, LimitError, UsageError

_MIRROR = "https://deb.debian.org/debian"
_XZ = b"\xfd7zXZ"
_INDEX_BYTES = 512 * 1024 * 1024
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Available:
    """A package as the archive has it."""

    name: str
    version: str
    arch: str
    """Empty: not said."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an update would do to one package."""

    package: Package
    to: str
    origin: str
    """The index that has it."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How the packages of an image compare with an archive."""

    compared: int
    """Packages that the archive has, too."""
    changes: tuple[Change, ...]
    """What an update would change."""
    elsewhere: tuple[Package, ...]
    """Packages of the same format that no index has: they are from another archive, or were removed."""
    ahead: tuple[Package, ...]
    """Packages newer than all the indexes have: the indexes are old, or the packages are from another archive."""

    @property
    def fresh(self) -> bool:
        """Whether an update would change nothing, and there was something to compare."""
        return self.compared > 0 and not self.changes


def compare(inventory: Inventory, indexes: Sequence[Path]) -> Freshness:
    """Return what an update from the archive of these `indexes` would change.

    Raises:
        FormatError: an index is none; LimitError: it is too large.
    """
    newest: dict[tuple[str, str], tuple[bytes, str, str]] = {}
    for file in indexes:
        for one in read(file):
            candidate = (deb.key(one.version), one.version, file.name)
            for arch in {one.arch, ""}:
                known = newest.get((one.name, arch))
                newest[one.name, arch] = max(known, candidate) if known else candidate
    compared, changes, elsewhere, ahead = 0, [], [], []
    for package in (one for one in inventory.packages if one.kind == "deb"):
        there = newest.get((package.name, package.arch)) or newest.get((package.name, ""))
        if there is None:
            elsewhere.append(package)
            continue
        compared += 1
        own = deb.key(package.version)
        if there[0] > own:
            changes.append(Change(package, there[1], there[2]))
        elif there[0] < own:
            ahead.append(package)
    return Freshness(compared, tuple(changes), tuple(elsewhere), tuple(ahead))


def addresses(system: System, arch: str, mirror: str) -> Sequence[str]:
    """Return where the archive of `system` has its indexes: of the release, its updates, and its security updates.

    Raises:
        UsageError: the system is not a release of Debian.
    """
    suite = ecosystem.debian_codename(system.version) if system.id == "debian" else ""
    if not suite:
        title = system.title or system.distro
        raise UsageError(f"{title} has no archive that is known here", hint="name its indexes with --index FILE")
    base = mirror.rstrip("/") or _MIRROR
    security = f"{base}-security" if base.endswith("/debian") else f"{_MIRROR}-security"
    places = ((base, suite), (base, f"{suite}-updates"), (security, f"{suite}-security"))
    return [f"{where}/dists/{name}/main/binary-{arch}/Packages.xz" for where, name in places]


def read(file: Path) -> Iterator[Available]:
    """Yield the packages of an index.

    Raises:
        FormatError: it is none; LimitError: it is too large.
    """
    data = _content(file)
    head = data[:4096].partition(b"\n")[0]
    if head.count(b"\t") == _COLUMNS - 1:
        yield from _table(data.decode(errors="replace").splitlines())
    elif b":" in head:
        yield from _paragraphs(data.decode(errors="replace").splitlines())
    else:
        raise FormatError(
            f"{file.name} is no index of packages", hint="it is the file Packages, or Packages.xz, of a suite"
        )


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        if opened.read(len(_XZ)) != _XZ:
            return whole(file, _INDEX_BYTES)
    try:
        with lzma.open(file) as packed:
            data = packed.read(_INDEX_BYTES + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"{file.name} is no whole xz file: {error}") from error
    if len(data) > _INDEX_BYTES:
        raise LimitError(f"{file.name} is larger than {_INDEX_BYTES} bytes")
    return data


def _table(lines: Iterable[str]) -> Iterator[Available]:
    for line in lines:
        parts = line.split("\t")
        if len(parts) == _COLUMNS:
            yield Available(parts[0], parts[1], "")


def _paragraphs(lines: Iterable[str]) -> Iterator[Available]:
    fields: dict[str, str] = {}
    for line in (*lines, ""):
        name, _, value = line.partition(":")
        if name in {"Package", "Version", "Architecture"}:
            fields[name] = value.strip()
        elif not line:
            if {"Package", "Version"} <= fields.keys():
                arch = fields.get("Architecture", "")
                yield Available(fields["Package"], fields["Version"], "" if arch == "all" else arch)
            fields = {}


def document(found: Freshness) -> Mapping[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "fresh": found.fresh,
        "compared": found.compared,
        "changes": [
            {"package": one.package.name, "from": one.package.version, "to": one.to, "index": one.origin}
            for one in found.changes
        ],
        "elsewhere": [f"{one.name} {one.version}" for one in found.elsewhere],
        "ahead": [f"{one.name} {one.version}" for one in found.ahead],
    }


def text(found: Freshness, name: str) -> str:
    """Return the comparison for people."""
    lines = [f"{one.package.name} {one.package.version} -> {one.to} ({one.origin})" for one in found.changes]
    lines += [f"newer than the archive: {one.name} {one.version}" for one in found.ahead]
    if found.elsewhere:
        lines.append(
            f"in no index: {', '.join(one.name for one in found.elsewhere[:10])}" + _more(len(found.elsewhere))
        )
    if not found.compared:
        lines.append(f"{name}: nothing to compare: the indexes have none of its packages")
    elif found.changes:
        lines.append(f"{name}: an update would change {len(found.changes)} of {found.compared} packages")
    else:
        lines.append(f"{name}: up to date, {found.compared} packages compared")
    return "\n".join(lines)


def _more(count: int) -> str:
    return f" and {count - 10} more" if count > 10 else ""
