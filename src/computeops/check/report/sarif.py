"""A scan as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0), as GitHub's code scanning reads it."""

import json
from collections.abc import Mapping
from typing import Any

from computeops import __version__
from computeops.check.findings import Finding, Scan
from computeops.check.report.document import moment
from computeops.check.report.link import address

_LEVELS: Mapping[str, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "negligible": "note",
    "unknown": "warning",
}
_SCORES: Mapping[str, float] = {
    "critical": 9.5,
    "high": 8.0,
    "medium": 5.5,
    "low": 2.0,
    "negligible": 0.1,
    "unknown": 5.0,
}
"""GitHub sorts by a number; where nobody scored a vulnerability, one from the middle of its band."""


def write(scan: Scan, name: str, category: str = "") -> str:
    """Return the document; what does not count is there too, as suppressed.

    `category` keeps several apart that are about one commit; it ends in a slash.
    """
    rules = {one.id: one for one in reversed(scan.findings)}
    places = {id_: at for at, id_ in enumerate(rules)}
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "computeops",
                "version": __version__,
                "informationUri": "https://computeops.readthedocs.io",
                "rules": [_rule(one) for one in rules.values()],
            }
        },
        "results": [_result(one, name, places[one.id]) for one in scan.findings],
        "invocations": [
            {
                "executionSuccessful": True,
                "endTimeUtc": moment(scan.time),
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": text}} for text in _notifications(scan)
                ],
            }
        ],
        "properties": {"verdict": str(scan.verdict)},
        "columnKind": "utf16CodeUnits",
    }
    if category:
        run["automationDetails"] = {"id": category}
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _notifications(scan: Scan) -> list[str]:
    gaps = [f"not judged: {one.kind}: {one.what}: {one.why}" for one in scan.gaps]
    return [*gaps, *(f"stale: {one}" for one in scan.stale), *scan.warnings]


def _rule(one: Finding) -> dict[str, Any]:
    score = _SCORES[one.severity] if one.score is None else one.score
    text = one.summary or one.id
    return {
        "id": one.id,
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "helpUri": address(one.id),
        "defaultConfiguration": {"level": _LEVELS[one.severity]},
        "properties": {"security-severity": f"{score:.1f}", "tags": ["security", "vulnerability", one.severity]},
    }


def _result(one: Finding, name: str, rule: int) -> dict[str, Any]:
    fix = f"update to {one.fixed}" if one.fixed else "there is no fix"
    made: dict[str, Any] = {
        "ruleId": one.id,
        "ruleIndex": rule,
        "level": _LEVELS[one.severity],
        "message": {"text": f"{one.package.name} {one.package.version}: {one.id} ({one.severity}); {fix}"},
        "locations": [
            {
                # GitHub wants a line of a file; the record of the package is the nearest there is.
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(one.package.place)},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"name": one.package.name, "fullyQualifiedName": f"{name}: {one.package.purl}", "kind": "package"}
                ],
            }
        ],
        "partialFingerprints": {"computeops/v1": f"{one.id} {one.package.purl} {one.package.place}"},
    }
    if one.suppressed:
        made["suppressions"] = [{"kind": "external", "justification": f"{one.suppressed} ({one.suppressed_by})"}]
    return made


def _uri(place: str) -> str:
    from urllib.parse import quote

    return quote(place, errors="replace")
