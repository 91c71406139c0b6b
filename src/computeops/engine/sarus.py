"""Sarus (https://sarus.readthedocs.io/en/stable/user/user_guide.html): images in a store of the user, loaded once.

By its manual; it was not run. Accounts, GPUs and the replacement of MPI are what the site's hooks make of them.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from computeops import proc
from computeops.engine import inside, mounts, stores
from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset({"gpu amd", "gpu nvidia", "mpi", "no-home", "pmi", "read-only binds", "x11"})
BRINGS_GPUS = True
_REPOSITORY = "load/library/"
_SECONDS = 60


def available() -> str:
    """Return "" if sarus is installed and answers."""
    if proc.find("sarus") is None:
        return "sarus is not installed"
    done = proc.capture(["sarus", "--version"], timeout=_SECONDS)
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or "sarus fails"


def stored(image: Prepared, cache: Path) -> Prepared:
    """Return `image` with its name in the store of Sarus, loaded as an archive if it is not there.

    Raises:
        EngineError: Sarus does not take it.
    """
    of = stores.key(image)
    name = f"computeops-{of}"
    listed = proc.run(["sarus", "images"], timeout=_SECONDS, error=EngineError)
    if stores.known(cache, "sarus", of) != name or name not in listed:
        with tempfile.TemporaryDirectory(prefix="computeops-sarus-", dir=cache) as folder:
            archive = Path(folder, "image.tar")
            stores.archive(image.path, archive, name)
            proc.run(["sarus", "load", str(archive), name], error=EngineError)
        stores.remember(cache, "sarus", of, name)
    return replace(image, name=f"{_REPOSITORY}{name}")


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables are inherited.

    Raises:
        EngineError: a bind with a name that Sarus cannot be told.
    """
    program, env = inside.command(image, request, environ)
    shown, start = mounts.visible(request, environ)
    words = ["sarus", "run", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    words += ["--mpi"] if request.mpi != "none" else []
    words += [_mount(bind) for bind in (*(Bind(Path(path), path) for path in shown), *request.binds)]
    words += [f"--workdir={request.cwd or start or '/'}", image.name, *program]
    return words, {**({"NVIDIA_VISIBLE_DEVICES": "all"} if request.gpu == "nvidia" else {}), **env}


def _mount(bind: Bind) -> str:
    if set(f"{bind.source}{bind.target}") & set(',="'):
        raise EngineError(
            f"engine sarus cannot bind names with a comma, quote or equals sign: {bind.source}", hint="use another"
        )
    return f"--mount=type=bind,source={bind.source},destination={bind.target}{',readonly' if bind.read_only else ''}"
