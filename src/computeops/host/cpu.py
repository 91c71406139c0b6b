"""The level of the CPU, in the names of archspec (https://github.com/archspec/archspec-json).

The levels of x86-64 are few and fixed (System V ABI, AMD64 supplement 1.0, section 3.1.1): they are known here, so that
the start of a container can ask in microseconds. Every other name is archspec's to know.
"""

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}
"""The kernel's word for a machine to OCI's."""
_V2 = frozenset(("cx16", "lahf_lm", "mmx", "sse", "sse2", "ssse3", "sse4_1", "sse4_2", "popcnt"))
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {"x86_64": frozenset[str](), "x86_64_v2": _V2, "x86_64_v3": _V3, "x86_64_v4": _V4}
"""Level of x86-64 to the flags of /proc/cpuinfo that it needs, the weakest first."""
_CPUINFO = Path("/proc/cpuinfo")
_ONE_CPU_BYTES = 16384


@cache
def features() -> frozenset[str]:
    """Return the flags that the kernel lists for the first CPU."""
    with _CPUINFO.open("rb") as file:
        text = file.read(_ONE_CPU_BYTES).decode(errors="replace")
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def lacking(level: str, known: Collection[str] | None = None) -> tuple[str, ...] | None:
    """Return the features that this CPU (or one with the features `known`) lacks for a level of x86-64.

    None: `level` is not one of the levels of x86-64.
    """
    if level not in LEVELS:
        return None
    if os.uname().machine != "x86_64" and known is None:
        return ("x86-64",)
    return tuple(sorted(LEVELS[level] - frozenset(features() if known is None else known)))


def executes(name: str) -> bool:
    """Whether this CPU executes code made for the CPU that archspec calls `name`; False for a name nobody knows."""
    missing = lacking(name)
    if missing is not None:
        return not missing
    return name in levels()


def best() -> str:
    """Return the highest level of x86-64 of this CPU; "" on other machines."""
    return next((name for name in reversed(LEVELS) if not lacking(name)), "")


def generation(name: str) -> tuple[int, int]:
    """Return how new the CPU called `name` is: its level of x86-64, and how many CPUs it is descended from.

    (0, 0) for "" and for a name that nobody knows.
    """
    order = tuple(LEVELS)
    if name in LEVELS:
        return order.index(name), 0
    if not name:
        return 0, 0
    from archspec.cpu import TARGETS

    if name not in TARGETS:
        return 0, 0
    above = [str(one.name) for one in TARGETS[name].ancestors]
    return max((order.index(one) for one in above if one in LEVELS), default=0), len(above)


def name() -> str:
    """Return what archspec calls this CPU."""
    from archspec.cpu import host

    return str(host().name)


def levels() -> tuple[str, ...]:
    """Return the names of all CPUs whose code this one executes, itself first."""
    from archspec.cpu import host

    found = host()
    own = [level for level in LEVELS if not lacking(level)]
    return tuple(dict.fromkeys([str(found.name), *(str(one.name) for one in found.ancestors), *own]))
