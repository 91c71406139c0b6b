"""A release built again from itself alone, its recipe, lock, sources and packages, and compared bit for bit."""

import hashlib
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from computeops import pipeline
from computeops import recipe as recipes
from computeops.build.model import LOCK_NAME, Lock
from computeops.build.sources import restore
from computeops.check import rebuild as checker
from computeops.config import Settings
from computeops.errors import NotFoundError
from computeops.image import convert, folders, squashfs
from computeops.image.compare import differences
from computeops.model import Evidence, Reference
from computeops.sign.policy import narrowed
from computeops.store import fetch
from computeops.store import publish as publishing
from computeops.store.oci import Registry
from computeops.store.release import Release


def release(file: Path, settings: Settings, progress: pipeline.Progress = pipeline.silent) -> Evidence:
    """Build the release of the image in `file` again from its own recipe, lock and sources, and compare.

    All that its lock names comes from the release; what was not archived with it is fetched by digest.

    Raises:
        NotFoundError: the release has no recipe or no lock; BuildError: it cannot be built any more.
    """
    image = convert.prove(convert.open_image(file))
    settings.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.tmp, prefix="computeops-rebuild-") as work:
        folder = _restored(Release.beside(file), Path(work) / "recipe", settings.cache)
        variant = image.labels.get(pipeline.VARIANT, "")
        again = pipeline.build(folder, variant, Path(work) / "out", settings, progress).image
        found = differences(convert.open_tree(image.path, image.arch), convert.open_tree(again.path, again.arch))
        progress("comparing")
        host = {"machine": platform.machine(), "writer": squashfs.writer(settings.compression, settings.level)}
        found_out = checker.verdict(image, again, found, host=host)
    return narrowed(image, found_out)


def published(
    reference: Reference,
    registry: Registry,
    settings: Settings,
    progress: pipeline.Progress = pipeline.silent,
    *,
    key: str = "",
    attach: bool = False,
) -> Evidence:
    """Rebuild what `reference` names from all that the hub has of it, and nothing else; `attach`: tell the hub.

    Raises:
        NotFoundError: it has no recipe; as `release`.
    """
    settings.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.tmp, prefix="computeops-published-") as work:
        sif = Path(work) / "image.sif"
        progress("fetching the image, its recipe and all of its inputs")
        writer, arch = pipeline.writer(settings), pipeline.architecture()
        named = fetch.fetch_release(reference, sif, registry, writer=writer, epoch=settings.epoch, arch=arch)
        found = release(sif, replace(settings, cache=Path(work) / "cache"), progress)
        if attach:
            beside = Release.beside(sif)
            shutil.rmtree(beside.folder / "evidence", ignore_errors=True)
            pipeline.attest(beside, [found], settings, key)
            publishing.attach(beside, named, registry)
    return found


def _restored(release: Release, folder: Path, cache: Path) -> Path:
    """Lay out a release's recipe as it was, and put its sources into the cache, where a build looks first."""
    found, sources, inputs = (release.files(part) for part in ("recipe", "sources", "inputs"))
    if missing := [name for name in (recipes.FILE_NAME, LOCK_NAME) if name not in found]:
        raise NotFoundError(f"{release.folder} has no {missing[0]}, without which nothing can be built again")
    folder.mkdir(parents=True)
    for name, path in found.items():
        shutil.copyfile(path, folder / name)
    for path in (*sources.values(), *inputs.values()):
        with path.open("rb") as file:
            folders.share(path, cache / "sources" / hashlib.file_digest(file, "sha256").hexdigest())
    for base in Lock.from_json(found[LOCK_NAME].read_bytes()).of_role("base"):
        beside = folder / base.uri.removeprefix("path:")
        if base.uri.startswith("path:") and base.digest.hex in inputs and beside.resolve().is_relative_to(folder):
            folders.share(inputs[base.digest.hex], beside)
    recipe = recipes.parse(found[recipes.FILE_NAME].read_bytes())
    if "/" in recipe.build.file:
        build_file = folder / recipe.build.file
        build_file.parent.mkdir(parents=True, exist_ok=True)
        (folder / build_file.name).rename(build_file)
    for source in recipe.sources:
        if isinstance(source, recipes.PathSource):
            _lay(folder / source.path, sources)
    return folder


def _lay(target: Path, sources: Mapping[str, Path]) -> None:
    """Put a source that stood beside the recipe back there: a file, or a folder that was archived as a tar."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.name in sources:
        shutil.copyfile(sources[target.name], target)
    elif archived := sources.get(f"{target.name}.tar"):
        restore(archived, target.parent)
    else:
        raise NotFoundError(f"the release has no source {target.name}, which its recipe names")
