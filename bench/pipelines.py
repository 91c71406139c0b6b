"""What a pipeline costs over its bare steps, a second build of the same, and the hub's pages while many wait.

    python bench/pipelines.py [--builds 3] [--queued 1000]

A hub and one worker in processes of their own; as root, the worker is the user `sci`. The goals: under 2 s, under 1 s,
and a p99 of the pages within 20 %. Where others use the machine, look at the processor time of hub and agent instead.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worksite import Worksite, tiny, worksite

_ROUNDS = 250
_PAGES = ("/", "/warm/tiny/1.0")


def used(process: subprocess.Popen[bytes] | None) -> float:
    """Return the seconds of processor time of a process."""
    assert process is not None
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def build(site: Worksite, folder: Path, number: int) -> None:
    recipe = tiny(folder / f"recipe-{number}", f"echo hello {number} > /made\n")
    hub, agent = used(site.hub.process), used(site.workers["one"].process)
    began = time.perf_counter()
    found = site.ended(site.start(recipe, f"bench{number}/tiny"))
    total = time.perf_counter() - began
    hub, agent = used(site.hub.process) - hub, used(site.workers["one"].process) - agent
    steps = sum(float(one["seconds"]) for one in found["steps"])
    began = time.perf_counter()
    again = site.show(site.start(recipe, f"bench{number}/tiny"))
    second = time.perf_counter() - began
    print(f"{total:.2f} s, its steps {steps:.2f} s, more {total - steps:.2f} s; again {second:.2f} s, {again['state']}")
    print(f"   processor: hub {hub:.2f} s, agent {agent:.2f} s, publish and sign among it")
    wrong = tiny(folder / f"wrong-{number}", f"echo hello {number} > /made\n", test="cat /nothing")
    site.ended(site.start(wrong, f"wrong{number}/tiny"), "failed")
    text = (wrong / "computeops.toml").read_text()
    (wrong / "computeops.toml").write_text(text.replace("/nothing", "/made"))
    found = site.ended(site.start(wrong, f"wrong{number}/tiny"))
    built = next(one for one in found["steps"] if one["name"] == "build")
    print(f"   another test: {built['facts']['answered'] and 'not built again'}, {built['seconds']:.2f} s")


def pages(site: Worksite) -> str:
    took, before = [], used(site.hub.process)
    for page in _PAGES * _ROUNDS:
        request = urllib.request.Request(site.hub.address + page, headers={"Authorization": f"Bearer {site.token}"})
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        took.append(1000 * (time.perf_counter() - began))
    took.sort()
    each = 1000 * (used(site.hub.process) - before) / len(took)
    return (
        f"median {took[len(took) // 2]:.1f} ms, p99 {took[len(took) * 99 // 100]:.1f} ms; processor {each:.2f} ms each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--queued", type=int, default=1000)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name,
        worksite(Path(name), "log_bytes = 65536\nwaiting = 100000") as site,
    ):
        folder = Path(name)
        worker = site.worker("one")
        site.ended(site.start(tiny(folder / "warm", "echo hello > /made\n"), "warm/tiny"))
        for number in range(asked.builds):
            build(site, folder, number)
        worker.close()
        print("pages, none queued:", pages(site), flush=True)
        for number in range(asked.queued):
            body = {"git": "https://git.example.org/x", "commit": f"{number:040x}"}
            status, said = site.ask("POST", "/api/v1/pipelines", {"repository": f"many{number % 10}/tiny", **body})
            if status != 201:
                raise SystemExit(f"{status}: {said}")
        print(f"pages, {asked.queued} queued:", pages(site))


if __name__ == "__main__":
    main()
