"""The libraries of a newer driver of NVIDIA that an image brings for machines with an older one.

They are in the package cuda-compat: https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html.
"""

import re
from pathlib import Path

from computeops.image.source import open_source

_LIBRARY = re.compile(r"(usr/local/cuda[0-9.-]*/compat)/libcuda\.so\.(\d{2,5}(?:\.\d{1,5}){1,3})")
_FOLDERS = re.compile(r"(?:usr(?:/local(?:/cuda[0-9.-]*(?:/compat)?)?)?)?")


def driver(path: Path) -> tuple[str, str]:
    """Return the folder in the image at `path`, and the version of the driver; ("", "") where there is none.

    Raises:
        FormatError: the image is broken; NotFoundError: there is none.
    """
    source = open_source(path)
    if source.form not in {"sif", "squashfs", "tree"}:
        return "", ""
    for entry, _ in source.tree().items(lambda folder: _FOLDERS.fullmatch(folder) is not None):
        if match := _LIBRARY.fullmatch(entry.path):
            return f"/{match[1]}", match[2]
    return "", ""
