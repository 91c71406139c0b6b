"""A 10,000-task array, submit to accepted: `computeops submit` beside bare `sbatch --array`; its states in one poll.

The Slurm is a real one on this machine, started and ended here; its jobs may begin tomorrow, so none starts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import material

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

COMPUTEOPS = [sys.executable, "-m", "computeops"]
TASKS = 10_000


def main() -> None:
    """Print one result per claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from schedulers import slurm

    running = slurm.up()
    os.environ.update(running.env)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-array-") as home:
            results = measure(Path(home), options.rounds)
    finally:
        running.stop()
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print(f"{result['claim']}: {result['ours_s']} s against {result['peer_s']} s")


def measure(home: Path, rounds: int) -> list[dict[str, object]]:
    """Submit in both ways, in turn, and cancel outside of the measured time."""
    os.environ["XDG_STATE_HOME"] = str(home)
    image = home / "image.sif"
    image.touch()
    script = home / "bare.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    begin = ["--begin=now+1day"]

    def timed(argv: list[str | Path]) -> float:
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        subprocess.run(["scancel", "--state=PENDING", f"--user={os.getuid()}"], check=True)
        return seconds

    ours = [*COMPUTEOPS, "submit", "--on", "slurm", "--array", str(TASKS), f"--option={begin[0]}", image]
    medians = material.rounds(
        rounds,
        bare=lambda: timed(["sbatch", "--parsable", f"--array=1-{TASKS}", *begin, "--chdir", home, script]),
        ours=lambda: timed(ours),
    )
    extra = medians["ours"] - medians["bare"]
    return [
        {
            "claim": f"submit an array of {TASKS} tasks to Slurm",
            "peer": "sbatch --array",
            "ours_s": round(medians["ours"], 3),
            "peer_s": round(medians["bare"], 3),
            "ratio": medians["bare"] / medians["ours"],
            "target": 0.2,
            "unit": f"s; {extra:.3f} s more, at most 0.2 wanted",
        },
        _states(home, rounds),
    ]


def _states(home: Path, rounds: int) -> dict[str, object]:
    """Ask for the states of as many tasks, half of which have ended."""
    from computeops import run

    for folder in (home / "computeops/jobs").iterdir():
        for number in range(1, TASKS // 2):
            (folder / "exits" / f"{number}.0").touch()
    record = run.Records(home / "computeops/jobs").all()[-1]
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run.look([record])
        times.append(time.perf_counter() - began)
    median = sorted(times)[len(times) // 2]
    return {
        "claim": f"states of {TASKS} tasks in one poll",
        "peer": "-",
        "ours_s": round(median, 3),
        "peer_s": 1.0,
        "ratio": 1.0 / median,
        "target": 1.0,
        "unit": "s; at most 1 wanted",
    }


if __name__ == "__main__":
    main()
