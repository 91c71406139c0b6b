"""What differs between two root filesystems: one pass over both, in order, nothing kept but the differences."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain

from computeops.errors import FormatError
from computeops.image.tree import Entry, Item, Tree

_SAMPLE = 24


@dataclass(frozen=True, slots=True)
class Difference:
    """One path at which two trees differ."""

    path: str
    what: str
    """`added`, `removed`, the fields of the entry that differ, or `content`."""
    detail: str = ""
    """The two values, or where the contents part, with what stands there."""


def differences(ours: Tree, theirs: Tree) -> Iterator[Difference]:
    """Yield what differs, in the order of the paths; `added` is what only `theirs` has.

    Raises:
        FormatError: a tree is not ordered, or is broken.
    """
    if not (ours.ordered and theirs.ordered):
        raise FormatError("only ordered trees can be compared")
    left, right = ours.items(), theirs.items()
    one, other = next(left, None), next(right, None)
    while one or other:
        if other is None or (one and one[0].order < other[0].order):
            assert one is not None
            yield Difference(one[0].path, "removed")
            one = next(left, None)
        elif one is None or other[0].order < one[0].order:
            yield Difference(other[0].path, "added")
            other = next(right, None)
        else:
            yield from _entry(one, other)
            one, other = next(left, None), next(right, None)


def _entry(one: Item, other: Item) -> Iterator[Difference]:
    names = [field.name for field in fields(Entry) if field.name not in {"path", "xattrs"}]
    changed = [name for name in names if getattr(one[0], name) != getattr(other[0], name)]
    if dict(one[0].xattrs) != dict(other[0].xattrs):
        changed.append("xattrs")
    if changed:
        pairs = (f"{name} {_shown(one[0], name)} -> {_shown(other[0], name)}" for name in changed)
        yield Difference(one[0].path, ", ".join(changed), "; ".join(pairs))
    if detail := _content(one[1], other[1]):
        yield Difference(one[0].path, "content", detail)


def _shown(entry: Entry, name: str) -> str:
    value = getattr(entry, name)
    if name == "mode":
        return f"{value:04o}"
    return ",".join(sorted(value)) if isinstance(value, Mapping) else str(getattr(value, "value", value))


def _content(one: Iterable[bytes], other: Iterable[bytes]) -> str:
    """Return where two contents part, or "" if they are equal; reads no further than that."""
    left, right = _Reader(one), _Reader(other)
    at = 0
    while True:
        a, b = left.peek(), right.peek()
        size = min(len(a), len(b))
        if a[:size] != b[:size]:
            first = next(i for i in range(size) if a[i] != b[i])
            return f"from byte {at + first}: {_sample(a, first)} -> {_sample(b, first)}"
        if not size:
            return "" if len(a) == len(b) else f"one ends at byte {at}"
        left.skip(size)
        right.skip(size)
        at += size


def _sample(data: bytes, at: int) -> str:
    return repr(data[at : at + _SAMPLE])[1:]


class _Reader:
    """Chunks of any sizes as a stream that can be looked at."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chain(chunks)
        self._rest = b""

    def peek(self) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        return self._rest

    def skip(self, size: int) -> None:
        self._rest = self._rest[size:]
