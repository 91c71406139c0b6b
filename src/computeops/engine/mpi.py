"""The machine's own MPI in the container, with the libraries of its fast network, in place of the image's.

Only if programs built for the one run with the other: the same name for the loader, and of Open MPI the same major
version and no older release (https://www.mpich.org/abi/, https://docs.open-mpi.org/en/v5.0.x/version-numbering.html).
What the C library of the image is too old for is not brought in: the program would not even start.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from computeops.engine.cdi import LIBRARIES, Edits
from computeops.engine.model import Bind
from computeops.errors import EngineError
from computeops.host import elf

_MPI = re.compile(r"(libmpi|libmpich|libmpi_abi)\.so\.(\d+)(?:\.(\d+)(?:\.\d+)*)?")
_OPENMPI_MAJOR = {0: 3, 10: 3, 20: 4, 30: 4, 40: 5}
"""Second number of libmpi.so.40.X to the major version of Open MPI (the VERSION files of its branches)."""
_FOLDERS = re.compile(
    r"(?:usr(?:/local)?(?:/lib(?:64)?(?:/[^/]*-linux-gnu)?(?:/(?:openmpi|mpich)[^/]*(?:/lib(?:64)?)?)?)?"
    r"|opt(?:/[^/]+(?:/lib(?:64)?)?)?|lib(?:64)?(?:/[^/]*-linux-gnu)?)?"
)
"""Where images have their MPI."""
_FABRICS = re.compile(r"lib(?:fabric|ucp|psm2|rdmacm|cxi|portals)\.so\.[0-9.]+")
_CORE = re.compile(
    r"(?:ld-linux.*|lib(?:c|m|dl|rt|pthread|resolv|util|nsl|BrokenLocale|anl|stdc\+\+|gcc_s))\.so(?:\.[0-9]+)?"
)
"""Libraries that are the image's in any case: two C libraries in one program do not go."""
_PLUGINS = ("openmpi", "pmix2", "pmix", "ucx", "libfabric", "libibverbs", "mpich")
"""Folders beside a library from which it loads its parts."""
_GLIBC = re.compile(rb"GLIBC_2\.(\d{1,3})\b")
_PLACES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64")


@dataclass(frozen=True, slots=True)
class Library:
    """One libmpi."""

    soname: str
    """Its name for the loader, with the major number of its ABI."""
    release: int = 0
    """The number behind it, which grows when functions are added."""

    @property
    def major(self) -> int:
        """The major version of Open MPI; 0 of others, whose ABI has only one."""
        return _OPENMPI_MAJOR.get(self.release, 0) if self.soname == "libmpi.so.40" else 0


def of_image(image: Path) -> tuple[Library | None, bool]:
    """Return the MPI in the image at `image`, and whether it has libraries of a fast network.

    Raises:
        FormatError: it is broken.
    """
    from computeops.image.source import open_source

    source, mpis, fabric = open_source(image), [], False
    if source.form not in {"sif", "squashfs", "tree"}:
        return None, False
    for entry, _ in source.tree().items(lambda folder: _FOLDERS.fullmatch(folder) is not None):
        name = entry.path.rpartition("/")[2]
        fabric = fabric or _FABRICS.fullmatch(name) is not None
        if (found := parse(name)) is not None:
            mpis.append(found)
    return max(mpis, key=lambda one: one.release, default=None), fabric


def parse(name: str) -> Library | None:
    """Return the MPI whose file is called `name`: libmpi.so.40.30.4, libmpich.so.12; None for another file."""
    match = _MPI.fullmatch(name)
    return Library(f"{match[1]}.so.{match[2]}", int(match[3] or 0)) if match else None


def fits(mine: Library, theirs: Library) -> str:
    """Return "" if a program built for `mine` runs with `theirs`, else why not."""
    if _abi(mine) != _abi(theirs):
        return f"the image's is {mine.soname}, and this machine's {theirs.soname}: another family"
    if mine.major and theirs.major and mine.major != theirs.major:
        return f"the image's is Open MPI {mine.major}, and this machine's Open MPI {theirs.major}"
    if mine.soname.startswith("libmpi.so.40") and theirs.release < mine.release:
        return f"the image's, {mine.soname}.{mine.release}, is newer than this machine's, with {theirs.release}"
    return ""


def _abi(one: Library) -> str:
    """Return what the family is known by: MPICH's is called libmpi.so.12 or, by Debian, libmpich.so.12."""
    return one.soname.replace("libmpich.so", "libmpi.so")


def edits(image: Path, environ: Mapping[str, str]) -> Edits:
    """Return the binds and the variable that put this machine's MPI in place of that of `image`.

    Raises:
        EngineError: one of them has none, or they do not go together.
    """
    mine, _ = of_image(image)
    if mine is None:
        raise EngineError(f"{image} has no MPI that the machine's could take the place of", hint="leave out --mpi host")
    reasons = []
    for path in _host_libraries(environ):
        theirs = parse(path.name) or Library("")
        why = fits(mine, theirs) or _too_new(image, closure := _closure(path, environ))
        if not why:
            return _edits(mine, path, closure)
        reasons.append(f"\n  {path}: {why}")
    raise EngineError(
        f"no MPI of this machine goes with that of {image}:{''.join(reasons) or ' there is none'}",
        hint="load the module of another one, or leave out --mpi host: the image's own joins the ranks by PMI",
    )


def _edits(mine: Library, path: Path, closure: Mapping[str, Path]) -> Edits:
    libraries = {mine.soname: path, **closure}
    binds = [Bind(file, f"{LIBRARIES}/{name}", read_only=True) for name, file in libraries.items()]
    beside = {folder / name for folder in {file.parent for file in libraries.values()} for name in _PLUGINS}
    binds += [Bind(one, str(one), read_only=True) for one in sorted(beside) if one.is_dir()]
    return Edits(tuple(binds), {"LD_LIBRARY_PATH": LIBRARIES})


def _host_libraries(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield every libmpi of this machine, those of loaded modules first."""
    seen = set()
    for folder in _search(environ):
        for path in sorted(folder.glob("libmpi*.so.*")) if folder.is_dir() else ():
            real = path.resolve()
            if parse(real.name) and real not in seen:
                seen.add(real)
                yield real


def _search(environ: Mapping[str, str]) -> list[Path]:
    machine = f"{os.uname().machine}-linux-gnu"
    loaded = [Path(one) for one in environ.get("LD_LIBRARY_PATH", "").split(":") if one.startswith("/")]
    return [*loaded, *(path for one in _PLACES for path in (Path(one, machine), Path(one)))]


def _closure(path: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """Return what the library at `path` needs, and what that needs, but for the C library: name to file."""
    found: dict[str, Path] = {}
    open_, folders = [path], _search(environ)
    while open_:
        here = open_.pop()
        for name in elf.read(here).needed:
            if name in found or not name or _CORE.fullmatch(name):
                continue
            places: Sequence[Path] = (here.parent, *folders)
            file = next((place / name for place in places if (place / name).is_file()), None)
            if file is not None:
                found[name] = file.resolve()
                open_.append(found[name])
    return found


def _too_new(image: Path, closure: Mapping[str, Path]) -> str:
    """Return "" if the image's C library has all that these libraries ask for, else which does not go."""
    from computeops.host import Needs
    from computeops.image import libc

    has = Needs.of("", {}, {}, libc.read(image)).glibc.partition(".")[2]
    for name, file in closure.items():
        asked = max((int(one) for one in _GLIBC.findall(file.read_bytes())), default=0)
        if has.isdigit() and asked > int(has):
            return f"its {name} needs glibc 2.{asked}, and the image has 2.{has}"
    return ""
