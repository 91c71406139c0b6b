"""A root filesystem from a Dockerfile, by Buildah, with every image it starts from pinned by digest.

Buildah runs in a box (`namespace`) with storage of its own, so it needs no daemon, no root and no set-up, and sees of
the recipe only its sources. RUN has no network unless the recipe says so.
"""

import json
import resource
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from computeops import proc
from computeops.build import bases, context, instructions, log, namespace
from computeops.build.model import Built, Job, Pins, Place, moving
from computeops.build.noise import Quiet
from computeops.errors import BuildError, RecipeError
from computeops.image.archive import TarFile
from computeops.image.tree import Entry, Item, Kind
from computeops.limits import LIMITS
from computeops.recipe import Recipe

_ENTRYPOINT = "/.singularity.d/entrypoint"
_NAMES = ("Dockerfile", "Containerfile")
_HINTS = context.hints("COPY and ADD see", "RUN has")


def detect(folder: Path) -> str:
    """A `Dockerfile` or `Containerfile` is for this builder."""
    return next((name for name in _NAMES if (folder / name).is_file()), "")


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say which images move, and refuse a Dockerfile whose images cannot be told."""
    file = build_file(folder, recipe)
    text, named = file.read_text(errors="replace"), dict[str, None]()
    for options in [{}, *(one.options for one in recipe.variants)]:
        named |= {image: None for _, image in instructions.images(text, options, file.name)}
    return moving(file.name, [one for one in named if bases.moves(reference(one))], "starts from")


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the images that the Dockerfile takes files from, for every variant."""
    file = build_file(folder, recipe)
    text = file.read_text(errors="replace")
    variants = [{}, *(one.options for one in recipe.variants)]
    wanted = {image: None for options in variants for _, image in instructions.images(text, options, file.name)}
    return Pins(tuple(bases.pin(reference(image), folder, place) for image in wanted))


def build(job: Job) -> Built:
    """Run the Dockerfile and take its last stage."""
    proc.need("buildah")
    place, output = job.place, log.path(job)
    file = build_file(job.folder, job.recipe)
    text = file.read_text(errors="replace")
    laid = context.lay(job, place.work / "context")
    (place.work / "Dockerfile").write_text(text)
    images = dict(_images(job, text, file.name))
    with namespace.box(place.work, readable=[*images.values()], network=job.recipe.build.network) as box:
        buildah = _Buildah(box)
        tree = place.work / "root.tar"
        place.progress("building")
        buildah.build(job, laid, images, tree, output)
        config = buildah.config()
    command, script = _run(config)
    labels = config.get("Labels")
    return Built(
        tree=Quiet(TarFile(tree), script),
        command=command,
        env=_env(config, _given(job)),
        labels={str(name): str(value) for name, value in labels.items()} if isinstance(labels, dict) else {},
        working_dir=str(config.get("WorkingDir") or ""),
        materials=job.lock.materials,
        log=output,
    )


def build_file(folder: Path, recipe: Recipe) -> Path:
    """Return the recipe's build file.

    Raises:
        RecipeError: it is larger than `LIMITS.build_file_bytes`.
    """
    file = folder / recipe.build.file
    if file.stat().st_size > LIMITS.build_file_bytes:
        raise RecipeError(f"{recipe.build.file} has more than {LIMITS.build_file_bytes} bytes")
    return file


def reference(image: str) -> str:
    """Return the image of a FROM as `bases` names it."""
    transport = image.partition(":")[0]
    return image if transport in bases.LOCAL or image.startswith("docker://") else f"docker://{image}"


def _images(job: Job, text: str, name: str) -> Iterator[tuple[str, Path]]:
    """Yield each image as the Dockerfile writes it, with its folder in the cache."""
    pinned = {one.uri: one for one in job.lock.of_role("base")}
    for written, image in instructions.images(text, job.options, name):
        material = pinned.get(reference(image))
        if material is None:
            raise RecipeError(f"{image} is not in the lock", hint="run `computeops lock` again")
        folder = bases.fetch(material, job.folder, job.place)
        yield written, folder
        yield image, folder


class _Buildah:
    def __init__(self, box: namespace.Box) -> None:
        self._box = box
        self._id = box.folder / "id"
        driver = "overlay" if _overlay(box) else "vfs"
        storage = ("--root", str(box.folder / "storage"), "--runroot", str(box.folder / "run"))
        self._command = ("buildah", *storage, "--storage-driver", driver)

    def _argv(self, *arguments: str) -> list[str]:
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self._box.folder),
            "TMPDIR": str(self._box.folder),
            "XDG_RUNTIME_DIR": str(self._box.folder),
            "_CONTAINERS_USERNS_CONFIGURED": "done",  # the box is the user namespace: make no other
        }
        return self._box.argv("env", "-i", *(f"{k}={v}" for k, v in env.items()), *self._command, *arguments)

    def build(self, job: Job, laid: Path, images: Mapping[str, Path], into: Path, output: Path) -> None:
        # what differs from one run to the next, and what asks tools for equal output; both leave the image again
        env = _given(job)
        options = [
            *("--isolation=chroot", "--cap-drop=CAP_SYS_CHROOT", "--pull=never", "--layers=false"),
            *("--identity-label=false", f"--timestamp={job.place.epoch}", f"--iidfile={self._id}"),
            *(f"--ulimit={name}={value}:{value}" for name, value in _ulimits().items()),
            *(f"--env={name}={value}" for name, value in env.items()),
            *(f"--build-arg={name}={value}" for name, value in job.options.items()),
            *(f"--build-context={name}=container-image://dir:{folder}" for name, folder in images.items()),
            f"--output=type=tar,dest={into}",
        ]
        argv = self._argv("build", *options, f"--file={laid.parent / 'Dockerfile'}", str(laid))
        log.follow(argv, output, what="the Dockerfile", progress=job.place.progress, step=_step, hints=_HINTS)

    def config(self) -> dict[str, object]:
        """Return the `config` object of the image that was built (OCI image-spec 1.1, config.md)."""
        argv = self._argv("inspect", "--type", "image", "--format", "{{.Config}}", self._id.read_text())
        found = json.loads(proc.run(argv, error=BuildError)).get("config", {})
        return found if isinstance(found, dict) else {}


def _given(job: Job) -> dict[str, str]:
    """Return the environment of every RUN that is not the image's own."""
    return {"SOURCE_DATE_EPOCH": str(job.place.epoch), "PYTHONHASHSEED": "0", "HOSTNAME": "computeops"}


def _ulimits() -> dict[str, int]:
    """Return the limits of this process: Buildah's own may be higher than it can set."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    return {name: resource.getrlimit(kind)[1] for name, kind in kinds.items()}


def _overlay(box: namespace.Box) -> bool:
    """Whether the file system of the box can have overlays; without, every layer is a whole copy."""
    top = box.folder / "overlay"
    options = "lowerdir=$1/l,upperdir=$1/u,workdir=$1/w,userxattr"
    script = f'mkdir -p "$1/l" "$1/u" "$1/w" "$1/m" && mount -t overlay -o "{options}" overlay "$1/m"'
    return proc.capture(box.argv("sh", "-c", script, "overlay", str(top))).returncode == 0


def _step(line: str) -> str:
    found = line.partition("STEP ")[2]
    return f"step {found}" if found and line.lstrip("[0123456789/] ").startswith("STEP ") else ""


def _run(config: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[Item, ...]]:
    """Return the command of the image, and the script behind it where ENTRYPOINT alone does not say what CMD does."""
    entrypoint, arguments = _texts(config.get("Entrypoint")), _texts(config.get("Cmd"))
    if not arguments:
        return tuple(entrypoint), ()
    # arguments of the user take the place of CMD (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact")
    default = f"[ $# -gt 0 ] || set -- {shlex.join(arguments)}"
    call = " ".join(["exec", *map(shlex.quote, entrypoint), '"$@"'])
    script = f"#!/bin/sh\n{default}\n{call}\n".encode()
    file = Entry(_ENTRYPOINT[1:], Kind.FILE, 0o755, size=len(script))
    return (_ENTRYPOINT,), ((Entry(".singularity.d", Kind.DIRECTORY, 0o755), ()), (file, (script,)))


def _env(config: Mapping[str, object], ours: Mapping[str, str]) -> dict[str, str]:
    env = dict(one.partition("=")[::2] for one in _texts(config.get("Env")))
    return {name: value for name, value in env.items() if ours.get(name) != value}


def _texts(found: object) -> list[str]:
    return [str(one) for one in found] if isinstance(found, list) else []
