"""The flow, step by step: recipe -> image. Read this file first."""

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from computeops import build as builders
from computeops import recipe as recipes
from computeops.config import Settings
from computeops.errors import UsageError
from computeops.image import convert, oci
from computeops.model import Image

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}


@dataclass(frozen=True, slots=True)
class Output:
    """What a build leaves in its output folder."""

    image: Image
    sif: Path
    layout: Path


def build(
    folder: Path, variant: str, out: Path, settings: Settings, progress: Callable[[str], None] = lambda _: None
) -> Output:
    """Build the recipe in `folder` into `out/NAME-VERSION[-VARIANT]`.sif and .oci.

    Raises:
        RecipeError: the recipe or its lock is wrong; BuildError: its build file failed.
    """
    recipe = recipes.load(folder / recipes.FILE_NAME)
    pinned = builders.read_lock(folder)
    stem = "-".join(part for part in (recipe.package.name, recipe.package.version, variant) if part)
    settings.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.tmp, prefix="computeops-build-") as work:
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
        image = convert.pack(
            built.tree,
            oci.Description(
                architecture(), built.env, built.command, recipe.run.programs, built.labels, built.working_dir
            ),
            to_sif=out / f"{stem}.sif",
            to_layout=out / f"{stem}.oci",
            writer=convert.Writer(compression=settings.compression, level=settings.level, threads=settings.jobs),
            epoch=settings.epoch,
            recipe=(folder / recipes.FILE_NAME).read_bytes(),
            name=recipe.package.version,
        )
    return Output(image, out / f"{stem}.sif", out / f"{stem}.oci")


def architecture() -> str:
    """Return this machine's architecture in OCI's words.

    Raises:
        UsageError: images are not built for it.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise UsageError(f"images cannot be built on {machine!r}", hint=f"known are {', '.join(_ARCHITECTURES)}")
    return _ARCHITECTURES[machine]
