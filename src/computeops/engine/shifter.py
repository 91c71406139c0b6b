"""Shifter (https://shifter.readthedocs.io) on an unpacked image, where the site sets `allowLocalChroot=1`.

By its manual and its source; it was not run. Accounts and the site's file systems are what its configuration says.
"""

from collections.abc import Mapping

from computeops import proc
from computeops.engine import inside, mounts
from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset({"gpu nvidia", "mpi", "pmi", "read-only binds", "x11"})
BRINGS_GPUS = True
_OWN = ("/etc", "/var", "/dev", "/proc", "/sys")
"""Where Shifter lets nothing be laid."""


def available() -> str:
    """Return "" if shifter is installed; whether the site lets it start a folder is not asked."""
    return "" if proc.find("shifter") else "shifter is not installed"


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables are inherited.

    Raises:
        EngineError: a bind with a name or a target that Shifter does not take.
    """
    program, env = inside.command(image, request, environ)
    shown, start = mounts.visible(request, environ)
    words = ["shifter", f"--image=local:{image.path}", *(["--module=gpu"] if request.gpu == "nvidia" else [])]
    words += [f"--volume={path}:{path}" for path in shown if not path.startswith(_OWN)]
    words += [_volume(bind) for bind in request.binds]
    return [*words, f"--workdir={request.cwd or start or '/'}", *program], env


def _volume(bind: Bind) -> str:
    if set(f"{bind.source}{bind.target}") & set(":;,") or bind.target.startswith(_OWN):
        raise EngineError(
            f"engine shifter cannot bind {bind.source} to {bind.target}",
            hint=f"no name with a colon, comma or semicolon, and nothing in {', '.join(_OWN)}; or another engine",
        )
    return f"--volume={bind.source}:{bind.target}{':ro' if bind.read_only else ''}"
