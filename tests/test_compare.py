"""What differs between two trees: every kind of change, in order, and nothing for equal ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import FormatError
from computeops.image.compare import Difference, differences
from computeops.image.tree import Directory, Entry, Item, Kind


class Listed:
    """A tree of given entries."""

    def __init__(self, items: Sequence[tuple[Entry, Sequence[bytes]]], *, ordered: bool = True) -> None:
        self.ordered = ordered
        self._items = sorted(items, key=lambda item: item[0].order)

    def items(self) -> Iterator[Item]:
        return iter(self._items)


def file(path: str, *chunks: bytes, mode: int = 0o644) -> tuple[Entry, Sequence[bytes]]:
    return Entry(path, Kind.FILE, mode, size=sum(map(len, chunks))), chunks


def found(
    ours: Sequence[tuple[Entry, Sequence[bytes]]], theirs: Sequence[tuple[Entry, Sequence[bytes]]]
) -> list[Difference]:
    return list(differences(Listed(ours), Listed(theirs)))


def test_equal_trees_have_no_differences_whatever_their_chunks() -> None:
    assert found([file("a", b"abc", b"def")], [file("a", b"a", b"", b"bcdef")]) == []


def test_each_change_is_named_in_the_order_of_paths() -> None:
    ours = [file("a", b"x"), file("b", b"same"), file("c", b"12345"), (Entry("d", Kind.SYMLINK, target="a"), ())]
    theirs = [
        file("b", b"same", mode=0o755),
        file("c", b"12945"),
        (Entry("d", Kind.SYMLINK, target="b"), ()),
        file("e"),
    ]
    assert found(ours, theirs) == [
        Difference("a", "removed"),
        Difference("b", "mode", "mode 0644 -> 0755"),
        Difference("c", "content", "from byte 2: '345' -> '945'"),
        Difference("d", "target", "target a -> b"),
        Difference("e", "added"),
    ]


def test_a_longer_file_differs_in_size_and_content() -> None:
    assert [one.what for one in found([file("a", b"12")], [file("a", b"123")])] == ["size", "content"]


def test_attributes_count() -> None:
    ours = Entry("a", Kind.FILE, xattrs={"user.x": b"1"})
    theirs = Entry("a", Kind.FILE, xattrs={"user.y": b"1"})
    assert found([(ours, ())], [(theirs, ())]) == [Difference("a", "xattrs", "xattrs user.x -> user.y")]


def test_folders_on_disk(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub/file").write_text(name)
    paths = {
        one.path
        for one in differences(Directory(tmp_path / "one"), Directory(tmp_path / "two"))
        if one.what == "content"
    }
    assert paths == {"sub/file"}


def test_trees_without_order_are_refused() -> None:
    with pytest.raises(FormatError, match="ordered"):
        list(differences(Listed([], ordered=False), Listed([])))


_CONTENT = st.lists(st.binary(max_size=5), max_size=4)


@given(_CONTENT, _CONTENT)
def test_contents_are_equal_exactly_if_their_bytes_are(one: list[bytes], other: list[bytes]) -> None:
    kinds = {difference.what for difference in found([file("f", *one)], [file("f", *other)])}
    assert ("content" in kinds) == (b"".join(one) != b"".join(other))
