"""Findings on real data against what others say: how often we are wrong, of how many answers.

--advisories names a folder of real data (osv/ECOSYSTEM/all.zip, debian-index/*.tsv.gz, samples/*.gz); what it has not
is left out. Python's records are judged a second time by packaging, from the pseudocode of the OSV schema; a suite of
Debian must be as new as itself and older than its security updates; every VEX document must be read.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import feeds
from computeops.check import freshness, versions, vex
from computeops.check.advisories import ecosystem
from computeops.check.advisories.lookup import Index
from computeops.check.advisories.update import update
from computeops.check.inventory import Inventory, Package, System

_DEBIAN = System("debian", "12", "Debian GNU/Linux 12 (bookworm)")
Result = Mapping[str, Any]


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--advisories", type=Path, required=True, help="folder of real data")
    parser.add_argument("--every", type=int, default=7, help="judge one of so many records")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        results = list(measure(options.advisories, options.every, Path(work)))
    lines = [
        f"{one['claim']}: {len(one['wrong'])} wrong of {one['judged']:,} {one['wrong'][:5] or ''}" for one in results
    ]
    print(json.dumps(results, indent=2) if options.json else "\n".join(lines))


def measure(real: Path, every: int, work: Path) -> Iterator[Result]:
    """Judge what the folder `real` has."""
    judges: Mapping[str, Callable[[], Result]] = {
        "osv/PyPI/all.zip": lambda: python(real, every, work),
        "debian-index/bookworm.packages-amd64.tsv.gz": lambda: suite(real / "debian-index"),
        "samples": lambda: documents(real / "samples", work),
    }
    yield from (judge() for place, judge in judges.items() if (real / place).exists())


def python(real: Path, every: int, work: Path) -> Result:
    """Judge records of PyPI at each version that they name, and at some that they do not."""
    path = work / "index.sqlite"
    update(path, ["osv/PyPI"], mirror=str(real), now=int(time.time()))
    judged, wrong = 0, []
    with zipfile.ZipFile(real / "osv/PyPI/all.zip") as archive, Index(path) as index:
        for name in archive.namelist()[::every]:
            record = json.loads(archive.read(name))
            for entry in record.get("affected", ()):
                number = index.package("PyPI", ecosystem.name_of("PyPI", entry["package"]["name"]))
                for version in _asked(entry):
                    try:
                        expected = feeds.affected_by_the_schema(version, entry) and "withdrawn" not in record
                    except InvalidVersion:
                        continue
                    judged += 1
                    if _found(index, number, record["id"], version) != expected:
                        wrong.append(f"{record['id']} {version}")
    return {"claim": "PyPI, records at versions, judged by packaging", "judged": judged, "wrong": wrong}


def _asked(entry: Mapping[str, Any]) -> set[str]:
    events = [event for one in entry.get("ranges", ()) if one["type"] != "GIT" for event in one["events"]]
    named = {version for event in events for version in event.values() if version != "0"}
    return named | set(entry.get("versions", ())[::7]) | {"0.1", "99"}


def _found(index: Index, number: int | None, name: str, version: str) -> bool:
    if number is None:
        return False
    return name in {index.notice(hit.advisory).id for hit in index.hits(number, versions.key("pep440", version))}


def suite(folder: Path) -> Result:
    """Compare a suite with itself, and with its security updates by dpkg's order of the two tables."""
    base, security = (folder / f"bookworm{one}.packages-amd64.tsv.gz" for one in ("", "-security"))
    newest: dict[str, str] = {}  # a suite may have two versions of one package
    for one in freshness.read(base):
        if versions.compare("deb", one.version, newest.get(one.name, "0")) > 0:
            newest[one.name] = one.version
    packages = tuple(Package("deb", *one, f"pkg:deb/debian/{one[0]}@{one[1]}", "status") for one in newest.items())
    wrong = [one.package.name for one in freshness.compare(Inventory(_DEBIAN, packages), [base]).changes]
    updates = freshness.compare(Inventory(_DEBIAN, packages), [base, security])
    if not 0 < len(updates.changes) < updates.compared:
        wrong.append(f"{len(updates.changes)} of {updates.compared} packages have an update")
    return {"claim": "a suite of Debian against itself and its updates", "judged": 2 * len(packages), "wrong": wrong}


def documents(folder: Path, work: Path) -> Result:
    """Read every VEX document among the samples."""
    judged, wrong = 0, []
    for packed in sorted(folder.glob("*vex*.gz")) + sorted(folder.glob("*csaf*.gz")):
        file = work / packed.stem
        file.write_bytes(gzip.decompress(packed.read_bytes()))
        judged += 1
        if not any(one.products[0].package for one in vex.read(file) if one.products):
            wrong.append(file.name)
    return {"claim": "VEX documents of Red Hat and Ubuntu", "judged": judged, "wrong": wrong}


if __name__ == "__main__":
    main()
