"""Versions compared by us and by the programs that own them: no wrong answer in 20,000 pairs each, and how fast.

dpkg is asked by `dpkg --compare-versions`, rpm by its own Lua, PEP 440 by packaging; apk-tools has answered before
(tests/versions/apk.txt.gz): no package of Debian has it.
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
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = measure(options.pairs, options.seed, Path(work))
    if options.json:
        print(json.dumps(results, indent=2))
    for one in () if options.json else results:
        print(
            f"{one['claim']}: {one['wrong']} wrong; {one['keys_per_s']:,} keys/s, {one['compares_per_s']:,} compares/s"
        )


def measure(count: int, seed: int, work: Path) -> list[dict[str, object]]:
    """Compare `count` pairs of each kind."""
    anything: Callable[[str], bool] = lambda _: True  # noqa: E731
    judges: dict[str, tuple[Callable[[str], bool], Callable[[Sequence[version_pairs.Pair]], Sequence[int]]]] = {
        "deb": (version_pairs.dpkg_valid, version_pairs.by_dpkg),
        "rpm": (anything, lambda pairs: version_pairs.by_rpm(pairs, work)),
        "pep440": (version_pairs.packaging_valid, lambda pairs: list(version_pairs.by_packaging(pairs))),
    }
    judged = {"apk": version_pairs.by_apk()}
    for scheme, (valid, judge) in judges.items():
        pairs = version_pairs.pairs(scheme, count, seed, valid)
        judged[scheme] = (pairs, list(judge(pairs)))
    results = []
    for scheme, (pairs, said) in judged.items():
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
