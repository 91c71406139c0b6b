"""What an installation leaves behind that no program needs and that differs from one build to the next.

It is left out when the tree is read, never removed from a folder: a build may have made a link of any name in it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from computeops.image.tree import Descend, Entry, Item, Kind, Tree, below, everywhere, normalised

REMOVED = (
    "etc/*-",  # passwd-, group-, shadow-: copies of the state before the last change
    "etc/.pwd.lock",
    "etc/hostname",  # the build host's
    "etc/ssh/ssh_host_*",  # keys of a host must be its own
    "root/.cache",
    "tmp/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/dnf/*",
    "var/cache/fontconfig/*",
    "var/cache/ldconfig/aux-cache",  # inode numbers and times of libraries
    "var/cache/man/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/tmp/*",
)
"""Patterns of paths, as a shell would match them; a folder goes with all that is in it."""

ONLY_FOLDERS = ("run", "var/log")
"""Where folders stay, because programs expect theirs, and everything else goes."""

EMPTIED = (
    "etc/hosts",  # mount points for the host's
    "etc/resolv.conf",
)
"""Files that must exist, without content."""

DATED = {
    "usr/share/octave/octave_packages": re.compile(rb"(# Created by Octave [0-9.]+), [^\n]*"),
}
"""Files whose first line says when they were made: what is not in the group goes."""

_DROPPED = re.compile(
    "|".join("[^/]*".join(re.escape(part) for part in one.split("*")) + "(?:/.*)?" for one in REMOVED), re.DOTALL
)


class Quiet:
    """`tree` without noise: an ordered tree that depends on what was built alone."""

    ordered = True

    def __init__(self, tree: Tree, extra: Iterable[Item] = ()) -> None:
        """`extra` is laid over the tree."""
        self._tree = tree
        self._extra = tuple(extra)

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        """Yield the entries that stay, in order; times are not yet normalised.

        Raises:
            FormatError, LimitError: as the tree that is quietened.
        """
        empty = [(Entry("etc", Kind.DIRECTORY, 0o755), ()), *((Entry(name, Kind.FILE), ()) for name in EMPTIED)]
        wanted = below(descend)
        laid = normalised(_Kept(self._tree), 0, [*empty, *self._extra])
        return ((entry, data) for entry, data in laid if wanted(entry))


class _Kept:
    ordered = True

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def items(self, descend: Descend = everywhere) -> Iterator[Item]:
        # the data of a file with several names stands behind its first name: that one must stay
        linked = {entry.target for entry, _ in self._tree.items(descend) if entry.kind is Kind.HARDLINK}
        for entry, data in self._tree.items(descend):
            if entry.path == "etc/machine-id":
                yield replace(entry, kind=Kind.FILE, size=0, target=""), ()
            elif entry.path in DATED and entry.kind is Kind.FILE and entry.path not in linked:
                text = DATED[entry.path].sub(rb"\1", b"".join(data), count=1)
                yield replace(entry, size=len(text)), (text,)
            elif entry.path in linked or not is_noise(entry):
                yield entry, data


def is_noise(entry: Entry) -> bool:
    """Whether `entry` is left out of an image."""
    if _DROPPED.fullmatch(entry.path):
        return True
    return entry.kind is not Kind.DIRECTORY and entry.path.startswith(tuple(f"{one}/" for one in ONLY_FOLDERS))
