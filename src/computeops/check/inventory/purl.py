"""Package URLs (https://github.com/package-url/purl-spec, version 1.0): the canonical form of each kind we read."""

import re
from collections.abc import Mapping
from urllib.parse import quote

_LOWER_NAMES = frozenset({"apk", "bitbucket", "composer", "deb", "github", "golang", "npm", "pypi"})
_RUN = re.compile(r"[-_.]+")


def purl(kind: str, namespace: str, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    """Return the canonical purl; empty parts and qualifiers are left out.

    deb, apk, npm, golang: namespace and name in lower case. rpm: namespace. pypi: the name as in PEP 503.
    """
    if kind == "pypi":
        name = _RUN.sub("-", name)
    if kind in _LOWER_NAMES:
        name = name.lower()
    if kind in _LOWER_NAMES or kind == "rpm":
        namespace = namespace.lower()
    path = "/".join(_encoded(part) for part in (kind, *namespace.split("/"), name) if part)
    at = f"@{_encoded(version)}" if version else ""
    asked = "&".join(f"{key}={_encoded(value)}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{path}{at}{'?' if asked else ''}{asked}"


def _encoded(text: str) -> str:
    # The colon stays as it is in every part (purl-spec 1.0, "Character encoding").
    return quote(text, safe=":", errors="surrogateescape")
