"""A scan as a CycloneDX 1.6 document: the inventory of the image with its vulnerabilities."""

import json
from collections.abc import Sequence
from typing import Any

from computeops.check import cyclonedx
from computeops.check.advisories.model import State
from computeops.check.findings import Finding, Scan
from computeops.check.inventory import Inventory
from computeops.check.report.link import address
from computeops.model import Image

_SEVERITIES = {"negligible": "info"}
_METHODS = (("CVSS:4.0", "CVSSv4"), ("CVSS:3.1", "CVSSv31"), ("CVSS:3.0", "CVSSv3"), ("AV:", "CVSSv2"))
_JUSTIFICATIONS = {
    "component_not_present": "code_not_present",
    "vulnerable_code_not_present": "code_not_present",
    "vulnerable_code_not_in_execute_path": "code_not_reachable",
    "vulnerable_code_cannot_be_controlled_by_adversary": "requires_environment",
    "inline_mitigations_already_exist": "protected_by_mitigating_control",
}
_RESPONSES = {State.WILL_NOT_FIX: "will_not_fix", State.END_OF_LIFE: "can_not_fix"}


def write(scan: Scan, image: Image, inventory: Inventory) -> str:
    """Return the document, with the time of the scan."""
    made = cyclonedx.document(image, inventory, scan.time)
    names = cyclonedx.references(inventory.packages)
    grouped: dict[tuple[str, str, str], list[Finding]] = {}
    for one in scan.findings:
        grouped.setdefault((one.id, one.suppressed, one.ecosystem), []).append(one)
    made["vulnerabilities"] = [
        _vulnerability(key, found, [names[one.package] for one in found]) for key, found in grouped.items()
    ]
    made["metadata"]["properties"] += [
        {"name": "computeops:verdict", "value": str(scan.verdict)},
        *({"name": "computeops:gap", "value": f"{one.kind}: {one.what}: {one.why}"} for one in scan.gaps),
        *({"name": "computeops:stale", "value": one} for one in scan.stale),
    ]
    return json.dumps(made, indent=2, ensure_ascii=False)


def _vulnerability(key: tuple[str, str, str], found: Sequence[Finding], refs: Sequence[str]) -> dict[str, Any]:
    id_, suppressed, ecosystem = key
    first = found[0]
    made: dict[str, Any] = {
        "bom-ref": "|".join(part for part in (id_, ecosystem, "suppressed" if suppressed else "", refs[0]) if part),
        "id": id_,
        "source": {"name": first.severity_source or first.ecosystem, "url": address(id_)},
        "ratings": [_rating(first)],
        "affects": [{"ref": ref} for ref in dict.fromkeys(refs)],
    }
    if first.aliases:
        made["references"] = [{"id": one, "source": {"url": address(one)}} for one in first.aliases]
    if first.summary:
        made["description"] = first.summary
    fixes = sorted({one.fixed for one in found if one.fixed})
    if fixes:
        made["recommendation"] = f"update {first.asked_name} to {' or '.join(fixes)}"
    made["analysis"] = _analysis(first)
    made["properties"] = [{"name": "computeops:confidence", "value": str(first.confidence)}]
    return made


def _rating(one: Finding) -> dict[str, Any]:
    made: dict[str, Any] = {"severity": _SEVERITIES.get(one.severity, one.severity)}
    if one.score is not None:
        made["score"] = one.score
    if one.vector:
        made["method"] = next((method for head, method in _METHODS if one.vector.startswith(head)), "other")
        made["vector"] = one.vector
    return made


def _analysis(one: Finding) -> dict[str, Any]:
    if not one.suppressed:
        made: dict[str, Any] = {"state": "in_triage"}
        response = _RESPONSES.get(one.state) or ("update" if one.fixed else "")
        return made | ({"response": [response]} if response else {})
    state = "in_triage" if one.state is State.UNDER_INVESTIGATION else "not_affected"
    made = {"state": state, "detail": f"{one.suppressed} ({one.suppressed_by})"}
    if state == "not_affected" and one.justification in _JUSTIFICATIONS:
        made["justification"] = _JUSTIFICATIONS[one.justification]
    return made
