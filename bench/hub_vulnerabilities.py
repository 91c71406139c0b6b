"""A hub of 10,000 images: one new advisory until every release that it concerns is judged, and everything matched anew.

    .venv/bin/python bench/hub_vulnerabilities.py [--images 10000] [--advisories FOLDER] [--json]

The images have 550 packages each: those of one of 60 states of a distribution, one of 40 stacks on top, and a few of
their own: about 120,000 different ones. The advisories are those of a folder like the
OSV export (`osv/ECOSYSTEM/all.zip`), else made up. Rows are written as pushes write them, but in bulk: what is measured
is what the hub's worker does with them.
"""

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import zipfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from computeops.check.advisories.update import update
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import index as advisories
from computeops.hub.vulnerabilities import inspector
from computeops.hub.vulnerabilities.judging import Judge

PACKAGES = 550
OWN = 12
BASES, STACKS = 60, 40
VERSIONS = 5
"""Images of one repository."""
_EMPTY = '"place":"","arch":"","license":"","owner":"","holds":[],"module":""'


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--advisories", type=Path, help="folder with osv/ECOSYSTEM/all.zip")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-hub-", dir=options.folder))
    try:
        results = measure(work, options.images, options.advisories)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    lines = [f"{name}: {value}" for name, value in results.items()]
    print(json.dumps(results, indent=2) if options.json else "\n".join(lines))


def measure(work: Path, images: int, source: Path | None) -> dict[str, Any]:
    """Fill a hub, and let its worker judge it."""
    hub, mirror = Hub.open(work / "hub"), work / "mirror"
    names = feeds(mirror, source)
    load(hub, mirror, full=True)
    filled = fill(hub, images, names)
    results: dict[str, Any] = {"images": images, **filled}
    with advisories.opened(hub) as index:
        assert index is not None
        results["first match of everything, s"] = timed(lambda: inspector.rematch(hub, index))
        results["first verdicts of everything, s"] = timed(lambda: judge(hub))
    results |= news(hub, mirror, names)
    with advisories.opened(hub) as index:
        assert index is not None
        results["whole hub matched anew, s"] = timed(lambda: inspector.rematch(hub, index, full=True))
        results["verdicts after that, s"] = timed(lambda: judge(hub))
    with sqlite3.connect(hub.data / "hub.sqlite") as database:
        (results["findings of packages"],) = database.execute("SELECT count(*) FROM package_findings").fetchone()
        results["verdicts"] = dict(database.execute("SELECT verdict, count(*) FROM verdicts GROUP BY verdict"))
    results["database, MB"] = round((hub.data / "hub.sqlite").stat().st_size / 1e6)
    return results


def news(hub: Hub, mirror: Path, names: list[str]) -> dict[str, Any]:
    """Publish advisories one by one, about packages that few, some and most images have."""
    found = {}
    for number, (what, name) in enumerate((("few", "own-00001"), ("some", names[-1]), ("most", names[0]))):
        record = osv(f"BENCH-{number}", name, "999")
        add(mirror / "osv/Debian/all.zip", record)
        load(hub, mirror)

        def concerned() -> None:
            with advisories.opened(hub) as index:
                assert index is not None
                inspector.rematch(hub, index)
            judge(hub)

        seconds = timed(concerned)
        with sqlite3.connect(hub.data / "hub.sqlite") as database:
            query = (
                "SELECT count(DISTINCT inventory) FROM package_findings f JOIN package_uses u ON u.package = f.package"
                " WHERE f.vulnerability = ?"
            )
            (images,) = database.execute(query, (record["id"],)).fetchone()
        found[f"one new advisory about what {what} have, s"] = seconds
        found[f"images that have it ({what})"] = images
    return found


def judge(hub: Hub) -> None:
    with advisories.opened(hub) as index:
        judging = Judge(hub, index, int(time.time()))
        while judging.batch():
            pass


def timed(do: Any) -> float:
    """Return how long it takes; on standard error also how much of that was work of this process."""
    began, worked = time.perf_counter(), time.process_time()
    do()
    seconds = time.perf_counter() - began
    print(f"{seconds:.3f} s, {time.process_time() - worked:.3f} s of work", file=sys.stderr)
    return round(seconds, 3)


# advisories


def feeds(mirror: Path, source: Path | None) -> list[str]:
    """Lay out the feeds, and return names of packages of Debian 12: those with advisories first."""
    target = mirror / "osv/Debian/all.zip"
    target.parent.mkdir(parents=True)
    made = [osv(f"DEBIAN-CVE-2024-{n}", f"package-{n % 3000:05}", f"1.{n % 40}") for n in range(20_000)]
    if source is not None:
        shutil.copytree(source / "osv", mirror / "osv", dirs_exist_ok=True)
        with zipfile.ZipFile(target) as archive:
            made = [json.loads(archive.read(one)) for one in archive.namelist()]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in made:
            archive.writestr(f"{one['id']}.json", json.dumps(one))
    known = {
        affected["package"]["name"]
        for one in made
        for affected in one.get("affected", ())
        if affected.get("package", {}).get("ecosystem", "").startswith("Debian")
    }
    return [*sorted(known)[:3000], *(f"quiet-{n:05}" for n in range(max(0, 3000 - len(known))))]


def osv(name: str, package: str, fixed: str) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
    affected = {"package": {"ecosystem": "Debian:12", "name": package}, "ranges": ranges}
    return {"id": name, "modified": "2026-11-18T00:00:00Z", "affected": [affected]}


def add(file: Path, record: dict[str, Any]) -> None:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{record['id']}.json", json.dumps(record))


def load(hub: Hub, mirror: Path, *, full: bool = False) -> None:
    update(advisories.place(hub), ["osv/Debian"], mirror=str(mirror), now=int(time.time()), full=full)


# images


def fill(hub: Hub, images: int, names: list[str]) -> dict[str, Any]:
    """Write images with their packages."""
    database = sqlite3.connect(hub.data / "hub.sqlite", isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    random.seed(1)
    database.execute("INSERT INTO image_systems VALUES (1, 'debian', '12', 'Debian GNU/Linux 12 (bookworm)')")
    lists, count, uses = members(images, names), 0, 0
    known: dict[tuple[str, str], int] = {}
    database.execute("INSERT INTO collections VALUES ('bench', 1, 0, NULL)")
    for number, listed in enumerate(lists, 1):
        new = [one for one in listed if one not in known]
        known.update({one: count + at for at, one in enumerate(new, 1)})
        database.executemany(
            "INSERT INTO image_packages VALUES (?, ?, 1, ?, ?, ?, '')",
            [(known[one], f"key{known[one]}", *one, body(*one)) for one in new],
        )
        count += len(new)
        ids = sorted({known[one] for one in listed})
        uses += len(ids)
        image(database, number, ids)
    database.execute("COMMIT")
    database.close()
    return {"different packages": count, "uses of packages": uses}


def members(images: int, names: list[str]) -> Iterator[list[tuple[str, str]]]:
    """Yield the packages of each image: a state of the distribution, a stack, a few of its own."""
    common, python = names[:1500], [f"stack-{n:04}" for n in range(1200)]
    bases = [
        [(name, f"{1 + day % 3}.{random.randrange(60)}") for name in random.sample(common, 420)] for day in range(BASES)
    ]
    for one in bases:
        one[0] = (names[0], "1.0")
    stacks = [[(name, f"0.{random.randrange(30)}") for name in random.sample(python, 118)] for _ in range(STACKS)]
    for number in range(images):
        own = [(f"own-{(number * OWN + n) % 9000:05}", f"{number // 40}.{n}") for n in range(OWN)]
        more = [(names[-1], "1.0")] if number % 50 == 0 else []
        yield [*random.choice(bases), *random.choice(stacks), *own, *more]


def body(name: str, version: str) -> str:
    purl = f"pkg:deb/debian/{name}@{version}?arch=amd64&distro=debian-12"
    said = f'"kind":"deb","name":"{name}","version":"{version}","purl":"{purl}"'
    return f'{{{said},"source":"{name}","source_version":"{version}",{_EMPTY}}}'


def image(database: sqlite3.Connection, number: int, ids: list[int]) -> None:
    repository, version = 1 + (number - 1) // VERSIONS, (number - 1) % VERSIONS
    digest = f"sha256:{number:064x}"
    if version == 0:
        row = (repository, f"bench/r{repository}", "bench", 0)
        database.execute("INSERT INTO repositories VALUES (?, ?, ?, ?)", row)
    listed = (number, digest, 1, array("I", ids).tobytes(), json.dumps({"deb": len(ids)}), 0, "[]", "", 0, None, 0)
    database.execute("INSERT INTO inventories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", listed)
    database.executemany("INSERT INTO package_uses VALUES (?, ?)", [(one, number) for one in ids])
    tag = (number, repository, f"1.{version}", digest, digest, f"1.{version}", "", "amd64", digest, 1, "", "", "[]", 0)
    database.execute(f"INSERT INTO releases VALUES ({', '.join('?' * len(tag))})", tag)
    verdict = (repository, digest, "waiting", "[]", 0, 1, 0, None, "")
    database.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", verdict)
    database.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (number, "@r r =0"))


if __name__ == "__main__":
    main()
