"""How long a hub that holds 1,000,000 blobs takes from the command to its first answer; its storage is not walked.

    .venv/bin/python bench/hub_start.py [--blobs 1000000] [--folder DIR]

The blobs are rows and files as pushes make them, but empty: making them takes minutes, of which none is measured. The
second run with the same `--folder` takes those that are there.
"""

import argparse
import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from computeops.hub.state import Hub

REPOSITORIES = 1000
ROUNDS = 5
GOAL_SECONDS = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


def furnish(folder: Path, count: int) -> None:
    """Let the hub in `folder` hold `count` blobs, a thousand in each repository."""
    Hub.open(folder).database.close()
    for bucket in range(256):
        (folder / f"blobs/sha256/{bucket:02x}").mkdir(parents=True)
    connection = sqlite3.connect(folder / "hub.sqlite", isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO collections(name, public, created) VALUES ('bench', 1, 0)")
    names = ((number, f"bench/r{number}") for number in range(REPOSITORIES))
    connection.executemany("INSERT INTO repositories(id, name, collection, created) VALUES (?,?,'bench',0)", names)
    connection.executemany(
        "INSERT INTO links(repository, digest, size, created) VALUES (?,?,0,0)", _blobs(folder, count)
    )
    connection.execute("COMMIT")
    connection.close()


def _blobs(folder: Path, count: int) -> Iterator[tuple[int, str]]:
    for number in range(count):
        digest = hashlib.sha256(number.to_bytes(8)).hexdigest()
        os.mknod(folder / "blobs/sha256" / digest[:2] / digest, 0o600)
        yield number % REPOSITORIES, f"sha256:{digest}"


def start(folder: Path) -> tuple[float, float, int]:
    """Return the seconds from the command to the first answer, those of the processor, and the MiB in memory then."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "computeops", "hub", "serve", "--data", str(folder), "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        address = process.stdout.readline().decode().strip()
        with urllib.request.urlopen(f"{address}/healthz") as answer:
            assert answer.read() == b"ok\n"
        seconds = time.perf_counter() - began
        used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        memory = next(
            line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")
        )
        process.terminate()
    return seconds, (int(used[11]) + int(used[12])) / TICKS, int(memory.split()[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the hub is, and stays")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = asked.folder or Path(name) / "hub"
        if not (folder / "hub.sqlite").exists():
            began = time.perf_counter()
            furnish(folder, asked.blobs)
            print(f"made {asked.blobs:,} blobs in {time.perf_counter() - began:.0f} s")
        found = [start(folder) for _ in range(ROUNDS)]
        wall, processor = (statistics.median(one[at] for one in found) for at in (0, 1))
        print(
            f"start to the first answer: median {wall:.2f} s (goal {GOAL_SECONDS} s),"
            f" of the processor {processor:.2f} s; {found[-1][2]} MiB in memory"
        )


if __name__ == "__main__":
    main()
