"""An inventory as SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3)."""

import hashlib
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from computeops import __version__
from computeops.check.inventory import Inventory, Package
from computeops.check.inventory.license import LIST_VERSION, references
from computeops.model import Image

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_NONE = "NOASSERTION"
_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"


def document(image: Image, inventory: Inventory, epoch: int) -> dict[str, Any]:
    """Return the document: equal arguments give equal documents."""
    name = image.labels.get(_TITLE) or image.id.short
    made: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{name}-{image.labels[_VERSION]}" if _VERSION in image.labels else name,
        "documentNamespace": f"https://computeops.org/spdx/{uuid.uuid5(uuid.NAMESPACE_URL, str(image.id))}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: computeops-{__version__}"],
            "licenseListVersion": LIST_VERSION,
        },
        "packages": [_image(image, inventory), *(_package(one) for one in inventory.packages)],
        "relationships": [_relation(_DOCUMENT, "DESCRIBES", _IMAGE), *_contents(inventory)],
    }
    if extracted := list(_extracted(made["packages"])):
        made["hasExtractedLicensingInfos"] = extracted
    lines = [f"Looked for packages of: {', '.join(inventory.looked_for)}"] if inventory.looked_for else []
    if inventory.unread:
        lines += ["Known to be incomplete:", *(f"{one.kind}: /{one.place}: {one.why}" for one in inventory.unread)]
    if lines:
        made["comment"] = "\n".join(lines)
    return made


def _image(image: Image, inventory: Inventory) -> dict[str, Any]:
    made = {
        "SPDXID": _IMAGE,
        "name": image.labels.get(_TITLE) or str(image.id),
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": image.id.algorithm.upper(), "checksumValue": image.id.hex}],
        "comment": f"Image {image.id} with {inventory.system.title or inventory.system.distro}",
    }
    if version := image.labels.get(_VERSION):
        made["versionInfo"] = version
    return made


def _package(package: Package) -> dict[str, Any]:
    made = {
        "SPDXID": _id(package),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": package.license or _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": "LIBRARY",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}
        ],
        "comment": f"Recorded in /{package.place}",
    }
    if package.source:
        made["sourceInfo"] = f"built from source package: {package.source} {package.source_version}"
    return made


def _id(package: Package) -> str:
    """Return an identifier that depends on nothing but the package: [a-zA-Z0-9.-]+ after SPDXRef-."""
    unique = hashlib.sha256(f"{package.purl}\0{package.place}".encode()).hexdigest()[:16]
    clean = re.sub(r"[^A-Za-z0-9.]+", "-", package.name)[:80]
    return f"SPDXRef-{package.kind}-{clean}-{unique}"


def _contents(inventory: Inventory) -> Iterable[dict[str, str]]:
    owners = {one.purl: _id(one) for one in inventory.packages if not one.owner}
    holders = {purl: _id(one) for one in inventory.packages for purl in one.holds}
    for package in inventory.packages:
        owner = owners.get(package.owner) or holders.get(package.purl, _IMAGE)
        yield _relation(owner, "CONTAINS", _id(package))


def _relation(subject: str, kind: str, related: str) -> dict[str, str]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": related}


def _extracted(packages: Iterable[dict[str, Any]]) -> Iterable[dict[str, str]]:
    names = {name for package in packages for name in references(package["licenseDeclared"])}
    for name in sorted(names):
        called = name.removeprefix("LicenseRef-")
        text = f"The package calls its licence {called}; SPDX has no identifier for it. Its text is in the image."
        yield {"licenseId": name, "name": called, "extractedText": text}
