"""podman-hpc (https://podman-hpc.readthedocs.io): Podman as a cluster sets it up.

Its options are Podman's, and a SIF needs no `migrate`: the unpacked image lies in our cache.
"""

from collections.abc import Mapping

from computeops import proc
from computeops.engine import podman
from computeops.engine.model import ABILITIES, Prepared, Request

TAKES = frozenset({"tree"})
CAN = frozenset(ABILITIES) - {"pmi"}
BRINGS_GPUS = False


def available() -> str:
    """Return "" if podman-hpc is installed and starts a container: it is tried."""
    return "podman-hpc is not installed" if proc.find("podman-hpc") is None else podman.tried(_start())


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command, as `podman.command` does.

    Raises:
        EngineError: a bind with a name that Podman cannot be told.
    """
    return podman.command(_start(), image, request, environ)


def _start() -> list[str]:
    return ["podman-hpc", *podman.start()[1:]]
