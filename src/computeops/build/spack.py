"""Packages of Spack, compiled on a root filesystem of Debian packages.

Spack itself is a source of the recipe, and so are repositories of packages beside its own: a release is rebuilt by the
Spack that made it. `lock` lets it concretise `spack.yaml` in a root of the suite, with the compilers there, for the CPU
of each variant, and pins every archive that the packages are made of. `build` compiles exactly those, without network,
into `/opt/spack`, with all programs in `/opt/view`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from computeops.build import debian, python, sources
from computeops.build.model import Built, Job, Lock, Material, Pins, Place, moving
from computeops.errors import FormatError, RecipeError
from computeops.image.tree import read_files
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe import Recipe

_NAME = "spack.yaml"
_NEEDED = ("python3", "gcc", "g++", "gfortran", "make", "patch", "bzip2", "xz-utils", "unzip", "file")
"""What Spack compiles with, where the recipe's `build_packages` name nothing."""
_CPU = "x86_64"
_SOLVED = "opt/solved"
_SPECS = re.compile(r"^[ \t-]*specs:[ \t]*(\[[^\]]*\]|(?:\s*-[^\n]*)*)", re.MULTILINE)
_ARCHIVES = """\
import json
import spack.environment
for spec in spack.environment.active_environment().all_specs():
    for stage in () if spec.external else spec.package.stage:
        found = stage.default_fetcher
        layout = getattr(stage, "mirror_layout", None)
        path = layout.path if layout else stage.mirror_paths.storage_path
        if getattr(found, "url", None):
            print(json.dumps([spec.name, found.url, getattr(found, "digest", None) or "", path]))
"""


def detect(folder: Path) -> str:
    """A `spack.yaml` is for this builder."""
    return _NAME if (folder / _NAME).is_file() else ""


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say which packages any version may be, and refuse a recipe without Spack."""
    if not recipe.sources:
        hint = 'add [[sources]] with git = "https://github.com/spack/spack.git" and the commit of a release'
        raise RecipeError("Spack is not among the sources, which are what a rebuild has", hint=hint)
    found = _SPECS.search((folder / recipe.build.file).read_text(errors="replace"))
    specs = re.split(r"[\[\],\n]\s*-?", found[1]) if found else []
    loose = [one for spec in specs if (one := spec.partition("#")[0].strip(" -'\"\t\r")) and "@" not in one]
    return [*debian.lint(folder, _on_debian(recipe)), *moving(recipe.build.file, loose)]


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the packages of Debian, what Spack needs of Python, how it concretises, and the archives of its packages."""
    base = debian.lock(folder, _on_debian(recipe), place)
    wheels = python.resolve(
        python.interpreter(python.version_in(base.materials, recipe.build.suite)), ["clingo"], place
    )
    given = sources.pin(folder, recipe, place)
    materials = (*given, *base.materials, *wheels)
    files = {f"{one.role}/{one.name}": path for one, path in sources.fetch(materials, folder, place).items()}
    inner = replace(place, work=place.work / "solve")
    inner.work.mkdir()
    job = Job(
        folder=folder,
        recipe=recipe,
        variant=None,
        lock=Lock("spack", Digest.of(b""), materials, {"suite": recipe.build.suite}),
        files=files,
        place=inner,
    )
    place.progress("concretising")
    cpus = sorted({_CPU, *(one.cpu for one in recipe.variants if one.cpu)})
    texts = {_NAME: (folder / recipe.build.file).read_text(), "archives.py": _ARCHIVES}
    tree = _run(job, {"verb": "lock", "given": " ".join(one.name for one in given), "cpus": " ".join(cpus)}, texts).tree
    found = read_files(tree, lambda path: path.startswith(f"{_SOLVED}/"), LIMITS.solved_bytes)
    archives, paths = _archives(found.get(f"{_SOLVED}/archives", b""))
    solved = {cpu: found[f"{_SOLVED}/{cpu}"].decode() for cpu in cpus}
    options = {**base.options, "given": [one.name for one in given], "archives": paths, "solved": solved}
    return Pins((*archives, *base.materials, *wheels), options)


def build(job: Job) -> Built:
    """Install Debian's packages as the builder `debian` does, with a build file that runs Spack."""
    options, cpu = job.lock.options, (job.variant and job.variant.cpu) or _CPU
    try:
        texts = {
            _NAME: (job.folder / job.recipe.build.file).read_text(),
            "spack.lock": options["solved"][cpu],
            "archives": "".join(f"{name} {path}\n" for name, path in options["archives"].items()),
        }
        made = _run(job, {"verb": "build", "given": " ".join(options["given"])}, texts)
    except (KeyError, TypeError, AttributeError):
        raise RecipeError(
            f"the lock does not say what Spack builds for {cpu}", hint="run `computeops lock` again"
        ) from None
    return replace(made, env={**made.env, "PATH": f"/opt/view/bin:{made.env['PATH']}"})


def _on_debian(recipe: Recipe) -> Recipe:
    part = msgspec.structs.replace(
        recipe.build, builder="debian", file="", build_packages=recipe.build.build_packages or _NEEDED
    )
    return msgspec.structs.replace(recipe, build=part)


def _run(job: Job, variables: Mapping[str, str], texts: Mapping[str, str]) -> Built:
    """Run `spack.sh` in the root with `variables`, beside `texts` and the wheels."""
    folder = job.place.work / "spack"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    beside = {name: folder / name for name in texts} | python.wheels(job)
    script = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    script += Path(__file__).with_name("spack.sh").read_text()
    return debian.scripted(job, _on_debian(job.recipe), script, beside)


def _archives(lines: bytes) -> tuple[tuple[Material, ...], dict[str, str]]:
    """Return the archives that Spack named, and where in a mirror it looks for each."""
    found = dict(_archive(line) for line in lines.splitlines())
    return tuple(sorted(found, key=lambda one: one.name)), {one.name: path for one, path in found.items()}


def _archive(line: bytes) -> tuple[Material, str]:
    try:
        package, url, digest, path = msgspec.json.decode(line, type=tuple[str, str, str, str])
        name = re.sub(r"[^A-Za-z0-9._+-]", "-", f"{package}-{url.rpartition('/')[2]}")[:200]
        return Material(f"{digest[:8]}-{name}", url, Digest.parse(f"sha256:{digest}")), path
    except (msgspec.DecodeError, FormatError) as error:
        raise RecipeError(
            f"Spack takes something that has no sha256: {line.decode(errors='replace')[:300]}",
            hint="choose a version that is an archive, not a branch or commit",
        ) from error
