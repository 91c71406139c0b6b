"""Paragraphs of `Name: value` lines, as dpkg's control files and Python's METADATA write them."""

from collections.abc import Iterator

from computeops.errors import FormatError

Paragraph = dict[str, str]
"""Field name in lower case to its value; continuation lines are joined by newlines."""


def paragraphs(data: bytes, where: str, *, strict: bool = True) -> Iterator[tuple[int, Paragraph]]:
    """Yield the line, from 1, and the fields of each paragraph; of a repeated field the first counts.

    With `strict`, a line that is no field raises; without, it is skipped.

    Raises:
        FormatError: a line is neither a field, nor its continuation, nor empty.
    """
    first, fields, last = 1, Paragraph(), ""
    for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
        if not line.strip():
            if fields:
                yield first, fields
            first, fields, last = number + 1, Paragraph(), ""
        elif line[0] in " \t":
            if last:
                fields[last] = f"{fields[last]}\n{line.strip()}"
            elif strict:
                raise FormatError(f"/{where}, line {number}: a continuation without a field")
        else:
            name, colon, value = line.partition(":")
            last = name.strip().lower() if colon else ""
            if not last or " " in last:
                last = ""
                if strict:
                    raise FormatError(f"/{where}, line {number}: not a field: {line[:80]!r}")
            elif last in fields:
                last = ""
            else:
                fields[last] = value.strip()
    if fields:
        yield first, fields


def repeated(data: bytes, name: str) -> list[str]:
    """Return every value of the field `name`, without continuation lines, in the first paragraph."""
    values = []
    for line in data.decode(errors="replace").split("\n"):
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and key.lower() == name:
            values.append(value.strip())
    return values
