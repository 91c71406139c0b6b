"""An image that says for which CPU or driver it was built is not started where it would die of it.

What an image says is remembered in the cache by its place, size and times, as a link: a start asks in microseconds.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from computeops.engine import trees
from computeops.engine.model import Request
from computeops.errors import EngineError

_PREFIX = b"org.computeops."
_LABELS = ".singularity.d/labels.json"
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """What an image says of itself; empty: nothing."""

    cpu: str = ""
    driver: str = ""
    """Range of versions of the GPU's driver."""
    gpu: str = ""
    cuda: str = ""
    compat: str = ""
    """Folder with the image's own libraries of a newer driver of NVIDIA."""
    newer: str = ""
    """The version of that driver."""
    branches: str = ""
    """The branches of older drivers that it goes with."""


def check(image: Path, request: Request, cache: Path) -> None:
    """Do nothing if this machine has the CPU and the driver that `image` says it needs, or it says nothing.

    Raises:
        EngineError: it would die of an illegal instruction, or not find its GPU.
        FormatError: the image is broken.
    """
    found = said(image, cache)
    if found.cpu:
        from computeops.host import cpu

        if not cpu.executes(found.cpu):
            missing = cpu.lacking(found.cpu)
            why = f"; it lacks {', '.join(missing)}" if missing else ""
            has = cpu.best() or cpu.name()
            hint = "take the generic variant of this release, or one for an older CPU: computeops fit lists them"
            raise EngineError(f"{image} was built for CPUs of {found.cpu}, and this one is {has}{why}", hint=hint)
    if request.vendor not in {"nvidia", "amd"}:
        return
    if found.driver:
        _check_driver(image, request.vendor, found.driver)
    if found.cuda and request.vendor == "nvidia":
        _check_cuda(image, found)


def forward(image: Path, request: Request, cache: Path) -> Request:
    """Return `request` with the image's own driver libraries in front, where its CUDA is newer than the machine's."""
    if request.vendor != "nvidia":
        return request
    from computeops.host import gpu

    found = said(image, cache)
    if not found.compat or gpu.branch(found.newer) <= gpu.branch(gpu.nvidia_driver()):
        return request
    path = request.env.get("LD_LIBRARY_PATH") or "/usr/local/nvidia/lib:/usr/local/nvidia/lib64:/.singularity.d/libs"
    return replace(request, env={**request.env, "LD_LIBRARY_PATH": f"{found.compat}:{path}"})


def _check_driver(image: Path, kind: str, wanted: str) -> None:
    from computeops.host import gpu, verdict

    has = gpu.nvidia_driver() if kind == "nvidia" else gpu.amd_driver()
    if has and verdict.holds(wanted, has) is False:
        raise EngineError(f"{image} needs a GPU driver {wanted}, and this machine has {has}", hint=_TOO_OLD)


def _check_cuda(image: Path, found: Said) -> None:
    from computeops.host import gpu

    has = gpu.nvidia_driver()
    cards = [one.name for one in gpu.gpus()] if has else []
    if has and not gpu.runs_cuda(found.cuda, has, newer=found.newer, branches=found.branches, cards=cards):
        raise EngineError(
            f"{image} has CUDA {found.cuda}, and this machine's driver {has} runs CUDA up to {gpu.cuda(has) or '?'}",
            hint=f"it needs driver {gpu.driver_for(found.cuda.partition('.')[0] + '.0')}: {_TOO_OLD}",
        )


_TOO_OLD = "the site must update it; an older release of the image may run, and --gpu none runs without GPU"


def said(image: Path, cache: Path) -> Said:
    """Return what `image` says, remembered from the last time."""
    if trees.is_tree(image):
        return _read_tree(image)
    link = cache / "needs" / trees.stamp(image)
    try:
        words = os.readlink(link).split(" ")  # noqa: PTH115  a text, not a path
    except OSError:
        found = _read(image)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the start
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(" ".join(astuple(found)))
        return found
    return Said(*words[: len(fields(Said))])


def _read(image: Path) -> Said:
    from computeops.image import compat, convert

    described = convert.description(image)
    found = _of(described.labels, described.env)
    folder, newer = compat.driver(image) if found.cuda else ("", "")
    return replace(found, compat=folder, newer=newer)


def _read_tree(root: Path) -> Said:
    try:
        with (root / _LABELS).open("rb") as file:
            text = file.read(_MOST_BYTES)
    except OSError:
        return Said()
    if _PREFIX not in text:
        return Said()
    import json

    with contextlib.suppress(ValueError, RecursionError):  # people edit this file by hand
        labels = json.loads(text)
        if isinstance(labels, dict):
            return _of(labels, {})
    return Said()


def _of(labels: Mapping[str, object], env: Mapping[str, str]) -> Said:
    from computeops.host import needs

    asked = needs.Needs.of("", labels, env)
    return Said(asked.cpu, asked.driver, asked.gpu, asked.cuda, branches=asked.branches)
