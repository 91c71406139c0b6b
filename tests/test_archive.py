"""Broken and hostile images: one stored input per bug, each answered by one error of ours in bounded time and memory."""

import contextlib
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from computeops.errors import FormatError, LimitError, NotFoundError, StorageError
from computeops.image.convert import open_tree
from computeops.image.inspect import inspect

BAD = Path(__file__).parent / "bad/image"
EXPECTED = {
    "blob-is-another.tar": "has another digest",
    "block-size-zero.sqfs": "blocks of 0 bytes",
    "bytes-used-2-63.sqfs": "9223372036854775808 bytes in a place of",
    "climbs-out.tar": "climbs out",
    "device-of-unknown-major.tar": "a device with the numbers",
    "directory-table-outside.sqfs": "leave the filesystem",
    "encrypted.sif": "its root filesystem is encrypted squashfs",
    "ext3.sif": "its root filesystem is ext3",
    "fewer-layers-than-diff-ids.tar": "1 layers, but the config lists 2 diff_ids",
    "file-of-2-62-bytes.sqfs": "4611686018427387904 bytes",
    "file-of-2-63-bytes.tar": "9223372036854775807 bytes",
    "folder-loop.sqfs": "reached twice",
    "fragments-2-32.sqfs": "the table of fragments leaves the filesystem",
    "ids-outside.sqfs": "the table of ids leaves the filesystem",
    "inode-table-outside.sqfs": "outside the table of inodes",
    "layer-below-a-file.tar": "below a file",
    "layer-bomb.tar": "looks like a bomb",
    "layer-climbs-out.tar": "climbs out",
    "layer-cut.tar": "ends in the middle of its compressed data",
    "layer-is-missing.tar": "lacks blobs/sha256/",
    "layer-root-is-a-file.tar": "makes the root of the image something else",
    "layer-round-in-a-circle.tar": "too many symbolic links",
    "layer-with-a-hard-link-to-nothing.tar": "a hard link to /nowhere",
    "link-climbs-out.tar": "climbs out",
    "link-to-nothing.tar": "not in the archive",
    "links-in-a-circle.tar": "not in the archive",
    "lz4.sqfs": "compressed by lz4",
    "name-dotdot.sqfs": r"a file called b'\.\.'",
    "name-nul.sqfs": r"a file called b'c\\x00'",
    "name-slash.sqfs": "a file called b'c/'",
    "name-twice.sqfs": "the name b'dd' twice",
    "object-before-the-file.sif": "points to",
    "object-of-2-63-bytes.sif": "points to 9223372036854775807 bytes",
    "objects-overlap.sif": "overlap at byte",
    "overlay.sif": "object 2 is an overlay",
    "root-outside.sqfs": "outside the table of inodes",
    "symlink-of-2-31-bytes.sqfs": "a symbolic link of 2147483648 bytes",
    "table-of-2-62-slots.sif": "a table of 4611686018427387904 descriptors",
    "two-objects-with-one-id.sif": "two objects have the same id",
    "version-3.sqfs": r"squashfs 3\.0",
    "xattrs-outside.sqfs": "the table of attributes leaves the filesystem",
}


def read_all(path: Path) -> int:
    return sum(len(chunk) for _, data in open_tree(path).items() for chunk in data)


def test_every_stored_input_is_expected() -> None:
    assert {path.name for path in BAD.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_hostile_input_is_refused(name: str) -> None:
    with pytest.raises((FormatError, LimitError), match=EXPECTED[name]):
        read_all(BAD / name)


@pytest.mark.parametrize(("name", "what"), [("encrypted.sif", "encrypted squashfs"), ("ext3.sif", "ext3")])
def test_what_cannot_be_read_can_still_be_looked_into(name: str, what: str) -> None:
    facts = inspect(BAD / name)
    assert what in facts.problem
    assert facts.parts[0].kind == f"FS ({what})"
    assert facts.sif is not None


def test_a_bomb_costs_little_memory() -> None:
    code = (
        "import sys; from pathlib import Path; from computeops.image.convert import open_tree\n"
        "try: [None for _, data in open_tree(Path(sys.argv[1])).items() for _ in data]\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    argv = [sys.executable, "-c", code, str(BAD / "layer-bomb.tar")]
    error, kilobytes = subprocess.run(argv, capture_output=True, check=True).stdout.split()
    assert error == b"LimitError"
    assert int(kilobytes) < 200_000


@pytest.mark.parametrize(
    "name",
    ["xattrs-outside.sqfs", "layer-is-missing.tar", "layer-round-in-a-circle.tar", "ext3.sif", "links-in-a-circle.tar"],
)
def test_flipped_bytes_and_cuts_give_only_our_errors(name: str, tmp_path: Path) -> None:
    # The stored inputs are small and hold every structure; one more change to them reaches the code behind each check.
    good = (BAD / name).read_bytes()
    chance = random.Random(name)
    broken = tmp_path / name
    for number in range(150):
        data = bytearray(good if number % 4 else good[: chance.randrange(len(good))])
        for _ in range(chance.randint(1, 5)):
            if data:
                data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        broken.write_bytes(data)
        with contextlib.suppress(FormatError, LimitError, StorageError, NotFoundError):
            read_all(broken)
        with contextlib.suppress(FormatError, LimitError, StorageError, NotFoundError):
            inspect(broken)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000


@pytest.mark.parametrize("text", [b"", b"x", b"\x1f\x8b\x08\0" * 200, b"not an image " * 100])
def test_what_is_no_image_is_said_to_be_none(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(text)
    with pytest.raises(FormatError):
        open_tree(path)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no image at"):
        open_tree(tmp_path / "x.sif")
