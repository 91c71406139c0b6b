"""Maven's order of versions (https://maven.apache.org/pom.html#version-order-specification).

Tokens are numbers and words; between them stand `.`, `-`, or nothing where digits meet letters, which is as `-`. What
says nothing (`0`, `ga`, `final`, `release`) does not count at an end, nor before a word or a `-`.
"""

import re

from computeops.check.versions.number import number

_TOKENS = re.compile(r"([.-]?)([0-9]+|[^0-9.-]+)|([.-])")
_EARLY = {"alpha": 0x10, "beta": 0x11, "milestone": 0x12, "rc": 0x13, "cr": 0x13, "snapshot": 0x14}
_SHORT = {"a": "alpha", "b": "beta", "m": "milestone"}
"""Right before a number."""
_NOTHING = frozenset({"", "ga", "final", "release"})
_END, _PATCH, _WORD, _AFTER_HYPHEN, _AFTER_DOT = 0x40, 0x50, 0x51, 0x60, 0x70

_Token = tuple[str, str]


def key(version: str) -> bytes:
    """Return the key of `version`."""
    made = bytearray()
    for separator, text in _trimmed(_tokens(version.strip().lower())):
        if _is_number(text):
            made.append(_AFTER_HYPHEN if separator == "-" else _AFTER_DOT)
            made += number(text)
        elif text in _EARLY:
            made.append(_EARLY[text])
        elif text == "sp":
            made.append(_PATCH)
        elif text in _NOTHING:
            made.append(_END)
        else:
            made.append(_WORD)
            made += text.encode(errors="surrogatepass") + b"\0"
    return bytes((*made, _END))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _tokens(version: str) -> list[_Token]:
    found: list[_Token] = []
    for match in _TOKENS.finditer(version):
        separator, text, lonely = match.groups()
        if lonely:  # two separators in a row, or one at the end
            found.append((lonely, "0"))
            continue
        if not separator and found:
            separator = "-"  # from digits to letters, or back
            if _is_number(text) and (before := found[-1])[1] in _SHORT:
                found[-1] = before[0], _SHORT[before[1]]
        found.append((separator, text))
    return found


def _trimmed(tokens: list[_Token]) -> list[_Token]:
    """Return the tokens without what says nothing at an end, before a word, or before a hyphen."""
    kept: list[_Token] = []
    for separator, text in (*tokens, ("-", "")):
        if separator == "-" or not _is_number(text):
            while kept and (kept[-1][1] in _NOTHING or not kept[-1][1].strip("0")):
                kept.pop()
        kept.append((separator, text))
    return kept[:-1]
