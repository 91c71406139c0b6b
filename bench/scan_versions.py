"""Versions compared by us and by the programs that own them: no wrong answer in 20,000 pairs each, and how fast.

dpkg is asked by `dpkg --compare-versions`, rpm by its own Lua, apk-tools by its version.c compiled here (--apk-tools
names its source tree; without it that row is left out), PEP 440 by packaging.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import version_pairs
from computeops.check.versions import SCHEMES, compare


def main() -> None:
    """Print the result of the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--apk-tools", type=Path, help="source tree of apk-tools")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = measure(options.pairs, options.seed, options.apk_tools, Path(work))
    if options.json:
        print(json.dumps(results, indent=2))
    for one in () if options.json else results:
        print(
            f"{one['claim']}: {one['wrong']} wrong; {one['keys_per_s']:,} keys/s, {one['compares_per_s']:,} compares/s"
        )


def measure(count: int, seed: int, apk_tools: Path | None, work: Path) -> list[dict[str, object]]:
    """Compare `count` pairs of each kind."""
    anything: Callable[[str], bool] = lambda _: True  # noqa: E731
    judges: dict[str, tuple[Callable[[str], bool], Callable[[Sequence[version_pairs.Pair]], Sequence[int]]]] = {
        "deb": (version_pairs.dpkg_valid, version_pairs.by_dpkg),
        "rpm": (anything, lambda pairs: version_pairs.by_rpm(pairs, work)),
        "pep440": (version_pairs.packaging_valid, lambda pairs: list(version_pairs.by_packaging(pairs))),
    }
    if apk_tools:
        judges["apk"] = (anything, lambda pairs: version_pairs.by_apk(pairs, apk_tools, work))
    results = []
    for scheme, (valid, judge) in judges.items():
        pairs = version_pairs.pairs(scheme, count, seed, valid)
        said = judge(pairs)
        wrong = [pair for pair, answer in zip(pairs, said, strict=True) if compare(scheme, *pair) != answer]
        results.append({"claim": f"{scheme}, {len(pairs):,} pairs", "wrong": len(wrong), **_speed(scheme, pairs)})
        if wrong:
            print(scheme, wrong[:10], file=sys.stderr)
    return results


def _speed(scheme: str, pairs: Sequence[version_pairs.Pair]) -> dict[str, int]:
    make = SCHEMES[scheme]
    began = time.perf_counter()
    keys = [make(version) for pair in pairs for version in pair]
    made = time.perf_counter() - began
    random.Random(1).shuffle(keys)
    began = time.perf_counter()
    for one, other in zip(keys, reversed(keys), strict=True):
        _ = one < other
    compared = time.perf_counter() - began
    return {"keys_per_s": round(len(keys) / made), "compares_per_s": round(len(keys) / compared)}


if __name__ == "__main__":
    main()
