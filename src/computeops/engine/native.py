"""Our own start of an unpacked image: user and mount namespaces by `enter.py`, which then becomes the program.

Nothing needs to be installed, nothing stays between the caller and the program, and it is the fastest start there is.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from computeops import proc
from computeops.engine import inside, machine, mounts
from computeops.engine.model import ABILITIES, Prepared, Request

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset(ABILITIES)
BRINGS_GPUS = False
ENTER = Path(__file__).with_name("enter.py")


def available() -> str:
    """Return "" if a container can be made: it is tried."""
    if why := machine.namespaces():
        return why
    done = proc.capture([*_prefix(), "--ro-bind", "/", "/", "--", "true"])
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip().removeprefix("error: ")


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of `enter.py`, and the environment that the program starts from.

    Raises:
        UsageError, EngineError: as `mounts.options` and `inside.command`.
    """
    program, env = inside.command(image, request, environ)
    return [*_prefix(), *mounts.options(image, request, environ), "--", *program], env


def become(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Do in this process what the command `argv` would do in a Python of its own; return only where that failed."""
    from computeops.engine import enter

    return enter.main(argv[len(_prefix()) :], env)


def _prefix() -> list[str]:
    return [sys.executable, "-I", "-S", str(ENTER)]
