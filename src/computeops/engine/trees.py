"""The cache of unpacked images: `trees/<digest>/root` in the cache folder, each made once and whole.

Beside it lie the files of accounts of the user, and `<digest>.lock`. Who makes or removes a tree holds that lock alone;
who runs one holds it together with others, for as long as the process lives, also after it became the container: no
tree is removed under a program. The lock's time of change is the time of the last use. `by-file` remembers the digest
of a file by its place, size and times, so that a second start does not read 200 MB to learn what it knows.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from computeops.engine.model import Prepared
from computeops.errors import StorageError

_ROOT = "root"
_ACCOUNTS = {"/etc/passwd": "passwd", "/etc/group": "group"}

_held: dict[Path, int] = {}
"""The locks of this process, by entry: a lock belongs to a descriptor, and there must be one."""


def is_tree(image: Path) -> bool:
    """Whether `image` is a folder with a root filesystem, which needs no unpacking."""
    return image.is_dir() and not (image / "oci-layout").exists()


def is_sif(image: Path) -> bool:
    """Whether `image` is a file that says of itself that it is a SIF."""
    if image.is_dir():
        return False
    try:
        with image.open("rb") as file:
            return file.read(64)[32:42] == b"SIF_MAGIC\0"
    except OSError as error:
        raise StorageError(f"cannot read {image}: {error.strerror}") from error


def is_there(image: Path, cache: Path) -> bool:
    """Whether `image` has been unpacked in `cache`."""
    link = cache / "trees" / "by-file" / stamp(image)
    return link.exists()


def prepare(image: Path, cache: Path, limit_bytes: int) -> Prepared:
    """Return the unpacked `image`, a SIF or an OCI layout or archive, unpacking it if that has not been done yet.

    Trees beyond `limit_bytes` in all that were not used for longest are removed when a new one is made.

    Raises:
        FormatError: it is not an image, or its squashfs is broken.
        StorageError: the cache cannot be written, or its disk is full.
        MissingProgramError: unsquashfs is not installed.
    """
    if is_tree(image):
        return Prepared(image, image.absolute())
    folder = cache / "trees"
    entry = _known(image, folder)
    if entry is None:
        from computeops.engine import unpack

        entry = unpack.unpacked(image, folder, limit_bytes)
    return Prepared(image, entry / _ROOT, accounts(entry))


def _known(image: Path, folder: Path) -> Path | None:
    """Return the entry of `image` if the index knows it and it is there; it is locked against removal then."""
    try:
        digest = (folder / "by-file" / stamp(image)).readlink()
    except OSError:
        return None
    return hold(folder / digest)


def stamp(image: Path) -> str:
    """Return what changes when `image` does: its place on disk, its size and its times.

    Raises:
        StorageError: it cannot be looked at.
    """
    try:
        found = (image / "index.json" if image.is_dir() else image).stat()
    except OSError as error:
        raise StorageError(f"cannot read {image}: {error.strerror}") from error
    return "-".join(map(str, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)))


def hold(entry: Path) -> Path | None:
    """Lock `entry` for use and note the time; None if it is not there.

    The descriptor is left open, also in a program that this process becomes: its end ends the lock.
    """
    if entry in _held and (entry / _ROOT).is_dir():
        os.utime(_held[entry])
        return entry
    release(entry)
    try:
        lock = os.open(entry.with_name(f"{entry.name}.lock"), os.O_RDWR)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not (entry / _ROOT).is_dir():
        os.close(lock)
        return None
    os.utime(lock)
    os.set_inheritable(lock, True)
    _held[entry] = lock
    return entry


def release(entry: Path) -> None:
    """Give up this process's own lock on `entry`, if it has one: it would wait for itself."""
    if (lock := _held.pop(entry, None)) is not None:
        os.close(lock)


def accounts(entry: Path) -> Mapping[str, Path]:
    """Return the files of this user's accounts in `entry`, by their places in a container."""
    return {inside: entry / f"{name}-{os.geteuid()}" for inside, name in _ACCOUNTS.items()}
