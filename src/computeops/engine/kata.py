"""Kata Containers (https://katacontainers.io): a virtual machine for each container, under Docker and containerd.

By its manual; it was not run, but the same command with runc in place of Kata was. The machine's network, memory and
processes are not the program's: no MPI, no display.
"""

from collections.abc import Mapping
from pathlib import Path

from computeops import proc
from computeops.engine import docker
from computeops.engine.model import Prepared, Request

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset({"isolated", "no-home", "read-only binds", "writable"})
BRINGS_GPUS = False
_RUNTIME = "io.containerd.kata.v2"
_SHIM = "containerd-shim-kata-v2"
_MACHINES = Path("/dev/kvm")
_BEGIN = ("docker", "run", "--rm", "--interactive", f"--runtime={_RUNTIME}", "--network=none")


def available() -> str:
    """Return "" if Kata's shim is installed, the machine has virtual machines, and a Docker daemon answers."""
    if proc.find(_SHIM) is None:
        return f"{_SHIM} is not installed"
    return docker.available() if _MACHINES.exists() else f"there is no {_MACHINES}"


def stored(image: Prepared, cache: Path) -> Prepared:
    """Return `image` as `docker.stored` does: it is the same store.

    Raises:
        EngineError: the daemon does not take it.
    """
    return docker.stored(image, cache)


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command, as `docker.command` does.

    Raises:
        EngineError: as `inside.command`.
    """
    return docker.command(_BEGIN, image, request, environ)
