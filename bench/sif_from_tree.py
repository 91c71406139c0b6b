"""Root filesystem -> SIF: `computeops convert` beside `apptainer build`, as it comes and with the same compressor."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import material

COMPUTEOPS = [sys.executable, "-m", "computeops"]


def main() -> None:
    """Print one result per claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-sif-", dir="/var/tmp"))
    try:
        results = measure(work, options.rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print(f"{result['claim']}: {result['ours_s']} against {result['peer_s']}, ratio {result['ratio']:.2f}")


def measure(work: Path, rounds: int) -> list[dict[str, object]]:
    """Pack one tree in every way, in turn."""
    root = work / "tree"
    files, size = material.tree(root)
    os.system(f"chmod -R a+rX {root}")
    material.give(work)
    ours, peer = work / "ours.sif", work / "peer.sif"
    sizes: dict[str, int] = {}

    def convert(name: str, **environ: str) -> float:
        ours.unlink(missing_ok=True)
        convert = ["convert", root, ours]
        seconds = material.timed(material.as_user([*COMPUTEOPS, *convert]), **environ)
        sizes[name] = ours.stat().st_size
        return seconds

    def apptainer(name: str, *more: str) -> float:
        peer.unlink(missing_ok=True)
        argv = ["apptainer", "build", "--force", *more, peer, root]
        seconds = material.timed(material.as_user(argv), APPTAINER_TMPDIR=str(work))
        sizes[name] = peer.stat().st_size
        return seconds

    same = "--mksquashfs-args=-comp zstd -Xcompression-level 3"
    medians = material.rounds(
        rounds,
        ours=lambda: convert("ours"),
        apptainer=lambda: apptainer("apptainer"),
        ours_3=lambda: convert("ours_3", COMPUTEOPS_LEVEL="3"),
        apptainer_3=lambda: apptainer("apptainer_3", same),
    )
    what = f"{size / 1e6:.0f} MB, {files} files"
    return [
        {
            "claim": f"root filesystem to SIF, both as they come ({what})",
            "peer": "apptainer build (gzip)",
            "ours_s": round(medians["ours"], 2),
            "peer_s": round(medians["apptainer"], 2),
            "ratio": medians["apptainer"] / medians["ours"],
            "target": 6.0,
            "unit": f"s; {sizes['ours'] / 1e6:.1f} MB against {sizes['apptainer'] / 1e6:.1f} MB",
        },
        {
            "claim": "root filesystem to SIF, the same compressor (zstd 3)",
            "peer": "apptainer build --mksquashfs-args",
            "ours_s": round(medians["ours_3"], 2),
            "peer_s": round(medians["apptainer_3"], 2),
            "ratio": medians["apptainer_3"] / medians["ours_3"],
            "target": 3.0,
            "unit": f"s; {sizes['ours_3'] / 1e6:.1f} MB against {sizes['apptainer_3'] / 1e6:.1f} MB; "
            f"largest process {material.peak_children_bytes() / 2**20:.0f} MiB",
        },
    ]


if __name__ == "__main__":
    main()
