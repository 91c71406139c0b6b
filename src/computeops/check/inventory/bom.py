"""Software bills of materials of other tools: CycloneDX, SPDX 2 and 3, and Syft's own format, as rows of components.

Of what components say of each other only who installed whom is taken; who depends on whom is not followed, so circles
are harmless.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from computeops.check.inventory.record import members, object_of, word
from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS

_NO_SOFTWARE = frozenset({"file", "container", "device", "data", "machine-learning-model", "cryptographic-asset"})
_SYSTEM = "operating-system"
_SOURCES = {
    "computeops:source": "source",
    "computeops:source-version": "source_version",
    "aquasecurity:trivy:SrcName": "source",
    "aquasecurity:trivy:SrcVersion": "source_version",
    "aquasecurity:trivy:SrcRelease": "source_release",
    "aquasecurity:trivy:SrcEpoch": "source_epoch",
    "syft:metadata:source": "source",
    "syft:metadata:sourceVersion": "source_version",
    "syft:metadata:originPackage": "source",
    "syft:metadata:sourceRpm": "source",
    "computeops:module": "module",
    "aquasecurity:trivy:Modularitylabel": "module",
    "syft:metadata:modularityLabel": "module",
    "computeops:place": "place",
}
"""Properties of CycloneDX by which tools name the source package, the module, and the file that says so."""
_HOLDS = "computeops:holds"
_OVERLAP = "ownership-by-file-overlap"
"""What Syft says of a package whose record belongs to another package."""
_BUILT = re.compile(r"(?:built package from|built from source package): (\S+)(?: (\S+))?")
"""In SPDX, Trivy and we write it into sourceInfo."""
_TAG = re.compile(r"([A-Za-z]+):\s*(.*)")
_SPDX_ROOT = frozenset({"CONTAINER", "FILE", "DEVICE"})


@dataclass(frozen=True, slots=True)
class Component:
    """What a document says of one package; empty where it does not."""

    name: str = ""
    version: str = ""
    purl: str = ""
    license: str = ""
    source: str = ""
    source_version: str = ""
    system: bool = False
    """Whether it is the operating system, no package."""
    module: str = ""
    place: str = ""
    """The file in the image that says so."""
    owner: str = ""
    """purl of the component that installed it."""
    holds: tuple[str, ...] = ()
    """purls of the components that it installed, where it says so itself."""


def components(data: bytes, path: str) -> list[Component]:
    """Return the components that the document in `data`, the content of `path`, names.

    Raises:
        FormatError: it is no bill of materials in a format that is known.
        LimitError: it names more components than packages are read of an image.
    """
    found: list[Component] = []
    for one in _of(data, path):
        found.append(one)
        if len(found) > LIMITS.package_records:
            raise LimitError(f"/{path} names more than {LIMITS.package_records} components")
    return found


def packed(found: Iterable[Component]) -> bytes:
    """Return components as they are remembered."""
    return json.dumps([astuple(one) for one in found]).encode()


def unpacked(data: bytes) -> Iterator[Component]:
    """Yield what `packed` got."""
    yield from (Component(*one) for one in json.loads(data))


def _of(data: bytes, path: str) -> Iterator[Component]:
    if data.lstrip()[:1] == b"<":
        raise FormatError(f"/{path}: bills of materials in XML are not read")
    if data.lstrip()[:12] == b"SPDXVersion:":
        return _spdx_lines(data)
    found = object_of(data, path)
    if isinstance(predicate := found.get("predicate"), dict):  # an in-toto statement about the image
        found = predicate
    if found.get("bomFormat") == "CycloneDX":
        return _cyclonedx(found)
    if str(found.get("spdxVersion")).startswith("SPDX-2"):
        return _spdx(found)
    if isinstance(found.get("@graph"), list):
        return _spdx_3(found)
    if isinstance(found.get("artifacts"), list):
        return _syft(found)
    raise FormatError(f"/{path} is no bill of materials of CycloneDX, SPDX or Syft")


def _cyclonedx(found: Mapping[str, Any]) -> Iterator[Component]:
    pending = [("", iter(members(found, "components")))]
    while pending:
        owner, listed = pending[-1]
        one = next(listed, None)
        if one is None:
            pending.pop()
            continue
        purl = word(one.get("purl"))
        pending.append((purl or owner, iter(members(one, "components"))))
        kind = one.get("type")
        if kind in _NO_SOFTWARE:
            continue
        name = word(one.get("name"))
        if group := word(one.get("group")):
            name = f"{group}/{name}"
        properties = members(one, "properties")
        yield Component(
            name,
            word(one.get("version")),
            purl,
            _cyclonedx_license(one),
            **_said(properties),
            system=kind == _SYSTEM,
            owner=owner,
            holds=tuple(word(each.get("value")) for each in properties if each.get("name") == _HOLDS),
        )


def _said(properties: list[dict[str, Any]]) -> dict[str, str]:
    said: dict[str, str] = {}
    for one in properties:
        if (name := _SOURCES.get(str(one.get("name")))) and (value := word(one.get("value"))):
            said.setdefault(name, value)
    release, epoch = said.pop("source_release", ""), said.pop("source_epoch", "")
    if release:
        said["source_version"] = f"{said.get('source_version', '')}-{release}"
    if epoch:
        said["source_version"] = f"{epoch}:{said.get('source_version', '')}"
    return said


def _cyclonedx_license(one: Mapping[str, Any]) -> str:
    said = members(one, "licenses")
    if len(said) != 1:
        return ""
    inner = said[0].get("license")
    known = inner.get("id") or inner.get("name") if isinstance(inner, dict) else ""
    return word(said[0].get("expression") or known)


def _spdx(found: Mapping[str, Any]) -> Iterator[Component]:
    described = found.get("documentDescribes")
    roots = set(map(str, described)) if isinstance(described, list) else set()
    packages = members(found, "packages")
    purls = {str(one.get("SPDXID")): _spdx_purl(members(one, "externalRefs")) for one in packages}
    owners: dict[str, str] = {}
    holds: dict[str, list[str]] = {}
    for one in members(found, "relationships"):
        kind, first, second = (
            str(one.get(name)) for name in ("relationshipType", "spdxElementId", "relatedSpdxElement")
        )
        if kind == "DESCRIBES":
            roots.add(second)
        elif kind == "CONTAINS" or str(one.get("comment")).startswith(_OVERLAP):
            owners[second] = purls.get(first, "")
            holds.setdefault(first, []).append(purls.get(second, ""))
    for one in packages:
        purpose, id_ = one.get("primaryPackagePurpose"), str(one.get("SPDXID"))
        if purpose in _SPDX_ROOT or (not purls[id_] and id_ in roots):
            continue
        built = _BUILT.fullmatch(word(one.get("sourceInfo")))
        yield Component(
            word(one.get("name")),
            word(one.get("versionInfo")),
            purls[id_],
            _asserted(one.get("licenseDeclared")) or _asserted(one.get("licenseConcluded")),
            built[1] if built else "",
            (built[2] or "") if built else "",
            system=purpose == "OPERATING-SYSTEM",
            owner=owners.get(id_, ""),
            holds=tuple(holds.get(id_, ())),
        )


def _spdx_purl(references: list[dict[str, Any]]) -> str:
    return next((word(one.get("referenceLocator")) for one in references if one.get("referenceType") == "purl"), "")


def _asserted(text: object) -> str:
    return "" if text in {"NOASSERTION", "NONE"} else word(text)


def _spdx_3(found: Mapping[str, Any]) -> Iterator[Component]:
    for one in members(found, "@graph"):
        if one.get("type") == "software_Package":
            purl = word(one.get("software_packageUrl"))
            identifiers = members(one, "externalIdentifier")
            known = (
                word(it.get("identifier")) for it in identifiers if it.get("externalIdentifierType") == "packageUrl"
            )
            if purl := purl or next(known, ""):
                yield Component(word(one.get("name")), word(one.get("software_packageVersion")), purl)


def _spdx_lines(data: bytes) -> Iterator[Component]:
    """Yield the packages of SPDX's tag-value form: a line each, a package begins with its name."""
    facts: dict[str, str] = {}
    for line in [*data.decode(errors="replace").splitlines(), "PackageName: -"]:
        match = _TAG.fullmatch(line)
        if match is None:
            continue
        name, value = match[1], word(match[2])
        if name == "PackageName":
            if facts.get("purl"):
                yield Component(facts["name"], facts.get("version", ""), facts["purl"], facts.get("license", ""))
            facts = {"name": value}
        elif name == "PackageVersion":
            facts["version"] = value
        elif name == "PackageLicenseDeclared":
            facts["license"] = _asserted(value)
        elif name == "ExternalRef" and len(parts := value.split()) == 3 and parts[1] == "purl":
            facts["purl"] = parts[2]


def _syft(found: Mapping[str, Any]) -> Iterator[Component]:
    distro = found.get("distro")
    if isinstance(distro, dict) and distro.get("id"):
        yield Component(word(distro.get("id")), word(distro.get("versionID")), system=True)
    artifacts = members(found, "artifacts")
    purls = {str(one.get("id")): word(one.get("purl")) for one in artifacts}
    related = members(found, "artifactRelationships")
    owners = {str(one.get("child")): str(one.get("parent")) for one in related if one.get("type") == _OVERLAP}
    for one in artifacts:
        metadata = one.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        source = word(metadata.get("source") or metadata.get("originPackage") or metadata.get("sourceRpm"))
        yield Component(
            word(one.get("name")),
            word(one.get("version")),
            word(one.get("purl")),
            source=source,
            source_version=word(metadata.get("sourceVersion")),
            module=word(metadata.get("modularityLabel")),
            owner=purls.get(owners.get(str(one.get("id")), ""), ""),
        )
