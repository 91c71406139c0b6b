"""Text files as HTML with colours: TOML, and comments and strings of shell scripts and build files.

Every character of the text passes through `escape`; the colours are classes of the style sheet. What begins a token
always is one, also where its end is missing, and nothing is given back (`++`): so the time grows with the length only.
"""

import re
from collections.abc import Iterator
from html import escape

from markupsafe import Markup

_TOML = re.compile(
    r"""(?P<string>\"{3}[\s\S]*?(?:\"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)|\"(?:[^\"\\\n]|\\.?)*+\"?|'[^'\n]*+'?)"""
    r"""|(?P<comment>\#[^\n]*+)"""
    r"""|(?P<table>^[ \t]*+\[[^\]\n]*+\]?\]?)"""
    r"""|(?P<key>^[ \t]*+[A-Za-z0-9_.-]++(?=[ \t]*+=))"""
    r"""|(?P<value>\b(?:true|false)\b|(?<![\w.-])[+-]?\d[\w.:+-]*+)""",
    re.MULTILINE,
)
_SCRIPT = re.compile(
    r"""(?P<comment>(?:^|(?<=[ \t]))\#[^\n]*+)"""
    r"""|(?P<string>\"(?:[^\"\\\n]|\\.?)*+\"?|'[^'\n]*+'?)"""
    r"""|(?P<table>^(?:%[a-z]++|FROM|RUN|COPY|ADD|ENV|ARG|WORKDIR|ENTRYPOINT|CMD|LABEL|USER|Bootstrap:|From:)(?=\s|$))""",
    re.MULTILINE,
)


def highlight(text: str, name: str) -> Markup:
    """Return the file `name` as HTML: one `span` of class `line` for each line."""
    grammar = _TOML if name.endswith((".toml", ".lock")) else _SCRIPT
    lines: list[list[str]] = [[]]
    for kind, token in _tokens(grammar, text.replace("\r\n", "\n")):
        first, *others = token.split("\n")
        lines[-1].append(_span(kind, first))
        lines += [[_span(kind, other)] for other in others]
    if len(lines) > 1 and not "".join(lines[-1]):
        lines.pop()  # behind the newline that ends the last line
    html = "".join(f'<span class="line">{"".join(line)}\n</span>' for line in lines)
    return Markup(html)  # noqa: S704  made of escaped text and the literals of this module


def _tokens(grammar: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    at = 0
    for match in grammar.finditer(text):
        yield "", text[at : match.start()]
        yield match.lastgroup or "", match[0]
        at = match.end()
    yield "", text[at:]


def _span(kind: str, text: str) -> str:
    return f'<span class="{kind}">{escape(text)}</span>' if kind and text else escape(text)
