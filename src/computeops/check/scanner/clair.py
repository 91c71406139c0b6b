"""Clair 4 (https://github.com/quay/clair): its vulnerability report.

Clair is a server that fetches images from registries; what `clairctl report --out json` has written is read here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops.check.scanner.fields import names, severity, text
from computeops.check.scanner.model import Report, Reported
from computeops.errors import UsageError


def argv(layout: Path) -> Sequence[str]:
    """Raise UsageError: Clair scans what is in a registry."""
    raise UsageError(
        f"Clair scans images in registries, not {layout.name}",
        hint="write its report with `clairctl report --out json`, and name that file with --report",
    )


def knows(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON document looks like its report."""
    return "manifest_hash" in document and "package_vulnerabilities" in document


def read(document: Mapping[str, Any]) -> Report:
    """Return what a report of it says.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is broken.
    """
    packages, vulnerabilities = document["packages"], document["vulnerabilities"]
    found = dict.fromkeys(
        _reported(packages[package], vulnerabilities[one])
        for package, listed in document["package_vulnerabilities"].items()
        for one in listed
    )
    return Report(scanner="clair", uri="https://github.com/quay/clair", version="", database="", findings=tuple(found))


def _reported(package: Mapping[str, Any], one: Mapping[str, Any]) -> Reported:
    known = names([str(one["name"]).partition(":")[0] if "CVE-" not in str(one["name"]) else one["name"]])
    return Reported(
        id=known[0],
        names=known,
        package=text(package["name"]),
        version=text(package["version"]),
        fixed=text(one.get("fixed_in_version")),
        severity=severity(one.get("normalized_severity")),
    )
