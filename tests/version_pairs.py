"""Pairs of versions to judge, made from a seed, and the programs that judge them."""

import gzip
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Pair = tuple[str, str]

_NUMBERS = ["0", "1", "2", "9", "10", "12", "00", "01", "007", "2024", "20240131", "99999999999999999999"]


def _number(rng: random.Random) -> str:
    return rng.choice(_NUMBERS) if rng.random() < 0.7 else str(rng.randrange(1000))


def deb(rng: random.Random) -> str:
    upstream = _number(rng)
    for _ in range(rng.randrange(5)):
        upstream += rng.choice([".", "~", "+", "-", "a", "rc", "~rc", "+dfsg", "+git", ".", "Z", "~~", ""]) + _number(
            rng
        )
    epoch = rng.choice(["", "", "", "0:", "1:", "2:"])
    revision = ""
    if rng.random() < 0.7:
        tail = rng.choice(
            ["", "", f"+deb1{rng.randrange(4)}u{_number(rng)}", "~bpo12+1", f"ubuntu{_number(rng)}", "+b1", "~", "a"]
        )
        revision = f"-{_number(rng)}{tail}"
    return epoch + upstream + revision


def rpm(rng: random.Random) -> str:
    upstream = _number(rng)
    for _ in range(rng.randrange(5)):
        upstream += rng.choice(
            [".", "~", "^", "_", "+", "a", "rc", "~rc", "^git", "..", "Z", "~^", "^~", "post"]
        ) + rng.choice([_number(rng), "", "b"])
    epoch = rng.choice(["", "", "", "0:", "1:", "10:"])
    release = f"-{_number(rng)}" + rng.choice(
        ["", ".el8", ".el8_4", ".el9_2.1", ".fc40", "~rc1", "^20240101", ".module+el8.5.0+119+9a9ec082"]
    )
    return epoch + upstream + release


def apk(rng: random.Random) -> str:
    made = _number(rng)
    for _ in range(rng.randrange(4)):
        made += "." + _number(rng)
    if rng.random() < 0.2:
        made += rng.choice("abz")
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        made += (
            "_"
            + rng.choice(["alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p", "p", "x", "ab"])
            + rng.choice(["", "1", "2", "20"])
        )
    if rng.random() < 0.1:
        made += rng.choice(["~ab12", "~", "~0", "~ff"])
    if rng.random() < 0.7:
        made += rng.choice(["-r0", "-r1", "-r10", "-r", "-1", ".r0", "-r2-r3"])
    return made


def pep440(rng: random.Random) -> str:
    made = rng.choice(["", "", "", "v", "1!", "0!"]) + _number(rng)
    for _ in range(rng.randrange(4)):
        made += "." + _number(rng)
    made += rng.choice(["", "", "", "a1", ".b2", "-rc.3", "alpha", "c0", "preview_4", "RC1"])
    made += rng.choice(["", "", "", ".post1", "-2", "post", "_rev3", ".post0"])
    made += rng.choice(["", "", "", ".dev1", "dev", "-dev0", ".dev10"])
    return made + rng.choice(["", "", "", "", "+cu118", "+1.2", "+ubuntu-1", "+1.a.2", "+001"])


GENERATORS: dict[str, Callable[[random.Random], str]] = {"deb": deb, "rpm": rpm, "apk": apk, "pep440": pep440}


def mutated(version: str, rng: random.Random) -> str:
    """The version with one small thing changed, so that pairs share long beginnings."""
    at = rng.randrange(len(version))
    change = rng.randrange(3)
    if change == 0 and len(version) > 1:
        return version[:at] + version[at + 1 :]
    letter = rng.choice("0123456789abz.~+-^_")
    return version[:at] + letter + version[at + (change == 1) :]


def pairs(scheme: str, count: int, seed: int = 1, valid: Callable[[str], bool] = lambda _: True) -> list[Pair]:
    rng = random.Random(f"{scheme} {seed}")
    make = GENERATORS[scheme]
    made: list[Pair] = []
    while len(made) < count:
        first = make(rng)
        second = mutated(first, rng) if rng.random() < 0.6 else make(rng)
        if valid(first) and valid(second):
            made.append((first, second))
    return made


def dpkg_valid(version: str) -> bool:
    """Whether dpkg compares it without a warning: its upstream version begins with a digit, and no empty parts."""
    rest = version.partition(":")[2] if ":" in version else version
    upstream, hyphen, revision = rest.rpartition("-")
    upstream = upstream if hyphen else rest
    epoch = version.partition(":")[0] if ":" in version else "0"
    allowed = set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+~")
    good = upstream[:1].isdigit() and set(upstream) <= allowed | {"-"} and set(revision) <= allowed
    return good and (not hyphen or revision != "") and epoch.isdigit() and len(epoch) < 9


def by_dpkg(asked: Sequence[Pair]) -> list[int]:
    """What `dpkg --compare-versions` says, by one shell for all pairs."""
    loop = 'while read -r a b; do if dpkg --compare-versions "$a" lt "$b"; then echo -1; elif dpkg --compare-versions "$a" eq "$b"; then echo 0; else echo 1; fi; done'
    text = "".join(f"{a} {b}\n" for a, b in asked)
    done = subprocess.run(["sh", "-c", loop], input=text, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def by_rpm(asked: Sequence[Pair], folder: Path) -> list[int]:
    """What `rpm.vercmp` of rpm's own Lua says."""
    (folder / "pairs").write_text("".join(f"{a} {b}\n" for a, b in asked))
    lua = f"""
        local said = {{}}
        for line in io.lines("{folder}/pairs") do
            local a, b = line:match("(%S+) (%S+)")
            said[#said + 1] = tostring(rpm.vercmp(a, b))
        end
        print(table.concat(said, "\\n"))
    """
    (folder / "judge.lua").write_text(lua)
    argv = ["rpm", "--eval", f'%{{lua: dofile("{folder}/judge.lua")}}']
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


APK = Path(__file__).parent / "versions/apk.txt.gz"
"""What `apk version -t` of apk-tools 3.0.6 said of 20,000 pairs that were made by `pairs("apk", 20_000, 7)`."""


def by_apk() -> tuple[list[Pair], list[int]]:
    """Pairs that apk-tools has judged, and what it said; no package of Debian has it to be asked again."""
    signs = {"<": -1, "=": 0, ">": 1}
    lines = [line.split() for line in gzip.decompress(APK.read_bytes()).decode().splitlines()[1:]]
    return [(first, second) for first, _, second in lines], [signs[sign] for _, sign, _ in lines]


def by_packaging(asked: Sequence[Pair]) -> Iterator[int]:
    from packaging.version import Version

    for one, other in asked:
        first, second = Version(one), Version(other)
        yield (first > second) - (first < second)


def packaging_valid(version: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(version)
    except InvalidVersion:
        return False
    return True
