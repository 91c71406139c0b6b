"""Package URLs as every tool writes them: in which word the release of the distribution, the epoch and the source are.

           release                                     source package                 epoch
Syft       distro=debian-12                            upstream=gcc-12%4012.2.0-14    epoch=1
Trivy      distro=debian-12.5, 3.18.4                  by a property                  epoch=1
cdxgen     distro=debian-12, distro_name=bookworm      source=gcc-12                  epoch=1
Scout      os_name=debian, os_version=12, os_distro                                   in the version
APT        distro=bookworm                                                            in the version
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from computeops.check.inventory.bom import Component
from computeops.check.inventory.license import expression
from computeops.check.inventory.model import Package, System
from computeops.check.inventory.purl import purl as canonical
from computeops.check.inventory.record import LONGEST

DISTRIBUTIONS = frozenset({"deb", "apk", "rpm"})
_KIND = re.compile(r"[a-z][a-z0-9.-]*")
_RPM_FILE = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm")
_WORDS = re.compile(r"[A-Za-z0-9._-]+")
_IDS = {
    "redhat": "rhel",
    "oracle": "ol",
    "oraclelinux": "ol",
    "amazon": "amzn",
    "alma": "almalinux",
    "rockylinux": "rocky",
    "suse": "sles",
    "opensuse.leap": "opensuse-leap",
    "opensuse.tumbleweed": "opensuse-tumbleweed",
    "azure": "azurelinux",
}
"""Names of distributions in purls to their ID of os-release."""
_JOINED = {"npm": "/", "golang": "/", "maven": ":", "composer": "/", "github": "/", "huggingface": "/"}
"""How namespace and name together make the name that advisories use."""


@dataclass(frozen=True, slots=True)
class Purl:
    """The parts of a package URL, decoded."""

    kind: str
    namespace: str
    name: str
    version: str
    qualifiers: Mapping[str, str]


def parse(text: str) -> Purl | None:
    """Return the parts of `text`; None if it is no purl. Generous: tools forget to encode, or encode too much."""
    if text[:4].lower() != "pkg:" or len(text) > 4 * LONGEST:
        return None
    rest, _, asked = text[4:].lstrip("/").partition("#")[0].partition("?")
    kind, _, path = rest.partition("/")
    kind = kind.lower()
    # An @ at the beginning is that of a scope of npm that was not encoded.
    path, _, version = path.rpartition("@") if "@" in path[1:].rpartition("/")[2] else (path, "", "")
    parts = [unquote(part) for part in path.strip("/").split("/") if part]
    if not _KIND.fullmatch(kind) or not parts or not all(part.isprintable() for part in parts):
        return None
    pairs = (pair.partition("=") for pair in asked.split("&"))
    qualifiers = {name.lower(): unquote(value) for name, equals, value in pairs if equals and value}
    return Purl(kind, "/".join(parts[:-1]), parts[-1], unquote(version), qualifiers)


def package(one: Component, place: str) -> Package | None:
    """Return the package that a component of a bill of materials is; None for none with name and version."""
    found = parse(one.purl) if one.purl else Purl("generic", "", one.name, one.version, {})
    if found is None:
        return None
    version = found.version or one.version
    if not found.name or not version.isprintable() or not 0 < len(version) <= LONGEST or " " in version:
        return None
    epoch = found.qualifiers.get("epoch", "")
    prefix = f"{epoch}:" if epoch.isdigit() and epoch != "0" and ":" not in version else ""
    joined = _JOINED.get(found.kind)
    name = f"{found.namespace}{joined}{found.name}" if joined and found.namespace else found.name
    source, source_version = _source(found, one, prefix + version)
    return Package(
        found.kind,
        name,
        prefix + version,
        canonical(found.kind, found.namespace, found.name, version, found.qualifiers),
        one.place.removeprefix("/") or place,
        found.qualifiers.get("arch", ""),
        source,
        source_version,
        expression(one.license),
        "" if source or (owner := parse(one.owner)) is None or owner.kind not in DISTRIBUTIONS else one.owner,
        () if source else tuple(one.holds),
        one.module or found.qualifiers.get("rpmmod", ""),
    )


def system(one: Component) -> System | None:
    """Return the system that a component says: it is the operating system, or a package of one."""
    if one.system:
        name = one.name.lower()
        return System(_IDS.get(name, name), one.version) if _WORDS.fullmatch(one.name) else None
    found = parse(one.purl)
    if found is None or found.kind not in DISTRIBUTIONS:
        return None
    asked = found.qualifiers
    id_ = asked.get("os_name") or found.namespace
    text = asked.get("os_version") or asked.get("distro") or asked.get("os_distro") or asked.get("distro_name") or ""
    head, hyphen, tail = text.rpartition("-")
    if hyphen and tail[:1].isdigit():
        id_, text = head, tail
    elif hyphen and head.lower() == id_.lower():
        text = tail
    id_ = id_.lower()
    if not _WORDS.fullmatch(id_) or (text and not _WORDS.fullmatch(text)):
        return None
    return System(_IDS.get(id_, id_), text)


def _source(found: Purl, one: Component, version: str) -> tuple[str, str]:
    """Return name and version of the source package, of a package of a distribution."""
    if found.kind not in DISTRIBUTIONS:
        return "", ""
    asked = found.qualifiers
    text = one.source or asked.get("upstream") or asked.get("source") or asked.get("origin") or ""
    if (match := _RPM_FILE.fullmatch(text)) is not None:
        epoch, colon, _ = version.partition(":")
        return match[1], f"{epoch}:{match[2]}" if colon else match[2]
    name, _, said = text.partition("@")
    if not _WORDS.fullmatch(name.replace("+", "")):
        return found.name, version
    return name, one.source_version or said or version
