"""Grype (https://github.com/anchore/grype): its JSON report, version 0.50 and later."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops.check.scanner.fields import names, severity, text
from computeops.check.scanner.model import Report, Reported


def argv(layout: Path) -> Sequence[str]:
    """Return the command that writes a report about an OCI layout to its standard output."""
    return ["grype", "--quiet", "--output", "json", f"oci-dir:{layout}"]


def knows(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON document looks like its report."""
    return "matches" in document and isinstance(document.get("descriptor"), dict)


def read(document: Mapping[str, Any]) -> Report:
    """Return what a report of it says.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is broken.
    """
    said = document["descriptor"]
    database = said.get("db") or {}
    return Report(
        scanner="grype",
        uri="https://github.com/anchore/grype",
        version=text(said.get("version")),
        database=text((database.get("status") or database).get("built")),
        findings=tuple(map(_reported, document["matches"])),
    )


def _reported(match: Mapping[str, Any]) -> Reported:
    vulnerability, artifact = match["vulnerability"], match["artifact"]
    known = names([vulnerability["id"], *(one["id"] for one in match.get("relatedVulnerabilities") or ())])
    fixes = (vulnerability.get("fix") or {}).get("versions") or [""]
    return Reported(
        id=known[0],
        names=known,
        package=text(artifact["name"]),
        version=text(artifact["version"]),
        purl=text(artifact.get("purl")),
        fixed=text(fixes[0]),
        severity=severity(vulnerability.get("severity")),
    )
