"""Apptainer and SingularityCE: they start from the SIF itself, and know GPUs.

Every option here is in both, from Apptainer 1.0 and SingularityCE 3.9 (https://apptainer.org/docs/user/latest/cli/).
"""

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from computeops import proc
from computeops.engine import mounts
from computeops.engine.model import ABILITIES, Prepared, Request

TAKES = frozenset({"sif", "tree"})
CAN = frozenset(ABILITIES)
BRINGS_GPUS = True
_PROGRAMS = ("apptainer", "singularity")
_SYS_RESOURCE = 1 << 24
"""CAP_SYS_RESOURCE in a mask of capabilities (linux/capability.h)."""
_EVALUATED = re.compile(r"[$`\\]")
"""What it would evaluate in the value of a variable, as a shell does between double quotes."""
_GPU_OPTION = {"nvidia": ["--nv"], "amd": ["--rocm"]}


def available() -> str:
    """Return "" if Apptainer or SingularityCE is installed."""
    return "" if any(proc.find(name) for name in _PROGRAMS) else "neither apptainer nor singularity is installed"


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables go by the environment, where other users of the machine do not see them.

    Raises:
        MissingProgramError: it is not installed.
    """
    program = next((name for name in _PROGRAMS if proc.find(name)), None) or proc.need("apptainer")
    return command(program, image, request, environ)


def command(
    program: str, image: Prepared, request: Request, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command of `program`, Apptainer or SingularityCE: they understand the same options."""
    words = [program, "--quiet", request.action]
    if os.geteuid() == 0 and not _may_take_all_capabilities():
        words.append("--userns")
    words += ["--contain"] if request.isolated else []
    words += ["--writable-tmpfs"] if request.writable else []
    words += [] if request.home else ["--no-home"]
    words += ["--home", home] if (home := _other_home(request, environ)) else []
    words += ["--pwd", request.cwd] if request.cwd else []
    words += _GPU_OPTION.get(request.gpu, [])
    for bind in request.binds:
        words += ["--mount", mounts.csv(["type=bind", f"src={bind.source}", f"dst={bind.target}"], bind, "ro")]
    prefix = program.upper()
    return [*words, str(image.path), *request.argv], {
        **environ,
        **{f"{prefix}ENV_{name}": _EVALUATED.sub(r"\\\g<0>", value) for name, value in request.env.items()},
    }


def _other_home(request: Request, environ: Mapping[str, str]) -> str:
    """Return the home of `environ` if it is not that of the account, which Apptainer would take."""
    home = environ.get("HOME", "")
    try:
        account = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        account = ""
    wanted = request.home and not request.isolated and home != account and ":" not in home
    return home if wanted and home.startswith("/") and Path(home).is_dir() else ""


def _may_take_all_capabilities() -> bool:
    """Whether root has what Apptainer asks for as root; in many containers it has not."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _SYS_RESOURCE)
    return False
