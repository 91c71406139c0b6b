"""Packages of Python in a virtual environment, on a root filesystem of Debian packages.

`lock` lets pip resolve `requirements.txt`, or the dependencies in `pyproject.toml`, to wheels with their digests, for
the Python of the Debian suite. `build` installs exactly those, without network, by a pip that is pinned like them and
stays out of the image. The project of a `pyproject.toml` is installed too if its files are among the sources.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from computeops import proc
from computeops.build import debian
from computeops.build.model import Built, Job, Material, Pins, Place, moving
from computeops.errors import FormatError, MissingProgramError, NetworkError, RecipeError
from computeops.model import Digest
from computeops.recipe import PathSource, Recipe

VENV = "/opt/venv"
_FILES = ("requirements.txt", "pyproject.toml")
_PYTHON = re.compile(r"python3_(3\.[0-9]+)\.[^_]*_[a-z0-9]+\.deb")
_PINNED = re.compile(r"===?\s*[^*\s]+(?:\s|;|$)|@\s*\S+#sha256=|--hash=")
_OPTION = re.compile(r"-(?:r|c|e|i|f)\b|--(?!hash\b)")
_SCRIPT = """\
set -eu
umask 022
export PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python3 -m venv --without-pip {venv}
pip() {{ "$1/bin/python" "$PWD/{pip}/pip" install -q --no-deps --no-compile --no-warn-script-location -r "$2"; }}
pip {venv} locked.txt
{project}
# hashes in place of times: equal wherever and whenever they are compiled
{venv}/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash {venv}/lib
"""
_PROJECT = """\
python3 -m venv --without-pip /tmp/backend
pip /tmp/backend backend.txt
mkdir /tmp/project
cp pyproject.toml /tmp/project/
for one in {files}; do
    case $one in *.tar) tar -xf "$one" -C /tmp/project ;; *) cp "$one" /tmp/project/ ;; esac
done
/tmp/backend/bin/python "$PWD/{pip}/pip" wheel -q --no-deps --no-build-isolation -w /tmp/wheel /tmp/project
{venv}/bin/python "$PWD/{pip}/pip" install -q --no-deps --no-compile --find-links /tmp/wheel {name}
rm -rf /tmp/backend /tmp/project /tmp/wheel
"""


def detect(folder: Path) -> str:
    """A `requirements.txt` or `pyproject.toml` is for this builder."""
    return next((name for name in _FILES if (folder / name).is_file()), "")


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say which requirements any version may fill, and what Debian's part lacks."""
    wanted = _requirements(folder / recipe.build.file)
    return [*debian.lint(folder, _on_debian(recipe)), *moving(recipe.build.file, loose(wanted))]


def loose(wanted: Sequence[str]) -> list[str]:
    """Return the requirements that more than one version fills."""
    return [one for one in wanted if not _PINNED.search(one)]


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the packages of Debian, and the wheels for its Python."""
    base = debian.lock(folder, _on_debian(recipe), place)
    python = interpreter(version_in(base.materials, recipe.build.suite))
    file = folder / recipe.build.file
    place.progress("resolving the requirements")
    wanted = resolve(python, _requirements(file), place)
    backend = resolve(python, _backend(file), place) if _project(file, recipe) else ()
    (pip,) = resolve(python, ["pip"], place)
    options = {
        **base.options,
        "pip": pip.name,
        "wheels": sorted(one.name for one in wanted),
        "backend": sorted(one.name for one in backend),
    }
    every = {one.name: one for one in (*wanted, *backend, pip)}
    return Pins((*base.materials, *(every[name] for name in sorted(every))), options)


def build(job: Job) -> Built:
    """Install Debian's packages as the builder `debian` does, with a build file that installs the wheels."""
    folder = job.place.work / "python"
    folder.mkdir()
    file = job.folder / job.recipe.build.file
    options = job.lock.options
    texts = {"locked.txt": lines(options["wheels"])}
    if options["backend"]:
        texts |= {"backend.txt": lines(options["backend"]), file.name: file.read_text()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    inside = {name: folder / name for name in texts} | wheels(job)
    made = debian.scripted(job, _on_debian(job.recipe), _script(job, file), inside)
    env = {**made.env, "PATH": f"{VENV}/bin:{made.env['PATH']}", "VIRTUAL_ENV": VENV}
    return replace(made, env=env)


def wheels(job: Job) -> dict[str, Path]:
    """Return the locked wheels of `job` by name."""
    return {one.name: job.files[f"wheel/{one.name}"] for one in job.lock.of_role("wheel")}


def _on_debian(recipe: Recipe) -> Recipe:
    """Return the recipe of the Debian part."""
    packages = tuple(dict.fromkeys((*recipe.build.packages, "python3")))
    part = msgspec.structs.replace(recipe.build, builder="debian", file="", packages=packages)
    return msgspec.structs.replace(recipe, build=part)


def _requirements(file: Path) -> list[str]:
    """Return the requirements that a build file names, one each.

    Raises:
        RecipeError: it is broken, or has options, which would make pip read or fetch something else.
    """
    text = file.read_text(errors="replace")
    if file.name.endswith(".toml"):
        return [str(one) for one in _toml(file).get("project", {}).get("dependencies", [])]
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return checked([stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line).strip())], file.name)


def checked(wanted: Sequence[str], file: str) -> list[str]:
    """Return requirements of pip, none of which is an option.

    Raises:
        RecipeError: one is, and pip would read or fetch something else.
    """
    if options := [one for one in wanted if _OPTION.match(one)]:
        raise RecipeError(f"{file}: {options[0]}: only requirements can be locked", hint="write it out, line by line")
    return list(wanted)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(errors="replace"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{file.name}: {error}") from None


def _backend(file: Path) -> list[str]:
    found = _toml(file).get("build-system", {}).get("requires", ["setuptools"])
    return [str(one) for one in found]


def _project(file: Path, recipe: Recipe) -> str:
    """Return the name of the project that is to be installed, or ""."""
    if not file.name.endswith(".toml") or not any(isinstance(one, PathSource) for one in recipe.sources):
        return ""
    return str(_toml(file).get("project", {}).get("name", ""))


def version_in(packages: Sequence[Material], suite: str) -> str:
    """Return the version of the Python among packages of Debian.

    Raises:
        RecipeError: there is none.
    """
    version = next((found[1] for one in packages if (found := _PYTHON.fullmatch(one.name))), "")
    if not version:
        raise RecipeError(f"{suite} has no python3", hint="choose a suite that has one")
    return version


def interpreter(version: str) -> str:
    """Return a Python of this machine that has `version`: who resolves evaluates `python_version`.

    Raises:
        MissingProgramError: there is none with pip here.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for one in (sys.executable if here == version else "", f"python{version}"):
        if one and proc.find(one) and proc.capture([one, "-I", "-m", "pip", "--version"]).returncode == 0:
            return one
    raise MissingProgramError(
        f"there is no python{version} with pip, which must resolve for the Python of the image",
        hint=f"lock where there is one, for example by: uv python install {version}; the build needs none",
    )


def resolve(python: str, wanted: Sequence[str], place: Place, given: Sequence[str] = ()) -> tuple[Material, ...]:
    """Let pip find the wheels that fill `wanted`, together, and with the versions of what is `given` anyway.

    Raises:
        RecipeError: there are none.
        NetworkError: the index did not answer as one.
    """
    if not wanted:
        return ()
    file, constraints = place.work / "requirements.txt", place.work / "constraints.txt"
    file.write_text("\n".join([*wanted, ""]))
    constraints.write_text("\n".join([*given, ""]))
    argv = [python, "-I", "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report=-"]
    argv += ["--only-binary=:all:", "--no-cache-dir", f"--index-url={place.pypi}", f"--requirement={file}"]
    argv.append(f"--constraint={constraints}")
    report = proc.run(argv, error=RecipeError, timeout=600)
    try:
        found: Mapping[str, Any] = msgspec.json.decode(report)
        return tuple(_wheel(one["download_info"]) for one in found["install"])
    except (msgspec.DecodeError, KeyError, TypeError, FormatError) as error:
        raise NetworkError(f"the report of pip is not what it should be: {error!r}") from None


def _wheel(info: Mapping[str, Any]) -> Material:
    url = str(info["url"])
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl", name):
        raise RecipeError(f"{name!r} is no wheel", hint="only wheels can be installed without building anything")
    return Material(name, url, Digest.parse(f"sha256:{info['archive_info']['hashes']['sha256']}"), role="wheel")


def lines(wheels: Sequence[str]) -> str:
    """Return the requirements that exactly these wheels fill."""
    return "".join("{}=={}\n".format(*name.split("-")[:2]) for name in wheels)


def _script(job: Job, file: Path) -> str:
    words = {"venv": VENV, "pip": job.lock.options["pip"], "project": ""}
    if job.lock.options["backend"]:
        here = " ".join(_paths(job))
        words["project"] = _PROJECT.format(**words, files=here, name=_project(file, job.recipe))
    return _SCRIPT.format(**words)


def _paths(job: Job) -> Iterator[str]:
    """Yield what the sources beside the recipe are called inside."""
    return (one.name for one in job.lock.of_role("source") if one.uri.startswith("path:"))
