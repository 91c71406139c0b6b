"""Unpacked images that the users of a site share: an administrator makes them, everybody starts from them.

SHARED/trees/<digest>/root     the tree: nobody but its owner may write, no setuid programs, no devices
SHARED/trees/<digest>/content  the digest of all that is in it
SHARED/trees/<digest>.lock     held by those who run it

Nobody's files are believed but those of root and of the administrators whom the settings name, and only where no folder
above lets others in to exchange them. A user checks the content once, before the first start.
"""

import fcntl
import os
import stat
from pathlib import Path

from computeops.engine import trees
from computeops.engine.model import Prepared, Shared
from computeops.errors import StorageError

_ROOT, _CONTENT = "root", "content"
_FOLDER = "trees"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_TAKEN = stat.S_ISUID | stat.S_ISGID | _OTHERS_WRITE
_READ, _ENTER = 0o444, 0o111
_BLOCK = 1024 * 1024


def find(image: Path, cache: Path, shared: Shared) -> Prepared | None:
    """Return the shared tree of `image`, locked for use; None if there is none that can be believed.

    Raises:
        FormatError: `image` is broken; StorageError: the user's own cache cannot be written, or the tree is not what
            its maker left.
    """
    from computeops.engine import unpack

    known = cache / "shared" / trees.stamp(image)
    try:
        digest, _, content = os.readlink(known).partition(" ")  # noqa: PTH115  a text, not a path
    except OSError:
        digest, content = unpack.digest(image), ""
    entry = shared.folder / _FOLDER / digest
    if not _believed(entry / _ROOT, shared.owners) or not _hold(entry):
        return None
    try:
        expected = (entry / _CONTENT).read_text()
        if content != expected:
            if (found := _content(entry / _ROOT)) != expected:
                raise StorageError(
                    f"{entry}, the shared tree of {image}, was changed: it is {found[:12]}, not {expected[:12]}",
                    hint="the administrator makes it anew: computeops prepare --again IMAGE",
                )
            _remember(known, f"{digest} {expected}")
        return Prepared(image, entry / _ROOT, unpack.accounts(entry / _ROOT, cache / "shared" / f"{digest}.accounts"))
    except OSError as error:
        raise StorageError(f"cannot use the shared tree of {image}: {error}") from error


def make(image: Path, shared: Shared, limit_bytes: int, *, again: bool = False) -> Path:
    """Unpack `image` for everybody, unless it is there (and not `again`), and return its folder.

    Raises:
        StorageError: the folder is not this user's alone to write, or its disk is full; FormatError: `image` is broken.
    """
    from computeops.engine import unpack

    folder = shared.folder / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    except OSError as error:
        raise StorageError(f"cannot write the shared folder {folder}: {error.strerror}") from error
    if os.geteuid() not in shared.owners or not _believed(folder, shared.owners):
        raise StorageError(
            f"nobody would believe what user {os.geteuid()} puts into {folder}",
            hint="only root, or the users in the setting shared_owners, in a folder that no one else may write to",
        )
    return unpack.made(image, folder, limit_bytes, _open_to_all, again=again)


def _open_to_all(entry: Path) -> None:
    """Make a new entry readable by all and writable by none but its owner, and note its content."""
    for folder, folders, files in os.walk(entry):
        for name in [".", *folders, *files]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                os.lchown(path, os.geteuid(), os.getegid())
            else:
                path.unlink()  # a device or a socket
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                entered = _ENTER if stat.S_ISDIR(mode) or mode & _ENTER else 0
                path.chmod(stat.S_IMODE(mode) & ~_TAKEN | _READ | entered)
    (entry / _CONTENT).write_text(_content(entry / _ROOT))
    (entry / _CONTENT).chmod(_READ)


def _content(root: Path) -> str:
    """Return the digest of names, modes, targets and bytes of all that is in `root`."""
    import hashlib  # 10 ms that a start does not need

    whole = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)  # noqa: PTH118  trees have many files
            mode = os.lstat(path).st_mode
            inside = os.readlink(path) if stat.S_ISLNK(mode) else _digest(path) if stat.S_ISREG(mode) else ""  # noqa: PTH115
            whole.update(os.fsencode(f"{os.path.relpath(path, root)}\0{mode:o}\0{inside}\0"))
    return whole.hexdigest()


def _digest(path: str) -> str:
    import hashlib

    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  trees have many files
        return hashlib.file_digest(file, "sha256").hexdigest()


def _believed(path: Path, owners: frozenset[int]) -> bool:
    """Whether only `owners` could have put `path` there: no folder above it may be changed by others."""
    for one in (path, *path.parents):
        try:
            found = one.lstat()
        except OSError:
            return False
        sticky = found.st_mode & stat.S_ISVTX and one not in (path, path.parent)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners | {0}:
            return False
        if found.st_mode & _OTHERS_WRITE and not sticky:
            return False
    return True


def _hold(entry: Path) -> bool:
    """Lock `entry` against removal for as long as this process lives, also after it became the container."""
    try:
        lock = os.open(entry.with_name(f"{entry.name}.lock"), os.O_RDONLY)
    except OSError:
        return False
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)
    return (entry / _CONTENT).is_file()


def _remember(link: Path, text: str) -> None:
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = link.with_name(f".new-{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(text)
    new.replace(link)
