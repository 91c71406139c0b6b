"""What runs inside an unpacked image: its environment, its run script, its shell, by the conventions of Apptainer.

The scripts in /.singularity.d/env set the image's variables; then the variables of the request, which came in under
another name, win. Images without a shell are started directly, with the variables that their scripts plainly export.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from computeops.engine.model import Prepared, Request
from computeops.engine.mounts import resolved
from computeops.errors import EngineError

_SCRIPTS = ".singularity.d/env"
_RUN = "/.singularity.d/runscript"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_INHERITED = frozenset({"PATH", "LD_LIBRARY_PATH", "PS1", "PROMPT_COMMAND"})
_ASIDE = "COMPUTEOPSENV_"
_EXPORT = re.compile(r"export ([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_SHELLS = ("/bin/bash", "/bin/sh")
_SCRIPT_BYTES = 1024 * 1024


def command(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the program to start in the unpacked `image`, with its arguments and its environment.

    Raises:
        EngineError: the image has no shell and the request needs one.
    """
    root = image.path
    inherited = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    names = {"APPTAINER_CONTAINER": str(image.image), "APPTAINER_NAME": image.image.name}
    env = {**inherited, **names, "PATH": _PATH, **_libraries(root, request)}
    if not _has(root, "/bin/sh"):
        return _program(root, request), {**env, **_exported(root), **request.env}
    aside = {f"{_ASIDE}{name}": value for name, value in request.env.items()}
    return ["/bin/sh", "-c", _script(request.env), "sh", *_program(root, request)], {**env, **aside}


def _libraries(root: Path, request: Request) -> dict[str, str]:
    """Return where the GPU's libraries are, for an image without the scripts that say so themselves."""
    if request.gpu in {"none", "auto"} or (root / _SCRIPTS).is_dir():
        return {}
    from computeops.engine.gpu import LIBRARIES

    return {"LD_LIBRARY_PATH": LIBRARIES}


def _script(env: Mapping[str, str]) -> str:
    lines = [f'for script in /{_SCRIPTS}/*.sh; do if [ -f "$script" ]; then . "$script"; fi; done']
    lines += [f'export {name}="${_ASIDE}{name}"; unset {_ASIDE}{name}' for name in env]
    return "; ".join([*lines, "unset script", 'exec "$@"'])


def _program(root: Path, request: Request) -> list[str]:
    if request.action == "exec":
        return list(request.argv)
    if request.action == "run" and _has(root, _RUN) and _has(root, "/bin/sh"):
        return [_RUN, *request.argv]
    shell = next((one for one in _SHELLS if _has(root, one)), None)
    if shell is None:
        hint = "computeops exec IMAGE PROGRAM starts a program of it"
        raise EngineError(f"the image has no shell to {request.action} with", hint=hint)
    if request.action == "run":
        return ["/bin/sh", *request.argv]
    return [shell, *(["--norc"] if shell == "/bin/bash" else []), *request.argv]


def _has(root: Path, path: str) -> bool:
    return root.joinpath(*resolved(root, path)).is_file()


def _exported(root: Path) -> dict[str, str]:
    """Return the variables that the image's scripts set by lines as simple as `export NAME=value`."""
    found: dict[str, str] = {}
    folder = root / _SCRIPTS
    for script in sorted(folder.glob("*.sh")):
        with script.open(errors="surrogateescape") as file:
            for line in file.read(_SCRIPT_BYTES).splitlines():
                if (match := _EXPORT.fullmatch(line)) and "$" not in match[2]:
                    found[match[1]] = "".join(shlex.split(match[2]))
    return found
