"""Alpine's secdb (https://secdb.alpinelinux.org): for each source package the versions that fixed something."""

import re
from collections.abc import Iterator

import msgspec

from computeops.check.advisories.bounded import typed
from computeops.check.advisories.ecosystem import normal
from computeops.check.advisories.model import Advisory, Affected, Span, State, plain
from computeops.check.advisories.osv import key_function
from computeops.errors import FormatError

_ID = re.compile(r"[A-Za-z][\w.:-]{3,80}")


class _Package(msgspec.Struct):
    name: str
    secfixes: dict[str, list[str] | None] | None = None


class _Entry(msgspec.Struct):
    pkg: _Package


class _Database(msgspec.Struct):
    distroversion: str
    packages: list[msgspec.Raw]


def read(data: bytes, name: str) -> Iterator[Advisory | None]:
    """Yield what fixed one vulnerability of one package; None for an entry that cannot be read.

    Raises:
        FormatError: it is no secdb.
    """
    database: _Database = typed(data, _Database, name)
    ecosystem = normal(f"Alpine:{database.distroversion}")
    for raw in database.packages:
        try:
            package = typed(raw, _Entry, name).pkg
        except FormatError:
            yield None
            continue
        for version, fixed in (package.secfixes or {}).items():
            yield from _fixes(ecosystem, package.name, version, fixed or ())


def _fixes(ecosystem: str, package: str, version: str, fixed: list[str] | tuple[()]) -> Iterator[Advisory | None]:
    for line in fixed:
        # "CVE-2019-1 CVE-2019-2" and "CVE-2019-1 (+ regression fix)" occur: names of one or of several.
        names = [word for word in line.split() if _ID.fullmatch(word) and any(one.isdigit() for one in word)]
        if not names:
            yield None
        for one in names:
            if version == "0":
                what = Affected(ecosystem, package, (Span(),), State.NOT_AFFECTED)
            else:
                what = Affected(ecosystem, package, (Span(high=key_function("Alpine")(version), fixed=plain(version)),))
            yield Advisory(one, "", "", (one,), (), "unknown", None, "", (what,))
