"""A scan as GitLab's container scanning report (security report schemas 15).

https://gitlab.com/gitlab-org/security-products/security-report-schemas
"""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from computeops import __version__
from computeops.check.findings import Finding, Scan
from computeops.check.report.link import address

_SCHEMA = "15.2.4"
_SEVERITIES = {
    "critical": "Critical",
    "high": "High",
    "medium": "Medium",
    "low": "Low",
    "negligible": "Info",
    "unknown": "Unknown",
}
_LONGEST_NAME = 255
_LONGEST_SOLUTION = 7000


def write(scan: Scan, name: str) -> str:
    """Return the report: what counts, and nothing that does not."""
    tool = {
        "id": "computeops",
        "name": "computeops",
        "version": __version__,
        "vendor": {"name": "ComputeOps"},
        "url": "https://computeops.readthedocs.io",
    }
    time = datetime.fromtimestamp(scan.time, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    messages = [f"not judged: {one.kind}: {one.what}: {one.why}" for one in scan.gaps]
    messages += [f"stale: {one}" for one in scan.stale]
    made = {
        "version": _SCHEMA,
        "scan": {
            "analyzer": tool,
            "scanner": tool,
            "type": "container_scanning",
            "start_time": time,
            "end_time": time,
            "status": "success",
            "messages": [{"level": "warn", "value": text} for text in messages],
        },
        "vulnerabilities": [_vulnerability(one, scan, name) for one in scan.counting],
        "remediations": [],
    }
    return json.dumps(made, indent=2, ensure_ascii=False)


def merged(reports: Sequence[str]) -> str:
    """Return one report of several that `write` made: what two of them found, the first tells.

    GitLab takes one file of a job, and a release may be of several variants.
    """
    made, *others = map(json.loads, reports)
    known = {one["id"] for one in made["vulnerabilities"]}
    for other in others:
        made["vulnerabilities"] += [one for one in other["vulnerabilities"] if one["id"] not in known]
        known |= {one["id"] for one in other["vulnerabilities"]}
        messages = made["scan"]["messages"]
        messages += [one for one in other["scan"]["messages"] if one not in messages]
    return json.dumps(made, indent=2, ensure_ascii=False)


def _vulnerability(one: Finding, scan: Scan, name: str) -> dict[str, Any]:
    system = scan.system.title or scan.system.distro
    # The same finding in the next pipeline has the same id.
    id_ = uuid.uuid5(
        uuid.NAMESPACE_URL, f"https://computeops.org/finding/{one.id}/{one.package.purl}/{one.package.place}"
    )
    made: dict[str, Any] = {
        "id": str(id_),
        "name": f"{one.id} in {one.package.name}"[:_LONGEST_NAME],
        "description": one.summary or one.id,
        "severity": _SEVERITIES[one.severity],
        "location": {
            "dependency": {"package": {"name": one.package.name}, "version": one.package.version},
            "operating_system": system or "unknown",
            "image": name,
        },
        "identifiers": [_identifier(id_) for id_ in (one.id, *one.aliases)][:20],
        "links": [{"url": address(one.id)}],
    }
    if one.fixed:
        made["solution"] = f"Update {one.asked_name} to {one.fixed}"[:_LONGEST_SOLUTION]
    return made


def _identifier(id_: str) -> dict[str, str]:
    kind = id_.partition("-")[0].lower() or "other"
    return {"type": kind, "name": id_, "value": id_, "url": address(id_)}
