"""The largest memory of a hub while one large blob is pushed and pulled.

    python bench/hub_memory.py [--gib 10] [--settings hub.toml]

`--settings`: a hub.toml, for example one that keeps the content in a bucket. The goal: under 300 MiB.
"""

import argparse
import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024
_PIECE = hashlib.shake_256(b"bench").digest(MIB)
_REPOSITORY = "/v2/bench/memory"


def content(gib: float) -> Iterator[bytes]:
    for number in range(int(gib * 1024)):
        yield number.to_bytes(8) + _PIECE[8:]


def peak(process: int) -> float:
    """Return the largest resident set of a process so far, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=10.0)
    parser.add_argument("--settings", type=Path)
    asked = parser.parse_args()
    found = hashlib.sha256()
    for piece in content(asked.gib):
        found.update(piece)
    digest = f"sha256:{found.hexdigest()}"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        data = Path(name) / "hub"
        data.mkdir(mode=0o700)
        if asked.settings:
            shutil.copy(asked.settings, data / "hub.toml")
        program = [sys.executable, "-m", "computeops", "hub"]
        issue = [*program, "token", "--data", str(data), "--name", "bench", "--scope", "push:bench/*"]
        token = subprocess.run(issue, capture_output=True, text=True, check=True).stdout.strip()
        serve = [*program, "serve", "--data", str(data), "--port", "0"]
        process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        host = process.stdout.readline().strip().partition("://")[2]
        try:
            transfer(host, token, digest, asked.gib, process.pid)
        finally:
            process.terminate()
            process.wait()


def transfer(host: str, token: str, digest: str, gib: float, process: int) -> None:
    connection = http.client.HTTPConnection(host)
    headers = {"Authorization": f"Bearer {token}", "Content-Length": str(int(gib * 1024) * MIB)}
    print(f"before: {peak(process):.0f} MiB")
    began = time.perf_counter()
    connection.request("POST", f"{_REPOSITORY}/blobs/uploads/?digest={digest}", content(gib), headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    answer.read()
    print(f"pushed: {peak(process):.0f} MiB, {gib * 1024 / (time.perf_counter() - began):.0f} MiB/s")
    began = time.perf_counter()
    connection.request("GET", f"{_REPOSITORY}/blobs/{digest}")
    answer = connection.getresponse()
    found = hashlib.sha256()
    while piece := answer.read(MIB):
        found.update(piece)
    assert f"sha256:{found.hexdigest()}" == digest
    print(f"pulled: {peak(process):.0f} MiB, {gib * 1024 / (time.perf_counter() - began):.0f} MiB/s")


if __name__ == "__main__":
    main()
