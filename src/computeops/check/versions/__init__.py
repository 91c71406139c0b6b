"""Orders of versions, each from its published rules, as keys: bytes that compare as the versions do.

A key is made once and compared by memory, in Python and in SQLite. Every text has a key; what no version looks like
comes where the ecosystem's own program puts it, else before all versions.
"""

from collections.abc import Callable, Mapping

from computeops.check.versions import apk, deb, gem, loose, maven, pep440, rpm, semver

SCHEMES: Mapping[str, Callable[[str], bytes]] = {
    "deb": deb.key,
    "rpm": rpm.key,
    "rpm-no-epoch": rpm.key_without_epoch,
    "apk": apk.key,
    "pep440": pep440.key,
    "semver": semver.key,
    "julia": semver.key_with_build,
    "bitnami": semver.key_with_revision,
    "nuget": semver.key_in_any_case,
    "gem": gem.key,
    "maven": maven.key,
    "loose": loose.key,
}
"""Name of an order to the function that makes its keys."""


def key(scheme: str, version: str) -> bytes:
    """Return the key of `version` in the order called `scheme`."""
    return SCHEMES[scheme](version)


def compare(scheme: str, first: str, second: str) -> int:
    """Return -1, 0 or 1: whether `first` is older than, the same as, or newer than `second`."""
    one, other = key(scheme, first), key(scheme, second)
    return (one > other) - (one < other)
