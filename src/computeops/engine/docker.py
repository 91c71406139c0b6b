"""Docker (https://docs.docker.com/reference/cli/docker/container/run/): the daemon makes the container, from its store.

The image is handed to the store once, and started by the digest that the daemon gave it: a name in the store could be
another's. The program is the user's and has no powers of root; but who may talk to the daemon may become root.
"""

import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from computeops import proc
from computeops.engine import inside, mounts, stores
from computeops.engine.model import ABILITIES, Bind, Prepared, Request

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset(ABILITIES) - {"pmi"}
BRINGS_GPUS = False
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHARED = ("--network=host", "--ipc=host", "--pid=host", "--userns=host")
"""Namespaces in which ranks of MPI, windows and signals work as outside."""
_HARMLESS = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--security-opt=label=disable")
_SCRATCH = "rw,exec,nosuid,nodev,mode="
_LABEL = "org.computeops.cache"
"""By which an administrator finds the images: docker image prune --all --filter label=org.computeops.cache."""
_SECONDS = 20


def available() -> str:
    """Return "" if a Docker daemon answers this user."""
    if proc.find("docker") is None:
        return "docker is not installed"
    done = proc.capture(["docker", "version", "--format", "{{.Server.Version}}"], timeout=_SECONDS)
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip().splitlines()[-1] if done.stderr else "docker has no daemon"


def stored(image: Prepared, cache: Path) -> Prepared:
    """Return `image` with the digest under which the daemon has it, handed over if it does not.

    Raises:
        EngineError: the daemon does not take it.
    """
    of = stores.key(image)
    name = stores.known(cache, "docker", of)
    if not name or proc.capture(["docker", "image", "inspect", name], timeout=_SECONDS).returncode:
        label = f"LABEL {_LABEL}={of}"
        name = stores.feed(image.path, ["docker", "import", "--change", label, "-", f"computeops/cache:{of}"])
        stores.remember(cache, "docker", of, name)
    return replace(image, name=name)


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables go by the environment, where other users of the machine do not see them.

    Raises:
        EngineError: as `inside.command`.
    """
    return command(("docker", "run", "--rm", "--interactive", *_SHARED), image, request, environ)


def command(
    begin: Sequence[str], image: Prepared, request: Request, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command that begins with `begin`.

    Raises:
        EngineError: as `inside.command`.
    """
    program, env = inside.command(image, request, environ)
    binds, start = mounts.laid(image, request, environ)
    words = [*begin, *_HARMLESS, *_user(), *([] if request.writable else ["--read-only"])]
    words += ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    words += ["--env", f"PATH={env['PATH']}"]
    words += [word for name in env if name != "PATH" and _VARIABLE.fullmatch(name) for word in ("--env", name)]
    words += [word for bind in binds for word in _shown(bind)]
    if request.isolated:
        places = {"/tmp": "1777", "/var/tmp": "1777", environ.get("HOME", "") if request.home else "": "1777"}  # noqa: S108
        words += [f"--tmpfs={place}:{_SCRATCH}{mode}" for place, mode in places.items() if place.startswith("/")]
    words += ["--workdir", start, image.name, *program]
    return words, {**env, "PATH": environ.get("PATH", os.defpath)}


def _user() -> list[str]:
    groups = sorted({*os.getgroups(), os.getegid()} - {os.getegid()})
    return [f"--user={os.geteuid()}:{os.getegid()}", *(f"--group-add={number}" for number in groups)]


def _shown(bind: Bind) -> list[str]:
    """Return the option that shows `bind`: a device needs the daemon's leave, which a mount does not give."""
    if stat.S_ISCHR(bind.source.stat().st_mode):
        return ["--device", f"{bind.source}:{bind.target}"]
    return ["--mount", mounts.csv(["type=bind", f"src={bind.source}", f"dst={bind.target}"], bind)]
