"""Read what a shell's `export -p` prints (POSIX.1-2017, export: quoted so that it can be read back by a shell)."""

import re

_STATEMENT = re.compile(
    r"""^(?:export|declare\ -x)\ ([A-Za-z_][A-Za-z0-9_]*)=((?:'[^']*' | "(?:\\.|[^"\\])*" | \$'(?:\\.|[^'\\])*'
    | \\. | [^\s'"\\])*)$""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(
    r"""\$'((?:\\.|[^'\\])*)' | '([^']*)' | "((?:\\.|[^"\\])*)" | \\(.) | ([^'"\\]+)""", re.VERBOSE | re.DOTALL
)
_ANSI_C = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_NAMED = {b"a": 7, b"b": 8, b"e": 27, b"E": 27, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11}
_ESCAPED = re.compile(r"\\([\\$`\"\n])")


def read(text: str) -> dict[str, str]:
    """Return the names and values in the output of `export -p`."""
    return {name: "".join(map(_decoded, _PIECE.finditer(value))) for name, value in _STATEMENT.findall(text)}


def _decoded(piece: re.Match[str]) -> str:
    ansi_c, plain, double, escaped, bare = piece.groups()
    if ansi_c is not None:  # bash, for values with control characters
        return _ANSI_C.sub(_byte, ansi_c.encode("utf-8", "surrogateescape")).decode(errors="replace")
    if double is not None:
        return _ESCAPED.sub(r"\1", double)
    return plain or escaped or bare or ""


def _byte(found: re.Match[bytes]) -> bytes:
    text = found[1]
    if text.isdigit():
        return bytes([int(text, 8) & 0xFF])
    return bytes([_NAMED[text]]) if text in _NAMED else text
