"""Python's order of versions: PEP 440, as the Python Packaging User Guide states it ("Version specifiers").

What is no such version (93 of those that PyPI's advisories name) comes before all that are.
"""

import re

from computeops.check.versions.number import number

_VERSION = re.compile(
    r"""
    \s*v?
    (?:(?P<epoch>[0-9]+)!)?
    (?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>[0-9]+)?)?
    (?P<post>-(?P<post_short>[0-9]+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>[0-9]+)?)?
    (?P<dev>[-_.]?dev[-_.]?(?P<dev_number>[0-9]+)?)?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?
    \s*
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_PHASES = {"a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}
_INVALID, _VALID = b"\x01", b"\x02"
_NONE, _SOME, _LAST = b"\0", b"\x01", b"\xff"
_SEPARATORS = re.compile(r"[-_.]")


def key(version: str) -> bytes:
    """Return the key of `version`: keys compare as `packaging.version.Version`."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return _INVALID + version.strip().lower().encode(errors="surrogatepass")
    release = match["release"].split(".")
    while len(release) > 1 and not release[-1].strip("0"):
        release.pop()
    made = [_VALID, number(match["epoch"] or ""), *(_SOME + number(part) for part in release), _NONE]
    made += [_pre(match), _post(match), _dev(match), _local(match["local"])]
    return b"".join(made)


def is_version(version: str) -> bool:
    """Return whether `version` is one by PEP 440."""
    return _VERSION.fullmatch(version) is not None


def _pre(match: re.Match[str]) -> bytes:
    if match["pre"]:
        return bytes((_PHASES[match["pre"].lower()],)) + number(match["pre_number"] or "")
    # 1.0.dev1 comes before 1.0a1, but 1.0 and 1.0.post1.dev1 after 1.0rc1.
    return _NONE if match["dev"] and not match["post"] else _LAST


def _post(match: re.Match[str]) -> bytes:
    return _SOME + number(match["post_short"] or match["post_number"] or "") if match["post"] else _NONE


def _dev(match: re.Match[str]) -> bytes:
    return _SOME + number(match["dev_number"] or "") if match["dev"] else _LAST


def _local(local: str | None) -> bytes:
    if not local:
        return _NONE
    parts = _SEPARATORS.split(local.lower())
    return b"".join(b"\x02" + number(one) if one.isdigit() else b"\x01" + one.encode() + b"\0" for one in parts) + _NONE
