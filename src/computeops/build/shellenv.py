"""Read what a shell's `export -p` prints (POSIX.1-2017, export: quoted so that it can be read back by a shell)."""

import re

_STATEMENT = re.compile(
    r"""^(?:export|declare\ -x)\ ([A-Za-z_][A-Za-z0-9_]*)=((?:'[^']*' | "(?:\\.|[^"\\])*" | \$'(?:\\.|[^'\\])*'
    | \\. | [^\s'"\\])*)$""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""'([^']*)' | "((?:\\.|[^"\\])*)" | \\(.) | ([^'"\\]+)""", re.VERBOSE | re.DOTALL)
_ESCAPED = re.compile(r"\\([\\$`\"\n])")


def read(text: str) -> dict[str, str]:
    """Return the names and values in the output of `export -p`."""
    return {name: "".join(map(_decoded, _PIECE.finditer(value))) for name, value in _STATEMENT.findall(text)}


def _decoded(piece: re.Match[str]) -> str:
    plain, double, escaped, bare = piece.groups()
    if double is not None:
        return _ESCAPED.sub(r"\1", double)
    return plain or escaped or bare or ""
