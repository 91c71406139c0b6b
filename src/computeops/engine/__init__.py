"""Engines: an image becomes the command of a running container. Plan, then do.

An engine is a module of this folder (or of the entry points `computeops.engine`) that satisfies `model.Engine`. `plan`
chooses and prepares the form of the image that the engine starts from, and returns the command as data.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from computeops import plugins, proc
from computeops.engine import demands, machine, trees
from computeops.engine.model import ABILITIES, ACTIONS, Bind, Engine, Plan, Prepared, Request, Shared, Storing
from computeops.errors import EngineError, UsageError

__all__ = [
    "ACTIONS",
    "Bind",
    "Engine",
    "Plan",
    "Prepared",
    "Request",
    "Shared",
    "admit",
    "available",
    "become",
    "choose",
    "names",
    "plan",
    "prepare",
    "reason",
    "working",
]

BUILT_IN = (
    "native",
    "apptainer",
    "bubblewrap",
    "charliecloud",
    "podman",
    "singularity",
    "podman-hpc",
    "docker",
    "shifter",
    "sarus",
    "udocker",
    "kata",
)
"""The order in which they are tried: the fastest start first."""
CACHE_BYTES = 20 * 1024**3
"""What the trees in a cache may take on the disk."""
UNPACK_BYTES = 1024**3
"""A larger image is not unpacked unless the engine was named: its first start would take minutes."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def names() -> list[str]:
    """Return the names of all engines, in the order in which they are tried."""
    return plugins.names("engine", BUILT_IN)


def load(name: str) -> Engine:
    """Return the engine called `name`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    engine: Engine = plugins.load("engine", name, BUILT_IN)
    return engine


def available(name: str) -> str:
    """Return "" if engine `name` works on this machine, else why not.

    Raises:
        UsageError: there is no such engine.
    """
    return load(name).available()


def working(cache: Path) -> tuple[str, ...]:
    """Return the engines that work here; what was tried since the machine started is not tried again."""
    return tuple(name for name in names() if not reason(name, cache))


def reason(name: str, cache: Path) -> str:
    """Return "" if engine `name` works here, as `working` says, else why not.

    Raises:
        UsageError: there is no such engine.
    """
    return _works(name, load(name), cache)


def choose(name: str = "", *, request: Request | None = None, image: Path | None = None, cache: Path) -> str:
    """Return `name` if there is such an engine; for "" the first that works here and fits `request` and `image`.

    Raises:
        UsageError: there is no engine called `name`.
        EngineError: none works; the message says why each does not.
    """
    if name:
        load(name)
        return name
    reasons = {}
    order: tuple[str, ...] = BUILT_IN
    if request and request.gpu != "none":  # drivers are a craft of their own: an engine that knows them comes first
        order = tuple(sorted(BUILT_IN, key=lambda one: not load(one).BRINGS_GPUS))
    for one in order:
        engine = load(one)
        why = (_lacks(engine, request) if request else "") or _unfit(engine, image, cache) or _works(one, engine, cache)
        if not why:
            return one
        reasons[one] = why
    for one in names()[len(BUILT_IN) :]:
        if not (why := available(one)):
            return one
        reasons[one] = why
    lines = "".join(f"\n  {one}: {why}" for one, why in reasons.items())
    raise EngineError(
        f"no container engine works here:{lines}", hint="install one, for example: apt-get install apptainer"
    )


def _works(name: str, engine: Engine, cache: Path) -> str:
    """Return what `engine.available` says; that it works is remembered until the machine starts anew."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    space = os.readlink("/proc/self/ns/user").strip("user:[]")  # noqa: PTH115  a container has the boot id of its host
    seen = cache / "engines" / f"{name}-{boot}-{space}-{os.geteuid()}"
    if seen.exists():
        return ""
    if why := engine.available():
        return why
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the start
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()
    return ""


def _lacks(engine: Engine, request: Request) -> str:
    """Return "" if `engine` can do what `request` asks, else what it cannot."""
    return ", ".join(f"no {ABILITIES[word]}" for word in sorted(request.asks - engine.CAN))


def _unfit(engine: Engine, image: Path | None, cache: Path) -> str:
    """Return "" if `image` is in a form that `engine` takes, or unpacking it is quick."""
    if image is None or "sif" in engine.TAKES or trees.is_tree(image) or trees.is_there(image, cache):
        return ""
    if proc.find("unsquashfs") is None:
        return "it needs unpacked images, and unsquashfs is not installed"
    if machine.on_network(cache):
        return f"it needs unpacked images, and {cache} is on the network, where they are slow"
    if image.is_file() and image.stat().st_size > UNPACK_BYTES:
        return f"it needs unpacked images, and {image.name} is large"
    return ""


def plan(
    image: Path,
    request: Request,
    *,
    engine: str = "",
    cache: Path,
    environ: Mapping[str, str],
    cache_bytes: int = CACHE_BYTES,
    shared: Shared | None = None,
) -> Plan:
    """Return the command that carries out `request` in `image`: a SIF, an OCI layout or archive, or a root filesystem.

    `environ` is what the container inherits. Where the engine needs a tree, it is unpacked into `cache`, and locked
    there until this process, or the container that it becomes, ends. A tree that the site shares is taken as it is.

    Raises:
        UsageError: no such engine, a bind that cannot be, or a variable with an impossible name.
        EngineError: no engine works here, or the one that was named cannot do this.
        FormatError, StorageError, MissingProgramError: the image could not be prepared.
    """
    _check(request)
    asked = demands.said(image, cache).gpu if request.gpu == "auto" else ""
    takes = image if request.mpi == machine.HOST_MPI else None
    request = replace(request, gpu=machine.gpu(request.gpu, asked), mpi=machine.mpi(request.mpi, environ))
    prepared = _shared(image, cache, shared) if shared else None
    name = choose(engine, request=request, image=None if prepared else image, cache=cache)
    chosen = load(name)
    if why := _lacks(chosen, request):
        able = [one for one in names() if not _lacks(load(one), request)]
        raise EngineError(f"engine {name} cannot do this: {why}", hint=f"these can: {', '.join(able) or 'none'}")
    demands.check(image, request, cache)
    request = demands.forward(image, request, cache)
    brought = chosen.BRINGS_GPUS and request.gpu in {"nvidia", "amd"}
    request = machine.with_files(request, environ, gpus=not brought, image=takes)
    if "sif" in chosen.TAKES and trees.is_sif(image):
        prepared = Prepared(image, image.absolute())
    elif prepared is None or request.writable or "foreign tree" not in chosen.TAKES:
        prepared = trees.prepare(image, cache, cache_bytes)
    if isinstance(chosen, Storing):
        prepared = chosen.stored(prepared, cache)
    argv, env = chosen.argv(prepared, request, environ)
    return Plan(name, tuple(argv), env)


def _shared(image: Path, cache: Path, shared: Shared) -> Prepared | None:
    from computeops.engine import sharing  # for sites that have one

    return None if trees.is_tree(image) else sharing.find(image, cache, shared)


def prepare(image: Path, shared: Shared, cache_bytes: int = CACHE_BYTES, *, again: bool = False) -> Path:
    """Unpack `image` for all users of the site, unless that was done (and not `again`), and return its folder.

    Raises:
        StorageError: the folder is not this user's alone to write, or its disk is full; FormatError: `image` is broken.
    """
    from computeops.engine import sharing

    return sharing.make(image, shared, cache_bytes, again=again)


def admit(image: Path, cache: Path) -> None:
    """Do nothing if this machine has the CPU that `image` says it was built for, or it says none; `plan` asks too.

    Raises:
        EngineError: it would die of an illegal instruction; FormatError: the image is broken.
    """
    demands.check(image, Request(action="run"), cache)


def warning(environ: Mapping[str, str], image: Path | None = None) -> str:
    """Return what a rank of an MPI program should be told before it starts slowly, or ""."""
    return machine.slow_network(environ, image) if machine.mpi("auto", environ) != "none" else ""


def become(plan: Plan) -> int:
    """Replace this process by the container of `plan`: signals, exit code and terminal are the program's own.

    It returns an exit code only where the container could not be made, and has said why.

    Raises:
        MissingProgramError: the engine is not installed; EngineError: it could not be executed.
    """
    if plan.engine == "native":
        from computeops.engine import native

        return native.become(plan.argv, plan.env)
    return proc.become(plan.argv, plan.env)


def _check(request: Request) -> None:
    if request.action not in ACTIONS:
        raise UsageError(f"a container can {', '.join(ACTIONS)}, not {request.action!r}")
    if request.action == "exec" and not request.argv:
        raise UsageError("no program to execute", hint="computeops exec IMAGE PROGRAM [ARGUMENTS]")
    if wrong := [name for name in request.env if not _VARIABLE.fullmatch(name)]:
        raise UsageError(f"not a name of a variable: {wrong[0]!r}", hint="letters, digits and _, no digit in front")
