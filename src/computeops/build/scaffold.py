"""The first files of a recipe: commented, without a problem, with a test; written whole and never over others."""

import codecs
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from computeops.build import conda_locks
from computeops.build import taken as taken_by
from computeops.errors import ConflictError, NotFoundError, StorageError, UsageError
from computeops.limits import LIMITS
from computeops.recipe import BESIDE, FILE_NAME

_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_HEAD = """\
# What this release is. The keys are described in docs/reference/recipe.md.

[package]
name = "{name}"
version = "0.1"
summary = "What {name} does, in one line"
license = "Apache-2.0"           # SPDX expression of the software inside
# homepage = "https://example.org"
# domains = ["bioinformatics"]
# citation = "10.1093/gigascience/giab008"

# [[maintainers]]
# name = "Ada Lovelace"
# email = "ada@example.org"

# Sources are archived with the release, so that it can be rebuilt from zero.{only}
# [[sources]]
# url = "https://example.org/{name}-0.1.tar.gz"
# sha256 = "..."
#
# [[sources]]
# git = "https://example.org/{name}.git"
# commit = "..."
#
# [[sources]]
# path = "patches"               # a file or folder beside this file
{sources}
[build]
builder = "{builder}"
"""
_ONLY = " The build file sees\n# nothing else of what lies beside it."
_TAIL = """
{run}
# A variant is one target of the release: a CPU level, a set of options.
# [[variants]]
# name = "v3"
# cpu = "x86_64_v3"
# options = {{ CFLAGS = "-O3 -march=x86-64-v3" }}

# Tests run inside the image after the build, and again wherever somebody wants to know whether it works there.
[[tests]]
name = "starts"
run = "{test}"
expect = "{expect}"
"""
_COMMAND = """
[run]
command = ["{name}"]
"""
_TAKEN = """
[[sources]]
path = {path}
"""
_MISSING = """
# The build file takes this from beside it. Put it here, or what of it is needed, and take away the #.
# [[sources]]
# path = {path}
"""
_SPACK = """
[[sources]]
git = "https://github.com/spack/spack.git"
commit = "2bfcc69fa870d3c6919be87593f22647981b648a" # v0.23.1; from 1.0 on, spack-packages is another source
"""
_FIRST = """printf '#!/bin/sh\\necho "{name} says hello"\\n' > /usr/local/bin/{name}"""
_BUILD = {
    "debian": """file = "build.sh"               # runs in the new system, as root, in the folder of the sources
suite = "bookworm"
packages = []                   # what the image has, beside Debian's essential packages
build_packages = []             # what build.sh needs; removed again after it
""",
    "dockerfile": """file = "Dockerfile"
{network}network = true                # lets RUN use the network; what it fetches is then not pinned
""",
    "python": """file = "{file}"
suite = "bookworm"
packages = []                   # of Debian, that the image has beside Python
""",
    "conda": """file = "{file}"
suite = "bookworm"
packages = []                   # of Debian, that the image has beside the environment
""",
    "guix": """file = "manifest.scm"           # channels.scm beside it: the channels, which `computeops lock` pins
""",
    "spack": """file = "spack.yaml"
suite = "bookworm"
packages = []                   # of Debian, that the image has beside what Spack compiles
# build_packages = ["gcc"]      # what Spack compiles with, if not GCC, make and their like
""",
    "apptainer": """file = "{name}.def"
{network}network = true                # lets %post use the network; what it fetches is then not pinned
""",
}
_FILES = {
    "debian": ("build.sh", f"#!/bin/sh\nset -eu\n\n{_FIRST}\nchmod 755 /usr/local/bin/{{name}}\n"),
    "dockerfile": (
        "Dockerfile",
        f"""\
FROM debian:bookworm-slim

RUN {_FIRST} \\
    && chmod 755 /usr/local/bin/{{name}}

ENTRYPOINT ["{{name}}"]
""",
    ),
    "python": ("requirements.txt", "# one requirement each line; `computeops lock` pins them all\nsix==1.17.0\n"),
    "conda": (
        "environment.yml",
        "channels: [conda-forge]\ndependencies:\n  - samtools =1.21   # `computeops lock` pins it and what it needs\n",
    ),
    "guix": (
        "manifest.scm",
        """\
;; `computeops lock` pins these with all that they need
(specifications->manifest (list "bash" "coreutils" "hello"))
""",
    ),
    "spack": ("spack.yaml", "# `computeops lock` pins it and what it needs\nspack:\n  specs: [samtools@1.19]\n"),
    "apptainer": (
        "{name}.def",
        f"""\
Bootstrap: docker
From: debian:bookworm-slim

%post
    {_FIRST}
    chmod 755 /usr/local/bin/{{name}}

%runscript
    exec {{name}} "$@"
""",
    ),
}


_TESTS = {
    "conda": ("ls /opt/env/conda-meta", ".json"),
    "guix": ("ls -d /gnu/store/*-profile", "-profile"),
    "python": ("python -V", "Python 3"),
    "spack": ("ls /opt/view", "bin"),
}
_SIGNS = {
    "guix": r"^[^;\n]*\((?:specifications->|packages->|concatenate-)?manifests?\b",
    "spack": r"^spack\s*:",
    "conda": r"^dependencies\s*:",
    "apptainer": r"^\s*bootstrap\s*:",
    "dockerfile": r"^\s*FROM\s+\S",
}
"""What a build file of a builder has in it, looked for in this order."""


def files(name: str, builder: str, existing: Path | None = None) -> Mapping[str, bytes]:
    """Return name and content of the first files of a recipe; `existing` is taken as its build file.

    Raises:
        UsageError: the name cannot be one, or there is no scaffold for the builder.
        NotFoundError: `existing` is not there.
    """
    if not _NAME.fullmatch(name):
        hint = "use lower case letters, digits and single . _ - between"
        raise UsageError(f"a recipe cannot be called {name!r}", hint=hint)
    if builder not in _FILES:
        raise UsageError(f"there is no scaffold for the builder {builder!r}", hint=f"there are: {', '.join(_FILES)}")
    file, text = (part.format(name=name) for part in _FILES[builder])
    if existing is not None and builder == "python":
        file = "pyproject.toml" if existing.suffix == ".toml" else file  # the name says what it is
    if existing is not None and builder == "conda" and conda_locks.is_one(existing):
        file = existing.name
    text = text if existing is None else _text(existing)
    sources, more = _SPACK if builder == "spack" else "", dict[str, bytes]()
    if existing is not None:
        taken, more = _taken(builder, text, existing.parent)
        sources += taken
    network = "" if existing is not None and taken_by.fetches(text) else "# "
    recipe = _HEAD.format(name=name, builder=builder, only="" if builder == "debian" else _ONLY, sources=sources)
    recipe += _BUILD[builder].format(name=name, file=file, network=network)
    test, expect = _TESTS.get(builder) or (
        (name, f"{name} says hello") if existing is None else ("echo it starts", "it starts")
    )
    recipe += _TAIL.format(run=_COMMAND.format(name=name) if builder == "debian" else "", test=test, expect=expect)
    return {FILE_NAME: recipe.encode(), file: text.encode(), **more}


def _taken(builder: str, text: str, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Return the sources of a build file from elsewhere, as parts of a recipe, and those files that are there."""
    sources, found = "", dict[str, bytes]()
    for written in taken_by.names(builder, text):
        files = taken_by.beside(folder, written)
        path = written.strip("/").removeprefix("./")
        if files is None:
            sources += _MISSING.format(path=json.dumps(path))
        else:
            found |= files
            sources += "".join(_TAKEN.format(path=json.dumps(one)) for one in _tops(path, files))
    for name in BESIDE.get(builder, ()):
        if (folder / name).is_file():
            found[name] = _text(folder / name).encode()
    return sources, found


def _tops(path: str, files: Mapping[str, bytes]) -> list[str]:
    """Return what a recipe calls `files`: a file or folder by its own name, each of what a pattern matched."""
    return [path] if path in files or all(one.startswith(f"{path}/") for one in files) else list(files)


def builder_of(file: Path) -> str:
    """Return the builder that a build file is for, by its name and its first lines.

    Raises:
        UsageError: it cannot be told.
    """
    text = _text(file)
    if file.name == "pyproject.toml" or (file.suffix == ".txt" and "requirements" in file.name):
        return "python"
    if file.suffix == ".sh" or text.startswith("#!"):
        return "debian"
    for builder, sign in _SIGNS.items():
        if re.search(sign, text, re.IGNORECASE | re.MULTILINE):
            return builder
    if conda_locks.is_one(file) or (file.suffix in {".yml", ".yaml"} and file.name.startswith("environment")):
        return "conda"
    if file.name == "pixi.toml":
        hint = "take the pixi.lock beside it"
        raise UsageError(f"{file} is for pixi, and there is no builder for it", hint=hint)
    raise UsageError(f"cannot tell what {file} is", hint="name its builder with --builder")


def write(folder: Path, found: Mapping[str, bytes]) -> None:
    """Write the files into the new folder `folder`, which appears whole.

    Raises:
        ConflictError: it exists and is not empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, content in found.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            with (new / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if content.startswith(b"#!"):
                (new / name).chmod(0o755)
        new.chmod(0o755)
        new.rename(folder)  # onto nothing or an empty folder: everything else is refused by the kernel
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            raise ConflictError(f"{folder} exists already", hint="choose another name") from error
        raise StorageError(f"cannot write {folder}: {error.strerror}") from error


def _text(file: Path) -> str:
    """Return the text of a build file as every shell and parser takes it: without byte order mark and CR."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.build_file_bytes + 1)
    except OSError as error:
        raise NotFoundError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > LIMITS.build_file_bytes:
        raise UsageError(f"{file} has more than {LIMITS.build_file_bytes} bytes")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in data and not wide:
        raise UsageError(f"{file} is no text", hint="--from wants a build file")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # of before UTF-8: the name of an author, or a comment
    return text.replace("\r\n", "\n")
