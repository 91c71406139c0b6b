"""The smallest root filesystem in which an engine can be tried: the machine's own programs, bound to /usr."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

USR = Path("/usr")
_FOLDERS = ("dev", "etc", "home", "proc", "sys", "tmp", "usr", "var/tmp", "run", "root", "mnt")
_FILES = ("etc/hosts", "etc/resolv.conf", "etc/localtime", "etc/passwd", "etc/group")


@contextlib.contextmanager
def root() -> Iterator[Path]:
    """Give a folder with the places of a root filesystem, and the machine's links into /usr; it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="computeops-trial-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for one in _FOLDERS:
            (folder / one).mkdir(parents=True)
        for one in _FILES:
            (folder / one).touch()
        for path in Path("/").iterdir():
            if path.is_symlink() and os.readlink(path).startswith("usr/"):  # noqa: PTH115
                (folder / path.name).symlink_to(os.readlink(path))  # noqa: PTH115
        yield folder
