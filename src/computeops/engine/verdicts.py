"""That an image is trusted is remembered in the user's own cache, as long as nothing that was looked at changes.

What a verdict rests on is noted with it, and compared: the version of this program, place, size and times of the image
and of every piece of evidence beside it, and the texts of the policy and of all public keys. After a change of any, the
image is looked at anew. Times that are too young are not relied upon: a second change could leave them as they are.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from computeops import __version__
from computeops.engine import trees
from computeops.errors import StorageError

_FOLDER = "trusted"
_LENGTH = 8
"""Bytes of the length in front of each part."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without new times, where clocks are coarse."""


def basis(image: Path, evidence: Path, policy: Path, keys: Path) -> bytes:
    """Return what a verdict on `image` rests on: with the folder of `evidence`, the file of the `policy`, the keyring.

    It is empty where it cannot be told: for a folder, or files that are too young.
    """
    if image.is_dir():
        return b""
    try:
        files = [image, *(sorted(evidence.iterdir()) if evidence.is_dir() else ())]
        if any(time.time_ns() - file.stat().st_ctime_ns < _SETTLED_NS for file in files):
            return b""
        public = list(_public(keys))
        parts = [os.fsencode(evidence), __version__.encode()]
        parts += [os.fsencode(f"{file}\0{trees.stamp(file)}") for file in (*files, *public)]
        parts += [policy.read_bytes(), *(file.read_bytes() for file in public)]
    except (OSError, StorageError):
        return b""
    return b"".join(len(part).to_bytes(_LENGTH) + part for part in parts)


def _public(keys: Path) -> Iterator[Path]:
    """Yield the files of public keys in a keyring."""
    if keys.is_dir():
        yield from (file for folder in sorted(keys.iterdir()) if (file := folder / "public").is_file())


def holds(cache: Path, image: Path, policy: Path, keys: Path) -> bool:
    """Whether `image` was found trusted, noted by this user where nobody else can write, and nothing has changed."""
    folder = cache / _FOLDER
    try:
        note = folder / trees.stamp(image)
        seen, file = folder.lstat(), note.lstat()
        own = seen.st_uid == file.st_uid == os.geteuid() and stat.S_ISDIR(seen.st_mode) and stat.S_ISREG(file.st_mode)
        if not own or seen.st_mode & _OTHERS:
            return False
        noted = note.read_bytes()
    except (OSError, StorageError):
        return False
    evidence = Path(os.fsdecode(noted[_LENGTH : _LENGTH + int.from_bytes(noted[:_LENGTH])]))
    return bool(noted) and noted == basis(image, evidence, policy, keys)


def remember(cache: Path, image: Path, rests_on: bytes) -> None:
    """Note that `image` is trusted, which `rests_on` what `basis` returned before it was looked at."""
    folder = cache / _FOLDER
    with contextlib.suppress(OSError, StorageError):  # a cache that cannot be written costs time, not the start
        if rests_on:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = folder / f".new-{os.getpid()}"
            new.write_bytes(rests_on)
            new.replace(folder / trees.stamp(image))
