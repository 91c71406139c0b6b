"""Programs that carry the list of what they were linked from: of Go, and of Rust built by cargo-auditable."""

from collections.abc import Iterator

from computeops.check.inventory import cargo, golang
from computeops.check.inventory.content import Content
from computeops.check.inventory.elf import MAGIC, Elf
from computeops.check.inventory.model import Files, Found, Records, System, Unread
from computeops.image.tree import Entry, Kind

KIND = "program"
_SMALLEST = 512
_GO, _RUST = b"go:", b"rs:"


def wanted(entry: Entry) -> bool:
    """Return whether `entry` may be a program or a shared library."""
    if entry.kind is not Kind.FILE or entry.size < _SMALLEST:
        return False
    return entry.mode & 0o111 != 0 or ".so" in entry.path.rpartition("/")[2]


def kept(content: Content) -> bytes | None:
    """Return what the program says of its modules; None where it says nothing.

    Raises:
        FormatError, LimitError: what it says cannot be read.
    """
    if content.at(0, len(MAGIC)) != MAGIC:
        return None
    elf = Elf(content)
    sections = elf.sections()
    if (section := sections.get(cargo.SECTION)) is not None:
        return _RUST + cargo.information(elf, section)
    place = sections.get(golang.SECTION)
    if sections and place is None:
        return None
    said = golang.information(elf, place.offset if place else None)
    return None if said is None else _GO + said


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every module of every program."""
    del system, records  # modules belong to no distribution, and own no records of others
    for place, data in files.of(KIND):
        read_one = golang.packages if data.startswith(_GO) else cargo.packages
        yield from read_one(data[len(_GO) :], place)
