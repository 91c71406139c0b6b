"""Lines, and paragraphs of `Name: value` lines, as dpkg's control files and Python's METADATA write them.

A file may be half a gigabyte of anything: lines are read one after the other, and only fields that are asked for stay.
"""

import io
from collections.abc import Collection, Iterator

from computeops.errors import FormatError

Paragraph = dict[str, str]
"""Field name in lower case to its value; continuation lines are joined by newlines."""
_LONGEST_VALUE = 4096


def lines(data: bytes) -> Iterator[str]:
    """Yield each line without its end; bytes that are not UTF-8 as surrogate escapes."""
    for line in io.BytesIO(data):
        yield line.rstrip(b"\r\n").decode(errors="surrogateescape")


def paragraphs(
    data: bytes, where: str, fields: Collection[str], *, strict: bool = True
) -> Iterator[tuple[int, Paragraph]]:
    """Yield the line, from 1, and those of the `fields` that it has, of each paragraph; of a repeated field the first.

    With `strict`, a line that is no field raises; without, it is skipped.

    Raises:
        FormatError: a line is neither a field, nor its continuation, nor empty.
    """
    first, found, last, filled = 1, Paragraph(), "", False
    for number, line in enumerate(lines(data), 1):
        if not line.strip():
            if filled:
                yield first, found
            first, found, last, filled = number + 1, Paragraph(), "", False
            continue
        filled = True
        if line[0] not in " \t":
            name, colon, value = line.partition(":")
            last = name.rstrip().lower() if colon and " " not in name.strip() else ""
            if strict and not last:
                raise FormatError(f"/{where}, line {number}: not a field: {line[:80]!r}")
            if last in fields and last not in found:
                found[last] = value.strip()[:_LONGEST_VALUE]
            else:
                last = last and "-"  # a field that is not kept may still be continued
        elif last in found and len(found[last]) < _LONGEST_VALUE:
            found[last] += f"\n{line.strip()}"
        elif strict and not last:
            raise FormatError(f"/{where}, line {number}: a continuation without a field")
    if filled:
        yield first, found


def values(data: bytes, field: str) -> Iterator[str]:
    """Yield each value of the repeated `field` in the first paragraph, without continuation lines."""
    for line in lines(data):
        if not line.strip():
            return
        name, colon, value = line.partition(":")
        if colon and name.lower() == field:
            yield value.strip()
