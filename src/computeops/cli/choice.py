"""Which image is meant: a file, or of a release the variant that fits this machine, or a described one, best.

The choice for this machine is remembered in the cache beside the image, under what decides it: the CPU, the GPU and its
driver. So a release is asked for once, and a node with another CPU that shares the cache chooses for itself.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from computeops.cli.launch import Located
from computeops.cli.output import Progress
from computeops.config import Settings
from computeops.errors import NotFoundError
from computeops.model import Reference

if TYPE_CHECKING:
    from computeops.host import Needs
    from computeops.host.model import Host
    from computeops.host.variants import Judged
    from computeops.store.oci import Registry

Candidates = Mapping[str, "tuple[Path | Reference, Needs]"]
"""Name of a variant to where it is and what it asks of a machine."""
_SUFFIXES = (".sif", ".oci", ".tar")


def candidates(settings: Settings, image: str) -> Candidates:
    """Return the variants of `image`; of a file or a root filesystem there is one, without a name.

    Raises:
        NotFoundError: there is none; FormatError: one is broken.
    """
    from computeops import pipeline
    from computeops.cli import store

    path = Path(image)
    if path.is_file() or (path / "oci-layout").exists():
        return {"": (path, pipeline.needs(path))}
    if found := _on_disk(path):
        return found
    if path.exists():
        return {"": (path, pipeline.needs(path))}
    _require_name(image)
    reference = store.named(settings, image)
    with store.registry(settings, reference.hub) as registry:
        return dict(pipeline.variants(_versioned(reference, registry), registry))


def _on_disk(path: Path) -> Candidates:
    from computeops import pipeline
    from computeops.store import variants

    return {name: (file, pipeline.needs(file)) for name, file in variants.on_disk(path).items()}


def _require_name(image: str) -> None:
    if "/" not in image or image.startswith(("/", ".", "~")) or image.endswith(_SUFFIXES):
        raise NotFoundError(
            f"there is no image {image!r}",
            hint="name a SIF file, an OCI layout or archive, a folder, or a release: collection/name:version",
        )


def _versioned(reference: Reference, registry: "Registry") -> Reference:
    """Return `reference` with the newest version if it names none and the registry is a hub, which tells it."""
    from computeops.store import catalogue

    if reference.version or reference.digest:
        return reference
    with contextlib.suppress(NotFoundError):
        return replace(reference, version=catalogue.show(registry, reference).version)
    return reference


def judge(found: Candidates, host: "Host", gpu: str = "auto") -> "tuple[Judged, ...]":
    """Return the variants `found`, the best for `host` first."""
    from computeops.host import variants

    return variants.judge({name: needs for name, (_, needs) in found.items()}, host, gpu=gpu)


def explained(judged: "Sequence[Judged]") -> tuple[str, ...]:
    """Return which of several variants is taken and why, a line for each."""
    if len(judged) < 2:
        return ()
    first, *others = judged
    lines = [f"  {one.title}: {one.why}" if not one.runs else f"  {one.title}: fits too" for one in others]
    return (f"variant {first.title}, the best that fits: {first.why}", *lines)


def locate(image: str, settings: Settings, environ: Mapping[str, str], gpu: str, host: "Host | None" = None) -> Located:
    """Return the image that runs best on this machine, or on `host`.

    Raises:
        NotFoundError, TrustError, EngineError: as `launch.locate`.
    """
    from computeops.host import variants

    if found := _on_disk(Path(image)):
        judged = judge(found, host or _here(environ), gpu)
        place, needs = found[variants.best(judged).name]
        return Located(Path(str(place)), needs.gpu, explained(judged))
    _require_name(image)
    return _pulled(image, settings, environ, gpu, host)


def unknown_machine() -> "Host":
    """Return what every machine of this architecture has, to choose for machines that nobody described."""
    import platform

    from computeops import pipeline
    from computeops.host.model import Host

    levels = ("x86_64",) if platform.machine() == "x86_64" else ()
    return Host(arch=pipeline.architecture(), cpu_levels=levels, kernel=platform.release(), engines=("any",))


def _here(environ: Mapping[str, str]) -> "Host":
    from computeops.host.look import look

    return look(environ, engines=("any",))  # which engine there is, is the next question


def _pulled(image: str, settings: Settings, environ: Mapping[str, str], gpu: str, host: "Host | None") -> Located:
    from computeops import pipeline
    from computeops.cli import store
    from computeops.host import variants

    reference, progress = store.named(settings, image), Progress()
    memory = _memory(reference, settings, gpu)
    if not host and reference.version and (known := _remembered(memory)):
        return known
    with store.registry(settings, reference.hub) as registry:
        found = dict(pipeline.variants(_versioned(reference, registry), registry))
        judged = judge(found, host or _here(environ), gpu)
        # A single image is taken whatever it needs: the engine refuses what would die, and names the reason.
        place, needs = found[judged[0].name if len(judged) == 1 else variants.best(judged).name]
        path = pipeline.obtain(place, registry, settings, progress)
    progress.done()
    located = Located(path, needs.gpu, explained(judged), place)
    if reference.version and not host:
        _remember(memory, located)
    return located


def _memory(reference: Reference, settings: Settings, gpu: str) -> Path:
    """Return the link that remembers the choice for machines like this one."""
    from computeops.host import cpu
    from computeops.host import gpu as gpus

    facts = [str(reference), os.uname().machine, *sorted(cpu.features()), gpus.nvidia_driver(), gpus.amd_driver(), gpu]
    return settings.cache / "chosen" / hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]


def _remembered(memory: Path) -> Located | None:
    try:
        gpu, _, text = os.readlink(memory).partition("|")  # noqa: PTH115  a text, not a path
    except OSError:
        return None
    path, *told = text.split("\n")
    return Located(Path(path), gpu, tuple(told)) if Path(path).exists() else None


def _remember(memory: Path, located: Located) -> None:
    text = f"{located.gpu}|" + "\n".join((str(located.path), *located.told))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the start
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.unlink(missing_ok=True)
        memory.symlink_to(text[:4000])
