"""Folders that are kept: their paths as entries of a tar file that does not tell who packed it, and files shared."""

import contextlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path


def add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file, a folder or a link so that its bytes depend on its name, content and mode alone."""
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(info)
    elif path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif path.is_file():
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
            tar.addfile(info, file)


def share(file: Path, target: Path) -> None:
    """Let `target` be `file` too, which nobody writes any more; a copy where the file system cannot do that.

    What is there already is replaced; it appears whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        new = Path(scratch) / "file"
        with contextlib.suppress(OSError):
            new.hardlink_to(file)
        if not new.exists():
            shutil.copyfile(file, new)
            with new.open("rb") as copied:
                os.fsync(copied.fileno())
        new.replace(target)
