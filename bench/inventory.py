"""The packages of a SIF: `computeops sbom` beside `syft scan singularity:`; time, memory, and whether the sets agree.

The image is made once, in --work: a Debian with R, Python, a program in Go and Node.js, beside it an environment of pip
and a folder of npm, some 3,000 packages. Syft is a program for this benchmark only:
`GOBIN=... go install github.com/anchore/syft/cmd/syft@latest`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

_DEBIAN = "ca-certificates r-base-core r-cran-tidyverse python3-scipy npm skopeo python3-venv python3-pip"
_PIP = "jupyterlab dask[complete] scikit-learn sphinx django flask sqlalchemy cryptography snakemake"
_NPM = "react-scripts webpack eslint jest @angular/cli"
_SHOWN = 8
_PROGRAM = "import sys; from computeops.cli import main; sys.exit(main())"


def main() -> None:
    """Print the result of the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/computeops-inventory"))
    parser.add_argument("--image", type=Path, help="another SIF; default: the one in --work")
    parser.add_argument("--syft", default="syft", help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    image = options.image or made(options.work)
    result = measure(image, options.syft, options.rounds, options.work)
    if options.json:
        print(json.dumps([result], indent=2))
        return
    print(f"{result['claim']}: {result['ours_s']} s against {result['peer_s']} s, ratio {result['ratio']:.1f}")
    print(f"processor time {result['ours_cpu_s']} s, {result['peer_cpu_s']} s; {result['unit']}")
    for kind, (same, ours, peer) in result["kinds"].items():  # type: ignore[attr-defined]  a mapping
        print(f"{kind:12} {same:6} in both, {len(ours):5} only here, {len(peer):5} only in Syft")
        for side, names in (("here", ours), ("Syft", peer)):
            print(*(f"    only {side}: {name}" for name in names[:_SHOWN]), sep="\n", end="\n" if names else "")


def made(work: Path) -> Path:
    """Return the image in `work`, which is built if it is not there."""
    image, root = work / "image.sif", work / "root"
    if image.exists():
        return image
    work.mkdir(parents=True, exist_ok=True)
    include = f"--include={','.join(_DEBIAN.split())}"
    _run(["mmdebstrap", "--mode=root", "--variant=apt", include, "bookworm", root, "http://deb.debian.org/debian"])
    _run([sys.executable, "-m", "venv", root / "opt/venv"])
    _run([root / "opt/venv/bin/pip", "install", "--quiet", *_PIP.split()])
    app = root / "opt/app"
    app.mkdir()
    _run(["npm", "--prefix", app, "install", "--ignore-scripts", "--no-audit", "--no-fund", *_NPM.split()])
    squashfs = work / "image.squashfs"
    _run(["mksquashfs", root, squashfs, "-quiet", "-no-progress", "-noappend"])
    _run(["apptainer", "sif", "new", image])
    partition = ["--datatype", "4", "--partfs", "1", "--parttype", "2", "--partarch", "2", "--groupid", "1"]
    _run(["apptainer", "sif", "add", *partition, image, squashfs])
    squashfs.unlink()
    return image


def _run(argv: Sequence[str | Path]) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def measure(image: Path, syft: str, rounds: int, work: Path) -> dict[str, object]:
    """Read one image both ways, in turn."""
    ours, peer = work / "ours.json", work / "syft.json"
    commands: Mapping[Path, Sequence[str]] = {
        ours: [sys.executable, "-c", _PROGRAM, "sbom", str(image)],
        peer: [syft, "scan", f"singularity:{image}", "--quiet", "--output", "json"],
    }
    times: dict[Path, list[tuple[float, float, int]]] = {ours: [], peer: []}
    for _ in range(rounds):
        for output, argv in commands.items():
            times[output].append(_timed(argv, output))
    best = {output: min(found) for output, found in times.items()}
    return {
        "claim": f"packages of a SIF of {image.stat().st_size / 1e6:.0f} MB",
        "peer": "syft scan singularity:",
        "ours_s": round(best[ours][0], 1),
        "peer_s": round(best[peer][0], 1),
        "ours_cpu_s": round(best[ours][1], 1),
        "peer_cpu_s": round(best[peer][1], 1),
        "ratio": best[peer][0] / best[ours][0],
        "target": 2.0,
        "unit": f"memory {best[ours][2] >> 20} MiB against {best[peer][2] >> 20} MiB",
        "kinds": compared(json.loads(ours.read_bytes()), json.loads(peer.read_bytes())),
    }


def _timed(argv: Sequence[str], output: Path) -> tuple[float, float, int]:
    """Return seconds, seconds of processor time and peak memory in bytes of one run."""
    began = time.perf_counter()
    with output.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"})
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def compared(ours: Mapping[str, object], syft: Mapping[str, object]) -> dict[str, tuple[int, list[str], list[str]]]:
    """Return for each kind how many packages both name, and the names with version of only one."""
    here = {_plain(str(one["purl"])) for one in _nested(ours) if one.get("purl")}
    there = {_plain(str(one["purl"])) for one in syft["artifacts"] if one.get("purl")}  # type: ignore[attr-defined]  JSON
    both, only, peer = here & there, sorted(here - there), sorted(there - here)
    kinds = Counter(one.partition("/")[0] for one in here | there)
    return {
        kind: (
            sum(one.startswith(f"{kind}/") for one in both),
            [one for one in only if one.startswith(f"{kind}/")],
            [one for one in peer if one.startswith(f"{kind}/")],
        )
        for kind in sorted(kinds)
    }


def _nested(component: Mapping[str, object]) -> list[Mapping[str, object]]:
    found: list[Mapping[str, object]] = []
    for one in component.get("components", ()):  # type: ignore[attr-defined]  JSON
        found += [one, *_nested(one)]
    return found


def _plain(purl: str) -> str:
    """Return a purl without qualifiers, encoding and case: the tools differ in those and mean the same."""
    return unquote(purl.partition("?")[0].partition("#")[0]).removeprefix("pkg:").lower()


if __name__ == "__main__":
    main()
