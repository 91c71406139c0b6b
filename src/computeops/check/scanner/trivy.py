"""Trivy (https://github.com/aquasecurity/trivy): its JSON report, schema version 2."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops.check.scanner.fields import names, severity, text
from computeops.check.scanner.model import Report, Reported


def argv(layout: Path) -> Sequence[str]:
    """Return the command that writes a report about an OCI layout to its standard output."""
    return ["trivy", "image", "--quiet", "--scanners", "vuln", "--format", "json", "--input", str(layout)]


def knows(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON document looks like its report."""
    return "SchemaVersion" in document and "ArtifactName" in document


def read(document: Mapping[str, Any]) -> Report:
    """Return what a report of it says.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is broken.
    """
    return Report(
        scanner="trivy",
        uri="https://github.com/aquasecurity/trivy",
        version=text((document.get("Trivy") or {}).get("Version")),
        database="",
        findings=tuple(
            _reported(one) for result in document.get("Results") or () for one in result.get("Vulnerabilities") or ()
        ),
    )


def _reported(one: Mapping[str, Any]) -> Reported:
    known = names([one["VulnerabilityID"], *(one.get("VendorIDs") or ())])
    return Reported(
        id=known[0],
        names=known,
        package=text(one["PkgName"]),
        version=text(one["InstalledVersion"]),
        purl=text((one.get("PkgIdentifier") or {}).get("PURL")),
        fixed=text(one.get("FixedVersion")),
        severity=severity(one.get("Severity")),
    )
