"""A root filesystem as a stream of entries: what every form of an image is read as and written from.

A `Tree` yields `(Entry, data)` pairs. `data` yields the bytes of a regular file in chunks and nothing for other kinds;
it must be consumed, or left alone, before the next pair is taken. A tree that is *ordered* yields parents before
children and siblings by the bytes of their names, which is the order of the normalised layer.
"""

import enum
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS


class Kind(enum.Enum):
    """What an entry is. Sockets never enter an image."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


_NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a root filesystem."""

    path: str
    """Relative, `/`-separated, without `.`, `..` or empty components; "" is the root. Bytes that are not UTF-8 are
    kept as surrogate escapes."""
    kind: Kind
    mode: int = 0o644
    """Permission bits, 0 to 0o7777."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970, UTC."""
    size: int = 0
    """Bytes of a regular file, else 0."""
    target: str = ""
    """Text of a symbolic link, or the path of the entry that a hard link is another name of."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""
    xattrs: Mapping[str, bytes] = field(default=_NO_XATTRS)

    @property
    def order(self) -> tuple[bytes, ...]:
        """The sort key of an ordered tree."""
        return tuple(os.fsencode(self.path).split(b"/")) if self.path else ()


Item = tuple[Entry, Iterable[bytes]]


class Tree(Protocol):
    """A root filesystem that can be read, as often as wanted."""

    ordered: bool
    """Whether `items` comes in the order of the normalised layer."""

    def items(self) -> Iterator[Item]:
        """Yield every entry with its data; raise FormatError or LimitError for hostile content."""
        ...
