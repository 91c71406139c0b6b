"""Java archives: the pom.properties of Maven in them, else what their manifest says; and the archives inside them.

https://maven.apache.org/shared/maven-archiver, https://docs.oracle.com/en/java/javase/21/docs/specs/jar/jar.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from computeops.check.inventory.archive import Archive, Inner, Member, Readable
from computeops.check.inventory.content import Content
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import LONGEST, packed, unpacked
from computeops.errors import FormatError
from computeops.image.tree import Entry, Kind
from computeops.limits import KIB, LIMITS, MIB

KIND = "maven"
_SUFFIXES = (".jar", ".war", ".ear", ".hpi", ".jpi", ".nar", ".aar")
_MANIFEST = "META-INF/MANIFEST.MF"
_POM = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_SMALL_BYTES = 256 * KIB
_INNER_BYTES = 256 * MIB
_DEEPEST = 3
_MOST_RECORDS = 5000
"""Packages in one archive, and archives in it."""
_WORD = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_VERSION = re.compile(r"[!-~]{1,256}")
_FILE = re.compile(r"(.+?)-(v?[0-9][\w.+-]*)", re.ASCII)
_SHORT_ID = re.compile(r"[a-z]{2,}\.[a-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class _Artifact:
    group: str
    name: str
    version: str
    license: str = ""


def wanted(entry: Entry) -> bool:
    """Return whether `entry` is a Java archive."""
    return entry.path.endswith(_SUFFIXES) and entry.kind is not Kind.DIRECTORY


def kept(content: Content) -> bytes | None:
    """Return the packages in an archive, and in the archives in it, with what could not be read.

    Raises:
        FormatError, LimitError: it is no archive.
    """
    if not content.size:
        return packed([], [])
    if content.size > LIMITS.java_archive_bytes:
        raise FormatError(f"/{content.path} has {content.size} bytes; at most {LIMITS.java_archive_bytes} are read")
    found: list[tuple[str, _Artifact]] = []
    faults: list[str] = []
    _search(content, 0, found, faults)
    rows = [[inside, one.group, one.name, one.version, one.license] for inside, one in found]
    return packed(rows, faults)


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package in every archive."""
    del system, records  # packages of Maven belong to no distribution, and own no records of others
    for place, data in files.of(KIND):
        found, faults = unpacked(data)
        for _, group, name, version, said in found:
            known = f"{group}:{name}" if group else name
            made = purl(KIND, group, name, version, {})
            yield Found(Package(KIND, known, version, made, place, license=expression(said)))
        yield from (Unread(KIND, place, fault) for fault in faults)


def _search(file: Readable, depth: int, found: list[tuple[str, _Artifact]], faults: list[str]) -> None:
    archive = Archive(file)
    poms: list[Member] = []
    inner: list[Member] = []
    manifest: Member | None = None
    for member in archive.members():
        if member.name == _MANIFEST:
            manifest = member
        elif member.name.endswith("/pom.properties") and _POM.fullmatch(member.name):
            poms.append(member)
        elif member.name.endswith(_SUFFIXES) and member.size:
            inner.append(member)
    own = [(file.path, one) for one in _artifacts(archive, file.path, poms, manifest, faults)]
    found += own
    if not own and not inner:
        faults.append(f"{file.path.rpartition('/')[2]} does not say which package it is")
    for member in inner:
        if len(found) + len(faults) > _MOST_RECORDS:
            faults.append(f"more than {_MOST_RECORDS} packages in one archive")
            return
        path = f"{file.path}!/{member.name[:200]}"
        if depth >= _DEEPEST:
            faults.append(f"/{path}: archives in archives are read {_DEEPEST} deep")
            continue
        try:
            _search(Inner(path, archive.content(member, _INNER_BYTES)), depth + 1, found, faults)
        except FormatError as error:
            faults.append(error.message[:500])


def _artifacts(
    archive: Archive, path: str, poms: list[Member], manifest: Member | None, faults: list[str]
) -> Iterator[_Artifact]:
    """Yield what an archive has itself: one package for each pom, of which a shaded archive has many."""
    facts = _manifest(_read(archive, manifest, faults))
    named = False
    for member in poms[:_MOST_RECORDS]:
        fields = dict(_property(line) for line in _read(archive, member, faults).splitlines())
        one = _artifact(fields.get("groupId", ""), fields.get("artifactId", ""), fields.get("version", ""))
        if one is None:
            faults.append(f"/{path}!/{member.name[:200]} names no package")
        else:
            named = True
            yield one
    if not named and (guess := _guess(facts, path)) is not None:
        yield guess


def _read(archive: Archive, member: Member | None, faults: list[str]) -> str:
    if member is None:
        return ""
    try:
        return archive.content(member, _SMALL_BYTES).decode(errors="replace")
    except FormatError as error:
        faults.append(error.message[:500])
        return ""


def _property(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.strip(), value.strip()


def _manifest(text: str) -> Mapping[str, str]:
    """Return the main section; a line that begins with a space goes on with the one before."""
    fields: dict[str, str] = {}
    for line in re.sub(r"\r?\n ", "", text).splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return fields


def _guess(facts: Mapping[str, str], path: str) -> _Artifact | None:
    """Return what manifest and file name say, where Maven left no record."""
    match = _FILE.fullmatch(path.rpartition("/")[2].rpartition(".")[0])
    names = ("Implementation-Version", "Bundle-Version", "Specification-Version")
    version = (match[2] if match else "") or next((facts[one] for one in names if facts.get(one)), "")
    symbolic = facts.get("Bundle-SymbolicName", "").partition(";")[0].strip()
    name = match[1] if match else path.rpartition("/")[2].rpartition(".")[0]
    group = facts.get("Implementation-Vendor-Id", "")
    if not group and _SHORT_ID.fullmatch(symbolic):
        group = symbolic.removesuffix(f".{name}")
    said = facts.get("Bundle-License", "")
    return _artifact(group, name, version, said if len(said) <= LONGEST and ";" not in said and "," not in said else "")


def _artifact(group: str, name: str, version: str, license_: str = "") -> _Artifact | None:
    version = next(iter(version.split(maxsplit=1)), "")
    if not _WORD.fullmatch(name) or not _VERSION.fullmatch(version) or max(len(name), len(group)) > LONGEST:
        return None
    return _Artifact(group if _WORD.fullmatch(group) else "", name, version, license_)
