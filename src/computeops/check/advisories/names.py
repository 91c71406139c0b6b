"""Packages of conda, Spack, Guix and Nix, who publish no advisories, by the names that others know them by.

By rule: `py-numpy` of Spack and `python-numpy` of Guix are numpy of PyPI, `r-xml` is XML of CRAN. By map: which package
of PyPI a package of conda is; parselmouth publishes that (https://github.com/prefix-dev/parselmouth). By upstream:
JuliaLang/SecurityAdvisories.jl says of C libraries (`HDF5_jll`) which of their own versions are vulnerable.

What is found so is never confirmed: who packaged it may have repaired it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from computeops.check.advisories.bounded import typed
from computeops.check.advisories.model import plain
from computeops.errors import FormatError

BORROWED = frozenset({"conda", "spack", "guix", "nix"})
"""Types of purl about whose packages nobody publishes advisories."""
_RULES: Mapping[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "conda": ((re.compile(r"r-(.+)"), "CRAN"), (re.compile(r"bioconductor-(.+)"), "Bioconductor")),
    "spack": (
        (re.compile(r"py-(.+)"), "PyPI"),
        (re.compile(r"r-(.+)"), "CRAN"),
        (re.compile(r"rust-(.+)"), "crates.io"),
    ),
    "guix": (
        (re.compile(r"python-(.+)"), "PyPI"),
        (re.compile(r"r-(.+)"), "CRAN"),
        (re.compile(r"ghc-(.+)"), "Hackage"),
        (re.compile(r"rust-(.+)"), "crates.io"),
        (re.compile(r"julia-(.+)"), "Julia"),
    ),
    "nix": (
        (re.compile(r"python\d[\d.]*-(.+)"), "PyPI"),
        (re.compile(r"r-(.+)"), "CRAN"),
    ),
}
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A package as another ecosystem calls it."""

    ecosystem: str
    name: str
    upstream: bool = False
    """It is the upstream's own version that is compared, of a library that anybody may have packaged."""


def by_rule(kind: str, name: str) -> Iterator[Elsewhere]:
    """Yield what a package of this type of purl is by the rules of its names."""
    for rule, ecosystem in _RULES.get(kind, ()):
        if match := rule.fullmatch(name):
            yield Elsewhere(ecosystem, match[1])


def by_upstream(name: str) -> str:
    """Return, in lower case, under which name Julia's advisories know a C library."""
    return f"{name.lower()}_jll"


def read(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Yield packages of conda with their names in PyPI, "" for what is not of Python.

    Raises:
        FormatError: it is not such a map.
    """
    found: dict[str, list[str] | str | None] = typed(data, dict[str, list[str] | str | None], name)
    for conda, others in found.items():
        several = [others] if isinstance(others, str) else others or [""]
        for other in several:
            if not plain(conda, _LONGEST) or (other and not plain(other, _LONGEST)):
                raise FormatError(f"{name}: not a name: {conda[:80]!r}")
            yield conda, other
