"""Where people read more about a vulnerability."""

from urllib.parse import quote


def address(vulnerability: str) -> str:
    """Return the address of a page about `vulnerability`."""
    if vulnerability.startswith("CVE-"):
        return f"https://nvd.nist.gov/vuln/detail/{quote(vulnerability, safe='')}"
    if vulnerability.startswith("TEMP-"):
        return f"https://security-tracker.debian.org/tracker/{quote(vulnerability, safe='')}"
    return f"https://osv.dev/vulnerability/{quote(vulnerability, safe=':')}"
