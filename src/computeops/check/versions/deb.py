r"""Debian's order of versions: deb-version(7), Debian Policy 5.6.12.

`[epoch:]upstream[-revision]`; the two texts are compared in runs, first what is no digit, then a number. Of characters
`~` comes first, before even the end of the text, then letters, then the rest.
"""

import re

from computeops.check.versions.number import number

_RUNS = re.compile(r"([^0-9]*)([0-9]*)")
_END = 0x02
_ORDER = {ord("~"): 0x01} | {code: code if chr(code).isalpha() else code | 0x80 for code in range(0x80) if code != 0x7E}
_FOREIGN = "\xff"
_BINARY_REBUILD = re.compile(r"\+b[0-9]+$")


def key(version: str) -> bytes:
    """Return the key of `version`: keys compare as `dpkg --compare-versions` does."""
    epoch, colon, rest = version.strip().partition(":")
    if not colon or not (epoch.isascii() and epoch.isdigit()):
        epoch, rest = "", version.strip()
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream, revision = rest, ""
    return number(epoch) + _text(upstream) + _text(revision)


def source_version(version: str) -> str:
    """Return the version of the source that a binary of `version` was built from: `+b1` counts rebuilds (binNMU)."""
    return _BINARY_REBUILD.sub("", version)


def _text(text: str) -> bytes:
    made = bytearray()
    for other, digits in _RUNS.findall(text)[:-1] or [("", "")]:
        made += other.translate(_ORDER).encode("latin-1") if other.isascii() else _foreign(other)
        made.append(_END)
        made += number(digits)
    made.append(_END)
    return bytes(made)


def _foreign(text: str) -> bytes:
    """Characters that no version has, after all others."""
    return "".join(one if one.isascii() else _FOREIGN for one in text).translate(_ORDER).encode("latin-1")
