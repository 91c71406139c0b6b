"""What several scanners say of one image, side by side."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Scan
from computeops.check.scanner import Report, Reported, ids

OURS = "computeops"
_SILENT, _ASIDE = "-", "does not count"


@dataclass(frozen=True, slots=True)
class Row:
    """One vulnerability of one package."""

    id: str
    package: str
    version: str
    said: Mapping[str, str]
    """What each scanner says of it: a severity, that it does not count, or nothing."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What scanners say of one image."""

    scanners: tuple[str, ...]
    rows: tuple[Row, ...]
    """The worst first."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings which of the scanners have: by their names, joined by `+`."""
        found: Counter[str] = Counter()
        for row in self.rows:
            loud = [name for name in self.scanners if row.said[name] not in {_SILENT, _ASIDE}]
            found["+".join(loud) or "none"] += 1
        return dict(sorted(found.items(), key=lambda one: -one[1]))


def compare(scan: Scan, reports: Sequence[Report]) -> Comparison:
    """Put the findings of `scan` beside those of others."""
    own = Report(scanner=OURS, uri="", version="", database="", findings=tuple(_own(scan)))
    aside = {(one.id, one.package.name, one.package.version) for one in scan.suppressed}
    everybody = (own, *reports)
    same = ids(everybody)
    scanners = tuple(dict.fromkeys(report.scanner for report in everybody))
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for report in everybody:
        for one in report.findings:
            said = found.setdefault((same[one.id], one.package, one.version), dict.fromkeys(scanners, _SILENT))
            quiet = report is own and (one.id, one.package, one.version) in aside
            said[report.scanner] = _ASIDE if quiet else one.severity
    rows = (Row(*place, said) for place, said in found.items())
    return Comparison(scanners, tuple(sorted(rows, key=_order)))


def _own(scan: Scan) -> Iterator[Reported]:
    for one in scan.findings:
        yield Reported(
            id=one.id,
            names=(one.id, *one.aliases),
            package=one.package.name,
            version=one.package.version,
            fixed=one.fixed,
            severity=one.severity,
        )


def _order(row: Row) -> tuple[int, str, str]:
    worst = max((SEVERITIES.index(word) for word in row.said.values() if word in SEVERITIES), default=-1)
    return (-worst, row.package, row.id)


def document(found: Comparison) -> Mapping[str, Any]:
    """Return the comparison as JSON values."""
    rows = [
        {"id": one.id, "package": one.package, "version": one.version, "said": dict(one.said)} for one in found.rows
    ]
    return {"scanners": list(found.scanners), "counts": dict(found.counts), "findings": rows}


def text(found: Comparison, name: str) -> str:
    """Return the comparison for people: only where scanners differ, and the counts."""
    differing = [one for one in found.rows if len({word in {_SILENT, _ASIDE} for word in one.said.values()}) > 1]
    head = ("vulnerability", "package", "version", *found.scanners)
    table = [head, *((one.id, one.package, one.version, *one.said.values()) for one in differing)]
    widths = [max(len(row[at]) for row in table) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    counts = "; ".join(f"{names}: {count}" for names, count in found.counts.items())
    agreed = f"{name}: {len(found.rows) - len(differing)} of {len(found.rows)} findings in agreement"
    return "\n".join([*(lines if differing else ()), f"{agreed} ({counts})" if counts else agreed])
