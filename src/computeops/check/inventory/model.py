"""The nouns of an inventory: System, Package, Unread, Inventory, and the Protocol of a package database."""

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from computeops.check.inventory.content import Content
from computeops.image.tree import Entry

_LINKS_FOLLOWED = 40


def shown(path: str) -> str:
    """Return `path` as text for documents and terminals: what is no character, or only commands one, becomes U+FFFD."""
    text = path.encode(errors="surrogateescape").decode(errors="replace")
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


@dataclass(frozen=True, slots=True)
class System:
    """The operating system of an image: its os-release (https://www.freedesktop.org/software/systemd/man/os-release)."""

    id: str = "linux"  # os-release(5): the default of ID
    """`ID`: debian, ubuntu, alpine, rocky ...; `linux` where it is not said."""
    version: str = ""
    """`VERSION_ID`, or `VERSION_CODENAME` where there is none, as in Debian's testing."""
    title: str = ""
    """`PRETTY_NAME`, for people."""

    @property
    def distro(self) -> str:
        """`debian-12`: the value of a purl's qualifier `distro`."""
        return f"{self.id}-{self.version}" if self.version else self.id


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package."""

    kind: str
    """Type of its purl: deb, apk, rpm, pypi, npm ..."""
    name: str
    version: str
    """As its package manager compares it, with epoch and release."""
    purl: str
    """https://github.com/package-url/purl-spec"""
    place: str
    """The file in the image that says so, without a leading `/`."""
    arch: str = ""
    """In the words of its distribution; empty: not said."""
    source: str = ""
    """Name of the source package, by which distributions publish their advisories; empty: none is known."""
    source_version: str = ""
    license: str = ""
    """SPDX expression; what SPDX has no name for is a LicenseRef. Empty: the package does not say it by machine."""
    owner: str = ""
    """purl of the distribution's package that `place` belongs to, for a package of another kind."""
    holds: tuple[str, ...] = ()
    """purls of the packages of languages that it installs, if it belongs to no distribution itself: of conda. They are
    judged by their language."""
    module: str = ""
    """The stream of a module that an rpm belongs to, `nodejs:12:8020020200326104117:4cda2c84`."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Something in an image that says what is installed, and that was not understood."""

    kind: str
    """conda, npm, guix ..., or the kind of package whose record is faulty."""
    place: str
    """A file or folder in the image; of several the first."""
    why: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """The packages of an image that were found, and the traces of others."""

    system: System
    packages: tuple[Package, ...]
    """In the order of kind, name, version and place."""
    unread: tuple[Unread, ...] = ()
    """What is there but could not be read: while this is not empty, the inventory is known to be incomplete."""
    looked_for: tuple[str, ...] = ()
    """The kinds of packages that were looked for."""

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many packages there are of each kind that was looked for or found."""
        found = Counter(one.kind for one in self.packages)
        return {kind: found[kind] for kind in sorted({*self.looked_for, *found})}


@dataclass(frozen=True, slots=True)
class Found:
    """One record of a package database."""

    package: Package
    files: Collection[str] = ()
    """Those of its files that record packages of other kinds: these are its own."""


@dataclass(frozen=True, slots=True)
class Files:
    """The few files of an image that say which packages it has."""

    content: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Path and text of symbolic links that may lead to such a file."""
    places: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Kind of packages to the files that record them."""

    def of(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of what was kept for packages of `kind`, by path."""
        for path in sorted(self.places.get(kind, ())):
            yield path, self.content[path]

    def real(self, path: str) -> str:
        """Return `path` with every known symbolic link in it followed; a circle is left as it is."""
        for _ in range(_LINKS_FOLLOWED):
            parts = path.split("/")
            heads = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
            link = next((head for head in heads if head in self.links), None)
            if link is None:
                return path
            target = posixpath.join("/", posixpath.dirname(link), self.links[link])
            # Clamped at the root of the image, as the kernel does it in a container.
            path = posixpath.normpath(target + path[len(link) :]).lstrip("/")
        return path

    def get(self, path: str) -> bytes | None:
        """Return the content of the file that `path` leads to, or None."""
        return self.content.get(self.real(path))


Records = Callable[[str], str]
"""Given a path as a package database writes it, returns that path in the image if the file there records packages of
another kind, else "".
"""


class Database(Protocol):
    """A module of `computeops.check.inventory`: one format in which packages are recorded."""

    KIND: str
    """The type of the purls of its packages, or the name of the format if it has packages of several."""

    def wanted(self, entry: Entry) -> bool:
        """Return whether the file or link `entry` is needed to read records of this format. Asked for every entry."""
        ...

    def kept(self, content: Content) -> bytes | None:
        """Return what of a wanted file is to be remembered until all are there; None: it records nothing.

        Raises:
            FormatError, LimitError: it records something, but that cannot be read.
        """
        ...

    def read(self, files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
        """Yield every package that is recorded, and what is broken without making the rest doubtful.

        Raises:
            FormatError: the database is broken; the message names the file and the place in it.
        """
        ...
