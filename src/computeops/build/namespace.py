"""Root in a box: the prefix of a command that needs root's view of files but must not have root's power.

For an ordinary user it is a user namespace in which user 0 is this user and 1 to 65535 are the subordinate ids of
/etc/subuid: the user's own folders stay readable, and files get the owners that they will have in the image.
"""

import os
from pathlib import Path

from computeops import proc
from computeops.errors import EngineError

_HINT = "allow it with: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, and install uidmap"


def prefix(*, network: bool = False) -> list[str]:
    """Return the argv in front of a command that runs as root of namespaces of its own.

    Raises:
        MissingProgramError: unshare or newuidmap is not installed.
        EngineError: this machine does not allow it.
    """
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--mount-proc"]
    argv += [] if network else ["--net"]
    if os.geteuid() != 0:
        proc.need("newuidmap")
        argv += ["--map-root-user", "--map-auto"]
    argv.append("--")
    done = proc.capture([*argv, "true"])
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise EngineError(f"this machine does not let a build have namespaces of its own: {said}", hint=_HINT)
    return argv


def tar(folder: Path, into: Path) -> None:
    """Write the tree in `folder`, made inside such namespaces, to the tar file `into` with its owners.

    Raises:
        EngineError: tar failed.
    """
    options = ["--format=pax", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse"]
    argv = ["tar", "--create", *options, f"--directory={folder}", f"--file={into}", "."]
    proc.run([*prefix(), *argv], error=EngineError)
