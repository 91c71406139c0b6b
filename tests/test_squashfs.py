"""Our reader and writer of squashfs beside the real mksquashfs and unsquashfs, over their options and random trees."""

import itertools
import os
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeops.errors import BuildError, FormatError, StorageError
from computeops.image.squashfs import SquashfsWriter, writer
from computeops.image.squashfs_tree import SquashfsTree
from computeops.image.tar import write_tar
from computeops.image.tree import Directory, Entry, Item, Kind, Tree, read_files

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


def write(out: Path, items: Iterable[Item], compression: str = "zstd", offset: int = 4096, threads: int = 0) -> Path:
    out.touch()
    with SquashfsWriter(out, offset=offset, compression=compression, level=1, epoch=7, threads=threads) as filesystem:
        for _, data in filesystem.through(items):
            for _ in data:
                pass
        filesystem.close()
    return out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_FILES, st.sampled_from(["zstd", "gzip"]))
def test_what_we_write_is_read_back_by_us_and_by_unsquashfs(tmp_path_factory, files, compression) -> None:
    files = {path: one for path, one in files.items() if not any(other.startswith(f"{path}/") for other in files)}
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"} | {""}
    entries = [(Entry(path, Kind.DIRECTORY, 0o755, mtime=7), b"") for path in folders]
    entries += [
        (Entry(path, Kind.FILE, mode, owner, owner, 7, len(data)), data) for path, (data, mode, owner) in files.items()
    ]
    entries.sort(key=lambda item: item[0].order)
    out = tmp_path_factory.mktemp("packed") / "x"
    write(out, ((entry, [data]) for entry, data in entries), compression)
    assert list(found(SquashfsTree(out, 4096)).values()) == entries
    assert unpacked(out) == {entry.path: data for entry, data in entries if entry.kind is Kind.FILE}


def unpacked(image: Path) -> dict[str, bytes]:
    """What the real unsquashfs makes of an image: path and content of every file."""
    top = image.with_name(f"{image.name}-unpacked")
    argv = ["unsquashfs", "-quiet", "-no-progress", "-strict-errors", "-o", "4096", "-d", str(top), str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file() and not p.is_symlink()}


def listed(image: Path, offset: int) -> list[list[bytes]]:
    """Mode, owner, size or device, time, and name or link of all, as the real unsquashfs lists it."""
    argv = ["unsquashfs", "-lln", "-UTC", "-o", str(offset), str(image)]
    lines = subprocess.run(argv, check=True, capture_output=True).stdout.splitlines()
    fields = [line.split() for line in lines]
    return [[*one[:2], *one[3:]] if one[0].startswith(b"d") else one for one in fields]  # a folder's size is nobody's


def large(top: Path) -> Iterator[Item]:
    """One of everything, and what needs the extended forms: many names, devices, attributes, owners, large folders."""
    items = list(Directory(top).items())
    items += [
        (Entry("zz", Kind.DIRECTORY, 0o1777, 4000000000, 70000, xattrs={"user.a": b"", "user.b": bytes(9000)}), ()),
        (Entry("zz/big", Kind.BLOCK, 0o660, 3, 4, device=(4095, 1048575), xattrs={"security.capability": b"c"}), ()),
        (Entry("zz/null", Kind.CHARACTER, 0o666, device=(1, 3)), ()),
        (Entry("zz/pipe", Kind.FIFO, 0o600), ()),
    ]
    for folder in range(40):
        items.append((Entry(f"zz/{folder:04}", Kind.DIRECTORY, 0o755), ()))
        for number in range(1000):
            items.append((Entry(f"zz/{folder:04}/{number:05}-with-a-long-name", Kind.SYMLINK, 0o777, target="x"), ()))
    items.append((Entry("zz/last", Kind.HARDLINK, target="text"), ()))
    items.sort(key=lambda item: item[0].order)
    return iter([(replace(entry, mtime=7), list(data)) for entry, data in items])


def test_everything_is_written_as_mksquashfs_writes_it(top: Path, tmp_path: Path) -> None:
    said = subprocess.run(["mksquashfs", "-version"], check=False, capture_output=True).stdout
    if (its := re.search(rb"version (\d+)\.(\d+)", said)) and (int(its[1]), int(its[2])) < (4, 6):
        pytest.skip("mksquashfs before 4.6 cuts long links of a tar, and knows no -root-time there")
    ours = write(tmp_path / "ours", large(top))
    theirs, tar = tmp_path / "theirs", tmp_path / "tar"
    with tar.open("wb") as out:
        write_tar(large(top), out.write)
    argv = ["mksquashfs", "-", str(theirs), "-tar", "-quiet", "-no-progress", "-comp", "zstd"]
    argv += ["-root-mode", "0755", "-root-time", "7"]
    with tar.open("rb") as stdin:
        subprocess.run(argv, check=True, capture_output=True, stdin=stdin)
    assert listed(ours, 4096) == listed(theirs, 0)
    assert found(SquashfsTree(ours, 4096)) == {
        path: (replace(entry, mtime=7), data) for path, (entry, data) in found(SquashfsTree(theirs)).items()
    }


def test_any_number_of_threads_gives_the_same_bytes(top: Path, tmp_path: Path) -> None:
    one, many = (write(tmp_path / str(n), Directory(top).items(), threads=n) for n in (1, 7))
    assert one.read_bytes() == many.read_bytes()
    assert unpacked(one) == {
        str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file() and not p.is_symlink()
    }


def test_equal_files_are_stored_once_and_zeros_not_at_all(tmp_path: Path) -> None:
    noise, small = os.urandom(3_000_000), os.urandom(100_000)
    entries = [Entry("", Kind.DIRECTORY, 0o755)]
    contents = {"a": noise, "b": small, "c": noise, "d": noise[:-1], "e": bytes(50_000_000), "f": small, "g": noise}
    items: list[Item] = [(entries[0], ())]
    items += [(Entry(name, Kind.FILE, size=len(data)), [data]) for name, data in contents.items()]
    out = write(tmp_path / "x", items)
    assert 6_100_000 < out.stat().st_size < 6_200_000
    assert {path: data for path, (_, data) in found(SquashfsTree(out, 4096)).items() if path} == contents
    assert unpacked(out) == contents


def test_files_that_differ_only_in_where_their_zeros_stand_are_different(tmp_path: Path) -> None:
    block = os.urandom(128 * 1024)
    contents = {"a": bytes(len(block)) + block, "b": block + bytes(len(block))}
    items: list[Item] = [(Entry("", Kind.DIRECTORY, 0o755), ())]
    items += [(Entry(name, Kind.FILE, size=len(data)), [data]) for name, data in contents.items()]
    assert unpacked(write(tmp_path / "x", items)) == contents


def test_a_tree_that_is_out_of_order_is_refused(tmp_path: Path) -> None:
    root = Entry("", Kind.DIRECTORY, 0o755)
    for wrong in (Entry("b/a", Kind.FILE), Entry("a", Kind.FILE), Entry("c", Kind.HARDLINK, target="d")):
        with pytest.raises(FormatError):
            write(tmp_path / "x", [(root, ()), (Entry("b", Kind.FILE), ()), (wrong, ())])


def test_a_full_disk_is_one_clear_error() -> None:
    for size in (10**5, 10**7):
        items: list[Item] = [(Entry("", Kind.DIRECTORY), ()), (Entry("x", Kind.FILE, size=size), [os.urandom(size)])]
        with pytest.raises(StorageError, match="/dev/full cannot be written: No space left"):
            write(Path("/dev/full"), items, offset=0)


@pytest.mark.parametrize(("compression", "level"), [("zstd", 23), ("gzip", 0), ("xz", 6)])
def test_a_compressor_that_we_have_not_is_refused(compression: str, level: int, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"{compression} {level}") as caught:
        SquashfsWriter(tmp_path / "x", offset=0, compression=compression, level=level, epoch=0)
    assert "zstd: levels 1 to 22" in caught.value.hint


def test_the_recorded_writer_names_what_decides_the_bytes() -> None:
    assert writer("zstd", 9).startswith("computeops squashfs 1, libzstd 1.")
    assert writer("gzip", 6).endswith("gzip 6")
