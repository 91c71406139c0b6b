"""A scan as OpenVEX 0.2.0: what is known of each vulnerability of the image, and why some do not count."""

import json
from collections.abc import Sequence
from typing import Any

from computeops.check.advisories.model import State
from computeops.check.findings import Finding, Scan
from computeops.check.report.document import moment
from computeops.check.report.link import address

_JUSTIFICATIONS = frozenset(
    {
        "component_not_present",
        "vulnerable_code_not_present",
        "vulnerable_code_not_in_execute_path",
        "vulnerable_code_cannot_be_controlled_by_adversary",
        "inline_mitigations_already_exist",
    }
)


def write(scan: Scan, name: str, author: str = "computeops") -> str:
    """Return the document; its product is the image by its digests, its subcomponents the packages."""
    image = scan.subjects["image"]
    product = {
        "@id": f"pkg:oci/image@{image}".replace(":", "%3A").replace("pkg%3A", "pkg:"),
        "hashes": {one.algorithm.replace("sha", "sha-"): one.hex for one in scan.subjects.values()},
    }
    grouped: dict[tuple[str, str, str, str], list[Finding]] = {}
    for one in scan.findings:
        grouped.setdefault((one.id, _status(one), one.suppressed, one.fixed), []).append(one)
    made = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"https://computeops.org/vex/{image.hex}/{scan.time}",
        "author": author,
        "timestamp": moment(scan.time),
        "version": 1,
        "tooling": f"computeops scan of {name}",
        "statements": [_statement(found, product) for found in grouped.values()],
    }
    return json.dumps(made, indent=2, ensure_ascii=False)


def _status(one: Finding) -> str:
    if one.state is State.UNDER_INVESTIGATION:
        return "under_investigation"
    return "not_affected" if one.suppressed else "affected"


def _statement(found: Sequence[Finding], product: dict[str, Any]) -> dict[str, Any]:
    first = found[0]
    packages = dict.fromkeys(one.package.purl for one in found)
    made: dict[str, Any] = {
        "vulnerability": {"@id": address(first.id), "name": first.id, "aliases": list(first.aliases)},
        "products": [product | {"subcomponents": [{"@id": purl} for purl in packages]}],
        "status": _status(first),
    }
    if made["status"] == "affected":
        made["action_statement"] = (
            f"update {first.asked_name} to {first.fixed}" if first.fixed else "there is no fix yet"
        )
    elif made["status"] == "not_affected":
        made["impact_statement"] = f"{first.suppressed} ({first.suppressed_by})"
        if first.justification in _JUSTIFICATIONS:
            made["justification"] = first.justification
    return made
