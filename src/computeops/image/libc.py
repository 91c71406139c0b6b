"""The C library in an image: it says on which kernels the image runs."""

import re
from pathlib import Path

from computeops.image.source import open_source
from computeops.image.tree import read_files

_LIBC = re.compile(r"(?:usr/)?lib(?:64|/[a-z0-9_]+-linux-gnu)?/libc(?:\.so\.6|-2\.\d+\.so)")
_FOLDERS = re.compile(r"(?:usr|(?:usr/)?lib(?:64|/[a-z0-9_]+-linux-gnu)?)?")
_MOST_BYTES = 16 * 1024 * 1024


def read(path: Path) -> bytes:
    """Return the GNU C library in the image at `path`; nothing if it has another, or is a tar.

    Of a squashfs and a folder only the folders of libraries are listed; all of a tar would have to be read.

    Raises:
        FormatError: it is broken; LimitError: its C library is too large; NotFoundError: there is no image.
    """
    source = open_source(path)
    if source.form not in {"sif", "squashfs", "tree"}:
        return b""
    found = read_files(source.tree(), lambda name: bool(_LIBC.fullmatch(name)), _MOST_BYTES, _is_wanted)
    return next(iter(found.values()), b"")


def _is_wanted(folder: str) -> bool:
    return _FOLDERS.fullmatch(folder) is not None
