"""RPM's packages: one header for each, in a database of one of three formats.

rpmdb.sqlite   Fedora 33, RHEL 9 and newer       a table of blobs
Packages.db    openSUSE (ndb)                    slots and blobs
Packages       RHEL 8 and older (Berkeley DB)    a hash
"""

import re
from collections.abc import Iterator

from computeops.check.inventory import rpm_bdb, rpm_ndb, rpm_sqlite
from computeops.check.inventory.content import Content
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.rpm_header import (
    ARCH,
    BASENAMES,
    DIRINDEXES,
    DIRNAMES,
    EPOCH,
    LICENSE,
    MODULE,
    NAME,
    RELEASE,
    SOURCE,
    VERSION,
    Header,
)
from computeops.errors import FormatError
from computeops.image.tree import Entry, Kind

KIND = "rpm"
_FOLDERS = ("usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm")
# Newest first: what a migration to a newer format left behind is not read.
_DATABASES = ("rpmdb.sqlite", "Packages.db", "Packages")
_WAL = "-wal"
_PATHS = frozenset(f"{folder}/{name}" for folder in _FOLDERS for name in (*_DATABASES, _DATABASES[0] + _WAL))
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._-]*")
_PART = re.compile(r"[!-,.-~]{1,256}")  # printable, and no hyphen: it separates version and release
_MODULE = re.compile(r"[\w.+-]+:[\w.+-]+(?::[\w.+-]*)*", re.ASCII)
_LONGEST_MODULE = 256
_SIGNING_KEY = "gpg-pubkey"


def wanted(entry: Entry) -> bool:
    """Return whether `entry` is one of rpm's databases, or a link in the place of their folder."""
    return entry.path in _PATHS or (entry.path in _FOLDERS and entry.kind is Kind.SYMLINK)


def kept(content: Content) -> bytes | None:
    """Return the database.

    Raises:
        LimitError: it is too large.
    """
    return content.whole()


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every installed package; the keys that rpm keeps as packages `gpg-pubkey` are none.

    Raises:
        FormatError: a database or a header in it is broken.
    """
    for folder in dict.fromkeys(files.real(path) for path in _FOLDERS):
        there = [f"{folder}/{name}" for name in _DATABASES if files.get(f"{folder}/{name}")]
        for number, blob in enumerate(_blobs(there[0], files) if there else (), 1):
            header = Header.parse(blob, f"/{there[0]}, package {number}")
            if header.text(NAME) != _SIGNING_KEY:
                yield Found(_package(header, system, there[0]), set(_owned(header, records)))
        for older in there[1:]:
            yield Unread("rpm", older, f"an older database beside {there[0].rpartition('/')[2]}")


def _blobs(path: str, files: Files) -> Iterator[bytes]:
    data = files.get(path) or b""
    match path.rpartition("/")[2]:
        case "rpmdb.sqlite":
            return rpm_sqlite.blobs(data, files.get(path + _WAL) or b"", path)
        case "Packages.db":
            return rpm_ndb.blobs(data, path)
        case _:
            return rpm_bdb.blobs(data, path)


def _package(header: Header, system: System, place: str) -> Package:
    name, version, release, arch = (header.text(tag) for tag in (NAME, VERSION, RELEASE, ARCH))
    if not _NAME.fullmatch(name) or not _PART.fullmatch(version) or not _PART.fullmatch(release):
        raise FormatError(f"{header.where}: not a package: {name[:80]!r} {version[:80]!r} {release[:80]!r}")
    if arch and not _NAME.fullmatch(arch):
        raise FormatError(f"{header.where}: not an architecture: {arch[:80]!r}")
    whole, epoch = f"{version}-{release}", next(iter(header.numbers(EPOCH)), 0)
    prefix = f"{epoch}:" if epoch else ""
    qualifiers = {"arch": arch, "distro": system.distro, "epoch": str(epoch) if epoch else ""}
    source, source_version = _source(header.text(SOURCE))
    return Package(
        "rpm",
        name,
        prefix + whole,
        purl("rpm", system.id, name, whole, qualifiers),
        place,
        arch,
        source or name,
        prefix + (source_version or whole),
        expression(header.text(LICENSE)),
        module=_module(header.text(MODULE)),
    )


def _module(label: str) -> str:
    return label if len(label) <= _LONGEST_MODULE and _MODULE.fullmatch(label) else ""


def _source(file: str) -> tuple[str, str]:
    """Return name, and version with release, of `bash-5.1.8-6.el9.src.rpm`; two empty texts for anything else."""
    stem = re.sub(r"\.(?:no)?src\.rpm$", "", file)
    rest, _, release = stem.rpartition("-")
    name, _, version = rest.rpartition("-")
    whole = _NAME.fullmatch(name) and _PART.fullmatch(version) and _PART.fullmatch(release)
    return (name, f"{version}-{release}") if whole else ("", "")


def _owned(header: Header, records: Records) -> Iterator[str]:
    folders, names, numbers = header.texts(DIRNAMES), header.texts(BASENAMES), header.numbers(DIRINDEXES)
    for name, number in zip(names, numbers, strict=False):
        if number >= len(folders):
            raise FormatError(f"{header.where}: the file {name[:80]!r} is in a folder that is not listed")
        if path := records(folders[number] + name):
            yield path
