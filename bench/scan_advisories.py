"""Loading 300,000 advisories, a day's changes, and asking them about an image of 3,000 packages: time and memory.

The records are those of a folder like the OSV export (--advisories), copied under other names until there are enough;
without one, made up. Debian's are put into the release of the image.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from computeops.check import scan as scanning
from computeops.check.advisories.lookup import Index
from computeops.check.advisories.update import update
from computeops.check.inventory import Inventory, Package, System
from computeops.model import Digest

_TODAY = "2026-11-18T00:00:00Z"
_SYSTEM = System("debian", "12", "Debian GNU/Linux 12 (bookworm)")


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--advisories", type=Path, help="folder with osv/ECOSYSTEM/all.zip")
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--packages", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--load", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(*options.load)))
        return
    work = Path(tempfile.mkdtemp(prefix="bench-scan-", dir="/var/tmp"))
    try:
        results = measure(work, options.advisories, options.records, options.packages)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    lines = [f"{name}: {value}" for name, value in results.items()]
    print(json.dumps(results, indent=2) if options.json else "\n".join(lines))


def measure(work: Path, source: Path | None, records: int, packages: int) -> dict[str, Any]:
    """Load, change and ask."""
    mirror, path = work / "mirror", work / "index.sqlite"
    names = make_feeds(source, mirror, records)
    own = [sys.executable, __file__, "--load", str(mirror), str(path)]
    loaded = json.loads(subprocess.run(own, check=True, capture_output=True).stdout)
    day = changed_day(mirror)
    changed = json.loads(subprocess.run(own, check=True, capture_output=True).stdout)
    inventory = image(names, packages)
    with Index(path) as index:
        cold = ask(index, inventory)
        cpu = time.process_time()
        warm = statistics.median(ask(index, inventory)[0] for _ in range(5))
        cpu = (time.process_time() - cpu) / 5
    return {
        "records": loaded["records"],
        "load_s": loaded["seconds"],
        "load_cpu_s": loaded["cpu"],
        "load_peak_mib": loaded["peak_mib"],
        "index_mb": round(path.stat().st_size / 1e6),
        "changes_of_a_day": day,
        "changes_s": changed["seconds"],
        "changes_done": changed["done"],
        "packages": packages,
        "findings": cold[1],
        "first_match_s": round(cold[0], 3),
        "warm_match_s": round(warm, 3),
        "warm_match_cpu_s": round(cpu, 3),
        "peak_mib": peak(),
    }


def load(mirror: Path, path: Path) -> dict[str, Any]:
    """Load the feeds; in a process of its own, for its memory."""
    began, cpu = time.perf_counter(), time.process_time()
    outcomes = update(path, mirror=str(mirror), now=int(time.time()))
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time() - cpu, 1),
        "records": sum(one.records for one in outcomes),
        "done": sorted({one.done for one in outcomes}),
        "peak_mib": peak(),
    }


def ask(index: Index, inventory: Inventory) -> tuple[float, int]:
    """Return how long a scan took and what it found."""
    began = time.perf_counter()
    scan = scanning.scan({"image": Digest("sha256", "0" * 64)}, inventory, index, now=int(time.time()), stale_days=7)
    return time.perf_counter() - began, len(scan.findings)


def make_feeds(source: Path | None, mirror: Path, wanted: int) -> list[tuple[str, str]]:
    """Write feeds of `wanted` records, and return Debian's and Python's packages in them with a version each."""
    files = sorted(source.glob("osv/*/all.zip")) if source else []
    made = [(file.parent.name, list(_records(file))) for file in files] or [("Debian", list(_made_up(wanted)))]
    copies = -(-wanted // sum(len(records) for _, records in made))
    names: dict[tuple[str, str], str] = {}
    for ecosystem, records in made:
        target = mirror / f"osv/{ecosystem}/all.zip"
        target.parent.mkdir(parents=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for copy in range(copies):
                for record in records:
                    one = _copied(record, copy)
                    archive.writestr(f"{one['id']}.json", json.dumps(one))
                    _note(one, names)
    return [(f"{kind} {name}", version) for (kind, name), version in names.items()]


def _records(file: Path) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            record = json.loads(archive.read(name))
            # Some say only where the source is: nothing that an installed package could be compared with.
            record["affected"] = [one for one in record.get("affected", ()) if "package" in one]
            for one in record["affected"]:
                if one["package"]["ecosystem"] == "Debian:11":
                    one["package"]["ecosystem"] = "Debian:12"
            yield record


def _made_up(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(1)
    for number in range(count):
        events = [{"introduced": "0"}, {"fixed": f"1.{rng.randrange(50)}-{rng.randrange(9)}+deb12u1"}]
        package = {"ecosystem": "Debian:12", "name": f"source{rng.randrange(20_000)}"}
        affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
        cves = [f"CVE-2026-{100_000 + number}"]
        yield {"id": f"DSA-{number}-1", "modified": "2026-11-01T00:00:00Z", "upstream": cves, "affected": affected}


def _copied(record: dict[str, Any], copy: int) -> dict[str, Any]:
    if not copy:
        return record
    affected = [
        one | {"package": one["package"] | {"name": f"{one['package']['name']}-{copy}"}}
        for one in record.get("affected", ())
    ]
    return record | {"id": f"{record['id']}-{copy}", "aliases": [], "affected": affected}


def _note(record: dict[str, Any], names: dict[tuple[str, str], str]) -> None:
    for one in record.get("affected", ()):
        ecosystem = one["package"]["ecosystem"]
        if ecosystem not in {"Debian:12", "PyPI"}:
            continue
        ranges = (each for each in one.get("ranges", ()) if each["type"] != "GIT")
        if fixes := [event["fixed"] for each in ranges for event in each["events"] if "fixed" in event]:
            names[ecosystem, one["package"]["name"]] = fixes[0]


def image(names: list[tuple[str, str]], count: int) -> Inventory:
    """Return an inventory of packages of which about half have what is known to be fixed."""
    rng = random.Random(2)
    chosen = rng.sample(names, min(count, len(names)))
    packages = []
    for number in range(count):
        ecosystem, _, name = chosen[number % len(chosen)][0].partition(" ")
        version = chosen[number % len(chosen)][1] if rng.random() < 0.5 else "0.1"
        if ecosystem == "PyPI":
            packages.append(Package("pypi", name, version, f"pkg:pypi/{name}@{version}", f"{number}/METADATA"))
        else:
            binary = f"lib{name}{number}"
            packages.append(
                Package("deb", binary, version, f"pkg:deb/debian/{binary}@{version}", "status", "amd64", name, version)
            )
    return Inventory(_SYSTEM, tuple(packages))


def changed_day(mirror: Path) -> int:
    """Let 200 records of one feed change, as its list of changes tells it; return how many."""
    file = mirror / "osv/Debian/all.zip"
    with zipfile.ZipFile(file) as archive:
        chosen = archive.namelist()[:200]
        records = [json.loads(archive.read(name)) for name in chosen]
    lines = []
    for record in records:
        (file.parent / f"{record['id']}.json").write_text(json.dumps(record | {"modified": _TODAY}))
        lines.append(f"{_TODAY},{record['id']}\n")
    (file.parent / "modified_id.csv").write_text("".join([*lines, "1999-01-01T00:00:00Z,x\n"]))
    os.utime(file)
    return len(records)


def peak() -> int:
    """Return the largest memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
