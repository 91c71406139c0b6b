"""The catalogue with 1,000,000 releases: how long a search takes, and how long a hub that has them takes to start.

    .venv/bin/python bench/hub_search.py [--releases 1000000] [--folder DIR] [--postgresql]

The releases are rows as pushes make them, 200,000 names in five versions; half of the summaries begin with the same
words. Searches are those that people type, the worst that we know of (words that every summary has, words that never
stand together, facts that exclude each other) and filters, each asked as the JSON API and the portal ask it. The second
run with the same `--folder` takes the releases that are there. `--postgresql`: in a server of Debian's, started for it,
with the memory that Debian gives one (128 MiB of shared buffers).
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import backends
from computeops.hub import terms
from computeops.hub.auth import ANYONE
from computeops.hub.search import search
from computeops.hub.state import Hub

VERSIONS = 5
COLLECTIONS = 500
ROUNDS = 20
TICKS = os.sysconf("SC_CLK_TCK")
RELEASE = "tag, target, digest, version, variant, arch, image, size, summary, license, domains, created"
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


def furnish_server(url: str, count: int) -> None:
    """Fill the index in the database at `url` with `count` releases."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP INDEX words_terms")
        with connection.cursor().copy("COPY collections(name, public, created) FROM STDIN") as copy:
            for number in range(COLLECTIONS):
                copy.write_row((f"field{number}", True, 0))
        found = software(count)
        for base in range(0, count // VERSIONS, 2000):
            batch = list(itertools.islice(found, 2000))
            with connection.cursor().copy("COPY repositories(id, name, collection, created) FROM STDIN") as copy:
                for at, (name, collection, _, _) in enumerate(batch, base):
                    copy.write_row((at, f"{collection}/{name}", collection, 0))
            with connection.cursor().copy(f"COPY releases(id, repository, {RELEASE}) FROM STDIN") as copy:
                for at, (_, _, rows, _) in enumerate(batch, base):
                    for place, row in enumerate(rows, 1):
                        copy.write_row((at * VERSIONS + place, at, *row))
            with connection.cursor().copy("COPY words(rowid, terms) FROM STDIN") as copy:
                for at, (_, _, rows, own) in enumerate(batch, base):
                    for place, row in enumerate(rows, 1):
                        quoted = " ".join(f"'{one}'" for one in terms.beginnings(f"{own} {row[3]}"))
                        copy.write_row((at * VERSIONS + place, quoted))
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute("CREATE INDEX words_terms ON words USING gin (terms)")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def furnish(folder: Path, count: int) -> None:
    """Fill the index of the hub in `folder` with `count` releases."""
    hub = Hub.open(folder)
    hub.database.close()
    if hub.settings.database:
        furnish_server(hub.settings.database, count)
        return
    connection = sqlite3.connect(folder / "hub.sqlite", isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-400000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    fields = [(f"field{number}", True, 0) for number in range(COLLECTIONS)]
    connection.executemany("INSERT INTO collections(name, public, created) VALUES (?,?,?)", fields)
    for name, collection, rows, found in software(count):
        key = connection.execute(
            "INSERT INTO repositories(name, collection, created) VALUES (?,?,0)", (f"{collection}/{name}", collection)
        ).lastrowid
        for row in rows:
            last = connection.execute(
                f"INSERT INTO releases(repository, {RELEASE}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (key, *row),
            ).lastrowid
            connection.execute("INSERT INTO words(rowid, terms) VALUES (?,?)", (last, f"{found} {row[3]}"))
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.close()


def software(count: int) -> Iterator[tuple[str, str, list[tuple[object, ...]], str]]:
    """Yield name, collection, the rows of its releases, and their terms but the version, of `count` releases."""
    chance = random.Random(1)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    vocabulary = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(5000)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(5000)))
    for number in range(count // VERSIONS):
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
    """Print the times of each search, and of all; what the processor does is all that a machine at rest needs."""
    database = Hub.open(folder).database
    everything: list[float] = []
    processor: list[float] = []
    print(f"{'median ms':>10}{'worst ms':>10}{'found':>7}  search")
    for query, facts in SEARCHES:
        times = []
        for number in range(ROUNDS):
            began, used = time.perf_counter(), time.thread_time() + served(folder)
            page = search(database, ANYONE, query, facts=facts, limit=25, by_version=bool(number % 2))
            times.append((time.perf_counter() - began) * 1000)
            processor.append((time.thread_time() + served(folder) - used) * 1000)
        everything += times
        asked = " ".join([query, *(f"{key}={value}" for key, value in facts.items())])
        print(f"{statistics.median(times):10.1f}{max(times):10.1f}{len(page.entries):7}  {asked}", flush=True)
    for what, of in (("all", everything), ("of the processor", processor)):
        of.sort()
        print(f"{what}: median {statistics.median(of):.1f} ms, p99 {of[int(len(of) * 0.99)]:.1f} ms")


def served(folder: Path) -> float:
    """Return the seconds that the processor has worked for the connections of the database server, if it is ours."""
    nanoseconds = 0
    for main in folder.parent.glob("cops-pg-*/data/postmaster.pid"):
        pid = main.read_text().split()[0]
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                nanoseconds += int(Path(f"/proc/{child}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


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
    parser.add_argument("--postgresql", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, contextlib.ExitStack() as servers:
        Path(name).chmod(0o755)  # PostgreSQL is another user
        folder = asked.folder or Path(name) / "hub"
        folder.mkdir(mode=0o700, exist_ok=True)
        if asked.postgresql:
            server = backends.start_postgresql(folder.parent, buffers="128MB")
            servers.callback(shutil.rmtree, server.folder)
            servers.callback(server.stop)
            (folder / "hub.toml").write_text(backends.settings(server.database("search")))
        if not (folder / "furnished").exists():
            began = time.perf_counter()
            furnish(folder, asked.releases)
            (folder / "furnished").touch()
            print(f"made {asked.releases:,} releases in {time.perf_counter() - began:.0f} s")
        searches(folder)
        start(folder)


if __name__ == "__main__":
    main()
