"""How fast a hub with many blobs starts, collects garbage and scrubs.

    python bench/hub_gc.py [--blobs 100000]

Half of the blobs are used, half are garbage. The goals: start < 1 s, at least 5,000 blobs a minute collected.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from computeops.hub.state import Hub
from computeops.hub.tables import links

_BATCH = 10_000


def fill(data: Path, count: int) -> None:
    """Write blobs of a few bytes, two days old; every second one is linked, and used by one manifest."""
    hub = Hub.open(data)
    repository = hub.database.create_repository("bench/hub")
    then = time.time() - 2 * 24 * 3600
    rows = []
    for number in range(count):
        content = b"%d" % number
        name = hashlib.sha256(content).hexdigest()
        file = data / "blobs/sha256" / name[:2] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (then, then))
        if number % 2:
            # young links: what is measured is the removal of blobs
            rows.append(
                {"repository": repository.id, "digest": f"sha256:{name}", "size": len(content), "created": 2**33}
            )
        if len(rows) == _BATCH or number == count - 1:
            with hub.database.write() as connection:
                connection.execute(sa.insert(links), rows)
            rows = []
    hub.database.close()


def start(data: Path) -> float:
    """Return the seconds from the command to the line that says it accepts connections."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "computeops", "hub", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - began
    process.terminate()
    process.wait()
    return seconds


def verb(data: Path, name: str) -> dict[str, float]:
    argv = [sys.executable, "-m", "computeops", "hub", name, "--data", str(data), "--json"]
    return json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blobs", type=int, default=100_000)
    count = parser.parse_args().blobs
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        data = Path(name) / "hub"
        fill(data, count)
        print(f"start with {count:,} blobs: {start(data):.2f} s")
        found = verb(data, "gc")
        minute = found["blobs"] / found["seconds"] * 60
        print(f"gc: {found['blobs']:,} blobs in {found['seconds']:.1f} s, {minute:,.0f} a minute")
        found = verb(data, "scrub")
        print(f"scrub: {found['blobs']:,} blobs in {found['seconds']:.1f} s")


if __name__ == "__main__":
    main()
