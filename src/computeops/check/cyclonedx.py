"""An inventory as CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json, ECMA-424)."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from computeops import __version__
from computeops.check.inventory import Inventory, Package
from computeops.model import Image

_IMAGE_REF = "image"
_ALGORITHMS = {"sha256": "SHA-256", "sha512": "SHA-512"}
_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"


def document(image: Image, inventory: Inventory, epoch: int) -> dict[str, Any]:
    """Return the document: equal arguments give equal documents."""
    names = references(inventory.packages)
    system = inventory.system
    parts: list[dict[str, Any]] = [{"type": "operating-system", "bom-ref": "system", "name": system.id}]
    if system.version:
        parts[0]["version"] = system.version
    if system.title:
        parts[0]["description"] = system.title
    inner: dict[str, list[dict[str, Any]]] = {}
    for package in inventory.packages:
        if package.owner:
            inner.setdefault(package.owner, []).append(_component(package, names))
    parts += [_component(one, names, inner.get(one.purl, ())) for one in inventory.packages if not one.owner]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'https://computeops.org/image/{image.id}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "computeops", "version": __version__}]},
            "component": _image(image),
            "properties": [
                *({"name": "computeops:looked-for", "value": one} for one in inventory.looked_for),
                *(
                    {"name": "computeops:unread", "value": f"{one.kind}: /{one.place}: {one.why}"}
                    for one in inventory.unread
                ),
            ],
        },
        "components": parts,
        "dependencies": [{"ref": _IMAGE_REF, "dependsOn": [one["bom-ref"] for one in parts]}],
        # What was compiled by hand leaves no record: nobody can call the list complete.
        "compositions": [
            {"aggregate": "incomplete" if inventory.unread else "unknown", "assemblies": [_IMAGE_REF]},
        ],
    }


def references(packages: Sequence[Package]) -> Mapping[Package, str]:
    """Return a name for each package that no other has: its purl, with its place where two have the same purl."""
    count = Counter(one.purl for one in packages)
    return {one: one.purl if count[one.purl] == 1 else f"{one.purl}#{one.place}" for one in packages}


def _image(image: Image) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "container",
        "bom-ref": _IMAGE_REF,
        "name": image.labels.get(_TITLE) or str(image.id),
    }
    if version := image.labels.get(_VERSION):
        made["version"] = version
    made["hashes"] = [{"alg": _ALGORITHMS[image.id.algorithm], "content": image.id.hex}]
    return made


def _component(package: Package, names: Mapping[Package, str], inner: Sequence[Any] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": names[package],
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.license:
        made["licenses"] = [{"expression": package.license}]
    facts = {
        "computeops:arch": package.arch,
        "computeops:place": f"/{package.place}",
        "computeops:source": package.source,
        "computeops:source-version": package.source_version,
        "computeops:module": package.module,
    }
    made["properties"] = [{"name": name, "value": value} for name, value in facts.items() if value]
    made["properties"] += [{"name": "computeops:holds", "value": purl} for purl in package.holds]
    if inner:
        made["components"] = list(inner)
    return made
