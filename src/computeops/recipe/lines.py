"""Line numbers of the keys of a TOML document, which `tomllib` does not give.

The scan expects a document that `tomllib` has accepted (TOML 1.0), so it may be short: it only has to know strings,
comments, brackets and where a value ends. It agrees with `tomllib` up to the first fault.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping

Key = tuple[str | int, ...]
"""Path of a key; a table of an array of tables is its number, from 0."""

_WORD = re.compile(
    r'''
      """(?:\\.|[^\\])*?"{3,5} | \'\'\'.*?'{3,5}    # long strings; up to two quotes may precede the closing three
    | "(?:\\.|[^"\\\n])*" | '[^'\n]*'               # strings and quoted keys
    | \#[^\n]* | \n | [\[\]{}=.,] | [^\s\[\]{}=.,#"']+
    ''',
    re.VERBOSE | re.DOTALL,
)
_ENDS = frozenset("[]{}=,\n")
_DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}


def too_deep(text: str, most: int) -> int:
    """Return the line of the first key of more than `most` names, or 0: `tomllib` takes hours for thousands of them."""
    line, dots = 1, 0
    for match in _WORD.finditer(text):
        word = match[0]
        if word == ".":
            dots += 1
            if dots >= most:
                return line
        elif word in _ENDS or word[0] == "#":
            dots = 0
        line += word.count("\n")
    return 0


def lines_of(text: str) -> Mapping[Key, int]:
    """Return the line, from 1, of each table and key of `text`; keys inside a value have the line of the value."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    table: Key = ()
    for line, head, is_header in _statements(text):
        arrays = is_header and head[:2] == ["[", "["]
        names = [_name(word) for word in head if word not in {"[", "]", "."}]
        key = _resolve(() if is_header else table, names[:-1], counts) + tuple(names[-1:])
        if arrays:
            counts[key] = counts.get(key, -1) + 1
            lines.setdefault(key, line)
            key = (*key, counts[key])
        if is_header:
            table = key
        for end in range(1, len(key) + 1):
            lines.setdefault(key[:end], line)
    return lines


def _resolve(key: Key, names: list[str], counts: Mapping[Key, int]) -> Key:
    """Extend `key` by `names`; a name of an array of tables means its last table."""
    for name in names:
        key = (*key, name)
        key = (*key, counts[key]) if key in counts else key
    return key


def _statements(text: str) -> Iterator[tuple[int, list[str], bool]]:
    """Yield line, words of the key or header, and whether it is a header, of each statement."""
    line, start, depth = 1, 1, 0
    head: list[str] = []
    in_value = False
    for match in _WORD.finditer(text):
        word = match[0]
        if word == "\n" and depth == 0:
            if head:
                yield start, head, head[0] == "["
            head, in_value = [], False
        elif in_value:
            depth += _DEPTH.get(word, 0)
        elif word == "=":
            in_value = True
        elif not word.startswith(("#", "\n")):
            start = start if head else line
            head.append(word)
        line += word.count("\n")
    if head:
        yield start, head, head[0] == "["


def _name(word: str) -> str:
    """Return the key that `word` writes, quoted or bare."""
    if word[0] in "\"'":
        (name,) = tomllib.loads(f"{word} = 0")
        return str(name)
    return word
