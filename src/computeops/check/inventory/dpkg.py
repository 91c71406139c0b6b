"""Debian's packages: var/lib/dpkg/status, and status.d where there is no dpkg (distroless).

Formats: deb-control(5), dpkg-query(1), and for licences copyright-format 1.0 (DEP 5).
"""

import re
from collections.abc import Collection, Iterable, Iterator

from computeops.check.inventory.content import Content
from computeops.check.inventory.fields import Paragraph, lines, paragraphs
from computeops.check.inventory.license import all_of
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.errors import FormatError
from computeops.image.tree import Entry, Kind
from computeops.limits import KIB

KIND = "deb"
_STATUS = "var/lib/dpkg/status"
_STATUS_D = "var/lib/dpkg/status.d/"
_INFO = "var/lib/dpkg/info/"
_SUMS = ".md5sums"
_DOC = "usr/share/doc/"
_DOC_DEPTH = 4
_NO_RECORDS = (b"/usr/share/man/", b"/usr/share/locale/", b"/usr/include/", b"/usr/share/icons/")
_COPYRIGHT_BYTES = 1024 * KIB
_APPLIES = re.compile(rb"^(?:Files|License):.*$|^[ \t]*$", re.MULTILINE | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_VERSION = re.compile(r"[!-~]{1,256}")
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?")
_GONE = {"not-installed", "config-files"}
_FORMAT = b"copyright-format/1."
_FIELDS = frozenset({"package", "status", "version", "architecture", "source"})
_MOST_LICENSES = 200


def wanted(entry: Entry) -> bool:
    """Return whether `entry` belongs to dpkg's records, is a copyright file, or a link in the place of its folder."""
    path = entry.path
    if path.startswith("var/lib/dpkg/"):
        if entry.kind is Kind.DIRECTORY:
            return False
        return path == _STATUS or path.startswith(_STATUS_D) or (path.startswith(_INFO) and path.endswith(".list"))
    if not path.startswith(_DOC):
        return False
    depth = path.count("/")
    if depth == _DOC_DEPTH:
        return path.endswith("/copyright")
    return depth == _DOC_DEPTH - 1 and entry.kind is Kind.SYMLINK


def kept(content: Content) -> bytes | None:
    """Return the records; of a list of files those that may record packages, of a copyright file what applies.

    Raises:
        LimitError: it is too large.
    """
    if content.path.startswith(_DOC):
        return _said(content)
    data = content.whole()
    if content.path.endswith(".list"):
        return b"\n".join(line for line in data.split(b"\n") if not line.startswith(_NO_RECORDS))
    return data


def _said(content: Content) -> bytes | None:
    """Return the paragraphs of a machine-readable copyright file without their texts; None for one only for people."""
    if _FORMAT not in content.at(0, 1024):
        return None
    found = _APPLIES.findall(content.at(0, _COPYRIGHT_BYTES))
    return b"\n".join([b"Format: " + _FORMAT, *found])


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package that is unpacked, whatever its state; conffiles that were left behind are no package.

    Raises:
        FormatError: a paragraph has no name or version, or a line is no field.
    """
    for place in _places(files):
        for line, fields in paragraphs(files.get(place) or b"", place, _FIELDS):
            # What was never unpacked has no version, and distroless images have no status.
            if fields.get("status", "").rpartition(" ")[2] not in _GONE:
                package = _package(fields, files, system, place, line)
                yield Found(package, _owned(package, files, place, records))


def _places(files: Files) -> Iterable[str]:
    if files.get(_STATUS) is not None:
        yield _STATUS
    yield from (path for path, _ in files.of(KIND) if path.startswith(_STATUS_D) and not path.endswith(_SUMS))


def _package(fields: Paragraph, files: Files, system: System, place: str, line: int) -> Package:
    name, version, arch = (fields.get(key, "") for key in ("package", "version", "architecture"))
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or (arch and not _NAME.fullmatch(arch)):
        raise FormatError(f"/{place}, line {line}: not a package: {name[:80]!r} {version[:80]!r} {arch[:80]!r}")
    source = _SOURCE.fullmatch(fields.get("source", "") or name)
    if source is None or not _NAME.fullmatch(source[1]):
        raise FormatError(f"/{place}, line {line}: not a source package: {fields['source'][:80]!r}")
    return Package(
        "deb",
        name,
        version,
        purl("deb", system.id, name, version, {"arch": arch, "distro": system.distro}),
        place,
        arch,
        source[1],
        source[2] or version,
        _license(files.get(f"usr/share/doc/{name}/copyright")),
    )


def _license(data: bytes | None) -> str:
    """Return the licences of a machine-readable copyright file; "" for one that only people can read."""
    if data is None or _FORMAT not in data[:1024]:
        return ""
    names: set[str] = set()
    for _, fields in paragraphs(data, "copyright", {"files", "license"}, strict=False):
        # The paragraphs with files say what applies; one with a licence alone is its text.
        if "files" in fields and len(names) <= _MOST_LICENSES:
            names.add(fields.get("license", "").partition("\n")[0])
    return all_of(names) if len(names) <= _MOST_LICENSES else ""


def _owned(package: Package, files: Files, place: str, records: Records) -> Collection[str]:
    if place == _STATUS:
        named = (f"{_INFO}{package.name}{arch}.list" for arch in (f":{package.arch}", ""))
        data = next((found for path in named if (found := files.get(path)) is not None), b"")
        return {path for line in lines(data) if (path := records(line))}
    # Distroless images have no list of files, but their checksums: two fields with two spaces between.
    data = files.get(f"{place}{_SUMS}") or b""
    return {path for line in lines(data) if (path := records(line.partition("  ")[2]))}
