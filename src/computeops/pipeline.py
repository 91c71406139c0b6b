"""The flow, step by step: lock -> build -> check -> sign -> trust -> publish -> pull -> run. Read this file first.

Each step is a few lines over the folder of its name. Imports stand inside the functions: a verb loads what it needs.
"""

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from computeops.config import Settings
from computeops.errors import ConflictError, TrustError, UsageError
from computeops.limits import LIMITS
from computeops.model import IN_TOTO_PAYLOAD, Digest, Evidence, Image, Policy, Reference, Signed

if TYPE_CHECKING:
    from computeops.build.model import Built, Lock
    from computeops.check.inventory import Inventory
    from computeops.host import Needs
    from computeops.image.convert import Writer
    from computeops.recipe import Recipe, Test
    from computeops.sign.key import Key
    from computeops.sign.pgp import SifSignature
    from computeops.sign.policy import Verified
    from computeops.store.oci import Registry
    from computeops.store.release import Release

Progress = Callable[[str], None]
VARIANT = "org.computeops.variant"
"""Label of an image: which variant of its recipe it is."""
_BARE: Mapping[str, str] = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"}  # noqa: S108  # the image's
)
"""Environment of tests: where the engine's own programs are, nothing of the user's; programs crash without a home."""


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Product:
    """What a build made, and what is known of it so far."""

    image: Image
    release: "Release"
    evidence: tuple[Evidence, ...]


def lock(folder: Path, recipe: "Recipe", settings: Settings, progress: Progress = silent) -> "Lock":
    """Pin every input of `recipe`, which lies in `folder`, by digest.

    Raises:
        RecipeError: an input does not exist; NetworkError: an archive or index did not answer.
    """
    from computeops import build as builders

    return builders.lock(
        folder,
        recipe,
        mirror=settings.mirror,
        pypi=settings.pypi,
        cache=settings.cache,
        tmp=settings.tmp,
        progress=progress,
    )


def build(folder: Path, variant: str, out: Path, settings: Settings, progress: Progress = silent) -> Product:
    """Build the recipe in `folder` into the release `out/NAME-VERSION[-VARIANT]`, with its provenance.

    Raises:
        RecipeError: the recipe or its lock is wrong; BuildError: its build file failed.
    """
    from computeops import build as builders
    from computeops import recipe as recipes
    from computeops.store.release import Release

    recipe = recipes.load(folder)
    stem = "-".join(part for part in (recipe.package.name, recipe.package.version, variant) if part)
    release = Release(out / stem)
    settings.tmp.mkdir(parents=True, exist_ok=True)
    began = int(time.time())
    with tempfile.TemporaryDirectory(dir=settings.tmp, prefix="computeops-build-") as work:
        pinned = builders.read_lock(folder) or lock(folder, recipe, settings, progress)
        built = builders.build(
            folder,
            recipe,
            variant,
            pinned,
            work=Path(work),
            cache=settings.cache,
            epoch=settings.epoch,
            mirror=settings.mirror,
            pypi=settings.pypi,
            jobs=settings.jobs,
            progress=progress,
        )
        progress("packing")
        image = _pack(folder, recipe, variant, built, release, settings)
    progress("archiving recipe and sources")
    _archive(folder, recipe, pinned, release, settings)
    return Product(image, release, (_provenance(folder, image, recipe, pinned, variant, began, settings),))


def check(
    image: Image, tests: Sequence["Test"], settings: Settings, progress: Progress = silent
) -> tuple[Evidence, ...]:
    """Return the evidence that the image itself gives: the result of `tests`, if there are any, and what is in it.

    Raises:
        EngineError: no test could be started; FormatError: a package database in the image is broken.
    """
    from computeops.check import inventory, sbom

    results = (test(image, tests, settings, progress),) if tests else ()
    progress("listing the packages")
    found = inventory.of_image(image.path, image.arch)
    return (*results, sbom.cyclonedx(image, found, settings.epoch), sbom.spdx(image, found, settings.epoch))


def inventory(image: Image) -> "Inventory":
    """List the packages of `image`: of its content, and what bills of materials beside it say is in it, too.

    Raises:
        FormatError, LimitError: a package database in it, or evidence beside it, is broken or larger than is read.
    """
    from computeops.check import inventory as listing
    from computeops.check import kinds
    from computeops.sign import dsse
    from computeops.store.release import Release

    attached: list[tuple[str, bytes]] = []
    for signed in Release.beside(image.path).evidence():
        said = dsse.read(signed)
        ours = not set(said.subjects.values()).isdisjoint(image.subjects.values())
        if ours and said.kind.startswith((kinds.CYCLONEDX, kinds.SPDX)):
            attached.append((f"evidence {kinds.short(said.kind)}", signed.payload))
    return listing.of_image(image.path, image.arch, attached=attached)


def test(image: Image, tests: Sequence["Test"], settings: Settings, progress: Progress) -> Evidence:
    """Run `tests` inside `image`, away from the user's home and environment.

    Raises:
        EngineError: no engine can start it; UsageError: there are no tests.
    """
    from computeops import engine, proc
    from computeops.check import test as checker

    def inside(argv: Sequence[str], seconds: float) -> checker.Outcome:
        request = engine.Request(action="exec", argv=tuple(argv), isolated=True, home=False, cwd="/")
        plan = engine.plan(image.path, request, engine=settings.engine, cache=settings.cache, environ=_BARE)
        seen = proc.observe(plan.argv, env=plan.env, timeout=seconds, limit_bytes=LIMITS.test_output_bytes)
        return checker.Outcome(seen.code, seen.output, seen.seconds, seen.timed_out)

    return checker.run_tests(image, tests, run=inside, progress=progress)


def attest(release: "Release", evidence: Sequence[Evidence], settings: Settings, key: str = "") -> None:
    """Write `evidence` beside the image of `release`, signed with `key` if one is named.

    Raises:
        NotFoundError: there is no such key with its secret.
    """
    from computeops.check.kinds import short
    from computeops.sign import dsse
    from computeops.sign.keyring import Keyring

    signer = Keyring(settings.keys).own(key) if key else None
    for one in evidence:
        unsigned = Signed(dsse.statement(one), IN_TOTO_PAYLOAD)
        release.add_evidence(short(one.kind), dsse.add_signature(unsigned, signer) if signer else unsigned)


def sign(file: Path, key: str, settings: Settings) -> int:
    """Sign the SIF at `file`, if it is one, and all evidence beside it; return how many pieces there are.

    Raises:
        NotFoundError: there is no such key with its secret; TrustError: a piece is about another image.
    """
    from computeops.check.kinds import short
    from computeops.image import convert
    from computeops.sign import dsse, pgp
    from computeops.sign.keyring import Keyring
    from computeops.store.release import Release

    signer, release = Keyring(settings.keys).own(key), Release.beside(file)
    image, envelopes = convert.open_image(file), release.evidence()
    image = _identified(image, envelopes)
    for one in envelopes:
        release.add_evidence(short(dsse.read(one).kind), dsse.add_signature(one, signer))
    if image.form == "sif":
        pgp.sign_sif(file, signer, int(time.time()))
    return len(envelopes)


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found, all of it good."""

    image: Image
    signatures: "Sequence[SifSignature]"
    evidence: "tuple[Verified, ...]"
    keys: "Mapping[str, Key]"
    """The keyring, by key id."""


def verify(file: Path, settings: Settings) -> Report:
    """Check the signatures in the image `file` and the evidence beside it.

    Raises:
        TrustError: a signature or subject does not hold; PolicyError: what holds is not enough.
    """
    from computeops.image import convert
    from computeops.sign import pgp
    from computeops.sign.keyring import Keyring
    from computeops.store.release import Release

    image, keys = convert.open_image(file), Keyring(settings.keys).public()
    signatures = pgp.verify_sif(file, keys) if image.form == "sif" else ()
    return Report(image, signatures, trust(image, Release.beside(file).evidence(), settings), keys)


def trust(
    image: Image, evidence: Sequence[Signed], settings: Settings, policy: Policy | None = None
) -> tuple["Verified", ...]:
    """Return the evidence with its signers. The single gate: raises unless all is about `image` and satisfies `policy`.

    Without `policy`, the one of the settings holds, or else `sign.policy.RELEASE`.

    Raises:
        TrustError: a signature or subject does not hold; PolicyError: what holds is not enough.
    """
    from computeops.sign import policy as policies
    from computeops.sign.keyring import Keyring

    wanted = policy or (policies.load(Path(settings.policy)) if settings.policy else policies.RELEASE)
    return policies.trust(_identified(image, evidence), evidence, Keyring(settings.keys).public(), wanted)


def _identified(image: Image, evidence: Sequence[Signed]) -> Image:
    """Return `image` as the evidence can name it: by its own bytes, or, in another encoding, with its ID computed."""
    from computeops.image import convert
    from computeops.sign import policy

    try:
        policy.about(image, evidence)
    except TrustError:
        return convert.prove(image)
    return image


def publish(
    file: Path, reference: Reference, registry: "Registry", settings: Settings, progress: Progress = silent
) -> Digest:
    """Push the release of the image in `file` as `reference`, once it is trusted, and return its manifest's digest.

    Raises:
        TrustError: its evidence does not hold; ConflictError: the version was released already.
    """
    from computeops.image import convert
    from computeops.store import publish as publishing
    from computeops.store.release import Release

    release = Release.beside(file)
    trust(convert.open_image(file), release.evidence(), settings)
    return publishing.push(release, reference, registry, progress=progress, epoch=settings.epoch)


def pull(
    reference: Reference,
    target: Path,
    registry: "Registry",
    settings: Settings,
    progress: Progress = silent,
    *,
    arch: str = "",
    force: bool = False,
    untrusted: bool = False,
) -> Image:
    """Fetch the image that `reference` names to `target`, which appears only if it is trusted (or `untrusted` given).

    Raises:
        TrustError: its evidence does not hold; PolicyError: nobody we know vouches for it.
    """
    from computeops.check.kinds import short
    from computeops.store import fetch

    def gate(image: Image, evidence: Sequence[Signed]) -> None:
        if not untrusted:
            trust(image, evidence, settings)

    return fetch.fetch(
        reference,
        target,
        registry,
        gate=gate,
        arch=arch or architecture(),
        force=force,
        writer=writer(settings),
        epoch=settings.epoch,
        word=short,
        progress=progress,
    )


def obtain(reference: Reference, registry: "Registry", settings: Settings, progress: Progress = silent) -> Path:
    """Return the SIF of `reference` in the cache, pulled and trusted where it is not there yet.

    A version is asked for once: releases never change. Without one, the hub is asked what is the latest.

    Raises:
        TrustError: as `pull`.
    """
    from computeops.store import fetch

    if not reference.version and reference.digest is None:
        reference = reference.at(fetch.find(reference, registry, arch=architecture()).manifest.digest)
    name = f"{reference.name}-{reference.target.replace(':', '-')}.sif"
    target = settings.cache / "images" / Digest.of(f"{registry.base}/{reference}".encode()).short / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pull(reference, target, registry, settings, progress)
        except ConflictError:  # another start of this release was faster, as in an array of jobs
            if not target.exists():
                raise
    return target


def admit(image: Path, settings: Settings) -> None:
    """Raise unless `image` may be run here: with a policy in the settings, only what is trusted.

    A verdict is remembered as long as nothing that it rests on changes (`engine.verdicts`).

    `cli.launch` asks before `engine.plan` makes the container; without a policy it does not even import this module.

    Raises:
        TrustError: as `trust`.
    """
    from computeops.engine import verdicts
    from computeops.image import convert
    from computeops.store.release import Release

    if not settings.policy:
        return
    release, policy = Release.beside(image), Path(settings.policy)
    rests_on = verdicts.basis(image, release.folder / "evidence", policy, settings.keys)
    trust(convert.open_image(image), release.evidence(), settings)
    if rests_on == verdicts.basis(image, release.folder / "evidence", policy, settings.keys):
        verdicts.remember(settings.cache, image, rests_on)


def needs(file: Path) -> "Needs":
    """Return what the image in `file` asks of a machine, by its labels and its C library.

    Raises:
        FormatError: it is broken; NotFoundError: there is none.
    """
    from computeops.host import Needs
    from computeops.image import compat, convert, libc

    described = convert.description(file)
    newer = compat.driver(file)[1] if "CUDA_VERSION" in described.env else ""
    return Needs.of(described.arch, described.labels, described.env, libc.read(file), newer)


def variants(reference: Reference, registry: "Registry") -> "dict[str, tuple[Reference, Needs]]":
    """Return the variants of a version, each with what it asks of a machine; nothing of them is pulled.

    Raises:
        NotFoundError: there is no such version; FormatError: a config is broken.
    """
    from computeops.host import Needs
    from computeops.store import variants as stored

    found = stored.variants(reference, registry, arch=architecture())
    asked = {one.name: Needs.of(one.description.arch, one.description.labels, one.description.env) for one in found}
    return {one.name: (one.reference, asked[one.name]) for one in found}


def architecture() -> str:
    """Return this machine's architecture in OCI's words.

    Raises:
        UsageError: images are not built for it.
    """
    from computeops.host.cpu import ARCHITECTURES

    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise UsageError(f"images cannot be built on {machine!r}", hint=f"known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def _pack(
    folder: Path, recipe: "Recipe", variant: str, built: "Built", release: "Release", settings: Settings
) -> Image:
    from computeops import recipe as recipes
    from computeops.host import needs
    from computeops.image import convert, oci

    chosen, wanted = recipe.variant(variant), recipe.requires
    asked = needs.labels(
        cpu=chosen.cpu if chosen else "",
        gpu=(chosen.gpu if chosen else "") or wanted.gpu,
        driver=(chosen.driver if chosen else "") or wanted.driver,
        mpi=wanted.mpi,
        x11=wanted.x11,
    )
    labels = {**built.labels, **asked, **({VARIANT: variant} if variant else {})}
    description = oci.Description(
        architecture(), built.env, built.command, recipe.run.programs, labels, built.working_dir
    )
    return convert.pack(
        built.tree,
        description,
        to_sif=release.sif,
        to_layout=release.layout,
        writer=writer(settings),
        epoch=settings.epoch,
        recipe=(folder / recipes.FILE_NAME).read_bytes(),
        name=recipe.package.version,
    )


def writer(settings: Settings) -> "Writer":
    """Return how images are encoded by these settings."""
    from computeops.image.convert import Writer

    return Writer(compression=settings.compression, level=settings.level, threads=settings.jobs)


def _archive(folder: Path, recipe: "Recipe", pinned: "Lock", release: "Release", settings: Settings) -> None:
    """Keep beside the image what it was built from; evidence of an earlier build there goes."""
    import json

    from computeops import build as builders
    from computeops import recipe as recipes
    from computeops.build.model import LOCK_NAME

    shutil.rmtree(release.folder, ignore_errors=True)
    for name in (recipes.FILE_NAME, *recipes.build_files(folder, recipe)):
        release.add("recipe", Path(name).name, (folder / name).read_bytes())
    release.add("recipe", LOCK_NAME, json.dumps(pinned.as_json(), indent=1).encode() + b"\n")
    for source in pinned.of_role("source"):
        release.add_copy("sources", source.name, settings.cache / "sources" / source.digest.hex)
    for name, path in builders.inputs_kept(pinned, settings.cache):
        release.add_shared("inputs", name, path)


def _provenance(
    folder: Path, image: Image, recipe: "Recipe", pinned: "Lock", variant: str, began: int, settings: Settings
) -> Evidence:
    from computeops import __version__
    from computeops import recipe as recipes
    from computeops.check import provenance

    return provenance.provenance(
        image,
        recipe,
        pinned.materials,
        variant=variant,
        started=began,
        finished=int(time.time()),
        builder_id=f"https://computeops.org/builder/{recipe.build.builder}@{__version__}",
        recipe_digest=recipes.digest(folder),
        parameters={"epoch": settings.epoch, "compression": settings.compression, "level": settings.level},
    )
