"""udocker (https://indigo-dc.github.io/udocker/): no namespaces and no root; PRoot shows the program other files.

It is the way where a site forbids user namespaces. Nothing keeps a program from changing its image, so it gets a copy
of the tree that nobody may write to; and every system call about files is slower.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from computeops import proc
from computeops.engine import inside, mounts, trial
from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError, StorageError

TAKES = frozenset({"foreign tree", "tree"})
CAN = frozenset({"gpu amd", "gpu nvidia", "mpi", "no-home", "pmi", "x11"})
BRINGS_GPUS = False
_IMAGE = "computeops"
"""udocker wants a name, and does not use it where `--location` says which tree to run."""
_OWN = ("HOME", "LOGNAME", "USER", "USERNAME")
"""Variables that udocker sets itself."""
_PLACES = ("/dev", "/etc/resolv.conf", "/proc", "/sys")
"""What udocker shows without being told."""
_TRACED = "PROOT_NO_SECCOMP"
"""Makes PRoot trace every system call. udocker's own does not need it; that of Debian loses binds without it."""
_FOREIGN = "UDOCKER_USE_PROOT_EXECUTABLE"
_SEALED = "sealed"
_SECONDS = 20


def available() -> str:
    """Return "" if udocker is installed, with its tools, and starts a program; it is not let fetch its tools."""
    if proc.find("udocker") is None:
        return "udocker is not installed"
    with trial.root() as folder:
        start = ["env", "UDOCKER_TARBALL=/nonexistent", f"{_TRACED}=1", *_start(), f"--volume={trial.USR}"]
        done = proc.capture([*start, f"--location={folder}", _IMAGE, "/usr/bin/true"], timeout=_SECONDS)
    lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
    said = next((line for line in lines if line.startswith("Error")), "")
    if done.returncode == 0 and not said:  # without its tools it complains at every start, and may start all the same
        return ""
    said = said or "it does not start"
    return f"udocker says: {said.removeprefix('Error: ')} (was it set up? udocker install)"


def stored(image: Prepared, cache: Path) -> Prepared:
    """Return `image` with a copy of its tree that cannot be written; it lies, and goes, with the tree in the cache.

    Raises:
        EngineError: the image is a folder of the user's; StorageError: it cannot be copied.
    """
    if not os.access(image.path, os.W_OK):  # the site's, of which nothing can be changed
        return image
    entry = image.path.parent
    if entry.parent != cache / "trees":
        raise EngineError(
            f"engine udocker would let a program change {image.path}", hint="pack it: computeops convert FOLDER x.sif"
        )
    sealed = entry / _SEALED
    if not sealed.is_dir():
        from computeops.engine import unpack

        new = entry / f".{_SEALED}-{os.getpid()}"
        try:
            proc.run(["cp", "--archive", "--reflink=auto", str(image.path), str(new)], error=StorageError)
            proc.run(["chmod", "--recursive", "u+rX,a-w", str(new)], error=StorageError)
            for file in image.accounts.values():
                (entry / f"{_SEALED}-{file.name}").write_bytes(file.read_bytes())
                (entry / f"{_SEALED}-{file.name}").chmod(0o444)
            new.rename(sealed)
            (entry / "bytes").write_text(str(2 * int((entry / "bytes").read_text())))
        except OSError as error:
            if not sealed.is_dir():  # else another start was faster
                raise StorageError(f"cannot copy {image.path}: {error.strerror}") from error
        finally:
            unpack.remove(new)
    accounts = {place: entry / f"{_SEALED}-{file.name}" for place, file in image.accounts.items()}
    return replace(image, path=sealed, accounts=accounts)


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command; variables go by the environment, where other users of the machine do not see them.

    Raises:
        EngineError: a bind with a name that udocker cannot be told.
    """
    again = {name: environ[name] for name in _OWN if name in environ}
    program, env = inside.command(image, replace(request, env={**again, **request.env}), environ)
    binds, start = mounts.laid(image, request, environ)
    words = [*_ended(), *_start(), "--hostenv", f"--user={os.geteuid()}:{os.getegid()}", f"--env=PATH={env['PATH']}"]
    words += [_volume(bind) for bind in binds if bind.target not in _PLACES]
    words += [f"--workdir={start}", f"--location={image.path}", _IMAGE, *program]
    traced = {_TRACED: "1"} if _FOREIGN in environ else {}
    return words, {**traced, **env, "PATH": environ.get("PATH", os.defpath)}


def _ended() -> list[str]:
    """Return what passes SIGTERM on, as a terminal does: udocker would die of it and leave its program behind."""
    return [] if sys.stdin.isatty() else ["timeout", "0"]


def _start() -> list[str]:
    return ["udocker", "--quiet", *(["--allow-root"] if os.geteuid() == 0 else []), "run", "--nobanner"]


def _volume(bind: Bind) -> str:
    if ":" in f"{bind.source}{bind.target}":
        raise EngineError(f"engine udocker cannot bind names with a colon: {bind.source}", hint="use another one")
    return f"--volume={bind.source}:{bind.target}"
