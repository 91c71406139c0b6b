"""OCI archive of several layers -> SIF: `computeops convert` beside `apptainer build oci-archive:`, same compressor."""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import material
from sif_from_tree import COMPUTEOPS


def main() -> None:
    """Print the result of the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-oci-", dir="/var/tmp"))
    try:
        result = measure(work, options.rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps([result], indent=2))
    else:
        print(f"{result['claim']}: {result['ours_s']} against {result['peer_s']}, ratio {result['ratio']:.2f}")


def measure(work: Path, rounds: int) -> dict[str, object]:
    """Convert one archive both ways, in turn."""
    root, archive = work / "tree", work / "image.tar"
    files, size = material.tree(root)
    material.oci_archive(root, archive)
    shutil.rmtree(root)
    material.give(work)
    ours, peer = work / "ours.sif", work / "peer.sif"

    def convert() -> float:
        ours.unlink(missing_ok=True)
        argv = material.as_user([*COMPUTEOPS, "convert", archive, ours])
        return material.timed(argv, COMPUTEOPS_LEVEL="3")

    def apptainer() -> float:
        peer.unlink(missing_ok=True)
        same = "--mksquashfs-args=-comp zstd -Xcompression-level 3"
        argv = ["apptainer", "build", "--force", same, peer, f"oci-archive:{archive}"]
        return material.timed(
            material.as_user(argv), APPTAINER_TMPDIR=str(work), APPTAINER_CACHEDIR=os.fspath(work / "cache")
        )

    medians = material.rounds(rounds, ours=convert, apptainer=apptainer)
    return {
        "claim": f"OCI archive of 3 layers to SIF, zstd 3 ({size / 1e6:.0f} MB, {files} files)",
        "peer": "apptainer build oci-archive:",
        "ours_s": round(medians["ours"], 2),
        "peer_s": round(medians["apptainer"], 2),
        "ratio": medians["apptainer"] / medians["ours"],
        "target": 5.0,
        "unit": f"s; {ours.stat().st_size / 1e6:.1f} MB against {peer.stat().st_size / 1e6:.1f} MB; "
        f"largest process {material.peak_children_bytes() / 2**20:.0f} MiB",
    }


if __name__ == "__main__":
    main()
