"""Charliecloud's ch-run (https://charliecloud.io/latest/ch-run.html): an unpacked image in user and mount namespaces.

Places that the image lacks are made in an overlay in memory, in which the program may then write too: it is lost.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from computeops import proc
from computeops.engine import inside, mounts, trial
from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset({"gpu amd", "mpi", "no-home", "pmi", "writable", "x11"})
BRINGS_GPUS = False
_OWN = ("/dev", "/tmp")  # noqa: S108
"""What ch-run itself shows of the machine, of the folders that the user works in."""


def available() -> str:
    """Return "" if ch-run is installed and can make a namespace: it is tried."""
    if proc.find("ch-run") is None:
        return "ch-run is not installed"
    with trial.root() as folder:
        command = ["ch-run", "--bind", f"{trial.USR}:{trial.USR}", str(folder), "--", "/usr/bin/true"]
        done = proc.capture(command, env={"USER": "computeops", "PATH": os.defpath}, timeout=10)
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or "ch-run fails"


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; HOME and TMPDIR, which ch-run reads and sets anew, are set again inside.

    Raises:
        EngineError: a bind of a file to a place that the image lacks, or a name that ch-run cannot be told.
    """
    shown, start = mounts.visible(request, environ)
    binds = [Bind(Path(path), path) for path in shown if not path.startswith(_OWN)]
    binds += [Bind(source, target) for target, source in image.accounts.items() if source.is_file()]
    binds += [bind for bind in request.binds if not bind.target.startswith("/dev/")]  # all of /dev is there
    in_memory = _makes_places(image.path, binds) or request.writable
    words = ["ch-run", "--no-passwd", *(["--write-fake"] if in_memory else [])]
    for bind in binds:
        words += ["--bind", _bind(bind)]
    again = {name: environ[name] for name in ("HOME", "TMPDIR") if environ.get(name)}
    program, env = inside.command(image, replace(request, env={**again, **request.env}), environ)
    env.pop("TMPDIR", None)  # ch-run would show that folder as /tmp
    words += ["--cd", request.cwd or start or "/"]
    return [*words, str(image.path), "--", *program], {"USER": str(os.geteuid()), **env}


def _makes_places(root: Path, binds: Sequence[Bind]) -> bool:
    """Whether a bind needs a place that the image does not have.

    Raises:
        EngineError: it is one for a file, which ch-run cannot make.
    """
    missing = [bind for bind in binds if not root.joinpath(*mounts.resolved(root, bind.target)).exists()]
    for bind in missing:
        if not bind.source.is_dir():
            raise EngineError(
                f"engine charliecloud cannot bind the file {bind.source} to {bind.target}: the image has no such file",
                hint="bind the folder, or use another engine",
            )
    return bool(missing)


def _bind(bind: Bind) -> str:
    if ":" in f"{bind.source}{bind.target}":
        raise EngineError(f"engine charliecloud cannot bind names with a colon: {bind.source}", hint="use another one")
    return f"{bind.source}:{bind.target}"
