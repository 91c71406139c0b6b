"""Semantic versions (https://semver.org, 2.0.0, section 11), read as generously as advisories write them.

`v1.2`, `1.2.3.4`, `2.0.0rc2`: numbers that are not there are 0, and a word right after the numbers is a pre-release.
"""

import re

from computeops.check.versions.number import number

_VERSION = re.compile(
    r"\s*[vV=]?(?:go(?=[0-9]))?(?P<core>[0-9]+(?:\.[0-9]+)*)"
    r"(?:-(?P<pre>[^+\s]+)|[._]?(?P<word>[A-Za-z][^+\s]*))?(?:\+(?P<build>\S*))?\s*"
)
_WORDS = re.compile(r"[0-9]+|[A-Za-z]+")
_INVALID, _VALID = b"\x01", b"\x02"
_END, _NUMBER, _WORD, _RELEASE = b"\0", b"\x01", b"\x02", b"\xff"


def key(version: str) -> bytes:
    """Return the key of `version`; build metadata does not count."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return _INVALID + version.strip().encode(errors="surrogatepass")
    return _VALID + _core(match["core"]) + _pre(match)


def key_with_build(version: str) -> bytes:
    """Return the key of a version of Julia, where of equal versions the one with the greater build is newer."""
    match = _VERSION.fullmatch(version)
    build = match["build"] if match else ""
    return key(version) + (_identifiers(build.split(".")) if build else _END)


def key_with_revision(version: str) -> bytes:
    """Return the key of a version of Bitnami, who counts its own builds of a release behind a hyphen: `1.25.3-1`."""
    release, hyphen, revision = version.rpartition("-")
    if hyphen and revision.isascii() and revision.isdigit() and (made := key(release)).endswith(_RELEASE):
        return made + number(revision)
    return key(version) + number("")


def key_in_any_case(version: str) -> bytes:
    """Return the key of a version of NuGet, where `1.0-BETA` is `1.0-beta`."""
    return key(version.lower())


def _core(core: str) -> bytes:
    parts = core.split(".")
    while len(parts) > 1 and not parts[-1].strip("0"):
        parts.pop()
    return b"".join(_NUMBER + number(part) for part in parts) + _END


def _pre(match: re.Match[str]) -> bytes:
    if match["pre"]:
        return _identifiers(match["pre"].split("."))
    return _identifiers(_WORDS.findall(match["word"])) if match["word"] else _RELEASE


def _identifiers(parts: list[str]) -> bytes:
    made = (
        _NUMBER + number(part)
        if part.isascii() and part.isdigit()
        else _WORD + part.encode(errors="surrogatepass") + b"\0"
        for part in parts
    )
    return b"".join(made) + _END
