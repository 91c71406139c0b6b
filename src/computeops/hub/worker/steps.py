"""The steps that compute, each a function of the folder of its pipeline; what it finds is in files there.

    fetch -> lint -> for each variant: build -> test -> sbom -> scan

`fetch` is the only one with the network: the source, its lock where it has none, and every material that the lock
names. What `build` made is kept by what it was made of, so that a pipeline whose tests were corrected builds nothing.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from computeops import __version__, pipeline, proc, rebuild
from computeops import build as builders
from computeops import recipe as recipes
from computeops.build import bases, sources
from computeops.build.model import LOCK_NAME, Lock, Material, Place
from computeops.check import kinds
from computeops.config import Settings
from computeops.errors import BuildError, RecipeError
from computeops.hub.worker import addresses
from computeops.hub.worker.plan import Folder, Plan
from computeops.hub.worker.unpack import unpack
from computeops.image import convert
from computeops.model import Digest
from computeops.recipe import GitSource, Recipe, UrlSource
from computeops.store.publish import PARTS
from computeops.store.release import Release, copy_tree

Say = Callable[[str], None]
Facts = Mapping[str, Any]
_MIB = 1024 * 1024
_PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_APT_PROXIES = (b'Acquire::http::Proxy "http', b'Acquire::https::Proxy "http')
_SOURCE_PARTS = 4
"""A source may take this part of the disk of a build."""


def names(folder: Folder) -> Iterator[str]:
    """Yield the names of all steps; those behind `lint` are known when it has ended."""
    if folder.plan().kind == "rebuild":
        yield from ("fetch", "rebuild")
        return
    yield from ("fetch", "lint")
    recipe = recipes.load(folder.recipe)
    for variant in _variants(recipe):
        for word in ("build", "test", "sbom", "scan"):
            if word != "test" or recipe.tests:
                yield f"{word} {variant}".rstrip()


class Way(Enum):
    """Where a step may connect to."""

    NOWHERE = "nowhere"
    """To its own loopback."""
    GUARDED = "guarded"
    """Through the `gateway` alone."""
    OPEN = "open"


def way(name: str, plan: Plan, environ: Mapping[str, str]) -> Way:
    """Return where a step may connect to; a build anywhere, if the hub lets recipes use the network.

    `fetch` goes where it likes if the hub allows private addresses; where the site has a proxy, that one decides.
    """
    if name != "fetch":
        return Way.OPEN if plan.network and name.partition(" ")[0] in {"build", "rebuild"} else Way.NOWHERE
    if plan.kind == "rebuild":
        return Way.NOWHERE
    return Way.OPEN if plan.private or _has_proxy(environ) else Way.GUARDED


def _has_proxy(environ: Mapping[str, str]) -> bool:
    said = proc.capture(["apt-config", "dump", "Acquire"]).stdout if proc.find("apt-config") else b""
    return any(environ.get(name) for name in _PROXIES) or any(mark in said for mark in _APT_PROXIES)


def do(name: str, folder: Folder, say: Say, way: Way) -> Facts:
    """Do one step and return what is worth telling of it.

    Raises:
        ComputeOpsError: it failed.
    """
    word, _, variant = name.partition(" ")
    if word == "fetch":
        plan = folder.plan()
        if plan.kind == "rebuild":
            return _pulled(folder, say)
        judged = plan.private or way is Way.GUARDED  # then names are not looked up here: they could not be
        with addresses.outside(private=judged, own=plan.site.own):
            return _fetch(folder, say, judged=judged)
    if folder.plan().kind == "rebuild":
        return _rebuild(folder, say)
    if word == "lint":
        return _lint(folder, say)
    return {"build": _build, "test": _test, "sbom": _sbom, "scan": _scan}[word](folder, variant, say)


def _variants(recipe: Recipe) -> list[str]:
    return [one.name for one in recipe.variants] or [""]


# fetch


def _fetch(folder: Folder, say: Say, *, judged: bool) -> Facts:
    plan, settings = folder.plan(), folder.settings()
    archive = _source(folder, plan, say, judged=judged)
    most = plan.bounds.disk * _MIB // _SOURCE_PARTS
    unpacked = folder.path / "source"
    unpack(archive, unpacked, most_bytes=most, strip=bool(plan.source.git))
    recipe_folder = unpacked / plan.source.folder
    if not recipe_folder.resolve().is_relative_to(unpacked.resolve()) or not recipe_folder.is_dir():
        raise RecipeError(f"the source has no folder {plan.source.folder}")
    shutil.rmtree(folder.recipe, ignore_errors=True)
    recipe_folder.rename(folder.recipe)
    folder.recipe.chmod(0o755)
    recipe = recipes.load(folder.recipe)
    named = [f"git+{one.git}" for one in recipe.sources if isinstance(one, GitSource)]
    named += [one.url for one in recipe.sources if isinstance(one, UrlSource)]
    addresses.require(named, private=judged, own=plan.site.own)
    settings.tmp.mkdir(exist_ok=True)
    pinned = builders.read_lock(folder.recipe)
    locked = pinned is not None
    if pinned is None:
        pinned = _locked(folder, recipe, settings, say)
    builders.check_lock(folder.recipe, recipe, pinned)
    addresses.require((one.uri for one in pinned.materials), private=judged, own=plan.site.own)
    _materials(folder, pinned, settings, say)
    package = recipe.package
    return {"name": package.name, "version": package.version, "locked": locked, "inputs": len(pinned.materials)}


def _source(folder: Folder, plan: Plan, say: Say, *, judged: bool) -> Path:
    """Return the archive that the pipeline begins with: as the agent laid it there, or of a commit."""
    if not plan.source.git:
        return folder.source
    uri = f"git+{plan.source.git}@{plan.source.commit}"
    addresses.require([uri], private=judged)
    say(f"fetching {plan.source.commit} of {plan.source.git}")
    place = Place(work=folder.path / "tmp", cache=Path(plan.cache), progress=say)
    place.work.mkdir(exist_ok=True)
    return sources.commit(plan.source.git, plan.source.commit, place)


def _locked(folder: Folder, recipe: Recipe, settings: Settings, say: Say) -> Lock:
    say(f"there is no {LOCK_NAME}: taking the newest of all inputs")
    pinned = builders.lock(
        folder.recipe,
        recipe,
        mirror=settings.mirror,
        pypi=settings.pypi,
        cache=settings.cache,
        tmp=settings.tmp,
        progress=say,
    )
    builders.write_lock(folder.recipe, pinned)
    return pinned


def _materials(folder: Folder, pinned: Lock, settings: Settings, say: Say) -> None:
    """Fetch all that the build will read, so that it needs no network."""
    settings.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.tmp) as work:
        place = Place(work=Path(work), cache=settings.cache, mirror=settings.mirror, pypi=settings.pypi, progress=say)
        sources.fetch([one for one in pinned.materials if one.role != "base"], folder.recipe, place)
        for one in pinned.of_role("base"):
            if _is_remote(one):
                bases.fetch(one, folder.recipe, place)


def _is_remote(base: Material) -> bool:
    return base.uri.startswith("docker:")


# lint


def _lint(folder: Folder, say: Say) -> Facts:
    recipe, plan = recipes.load(folder.recipe), folder.plan()
    name = plan.repository.rpartition("/")[2]
    if recipe.package.name != name:
        raise RecipeError(
            f"the recipe is of {recipe.package.name!r}, and the pipeline publishes {plan.repository}",
            hint=f"publish it as COLLECTION/{recipe.package.name}",
        )
    if recipe.build.network and not plan.network:
        raise RecipeError(
            "build.network is true, and this hub builds without a network",
            hint="name what the build file fetches under [[sources]]; or ask the hub's operator to allow it",
        )
    notes = list(builders.lint(folder.recipe, recipe))
    for note in notes:
        say(f"note: {note}")
    return {"notes": notes[:100], "variants": _variants(recipe)}


# build, test, sbom, scan


def _build(folder: Folder, variant: str, say: Say) -> Facts:
    settings, plan = folder.settings(), folder.plan()
    recipe, pinned = recipes.load(folder.recipe), builders.read_lock(folder.recipe)
    assert pinned is not None
    kept = Path(plan.built) / _key(folder, recipe, variant, settings).hex
    stem = "-".join(part for part in (recipe.package.name, recipe.package.version, variant) if part)
    release = Release(folder.out / stem)
    _clear(release)
    folder.out.mkdir(exist_ok=True)
    if kept.is_dir():
        say("this was built before: nothing of it has changed")
        for path in kept.iterdir():
            copy_tree(path, folder.out / path.name)
        release.add("recipe", recipes.FILE_NAME, (folder.recipe / recipes.FILE_NAME).read_bytes())
        kept.touch()
        return {"answered": True, **_digests(release)}
    product = pipeline.build(folder.recipe, variant, folder.out, settings, say)
    pipeline.attest(release, product.evidence, settings)
    _keep(release, kept)
    return {"answered": False, **_digests(release)}


def _key(folder: Folder, recipe: Recipe, variant: str, settings: Settings) -> Digest:
    """Return the digest of all that an image is made of: the recipe but its tests, its files, the lock, the writer."""
    document = msgspec.to_builtins(recipe)
    document.pop("tests", None)
    made_with = [__version__, settings.epoch, settings.compression, settings.level, pipeline.architecture()]
    parts = [msgspec.json.encode([document, variant, made_with], order="sorted")]
    parts += [(folder.recipe / LOCK_NAME).read_bytes()]
    parts += [(folder.recipe / recipe.build.file).read_bytes()] if recipe.build.file else []
    return Digest.of("".join(str(Digest.of(part)) for part in parts).encode())


def _keep(release: Release, kept: Path) -> None:
    """Keep a copy of what was built; it appears whole."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".new-") as scratch:
        new = Path(scratch) / "built"
        new.mkdir()
        for path in (release.sif, release.layout, release.folder):
            if path.exists():
                copy_tree(path, new / path.name)
        if not kept.exists():
            new.rename(kept)


def build_log(folder: Folder, name: str) -> Path | None:
    """Return the file in which the builder keeps what its programs print; None: this step builds nothing."""
    word, _, variant = name.partition(" ")
    if word != "build":
        return None
    return Path(folder.plan().cache) / "logs" / f"{_release(folder, variant).stem.name}.log"


def _clear(release: Release) -> None:
    """Remove what a step that was killed left."""
    for path in (release.sif, release.layout, release.folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _digests(release: Release) -> dict[str, str]:
    return {name: str(digest) for name, digest in convert.open_image(release.sif).subjects.items()}


def _release(folder: Folder, variant: str) -> Release:
    recipe = recipes.load(folder.recipe)
    stem = "-".join(part for part in (recipe.package.name, recipe.package.version, variant) if part)
    return Release(folder.out / stem)


def _test(folder: Folder, variant: str, say: Say) -> Facts:
    settings, release = folder.settings(), _release(folder, variant)
    recipe = recipes.load(folder.recipe)
    found = pipeline.test(convert.open_image(release.sif), recipe.tests, settings, say)
    details = found.predicate.get("computeops_tests", ())
    failed = [one for one in details if "fault" in one]
    for one in details:
        say(f"FAILED  {one['name']}: {one['fault']}" if "fault" in one else f"passed  {one['name']}")
    for one in failed:
        say(f"{one['name']} printed at its end:\n{one.get('output', '')}")
    if failed:
        raise BuildError(f"{len(failed)} of {len(details)} tests failed: {failed[0]['name']}: {failed[0]['fault']}")
    pipeline.attest(release, [found], settings)
    return {"tests": len(details)}


def _sbom(folder: Folder, variant: str, say: Say) -> Facts:
    settings, release = folder.settings(), _release(folder, variant)
    found = pipeline.check(convert.open_image(release.sif), (), settings, say)
    pipeline.attest(release, found, settings)
    return {"evidence": [kinds.short(one.kind) for one in found]}


def _scan(folder: Folder, variant: str, say: Say) -> Facts:
    """Ask the advisories of the worker; without an index there is nothing to ask, and the hub shows that nobody did."""
    from computeops.check import scan as scanning
    from computeops.check.advisories.lookup import Index
    from computeops.check.report.evidence import evidence

    settings, release = folder.settings(), _release(folder, variant)
    if not settings.advisories.exists():
        say("this worker has no advisories: nothing is scanned")
        return {"verdict": "not scanned"}
    image = convert.open_image(release.sif)
    packages = pipeline.inventory(image)
    with Index(settings.advisories) as index:
        found = scanning.scan(image.subjects, packages, index, now=int(time.time()), stale_days=settings.stale_days)
    pipeline.attest(release, [evidence(found)], settings)
    say(f"{found.verdict}: {dict(found.counts)}")
    return {"verdict": str(found.verdict), "counts": dict(found.counts)}


# rebuild


def _pulled(folder: Folder, say: Say) -> Facts:
    """Tell what the agent pulled: all that the rebuild needs is in the release."""
    release = folder.releases()[0]
    counts = {part: len(release.files(part)) for part in PARTS}
    say(f"fetched from the hub: {counts['sources']} sources and {counts['inputs']} other inputs")
    return {"image": folder.plan().source.image, **counts}


def _rebuild(folder: Folder, say: Say) -> Facts:
    settings, release = folder.settings(), folder.releases()[0]
    found = rebuild.release(release.sif, replace(settings, cache=folder.path / "cache"), say)
    shutil.rmtree(release.folder / "evidence", ignore_errors=True)
    pipeline.attest(release, [found], settings)
    say("identical" if found.passed else "it is not what its recipe builds here")
    for one in found.predicate["differences"][:20]:
        say(f"/{one['path']}: {one['what']}  {one['detail']}")
    return {"identical": found.passed, "differences": found.predicate["differences"][:20]}
