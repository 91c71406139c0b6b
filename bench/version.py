"""`computeops --version`: what a shell prompt, a completion or a script waits for."""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import installed
import material


def main() -> None:
    """Print one result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-version-", dir="/var/tmp"))
    try:
        result = measure(work, options.rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps([result], indent=2))
    else:
        print(f"{result['claim']}: {result['ours_s']} against {result['peer_s']}, ratio {result['ratio']:.2f}")


def measure(work: Path, rounds: int) -> dict[str, object]:
    """Ask both for their version, in turn."""
    material.give(work)
    ours = installed.command(work)
    medians = material.rounds(
        rounds,
        ours=lambda: material.timed(material.as_user([ours, "--version"])),
        python=lambda: material.timed(material.as_user([ours.with_name("python"), "-c", "pass"])),
        apptainer=lambda: material.timed(material.as_user(["apptainer", "--version"])),
    )
    return {
        "claim": "computeops --version",
        "peer": "apptainer --version",
        "ours_s": round(medians["ours"], 4),
        "peer_s": round(medians["apptainer"], 4),
        "ratio": medians["apptainer"] / medians["ours"],
        "target": medians["apptainer"] / 0.080,
        "unit": f"s; at most 0.080 s are allowed; an empty Python program takes {medians['python']:.4f} s",
    }


if __name__ == "__main__":
    main()
