"""What people say about findings: VEX documents in three formats, and ignore files of our own.

    openvex      https://openvex.dev, 0.2.0
    cyclonedx    the analysis of vulnerabilities in a CycloneDX document
    csaf         profile 5 of CSAF 2.0, "VEX"
    ignore       [[ignore]] tables in a TOML file, with a reason and an end

A finding is never dropped: one that does not count is kept with the reason, and who gave it. Of several statements
about one package the newest holds; one without a reason, or past its end, holds nothing.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from computeops.check.findings import Finding, Scan
from computeops.check.vex import csaf, cyclonedx, ignore, openvex
from computeops.check.vex.statement import Statement
from computeops.errors import FormatError, LimitError, NotFoundError
from computeops.limits import LIMITS

__all__ = ["Statement", "apply", "read"]


def read(file: Path) -> Sequence[Statement]:
    """Return the statements of a VEX document or an ignore file.

    Raises:
        NotFoundError: there is no such file; FormatError: it is none of these formats; LimitError: it is too large.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}")
    if file.stat().st_size > LIMITS.vex_bytes:
        raise LimitError(f"{file} is larger than {LIMITS.vex_bytes} bytes")
    data = file.read_bytes()
    if file.suffix == ".toml":
        return ignore.statements(data, file.name)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file.name} is no VEX document: {error!r:.200}") from error
    try:
        return _statements(document, file.name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{file.name} is no valid VEX document: {error!r:.200}") from error


def _statements(document: Any, name: str) -> Sequence[Statement]:
    if isinstance(document, dict) and "openvex" in str(document.get("@context", "")):
        return openvex.statements(document, name)
    if isinstance(document, dict) and document.get("bomFormat") == "CycloneDX":
        return cyclonedx.statements(document, name)
    if isinstance(document, dict) and str(document.get("document", {}).get("csaf_version", "")).startswith("2."):
        return csaf.statements(document, name)
    raise FormatError(
        f"{name} is no VEX document that is known here",
        hint="OpenVEX, CycloneDX and CSAF 2.0 are, and a .toml with [[ignore]]",
    )


def apply(scan: Scan, statements: Sequence[Statement], *, now: int) -> Scan:
    """Return `scan` with the findings that `statements` answer marked as not counting."""
    digests = frozenset(str(one) for one in scan.subjects.values())
    about: dict[str, list[Statement]] = {}
    for statement in statements:
        for name in statement.vulnerabilities:
            about.setdefault(name, []).append(statement)
    warnings: dict[str, None] = {}
    findings = []
    for finding in scan.findings:
        names = (finding.id, *finding.aliases, *finding.advisories)
        meant = {
            id(one): one for name in names for one in about.get(name, ()) if one.is_about(finding.package, digests)
        }
        findings.append(finding if finding.suppressed else _answered(finding, meant.values(), now, warnings))
    return replace(scan, findings=tuple(findings), warnings=(*scan.warnings, *warnings))


def _answered(finding: Finding, said: Iterable[Statement], now: int, warnings: dict[str, None]) -> Finding:
    valid = []
    for one in said:
        if one.until is not None and one.until < now:
            warnings[f"{one.by}: what it says about {finding.id} ended"] = None
        elif one.quiet and not one.reason and not one.justification:
            warnings[f"{one.by}: it does not say why {finding.id} should not count"] = None
        else:
            valid.append(one)
    if not valid:
        return finding
    newest = max(valid, key=lambda one: one.time)  # of equal times the first
    if not newest.quiet:
        return finding
    return finding.without(newest.reason or newest.justification.replace("_", " "), newest.by, newest.justification)
