"""Facts about vulnerabilities themselves: KEV, those that are exploited, and EPSS, how likely that is."""

import re
from collections.abc import Iterator

import msgspec

from computeops.check.advisories.bounded import rows, typed
from computeops.errors import FormatError

_CVE = re.compile(r"CVE-\d{4}-\d{4,19}")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_HEAD = ["cve", "epss", "percentile"]


class _Exploited(msgspec.Struct, rename="camel"):
    cve_id: str = msgspec.field(name="cveID")
    date_added: str


class _Catalog(msgspec.Struct):
    vulnerabilities: list[_Exploited]


def exploited(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Yield CVE and day of each entry of CISA's catalog of known exploited vulnerabilities.

    Raises:
        FormatError: it is not that catalog.
    """
    catalog: _Catalog = typed(data, _Catalog, name)
    for one in catalog.vulnerabilities:
        if not _CVE.fullmatch(one.cve_id) or not _DAY.fullmatch(one.date_added):
            raise FormatError(f"{name}: not an exploited vulnerability: {one.cve_id[:40]!r} {one.date_added[:40]!r}")
        yield one.cve_id, one.date_added


def likely(data: bytes, name: str) -> Iterator[tuple[str, float, float]]:
    """Yield CVE, probability and percentile of each row of an EPSS file.

    Raises:
        FormatError: it is no EPSS file.
    """
    lines = rows(data)
    if next(lines, None) != _HEAD:
        raise FormatError(f"{name}: not an EPSS file: its columns are not {', '.join(_HEAD)}")
    for number, line in enumerate(lines, 1):
        try:
            cve, score, percentile = line[0], float(line[1]), float(line[2])
        except (IndexError, ValueError) as error:
            raise FormatError(f"{name}, row {number}: not an EPSS score: {line!r:.80}") from error
        if not _CVE.fullmatch(cve) or not 0 <= score <= 1 or not 0 <= percentile <= 1:
            raise FormatError(f"{name}, row {number}: not an EPSS score: {line!r:.80}")
        yield cve, score, percentile
