"""Recipe -> root filesystem.

`lock` pins every input by digest, `build` makes the tree from only what is pinned. A builder is a module here, or
an entry point in the group `computeops.build`, that satisfies `computeops.build.model.Builder`.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from computeops import plugins
from computeops.build import bases, sources, taken
from computeops.build.model import LOCK_NAME, Builder, Built, Job, Lock, Material, Moving, Place
from computeops.errors import LimitError, RecipeError
from computeops.files import whole_file
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe import BUILDERS, Recipe, build_files

__all__ = ["LOCK_NAME", "Builder", "Built", "Job", "Lock", "Material", "Place", "build", "find", "lock", "names"]


def find(name: str) -> Builder:
    """Return the builder called `name`.

    Raises:
        UsageError: there is none.
    """
    builder: Builder = plugins.load("build", name, BUILDERS)
    return builder


def names() -> list[str]:
    """Return the names of all builders."""
    return plugins.names("build", BUILDERS)


def detect(folder: Path) -> tuple[str, str]:
    """Return the builder and the build file that fit to what is in `folder`, or two empty texts."""
    for name in names():
        if file := find(name).detect(folder):
            return name, file
    return "", ""


def lock(
    folder: Path,
    recipe: Recipe,
    *,
    mirror: str,
    pypi: str,
    cache: Path,
    tmp: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Lock:
    """Pin every input of the recipe in `folder`: its sources, and what its builder takes from elsewhere.

    Raises:
        RecipeError: an input does not exist.
        NetworkError: an archive or index did not answer.
    """
    tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tmp, prefix="computeops-lock-") as work:
        place = Place(work=Path(work).resolve(), cache=cache.resolve(), mirror=mirror, pypi=pypi, progress=progress)
        return _lock(folder, recipe, place)


def lint(folder: Path, recipe: Recipe) -> list[str]:
    """Return what is right but worth knowing: what is not pinned, and what is not tested.

    Raises:
        RecipeError: the build file is wrong.
    """
    tested = () if recipe.tests else ("there are no [[tests]]: nobody can tell whether the image works",)
    return [*unpinned(folder, recipe), *tested]


def unpinned(folder: Path, recipe: Recipe) -> list[str]:
    """Return what may make another build another image, as far as it can be told before one.

    Raises:
        RecipeError: the build file is wrong.
    """
    said = find(recipe.build.builder).lint(folder, recipe)
    pinned = read_lock(folder)
    is_current = pinned is not None and pinned.inputs == inputs(folder, recipe)
    notes = [str(one) for one in said if not (is_current and isinstance(one, Moving))]
    if pinned is None:
        notes.append(
            f"there is no {LOCK_NAME}: each build takes the newest of its inputs (`computeops lock` pins them)"
        )
    elif not is_current:
        notes.append(f"{LOCK_NAME} was made for another state of the recipe: run `computeops lock` again")
    if recipe.build.network:
        text = (folder / recipe.build.file).read_text(errors="replace") if recipe.build.file else ""
        lines = ", ".join(map(str, taken.fetches(text)))
        notes.append(f"build.network is true: what the build file fetches is not pinned{lines and f' (lines {lines})'}")
    return notes


def read_lock(folder: Path) -> Lock | None:
    """Return the lock beside the recipe in `folder`, or None if there is none.

    Raises:
        RecipeError: it is not a lock file; LimitError: it is larger than `LIMITS.config_bytes`.
    """
    file = folder / LOCK_NAME
    if not file.exists():
        return None
    with file.open("rb") as stream:
        data = stream.read(LIMITS.config_bytes + 1)
    if len(data) > LIMITS.config_bytes:
        raise LimitError(f"{file}: larger than {LIMITS.config_bytes} bytes")
    return Lock.from_json(data, str(file))


def write_lock(folder: Path, pinned: Lock) -> Path:
    """Write `pinned` beside the recipe in `folder` and return its path."""
    file = folder / LOCK_NAME
    data = msgspec.json.format(msgspec.json.encode(pinned.as_json()), indent=1) + b"\n"
    with whole_file(file) as new:
        new.write(data)
    return file


def build(
    folder: Path,
    recipe: Recipe,
    variant: str = "",
    pinned: Lock | None = None,
    *,
    work: Path,
    cache: Path,
    epoch: int,
    mirror: str,
    pypi: str,
    jobs: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Built:
    """Build one variant ("": the generic one) of the recipe in `folder` inside the folder `work`.

    Without a lock, everything is pinned first. `work` must outlive the tree that is returned; the caller removes it.

    Raises:
        RecipeError: the lock is of another state of the recipe.
        NotFoundError: there is no such variant.
        BuildError: the build file failed.
        MissingProgramError: the builder's program is not installed.
    """
    chosen = recipe.variant(variant)
    work.mkdir(parents=True, exist_ok=True)
    # without links: a box has only where they lead
    work, cache = work.resolve(), cache.resolve()
    place = Place(work=work, cache=cache, mirror=mirror, pypi=pypi, epoch=epoch, jobs=jobs, progress=progress)
    pinned = pinned or _lock(folder, recipe, place)
    check_lock(folder, recipe, pinned)
    fetched = sources.fetch([one for one in pinned.materials if one.role != "base"], folder, place)
    files = {f"{material.role}/{material.name}": path for material, path in fetched.items()}
    job = Job(folder=folder, recipe=recipe, variant=chosen, lock=pinned, files=files, place=place)
    built = find(recipe.build.builder).build(job)
    return replace(
        built,
        command=recipe.run.command or built.command,
        env={**built.env, **recipe.run.env},
        labels={**built.labels, **labels(recipe)},
    )


def inputs_kept(pinned: Lock, cache: Path) -> Iterator[tuple[str, Path]]:
    """Yield SHA-256 and file of all that a build took but its sources: packages, and the parts of base images."""
    for one in pinned.materials:
        file = cache / "sources" / one.digest.hex
        if one.role == "base":
            yield from bases.kept(one, cache).items()
        if one.role != "source" and file.is_file():
            yield one.digest.hex, file


def check_lock(folder: Path, recipe: Recipe, pinned: Lock) -> None:
    """Raise unless `pinned` was made for the recipe in `folder` as it is now.

    Raises:
        RecipeError: it was made for another state.
    """
    if pinned.builder != recipe.build.builder or pinned.inputs != inputs(folder, recipe):
        raise RecipeError(
            f"{LOCK_NAME} was made for another state of the recipe",
            hint=f"run `computeops lock {folder}` to pin the inputs again",
        )


def inputs(folder: Path, recipe: Recipe) -> Digest:
    """Return the digest of what decides which inputs a build takes: `sources`, `build` and the build files."""
    parts = [msgspec.json.encode(recipe.sources, order="sorted"), msgspec.json.encode(recipe.build, order="sorted")]
    parts += [(folder / name).read_bytes() for name in build_files(folder, recipe)]
    return Digest.of("".join(f"{Digest.of(part)}\n" for part in parts).encode())


def labels(recipe: Recipe) -> dict[str, str]:
    """Return the recipe's facts as image labels (OCI image-spec 1.1, annotations.md)."""
    package = recipe.package
    known = {
        "title": package.name,
        "version": package.version,
        "description": package.summary,
        "licenses": package.license,
        "url": package.homepage,
        "authors": ", ".join(one.name for one in recipe.maintainers),
    }
    return {f"org.opencontainers.image.{key}": value for key, value in known.items() if value}


def _lock(folder: Path, recipe: Recipe, place: Place) -> Lock:
    archived = sources.pin(folder, recipe, place)
    pins = find(recipe.build.builder).lock(folder, recipe, place)
    return Lock(recipe.build.builder, inputs(folder, recipe), (*archived, *pins.materials), pins.options)
