"""What reports of others have in common: names of vulnerabilities, words of severity, texts of strangers."""

import re
from collections.abc import Iterable, Mapping

from computeops.check.advisories.model import plain

_CVE = re.compile(r"CVE-\d{4}-\d{4,19}")
_SEVERITIES: Mapping[str, str] = {
    "critical": "critical",
    "defcon1": "critical",
    "high": "high",
    "important": "high",
    "medium": "medium",
    "moderate": "medium",
    "low": "low",
    "negligible": "negligible",
}


def names(several: Iterable[object]) -> tuple[str, ...]:
    """Return the names of a vulnerability, the CVEs among them first."""
    found = dict.fromkeys(name for one in several if (name := plain(str(one))))
    cves = dict.fromkeys(cve for one in found for cve in _CVE.findall(one))
    return tuple(cves | found)


def severity(word: object) -> str:
    """Return a word of SEVERITIES."""
    return _SEVERITIES.get(str(word).lower(), "unknown")


def text(value: object) -> str:
    """Return what can be shown anywhere, or ""."""
    return plain(value) if isinstance(value, str) else ""
