"""The normalised tar, read back by ourselves, by Python's tarfile and by tar; and what a hostile tar is answered."""

import contextlib
import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import FormatError, LimitError
from computeops.image.tar import clean, read_tar, write_tar
from computeops.image.tree import Entry, Kind

_NAME = st.binary(min_size=1, max_size=120).filter(
    lambda b: not {b"/", b"\0"} & {b[i : i + 1] for i in range(len(b))} and b not in {b".", b".."}
)
_PATH = st.lists(_NAME, min_size=1, max_size=4).map(lambda parts: b"/".join(parts).decode("utf-8", "surrogateescape"))
_FILE = st.builds(
    lambda path, data, mode, uid, mtime, xattr: (
        Entry(path, Kind.FILE, mode, uid, uid, mtime, len(data), xattrs={"user.x": xattr} if xattr else {}),
        data,
    ),
    _PATH,
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(0, 2**31),
    st.integers(0, 2**36),
    st.binary(max_size=30),
)


def tar_of(*items: tuple[Entry, bytes]) -> bytes:
    out = io.BytesIO()
    write_tar(((entry, [data]) for entry, data in items), out.write)
    return out.getvalue()


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    return [(entry, b"".join(chunks)) for entry, chunks in read_tar(io.BytesIO(data))]


@given(st.lists(_FILE, max_size=6))
def test_what_is_written_is_read_back(items: list[tuple[Entry, bytes]]) -> None:
    assert read(tar_of(*items)) == items


@given(_FILE)
def test_the_standard_library_reads_the_same(item: tuple[Entry, bytes]) -> None:
    entry, data = item
    with tarfile.open(fileobj=io.BytesIO(tar_of(item))) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        assert content.read() == data
        assert (member.name, member.mode, member.uid, int(member.mtime)) == (
            entry.path,
            entry.mode,
            entry.uid,
            entry.mtime,
        )


def test_every_kind_survives() -> None:
    entries = [
        Entry("", Kind.DIRECTORY, 0o755),
        Entry("dev", Kind.DIRECTORY, 0o755),
        Entry("dev/null", Kind.CHARACTER, 0o666, device=(1, 3)),
        Entry("dev/sda", Kind.BLOCK, 0o660, device=(8, 0)),
        Entry("fifo", Kind.FIFO, 0o600),
        Entry("file", Kind.FILE, 0o4755),
        Entry("link", Kind.SYMLINK, 0o777, target="../" * 60 + "x"),
        Entry("name", Kind.HARDLINK, 0o4755, target="file"),
    ]
    assert [entry for entry, _ in read(tar_of(*((entry, b"") for entry in entries)))] == entries


def test_gnu_tar_reads_what_we_write(tmp_path) -> None:
    long = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90
    (tmp_path / "x.tar").write_bytes(tar_of((Entry("plain", Kind.FILE, size=3), b"abc"), (Entry(long, Kind.FILE), b"")))
    listed = subprocess.run(
        [shutil.which("tar") or "tar", "-tf", "x.tar"], cwd=tmp_path, capture_output=True, check=True
    )
    assert listed.stdout.decode().split() == ["plain", long]
    assert not listed.stderr


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_others_are_read(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        member = tarfile.TarInfo("./" + "long/" * 30 + "name")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    ((entry, data),) = read(out.getvalue())
    assert (entry.path, data) == ("long/" * 30 + "name", b"hello")


@pytest.mark.parametrize("name", ["../etc/passwd", "a/../../b", ".."])
def test_a_name_that_climbs_out_is_refused(name: str) -> None:
    member = tarfile.TarInfo(name)
    with pytest.raises(FormatError, match="climbs out"):
        read(member.tobuf() + bytes(1024))


def test_absolute_names_stay_inside() -> None:
    ((entry, _),) = read(tarfile.TarInfo("/etc/passwd").tobuf() + bytes(1024))
    assert entry.path == "etc/passwd"


@pytest.mark.parametrize("size", [2**63 - 1, 2**40])
def test_a_giant_size_is_refused_before_it_is_read(size: int) -> None:
    member = tarfile.TarInfo("giant")
    member.size = size
    with pytest.raises(LimitError, match="giant"):
        read(member.tobuf(tarfile.GNU_FORMAT))


def test_a_negative_size_is_refused() -> None:
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)[:512])
    block[124:136] = b"\xff" * 12
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    with pytest.raises(LimitError, match="-1 bytes"):
        read(bytes(block))


@given(st.data())
def test_broken_bytes_give_only_our_errors(data: st.DataObject) -> None:
    good = bytearray(
        tar_of(
            (Entry("a/b", Kind.FILE, size=700, xattrs={"user.k": b"v"}), b"x" * 700), (Entry("é" * 60, Kind.FILE), b"")
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(FormatError, LimitError):
        read(bytes(good[:cut]))


def test_too_deep_and_too_long_paths_are_refused() -> None:
    with pytest.raises(LimitError, match="components"):
        clean(b"a/" * 1500)
    with pytest.raises(LimitError, match="5000 bytes"):
        clean(b"a" * 5000)


def test_data_of_another_size_than_announced_is_refused() -> None:
    with pytest.raises(FormatError, match="3 bytes of data where 4"):
        tar_of((Entry("x", Kind.FILE, size=4), b"abc"))
