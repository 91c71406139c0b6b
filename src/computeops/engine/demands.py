"""An image that says for which CPU or driver it was built is not started where it would die of it.

What an image says is remembered in the cache by its place, size and times, as a link: a start asks in microseconds.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from computeops.engine import trees
from computeops.engine.model import Request
from computeops.errors import EngineError

_PREFIX = b"org.computeops."
_LABELS = ".singularity.d/labels.json"
_MOST_BYTES = 1024 * 1024


def check(image: Path, request: Request, cache: Path) -> None:
    """Do nothing if this machine has the CPU and the driver that `image` says it needs, or it says nothing.

    Raises:
        EngineError: it would die of an illegal instruction, or not find its GPU.
        FormatError: the image is broken.
    """
    wanted, driver = _said(image, cache)
    if wanted:
        from computeops.host import cpu

        if not cpu.executes(wanted):
            missing = cpu.lacking(wanted)
            why = f"; it lacks {', '.join(missing)}" if missing else ""
            has = cpu.best() or cpu.name()
            hint = "take the generic variant of this release, or one for an older CPU: computeops show lists them"
            raise EngineError(f"{image} was built for CPUs of {wanted}, and this one is {has}{why}", hint=hint)
    if driver and request.gpu in {"nvidia", "amd"}:
        _check_driver(image, request.gpu, driver)


def _check_driver(image: Path, kind: str, wanted: str) -> None:
    from computeops.host import gpu, verdict

    has = gpu.nvidia_driver() if kind == "nvidia" else gpu.amd_driver()
    if has and verdict.holds(wanted, has) is False:
        raise EngineError(
            f"{image} needs a GPU driver {wanted}, and this machine has {has}",
            hint="the site must update it; an older release of the image may run, and --gpu none runs without GPU",
        )


def _said(image: Path, cache: Path) -> tuple[str, str]:
    """Return the CPU and the range of drivers in the labels of `image`."""
    if trees.is_tree(image):
        return _read_tree(image)
    link = cache / "needs" / trees.stamp(image)
    try:
        cpu, _, driver = os.readlink(link).partition(" ")  # noqa: PTH115  a text, not a path
    except OSError:
        from computeops.image import convert

        cpu, driver = _of(convert.description(image).labels)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the start
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"{cpu} {driver}")
    return cpu, driver


def _read_tree(root: Path) -> tuple[str, str]:
    try:
        with (root / _LABELS).open("rb") as file:
            text = file.read(_MOST_BYTES)
    except OSError:
        return "", ""
    if _PREFIX not in text:
        return "", ""
    import json

    with contextlib.suppress(ValueError, RecursionError):  # people edit this file by hand
        labels = json.loads(text)
        if isinstance(labels, dict):
            return _of(labels)
    return "", ""


def _of(labels: Mapping[str, object]) -> tuple[str, str]:
    from computeops.host import needs

    return needs.said(labels, needs.CPU), needs.said(labels, needs.DRIVER)
