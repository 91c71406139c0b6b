"""Findings on real data against what others say: how often we are wrong, of how many answers.

--advisories names a folder of real data (osv/ECOSYSTEM/all.zip, debian-index/*.tsv.gz, samples/*.gz); what it has not
is left out. Python's records are judged a second time by packaging, from the pseudocode of the OSV schema; a suite of
Debian must be as new as itself and older than its security updates; every VEX document must be read.

--osv-scanner names Google's program (`go install github.com/google/osv-scanner/v2/cmd/osv-scanner@latest`): it gets the
same feeds and the same bills of materials, of packages at the versions that records name and beside them.
"""

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.version import InvalidVersion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import feeds
from computeops.check import freshness, inventory, versions, vex
from computeops.check import scan as scanning
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
    parser.add_argument("--osv-scanner", help="the program")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        results = list(measure(options.advisories, options.every, Path(work)))
        results += third_party(options.advisories, options.osv_scanner, Path(work)) if options.osv_scanner else []
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


_PURLS = {
    "Debian": "pkg:deb/debian/{name}@{version}?distro=debian-{release}",
    "Alpine": "pkg:apk/alpine/{name}@{version}?distro=alpine-{release}.0",
    "PyPI": "pkg:pypi/{name}@{version}",
    "Go": "pkg:golang/{name}@v{version}",
    "crates.io": "pkg:cargo/{name}@{version}",
    "CRAN": "pkg:cran/{name}@{version}",
}
_PACKAGES = 3000


def third_party(real: Path, program: str, work: Path) -> Iterator[Result]:
    """Compare with what OSV-Scanner finds, by package, version and record."""
    path = work / "all.sqlite"
    update(path, [f"osv/{one}" for one in _PURLS], mirror=str(real), now=int(time.time()))
    for base in _PURLS:
        (work / "osv-scalibr" / base).mkdir(parents=True)
        (work / "osv-scalibr" / base / "all.zip").symlink_to((real / f"osv/{base}/all.zip").resolve())
        with zipfile.ZipFile(real / f"osv/{base}/all.zip") as archive:
            records = {name.removesuffix(".json"): json.loads(archive.read(name)) for name in archive.namelist()}
        # It stops at a GIT range, and then looks at the listed versions alone.
        stopped = {id_ for id_, record in records.items() if "GIT" in _types(record)}
        for release, purls in _asked_of(base, records.values()).items():
            bom = work / f"{base}-{release}.cdx.json".replace("-.", ".")
            bom.write_bytes(feeds.cyclonedx(*purls))
            wrong = _ours(bom, path) ^ _theirs(bom, program, work)
            wrong = {one for one in wrong if one[2] not in stopped}
            yield {
                "claim": f"{base} {release}".strip() + ", judged by OSV-Scanner",
                "judged": len(purls),
                "wrong": sorted(wrong),
            }


def _types(record: Mapping[str, Any]) -> set[str]:
    return {one["type"] for entry in record.get("affected", ()) for one in entry.get("ranges", ())}


def _asked_of(base: str, records: Iterable[Mapping[str, Any]]) -> Mapping[str, list[Mapping[str, str]]]:
    """Return by release components: packages at the versions that the records name, and right beside them."""
    rng = random.Random(1)
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for record in records:
        for entry in record.get("affected", ()):
            release = entry["package"]["ecosystem"].partition(":")[2].removeprefix("v")
            name = quote(entry["package"]["name"], safe="/" if base == "Go" else "")
            for version in rng.sample(sorted(_asked(entry)), 2):
                for one in (version, _beside(version)):
                    purl = _PURLS[base].format(name=name, version=quote(one, safe=""), release=release)
                    purl = purl.replace("stdlib@v", "stdlib@")
                    component = {"type": "library", "name": entry["package"]["name"], "version": one, "purl": purl}
                    found.setdefault(release, {})[purl] = component
    return {release: rng.sample([*some.values()], min(len(some), _PACKAGES)) for release, some in sorted(found.items())}


def _beside(version: str) -> str:
    return re.sub(r"\d+(?=\D*$)", lambda match: str(int(match[0]) + 1), version, count=1)


Found = set[tuple[str, str, str]]


def _ours(bom: Path, index: Path) -> Found:
    with Index(index) as opened:
        found = inventory.of_image(bom)
        scan = scanning.scan({}, found, opened, now=int(time.time()), stale_days=7)
    return {(*_plain(f.package.name, f.package.version), one) for f in scan.findings for one in f.advisories}


def _theirs(bom: Path, program: str, work: Path) -> Found:
    argv = [program, "scan", "source", "--offline", "--all-vulns", "--no-resolve", "--format", "json", "-L", str(bom)]
    env = {**os.environ, "OSV_SCALIBR_LOCAL_DB_CACHE_DIRECTORY": str(work)}
    said = json.loads(subprocess.run(argv, env=env, capture_output=True, check=False).stdout)
    return {
        (*_plain(one["package"]["name"], one["package"]["version"]), each["id"])
        for result in said["results"]
        for one in result["packages"]
        for each in one.get("vulnerabilities", ())
    }


def _plain(name: str, version: str) -> tuple[str, str]:
    return ecosystem.name_of("PyPI", name), version.removeprefix("v")


if __name__ == "__main__":
    main()
