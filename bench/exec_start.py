"""Start of a container: `computeops exec` beside `apptainer exec` of the same SIF, warm, as an ordinary user."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import installed
import material

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from computeops.image import convert, oci
from computeops.image.tree import Directory


def main() -> None:
    """Print one result per claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-exec-", dir="/var/tmp"))
    try:
        results = measure(work, options.rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print(f"{result['claim']}: {result['ours_s']} against {result['peer_s']}, ratio {result['ratio']:.2f}")


def image(work: Path) -> Path:
    """Return a SIF of about 100 MB of the machine's own files, with its shell and `true`."""
    root = work / "tree"
    material.tree(root, files=4_000, size=100_000_000)
    for program in ("/bin/sh", "/bin/true"):
        listed = subprocess.run(["ldd", program], capture_output=True, check=True).stdout.decode()
        for path in [program, *(word for word in listed.split() if word.startswith("/"))]:
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            target.chmod(0o755)
    for name in ("passwd", "group"):
        (root / "etc").mkdir(exist_ok=True)
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    described = oci.Description("amd64", env={"PATH": "/usr/bin:/bin"}, command=("/bin/true",))
    convert.pack(Directory(root), described, to_sif=work / "image.sif", writer=convert.Writer(), epoch=315532800)
    return work / "image.sif"


def measure(work: Path, rounds: int) -> list[dict[str, object]]:
    """Start one program in every way, in turn."""
    sif = image(work)
    size = sif.stat().st_size
    material.give(work)
    ours = installed.command(work)
    environ = {"XDG_CACHE_HOME": str(work / "cache")}

    def start(*argv: str | Path) -> float:
        return material.timed(material.as_user(argv), **environ)

    def by(engine: str) -> float:
        return start(ours, "exec", "--engine", engine, sif, "/bin/true")

    first = start(ours, "exec", sif, "/bin/true")
    medians = material.rounds(
        rounds,
        apptainer=lambda: start("apptainer", "exec", sif, "/bin/true"),
        ours_apptainer=lambda: by("apptainer"),
        ours=lambda: start(ours, "exec", sif, "/bin/true"),
        bubblewrap=lambda: by("bubblewrap"),
        nothing=lambda: start("true"),
    )
    peer, same = medians["apptainer"], medians["ours_apptainer"]
    harness = f"{medians['nothing'] * 1000:.0f} ms of each are the benchmark's own"
    return [
        {
            "claim": f"start by Apptainer, {size / 1e6:.0f} MB SIF",
            "peer": "apptainer exec",
            "ours_s": round(same, 4),
            "peer_s": round(peer, 4),
            "ratio": peer / same,
            "target": peer / (peer + 0.060),
            "unit": f"s; {(same - peer) * 1000:.0f} ms more, at most 60 are allowed; {harness}",
        },
        {
            "claim": f"start by the fastest engine that fits, {size / 1e6:.0f} MB SIF",
            "peer": "apptainer exec",
            "ours_s": round(medians["ours"], 4),
            "peer_s": round(peer, 4),
            "ratio": peer / medians["ours"],
            "target": 1.5,
            "unit": f"s; the first start, which unpacks, {first:.2f} s; by bubblewrap {medians['bubblewrap']:.4f} s; "
            f"{harness}",
        },
    ]


if __name__ == "__main__":
    main()
