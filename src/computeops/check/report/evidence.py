"""A scan as evidence: an in-toto Vulns statement.

Specification: https://github.com/in-toto/attestation/blob/main/spec/predicates/vuln.md, version 0.2. What it has no
field for is under `computeops_scan`: the verdict, what could not be judged, what does not count.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from computeops import __version__
from computeops.check import kinds
from computeops.check.advisories.index import Feed
from computeops.check.findings import Finding, Scan
from computeops.check.report.document import moment
from computeops.check.scanner import Report, Reported
from computeops.model import Digest, Evidence


def evidence(scan: Scan) -> Evidence:
    """Return what was found, as evidence about the image that was scanned."""
    oldest = min((one.published or one.checked for one in scan.feeds), default=0)
    predicate: dict[str, Any] = {
        "scanner": {
            "uri": f"https://computeops.org/scan@{__version__}",
            "version": __version__,
            "db": {
                "uri": "https://computeops.org/advisories",
                "version": _version(scan.feeds),
                "lastUpdate": moment(oldest) or "1970-01-01T00:00:00Z",
            },
            "result": [_result(one) for one in scan.counting],
        },
        "metadata": {"scanStartedOn": moment(scan.time), "scanFinishedOn": moment(scan.time)},
        "computeops_scan": {
            "verdict": str(scan.verdict),
            "counts": dict(scan.counts),
            "packages": scan.packages,
            "gaps": [{"kind": one.kind, "what": one.what, "why": one.why} for one in scan.gaps],
            "stale": list(scan.stale),
            "suppressed": [
                {"id": one.id, "package": one.package.purl, "why": one.suppressed, "by": one.suppressed_by}
                for one in scan.suppressed
            ],
        },
    }
    return Evidence(kinds.VULNS, scan.subjects, predicate)


def reported(report: Report, subjects: Mapping[str, Digest], time: int) -> Evidence:
    """Return what another scanner said, as evidence of the same kind."""
    predicate: dict[str, Any] = {
        "scanner": {
            "uri": f"{report.uri}@{report.version}" if report.version else report.uri,
            "version": report.version,
            "db": {"uri": report.uri, "version": "", "lastUpdate": report.database or "1970-01-01T00:00:00Z"},
            "result": [_reported(one) for one in report.findings],
        },
        "metadata": {"scanStartedOn": moment(time), "scanFinishedOn": moment(time)},
    }
    return Evidence(kinds.VULNS, subjects, predicate)


def _reported(one: Reported) -> dict[str, Any]:
    package = one.purl or f"{one.package} {one.version}"
    annotations = [{"package": package}, *([{"fixed": one.fixed}] if one.fixed else [])]
    return {"id": one.id, "severity": [{"method": "scanner", "score": one.severity}], "annotations": annotations}


def _version(feeds: Sequence[Feed]) -> str:
    """Return a name for the state of the advisories: equal for equal feeds."""
    state = "\n".join(f"{one.name} {one.tag} {one.newest} {one.records}" for one in feeds)
    return hashlib.sha256(state.encode()).hexdigest()[:16]


def _result(one: Finding) -> dict[str, Any]:
    severity = [{"method": "computeops", "score": one.severity}]
    if one.score is not None:
        method = "CVSS_V3" if one.vector.startswith("CVSS:3") else "CVSS_V2"
        severity.append({"method": method, "score": f"{one.score:.1f}"})
    facts = {"package": one.package.purl, "fixed": one.fixed, "exploited": one.exploited, "advisories": one.advisories}
    return {"id": one.id, "severity": severity, "annotations": [{key: value} for key, value in facts.items() if value]}
