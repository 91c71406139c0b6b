"""Bubblewrap (https://github.com/containers/bubblewrap): an unpacked image in user and mount namespaces.

A signal to bwrap does not reach the program: bwrap dies, and the program with it. `native` has no such process between.
"""

from collections.abc import Mapping

from computeops import proc
from computeops.engine import inside, machine, mounts
from computeops.engine.model import ABILITIES, Prepared, Request

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset(ABILITIES)
BRINGS_GPUS = False
_OPTIONS = ("--unshare-user", "--cap-drop", "ALL", "--die-with-parent")
"""Root too gets a namespace of its own: the program must not have the powers of the machine's root."""


def available() -> str:
    """Return "" if bwrap is installed and can make a namespace: it is tried."""
    if proc.find("bwrap") is None:
        return "bwrap is not installed"
    done = proc.capture(["bwrap", *_OPTIONS, "--ro-bind", "/", "/", "true"])
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or machine.namespaces()


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of bwrap, and the environment that the program starts from.

    Raises:
        UsageError, EngineError: as `mounts.options` and `inside.command`.
    """
    program, env = inside.command(image, request, environ)
    return ["bwrap", *_OPTIONS, *mounts.options(image, request, environ), "--", *program], env
