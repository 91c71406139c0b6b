"""An environment of conda packages, on a root filesystem of Debian packages.

`lock` solves `environment.yml` for the C library of the Debian suite, by rattler, the engine of pixi, or takes what is
locked already: a `pixi.lock`, a `conda-lock.yml`, or the list that `conda list --explicit --sha256` prints. `build`
installs exactly these packages into `/opt/env`, without network. Link scripts of packages are not run. What `pip:` of
an environment.yml names becomes wheels for the Python of the environment, with the versions that conda installs.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from computeops import proc
from computeops.build import conda_locks, debian, python
from computeops.build.model import Built, Job, Material, Pins, Place, moving
from computeops.errors import BuildError, RecipeError
from computeops.recipe import Recipe

ENV = "/opt/env"
_NAMES = ("environment.yml", "environment.yaml", *conda_locks.NAMES)
_GLIBC = re.compile(r"libc6_([0-9]+\.[0-9]+)-.*\.deb")
_OLDEST = "2.17"
"""The C library that conda packages need at least."""
_EXACT = re.compile(r"[^\s=<>~!|*,]+(?:\s*==?\s*|\s+)[^\s=<>~!|*,]+(?:[\s=]+\S+)?")
_OF_THIS_BUILD = ("extracted_package_dir", "link", "url", "channel")
"""What rattler notes of a package that is about where it came from here."""
_SCRIPT = """\
set -eu
umask 022
mkdir -p /opt
tar -xf env.tar -C /opt --no-same-owner
find {env} -name __pycache__ -prune -exec rm -r {{}} +
{pip}
# hashes in place of times: equal wherever and whenever they are compiled
[ ! -x {env}/bin/python ] || {env}/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash {env}/lib
"""

_PIP_INSTALL = """\
export PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
{env}/bin/python "$PWD/{pip}/pip" install -q --no-deps --no-compile --no-warn-script-location -r locked.txt
"""
_PYTHON = re.compile(r"[a-z0-9-]+:python-(3\.[0-9]+)\.[^-]*-[^-]*\.(?:conda|tar\.bz2)")
_PACKAGE = re.compile(r"[a-z0-9-]+:([a-z0-9][a-z0-9._-]*)-([0-9]+(?:\.[0-9]+)*)-[^-]*\.(?:conda|tar\.bz2)")
"""A package whose name and version pip can read."""


def detect(folder: Path) -> str:
    """An `environment.yml`, or what was locked of one, is for this builder."""
    return next((name for name in _NAMES if (folder / name).is_file()), "")


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say which packages any version may be, and refuse what conda alone cannot install."""
    file = folder / recipe.build.file
    _, wanted, pip = ([], [], []) if conda_locks.is_one(file) else _environment(file)
    loose = [one for one in wanted if not _EXACT.fullmatch(one.strip())] + python.loose(pip)
    return [*debian.lint(folder, _on_debian(recipe)), *moving(file.name, loose)]


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the packages of Debian, and those of conda that fit their C library."""
    base = debian.lock(folder, _on_debian(recipe), place)
    glibc = next((found[1] for one in base.materials if (found := _GLIBC.fullmatch(one.name))), _OLDEST)
    file = folder / recipe.build.file
    place.progress("solving the environment")
    if conda_locks.is_one(file):
        packages, wheels = conda_locks.read(file), Pins()
    else:
        channels, wanted, pip = _environment(file)
        packages = asyncio.run(_solve(channels, wanted, glibc))
        wheels = _wheels(pip, packages, place) if pip else Pins()
    packages.sort(key=lambda one: one.name)
    return Pins((*base.materials, *packages, *wheels.materials), {**base.options, **wheels.options})


def _wheels(wanted: Sequence[str], packages: Sequence[Material], place: Place) -> Pins:
    """Pin the wheels that `wanted` needs beside what `packages` of conda have."""
    version = next((found[1] for one in packages if (found := _PYTHON.fullmatch(one.name))), "")
    if not version:
        raise RecipeError("what pip installs needs a python of conda", hint="add python to the dependencies")
    known = {found[1]: found[2] for one in packages if (found := _PACKAGE.fullmatch(one.name))}
    interpreter = python.interpreter(version)
    given = [f"{name}=={number}" for name, number in known.items()]
    every = {one.name: one for one in python.resolve(interpreter, wanted, place, given)}
    names = sorted(name for name in every if re.sub(r"[._]+", "-", name.partition("-")[0]).lower() not in known)
    (pip,) = python.resolve(interpreter, ["pip"], place)
    every[pip.name] = pip
    return Pins(tuple(every[name] for name in sorted({*names, pip.name})), {"pip": pip.name, "wheels": names})


def build(job: Job) -> Built:
    """Install Debian's packages as the builder `debian` does, with a build file that unpacks the environment."""
    folder = job.place.work / "conda"
    (folder / "packages").mkdir(parents=True)
    job.place.progress("installing the environment")
    asyncio.run(_install(job, folder))
    proc.run(["tar", "-cf", str(folder / "env.tar"), "--sort=name", "-C", str(folder), "env"], error=BuildError)
    beside = {"env.tar": folder / "env.tar", **python.wheels(job)}
    install = ""
    if wheels := job.lock.options.get("wheels"):
        (folder / "locked.txt").write_text(python.lines(wheels))
        beside["locked.txt"] = folder / "locked.txt"
        install = _PIP_INSTALL.format(env=ENV, pip=job.lock.options["pip"])
    made = debian.scripted(job, _on_debian(job.recipe), _SCRIPT.format(env=ENV, pip=install), beside)
    env = {**made.env, "PATH": f"{ENV}/bin:{made.env['PATH']}", "CONDA_PREFIX": ENV}
    return replace(made, env=env)


def _on_debian(recipe: Recipe) -> Recipe:
    part = msgspec.structs.replace(recipe.build, builder="debian", file="")
    return msgspec.structs.replace(recipe, build=part)


def _environment(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the channels, the packages of conda and those of pip that an environment.yml names."""
    table = conda_locks.yaml(file)
    given = table.get("dependencies")
    parts: dict[str, Any] = {"channels": table.get("channels", ["conda-forge"]), "dependencies": [], "pip": []}
    for one in given if isinstance(given, list) else ():
        if isinstance(one, dict) and one.keys() == {"pip"}:
            parts["pip"] = one["pip"] or []
        else:
            parts["dependencies"].append(one)
    for key, value in parts.items():
        needed = key != "pip"
        if not isinstance(value, list) or (needed and not value) or any(not isinstance(one, str) for one in value):
            raise RecipeError(f"{file.name}: {key} must be a list of texts")
    channels, wanted, pip = parts.values()
    return [one for one in channels if one != "nodefaults"], wanted, python.checked(pip, file.name)


async def _solve(channels: Sequence[str], wanted: Sequence[str], glibc: str) -> list[Material]:
    rattler = conda_locks.rattler()
    subdir = conda_locks.subdir()
    system = (("__unix", "0"), ("__linux", "5.10"), ("__glibc", glibc))
    virtual = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
        for name, version in system
    ]
    try:
        found = await rattler.solve(channels, wanted, platforms=[subdir, "noarch"], virtual_packages=virtual)
    except Exception as error:
        raise RecipeError(f"the environment cannot be solved: {str(error)[:2000]}") from error
    return [conda_locks.of_record(one) for one in found]


async def _install(job: Job, folder: Path) -> None:
    """Install the locked packages into `folder/env`, as they will lie in `ENV`."""
    rattler = conda_locks.rattler()
    records = []
    for one in job.lock.of_role("conda"):
        subdir, _, name = one.name.partition(":")
        link = folder / "packages" / name  # rattler tells the kind of a package by its name
        link.symlink_to(job.files[f"conda/{one.name}"])
        about = rattler.IndexJson.from_package_archive(link)
        record = rattler.PackageRecord(
            about.name.normalized,
            str(about.version),
            about.build,
            about.build_number,
            subdir,
            noarch=about.noarch,
            depends=about.depends,
            constrains=about.constrains,
            sha256=bytes.fromhex(one.digest.hex),
            license=about.license,
            python_site_packages_path=about.python_site_packages_path,
        )
        records.append(rattler.RepoDataRecord(record, name, link.as_uri(), link.parent.as_uri()))
    try:
        await rattler.install(
            records,
            folder / "env",
            cache_dir=folder / "cache",
            platform=rattler.Subdir(conda_locks.subdir()),
            alternative_target_prefix=ENV,
            execute_link_scripts=False,
            show_progress=False,
        )
    except Exception as error:
        raise BuildError(f"the environment cannot be installed: {str(error)[:2000]}") from error
    (folder / "env/CACHEDIR.TAG").unlink(missing_ok=True)
    (folder / "env/conda-meta/history").write_text("")
    for file in (folder / "env/conda-meta").glob("*.json"):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({key: known[key] for key in sorted(known) if key not in _OF_THIS_BUILD}, indent=1))
