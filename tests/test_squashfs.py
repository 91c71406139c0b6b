"""Our reader of squashfs beside the real mksquashfs, over its options; random trees packed and read back."""

import itertools
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeops.errors import BuildError, FormatError, StorageError
from computeops.image import squashfs
from computeops.image.squashfs_tree import SquashfsTree
from computeops.image.tar import write_tar
from computeops.image.tree import Directory, Entry, Kind, Tree, read_files

pytestmark = pytest.mark.squashfs
Found = dict[str, tuple[Entry, bytes]]


def found(tree: Tree) -> Found:
    listed = [(entry, b"".join(data)) for entry, data in tree.items()]
    assert [entry.path for entry, _ in listed] == [e.path for e, _ in sorted(listed, key=lambda item: item[0].order)]
    return {entry.path: (entry, data) for entry, data in listed}


def pack(top: Path, out: Path, *options: str) -> Path:
    argv = ["mksquashfs", top, out, "-noappend", "-quiet", "-no-progress", *options]
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything that an ordinary user can make, and more names than one metadata block holds."""
    top = tmp_path_factory.mktemp("squashfs") / "top"
    (top / "many").mkdir(parents=True)
    for number in range(1200):
        (top / "many" / f"{number:04}-{'n' * (number % 60)}").write_bytes(b"%d" % number * (number % 50))
    (top / "empty-folder").mkdir(mode=0o700)
    (top / "a").mkdir()
    (top / "a/z").write_bytes(os.urandom(300_000))
    (top / "a-b").write_bytes(b"sorts between a and a/z as text, not as a path")
    (top / "zeros").write_bytes(bytes(500_000))
    with (top / "sparse").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    (top / "exactly-a-block").write_bytes(b"x" * 131072)
    (top / "text").write_bytes(b"to be compressed " * 40_000)
    (top / "none").touch()
    (top / ("n" * 255)).write_bytes(b"long")
    (top / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"bytes")
    (top / "link").symlink_to("../" * 300 + "target")
    os.link(top / "a/z", top / "same")
    os.mkfifo(top / "pipe")
    os.setxattr(top / "text", "user.short", b"value")
    os.setxattr(top / "text", "user.long", b"v" * 3000)
    os.setxattr(top / "a", "user.of-a-folder", b"")
    return top


OPTIONS = [
    "-comp gzip",
    "-comp zstd -Xcompression-level 1",
    "-comp xz",
    "-comp xz -Xbcj x86",
    "-comp lzma",
    "-comp gzip -Xwindow-size 9 -Xstrategy huffman_only",
    "-comp zstd -b 4K",
    "-comp zstd -b 1M",
    "-comp gzip -no-fragments",
    "-comp zstd -always-use-fragments -b 16K",
    "-comp zstd -tailends -no-duplicates",
    "-noI -noD -noF -noX",
    "-noI -comp zstd",
    "-noD -comp zstd",
    "-noF -noX -comp gzip",
    "-no-exports -no-sparse -comp zstd",
    "-nopad -comp zstd -no-xattrs",
    "-comp zstd -force-uid 4294967294 -force-gid 70000",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_way_to_write_it_is_read(options: str, top: Path, tmp_path: Path) -> None:
    ours = found(SquashfsTree(pack(top, tmp_path / "x.sqfs", *options.split())))
    theirs = found(Directory(top, keep_owners=True))
    assert list(ours) == list(theirs)
    for path, (entry, data) in theirs.items():
        mine, content = ours[path]
        assert content == data, path
        xattrs = {} if "-no-xattrs" in options else dict(entry.xattrs)
        owner = (4294967294, 70000) if "-force-uid" in options else (entry.uid, entry.gid)
        expected = (entry.kind, entry.mode, owner, entry.mtime, entry.size, entry.target, xattrs)
        assert (
            mine.kind,
            mine.mode,
            (mine.uid, mine.gid),
            mine.mtime,
            mine.size,
            mine.target,
            dict(mine.xattrs),
        ) == expected


def test_it_lists_what_unsquashfs_lists(top: Path, tmp_path: Path) -> None:
    image = pack(top, tmp_path / "x.sqfs")
    argv = ["unsquashfs", "-o", "0", "-lc", str(image)]
    names = subprocess.run(argv, check=True, capture_output=True).stdout.splitlines()
    wanted = {os.fsencode(f"squashfs-root/{path}") for path, (entry, _) in found(SquashfsTree(image)).items() if path}
    assert {name.rstrip(b"/") for name in names} - {b"squashfs-root"} <= wanted


def test_devices_and_foreign_owners_are_read(top: Path, tmp_path: Path) -> None:
    definitions = ["null c 666 0 0 1 3", "big b 660 4000000000 65536 4095 1048575", "old c 600 1 2 255 255"]
    options = itertools.chain.from_iterable(("-p", one) for one in definitions)
    tree = found(SquashfsTree(pack(top / "a", tmp_path / "x.sqfs", *options)))
    kinds = {name: (e.kind, e.device, e.uid, e.gid, e.mode) for name, (e, _) in tree.items() if e.device != (0, 0)}
    assert kinds == {
        "null": (Kind.CHARACTER, (1, 3), 0, 0, 0o666),
        "big": (Kind.BLOCK, (4095, 1048575), 4000000000, 65536, 0o660),
        "old": (Kind.CHARACTER, (255, 255), 1, 2, 0o600),
    }


def test_it_is_read_at_any_offset(top: Path, tmp_path: Path) -> None:
    plain = pack(top / "a", tmp_path / "x.sqfs")
    moved = tmp_path / "moved"
    moved.write_bytes(b"?" * 12345 + plain.read_bytes() + b"!" * 999)
    assert found(SquashfsTree(moved, 12345)) == found(SquashfsTree(plain))
    with pytest.raises(FormatError, match="in a place of 5000 bytes"):
        found(SquashfsTree(moved, 12345, 5000))


@pytest.mark.parametrize("compressor", ["lz4", "lzo"])
def test_another_compressor_is_named(compressor: str, top: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"compressed by {compressor}") as caught:
        found(SquashfsTree(pack(top / "a", tmp_path / "x.sqfs", "-comp", compressor)))
    assert "zstd" in caught.value.hint


def test_only_what_is_wanted_is_read(top: Path, tmp_path: Path) -> None:
    image = pack(top, tmp_path / "x.sqfs", "-comp", "zstd")
    broken = bytearray(image.read_bytes())
    (inodes,) = struct.unpack_from("<Q", broken, 64)
    broken[100:inodes] = bytes(inodes - 100)  # all data
    image.write_bytes(broken)
    tree = SquashfsTree(image)
    assert len(list(tree.items())) == len(found(Directory(top)))
    assert not [e.path for e, _ in tree.items(lambda path: path != "many") if e.path.startswith("many/")]
    with pytest.raises(FormatError):
        read_files(tree, {"text"}.__contains__, 10**9, lambda path: not path)


_NAMES = st.text("abc-.é\udc80", min_size=1, max_size=5).filter(lambda name: name not in {".", ".."})
_FILES = st.dictionaries(
    st.lists(_NAMES, min_size=1, max_size=3).map("/".join),
    st.tuples(
        st.binary(max_size=200) | st.integers(0, 300_000).map(bytes), st.integers(0, 0o7777), st.integers(0, 2**32 - 2)
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_FILES)
def test_what_mksquashfs_packs_from_our_tar_is_read_back(tmp_path_factory, files) -> None:
    files = {path: one for path, one in files.items() if not any(other.startswith(f"{path}/") for other in files)}
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"} | {""}
    entries = [(Entry(path, Kind.DIRECTORY, 0o755, mtime=7), b"") for path in folders]
    entries += [
        (Entry(path, Kind.FILE, mode, owner, owner, 7, len(data)), data) for path, (data, mode, owner) in files.items()
    ]
    entries.sort(key=lambda item: item[0].order)
    out = tmp_path_factory.mktemp("packed") / "x"
    command = squashfs.argv(out, offset=4096, compression="zstd", level=1, epoch=7, threads=1)
    with squashfs.Packing(command) as packing:
        write_tar(((entry, [data]) for entry, data in entries), packing.write)
        packing.close()
    assert list(found(SquashfsTree(out, 4096)).values()) == entries


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    command = squashfs.argv(Path("/dev/full"), offset=0, compression="gzip", level=1, epoch=0, threads=1)
    with squashfs.Packing(command) as packing:
        packing.write(tarfile.TarInfo("x").tobuf() + bytes(1024))
        with pytest.raises((StorageError, BuildError)):
            packing.close()


def test_the_recorded_writer_names_what_decides_the_bytes() -> None:
    assert squashfs.writer("zstd", 9).startswith("squashfs-tools 4.")
    assert squashfs.writer("zstd", 9).endswith("zstd 9")
