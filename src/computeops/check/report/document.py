"""A scan as a JSON document of our own: everything that is known, for machines."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from computeops.check.findings import Finding, Scan

_VERSION = 1


def write(scan: Scan, name: str) -> str:
    """Return the document; `name` is what the user calls the image."""
    return json.dumps(document(scan, name), indent=2, ensure_ascii=False)


def document(scan: Scan, name: str) -> dict[str, Any]:
    """Return the scan as JSON values."""
    return {
        "version": _VERSION,
        "image": name,
        "digests": {one: str(digest) for one, digest in scan.subjects.items()},
        "time": moment(scan.time),
        "verdict": str(scan.verdict),
        "system": {"id": scan.system.id, "version": scan.system.version, "title": scan.system.title},
        "packages": scan.packages,
        "packagesOfDistribution": scan.owned,
        "counts": dict(scan.counts),
        "gaps": [{"kind": one.kind, "what": one.what, "why": one.why} for one in scan.gaps],
        "stale": list(scan.stale),
        "warnings": list(scan.warnings),
        "advisories": [
            {
                "feed": one.name,
                "published": moment(one.published),
                "checked": moment(one.checked),
                "records": one.records,
            }
            for one in scan.feeds
        ],
        "findings": [_finding(one) for one in scan.counting],
        "suppressed": [_finding(one) for one in scan.suppressed],
    }


def moment(seconds: int) -> str | None:
    """Return a time as RFC 3339 writes it; None for 0, which is not known."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def _finding(one: Finding) -> Mapping[str, Any]:
    made: dict[str, Any] = {
        "id": one.id,
        "package": {
            "name": one.package.name,
            "version": one.package.version,
            "kind": one.package.kind,
            "purl": one.package.purl,
            "place": f"/{one.package.place}",
        },
        "asked": {"ecosystem": one.ecosystem, "name": one.asked_name, "version": one.asked_version},
        "advisories": list(one.advisories),
        "aliases": list(one.aliases),
        "severity": one.severity,
        "severitySource": one.severity_source,
        "score": one.score,
        "vector": one.vector,
        "fixed": one.fixed,
        "state": one.state.word,
        "exploitedSince": one.exploited,
        "exploitProbability": one.likely,
        "confidence": str(one.confidence),
        "summary": one.summary,
        "note": one.note,
    }
    if one.suppressed:
        made |= {"suppressed": one.suppressed, "suppressedBy": one.suppressed_by, "justification": one.justification}
    return {name: value for name, value in made.items() if value not in ("", None)}
