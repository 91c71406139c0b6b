"""The catalogue with 1,000,000 releases: how long a search takes, and how long a hub that has them takes to start.

    .venv/bin/python bench/hub_search.py [--releases 1000000] [--folder DIR]

The releases are rows as pushes make them, 200,000 names in five versions; half of the summaries begin with the same
words. Searches are those that people type, the worst that we know of (words that every summary has, words that never
stand together, facts that exclude each other) and filters, each asked as the JSON API and the portal ask it. The second
run with the same `--folder` takes the releases that are there.
"""

import argparse
import itertools
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from computeops.hub import terms
from computeops.hub.auth import ANYONE
from computeops.hub.search import search
from computeops.hub.state import Hub

VERSIONS = 5
COLLECTIONS = 500
ROUNDS = 20
TICKS = os.sysconf("SC_CLK_TCK")
DOMAINS = ("bioinformatics", "physics", "climate", "chemistry", "imaging")
LICENSES = ("MIT", "GPL-3.0-or-later", "Apache-2.0", "BSD-3-Clause", "LGPL-2.1-only", "MIT OR Apache-2.0")
SEARCHES: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("babo", {}),
    ("s", {}),
    ("software", {}),
    ("software tools", {}),
    ("software tools for", {}),
    ("bioinformatics", {}),
    ("bioinf 3", {}),
    ("tools suite", {}),
    ("odd even", {}),
    ("software odd even", {}),
    ("zzzz", {}),
    ("software zzzz", {}),
    ("", {"arch": "arm64"}),
    ("software", {"arch": "arm64", "license": "MIT", "domain": "physics"}),
    ("tools", {"verified": "test", "cpu": "x86_64_v3"}),
    ("", {"arch": "arm64", "cpu": "x86_64_v3"}),
    ("software", {"license": "nothing"}),
    ("ba be", {}),
    ("for", {"collection": "field7"}),
]


def furnish(folder: Path, count: int) -> None:
    """Fill the index of the hub in `folder` with `count` releases."""
    Hub.open(folder).database.close()
    connection = sqlite3.connect(folder / "hub.sqlite", isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-400000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    fields = [(f"field{number}", True, 0) for number in range(COLLECTIONS)]
    connection.executemany("INSERT INTO collections(name, public, created) VALUES (?,?,?)", fields)
    for name, collection, rows, found in software(count // VERSIONS):
        key = connection.execute(
            "INSERT INTO repositories(name, collection, created) VALUES (?,?,0)", (f"{collection}/{name}", collection)
        ).lastrowid
        for row in rows:
            last = connection.execute(
                "INSERT INTO releases(repository, tag, target, digest, version, variant, arch, image, size, summary,"
                " license, domains, created) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (key, *row),
            ).lastrowid
            connection.execute("INSERT INTO words(rowid, terms) VALUES (?,?)", (last, f"{found} {row[3]}"))
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.close()


def software(count: int) -> Iterator[tuple[str, str, list[tuple[object, ...]], str]]:
    """Yield name, collection, the rows of its releases, and their terms but the version."""
    chance = random.Random(1)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    vocabulary = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(5000)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(5000)))
    for number in range(count):
        name = "".join(chance.choices(syllables, k=3)) + chance.choice(("", "-tools", "-suite", "py")) + f"-{number}"
        described = " ".join(chance.choices(vocabulary, cum_weights=weights, k=6))
        summary = f"Software tools for {described}, {'odd' if number % 2 else 'even'}"
        domain, license_ = chance.choice(DOMAINS), chance.choice(LICENSES)
        arch, collection = ("amd64", "arm64")[number % 2], f"field{number % COLLECTIONS}"
        facts = {
            "arch": [arch],
            "collection": [collection],
            "cpu": ["x86_64_v3"] if number % 2 == 0 and number % 3 == 0 else [],
            "domain": [domain],
            "license": terms.licenses(license_),
            "verified": ["test"] if number % 4 == 0 else [],
        }
        found = terms.of_release(name, [collection, summary, domain], facts)
        rows: list[tuple[object, ...]] = []
        for version in range(VERSIONS):
            digest = f"sha256:{number * VERSIONS + version:064x}"
            tag = f"{version}"
            rows.append((tag, digest, digest, tag, "", arch, digest, 10**8, summary, license_, f'["{domain}"]', number))
        yield name, collection, rows, found


def searches(folder: Path) -> None:
    """Print the times of each search, and of all."""
    database = Hub.open(folder).database
    everything: list[float] = []
    processor: list[float] = []  # what a machine with nothing else to do would need, if all is in memory
    print(f"{'median ms':>10}{'worst ms':>10}{'found':>7}  search")
    for query, facts in SEARCHES:
        times = []
        for number in range(ROUNDS):
            began, used = time.perf_counter(), time.thread_time()
            page = search(database, ANYONE, query, facts=facts, limit=25, by_version=bool(number % 2))
            times.append((time.perf_counter() - began) * 1000)
            processor.append((time.thread_time() - used) * 1000)
        everything += times
        asked = " ".join([query, *(f"{key}={value}" for key, value in facts.items())])
        print(f"{statistics.median(times):10.1f}{max(times):10.1f}{len(page.entries):7}  {asked}", flush=True)
    for what, of in (("all", everything), ("of the processor", processor)):
        of.sort()
        print(f"{what}: median {statistics.median(of):.1f} ms, p99 {of[int(len(of) * 0.99)]:.1f} ms")


def start(folder: Path) -> None:
    """Print how long the hub takes from the command to its first answer, and what it holds in memory then."""
    times, cpu = [], []
    for _ in range(5):
        began = time.perf_counter()
        argv = [sys.executable, "-m", "computeops", "hub", "serve", "--data", str(folder), "--port", "0"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout
            address = process.stdout.readline().decode().strip()
            with urllib.request.urlopen(f"{address}/api/v1/search?q=software") as answer:
                answer.read()
            times.append(time.perf_counter() - began)
            cpu.append(sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15])) / TICKS)
            status = Path(f"/proc/{process.pid}/status").read_text()
            process.terminate()
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    print(
        f"start to the first answer: median {statistics.median(times):.2f} s, of the processor"
        f" {statistics.median(cpu):.2f} s; {int(memory) // 1024} MiB in memory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the hub is, and stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = asked.folder or Path(name)
        if not (folder / "hub.sqlite").exists():
            began = time.perf_counter()
            furnish(folder, asked.releases)
            print(f"made {asked.releases:,} releases in {time.perf_counter() - began:.0f} s")
        searches(folder)
        start(folder)


if __name__ == "__main__":
    main()
