"""Folders and tars as ordered trees, and what normalisation makes of them."""

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from computeops.errors import FormatError, LimitError
from computeops.image.archive import TarFile
from computeops.image.tar import write_tar
from computeops.image.tree import Directory, Entry, Kind, Tree, normalised, read_files


def listing(tree: Tree) -> list[tuple[str, Kind, str, bytes]]:
    return [(entry.path, entry.kind, entry.target, b"".join(data)) for entry, data in tree.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a-b").mkdir(parents=True)
    (top / "a").mkdir()
    (top / "a/z").write_bytes(b"zz")
    os.link(top / "a/z", top / "a-b/other")
    (top / "loop").symlink_to("../../..")
    os.mkfifo(top / "pipe")
    return top


EXPECTED = [
    ("", Kind.DIRECTORY, "", b""),
    ("a", Kind.DIRECTORY, "", b""),
    ("a/z", Kind.FILE, "", b"zz"),
    ("a-b", Kind.DIRECTORY, "", b""),
    ("a-b/other", Kind.HARDLINK, "a/z", b""),
    ("loop", Kind.SYMLINK, "../../..", b""),
    ("pipe", Kind.FIFO, "", b""),
]


def test_a_folder_is_read_in_order_without_following_links(folder: Path) -> None:
    assert listing(Directory(folder)) == EXPECTED


def test_sockets_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("sock")
        assert listing(Directory(folder)) == EXPECTED


def test_a_tar_in_any_order_is_the_same_tree(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ["a-b/other", "pipe", "loop", "a/z"]:
            tar.add(folder / name, f"./{name}")
    assert listing(TarFile(archive)) == EXPECTED


def test_a_hard_link_to_nothing_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with archive.open("wb") as out:
        write_tar([(Entry("x", Kind.HARDLINK, target="y"), ())], out.write)
    with pytest.raises(FormatError, match="not in the archive"):
        listing(TarFile(archive))


def test_hard_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with archive.open("wb") as out:
        write_tar([(Entry("x", Kind.HARDLINK, target="y"), ()), (Entry("y", Kind.HARDLINK, target="x"), ())], out.write)
    with pytest.raises(FormatError):
        listing(TarFile(archive))


def test_normalised_is_equal_for_copies_made_at_other_times(folder: Path, tmp_path: Path) -> None:
    def packed() -> bytes:
        out = io.BytesIO()
        write_tar(normalised(Directory(folder), 1000), out.write)
        return out.getvalue()

    before = packed()
    os.utime(folder / "a/z", (5, 5))
    assert packed() == before


def test_extra_entries_replace_files_and_leave_folders(folder: Path) -> None:
    extra = [
        (Entry("a/z", Kind.FILE, size=3), [b"new"]),
        (Entry("a", Kind.DIRECTORY, 0o700), ()),
        (Entry("zz", Kind.DIRECTORY, 0o755), ()),
    ]
    found = [(e.path, e.mode & 0o700, b"".join(d)) for e, d in normalised(Directory(folder), 1, extra)]
    assert ("a/z", 0o600, b"new") in found
    assert found[-1][0] == "zz"
    assert [path for path, _, _ in found].count("a") == 1


def test_files_are_found_by_each_of_their_names_and_bounded(folder: Path) -> None:
    wanted = {"a/z", "a-b/other"}
    assert read_files(Directory(folder), wanted.__contains__, 2) == {"a/z": b"zz", "a-b/other": b"zz"}
    with pytest.raises(LimitError, match="/a/z has 2 bytes"):
        read_files(Directory(folder), wanted.__contains__, 1)
