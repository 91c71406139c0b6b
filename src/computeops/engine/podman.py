"""Podman (https://docs.podman.io/en/latest/markdown/podman-run.1.html) on an unpacked image: `--rootfs`, no store.

Namespaces that would keep ranks of MPI, windows or the network from the program stay those of the machine.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from computeops import proc
from computeops.engine import inside, mounts, trial
from computeops.engine.model import ABILITIES, Bind, Prepared, Request
from computeops.errors import EngineError

TAKES = frozenset({"tree"})
CAN = frozenset(ABILITIES) - {"pmi"}
BRINGS_GPUS = False
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HYBRID = Path("/sys/fs/cgroup/unified/cgroup.controllers")
_SHARED = ("--network=host", "--security-opt=label=disable", "--ulimit=host", "--no-hosts")
_MESSAGES = Path("/dev/mqueue")
"""Podman shares the machine's IPC only if this is there."""


def available() -> str:
    """Return "" if Podman is installed and starts a container: it is tried on this machine's own files."""
    if proc.find("podman") is None:
        return "podman is not installed"
    return tried(start())


def tried(begin: Sequence[str]) -> str:
    """Return "" if a container starts by the command that begins with `begin`, else why not."""
    with trial.root() as folder:
        bind = f"--volume={trial.USR}:{trial.USR}:ro"
        done = proc.capture([*begin, bind, "--rootfs", f"{folder}:O", "/usr/bin/true"], timeout=30)
    if done.returncode == 0:
        return ""
    lines = [one for one in done.stderr.decode(errors="replace").splitlines() if "level=warning" not in one]
    return (lines or [f"{begin[0]} fails"])[-1].strip().removeprefix("Error: ")


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables go by the environment, where other users of the machine do not see them.

    Raises:
        EngineError: a bind with a name that Podman cannot be told.
    """
    return command(start(), image, request, environ)


def command(
    begin: Sequence[str], image: Prepared, request: Request, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command that begins with `begin`, as `start` returns it, of Podman or a wrapper of it.

    Raises:
        EngineError: a bind with a name that Podman cannot be told.
    """
    program, env = inside.command(image, request, environ)
    binds, folder = mounts.laid(image, request, environ)
    words = [*begin, "--interactive"]
    words += ["--pid=host"] if request.mpi != "none" else []  # ranks tell each other apart by their process ids
    words += [] if request.writable else ["--read-only"]
    words += ["--read-only-tmpfs=false"] if not request.isolated else ["--tmpfs=/tmp:mode=1777", "--tmpfs=/var/tmp"]
    words += ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    words += ["--env", f"PATH={env['PATH']}"]
    words += [word for name in env if name != "PATH" and _VARIABLE.fullmatch(name) for word in ("--env", name)]
    for bind in binds:
        words += ["--mount", _mount(bind)]
    if request.isolated and request.home and (home := environ.get("HOME", "")).startswith("/"):
        words += [f"--tmpfs={home}:mode=1777"]
    words += ["--workdir", folder]
    return [*words, "--rootfs", f"{image.path}:O", *program], {
        **env,
        "PATH": environ.get("PATH", os.defpath),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "true",
    }


def start() -> list[str]:
    """Return how a command begins that starts a container here."""
    words = ["podman", "run", *_runtime(), "--rm", *_SHARED]
    words += ["--ipc=host"] if _MESSAGES.exists() else []
    return words + ([] if os.geteuid() == 0 else ["--userns=keep-id"])


def _runtime() -> list[str]:
    """Return the option for a runtime that starts here: crun refuses a machine with both versions of cgroups."""
    hybrid = _HYBRID.exists() and bool(_HYBRID.read_text().strip())
    return ["--runtime", "runc"] if hybrid and proc.find("runc") else []


def _mount(bind: Bind) -> str:
    if set(f"{bind.source}{bind.target}") & set(',"'):
        raise EngineError(f"engine podman cannot bind names with a comma or quote: {bind.source}", hint="use another")
    options = ",ro=true" if bind.read_only else ""
    return f"type=bind,src={bind.source},dst={bind.target}{options}"
