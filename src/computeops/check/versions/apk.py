"""Alpine's order of versions: apk-version(8), and the cases of apk-tools' own test version.data.

`digits{.digits}[letter]{_suffix[digits]}[~hash][-rdigits]`. What does not follow this counts up to the fault: apk-tools
compares it so.
"""

import re

from computeops.check.versions.number import number

_BEFORE = {"alpha": 0x11, "beta": 0x12, "pre": 0x13, "rc": 0x14}
_AFTER = {"cvs": 0x71, "svn": 0x72, "git": 0x73, "hg": 0x74, "p": 0x75}
_SUFFIXES = _BEFORE | _AFTER
_KINDS_OF_SUFFIXES = frozenset(_SUFFIXES.values())
_INVALID, _END, _REVISION, _HASH, _SUFFIX_NUMBER, _LETTER, _DIGITS = 0x20, 0x30, 0x40, 0x50, 0x60, 0x80, 0x90
_START = 0x91  # the first number: no token follows it as another of its kind
_NEXT = re.compile(
    r"(?P<letter>[a-z])|(?P<dot>\.?)(?P<digits>[0-9]+)|_(?P<suffix>[a-z]*)|~(?P<hash>[0-9a-f]+)|-r(?P<revision>[0-9]+)"
)
_FIRST = re.compile(r"[0-9]+")
_SAFE_DIGITS = 19
_MASK = 2**64 - 1


def key(version: str) -> bytes:
    """Return the key of `version`: keys compare as `apk version -t`."""
    first = _FIRST.match(version)
    if first is None:
        return bytes((_INVALID,))
    made = bytearray((_START,)) + _number(first[0])
    last, at = _START, first.end()
    while at < len(version):
        match = _NEXT.match(version, at)
        token, value = _token(match, last) if match else (_INVALID, b"")
        made.append(token)
        made += value
        if match is None or token == _INVALID:
            return bytes(made)
        last, at = token, match.end()
    made.append(_END)
    return bytes(made)


def _token(match: re.Match[str], last: int) -> tuple[int, bytes]:
    """Return kind and key of a token after one of the kind `last`; an invalid one where it may not stand there."""
    kind, text = match.lastgroup or "", match[match.lastgroup or 0]
    if last in {_START, _DIGITS} and kind in {"letter", "digits"}:
        return (_LETTER, text.encode()) if kind == "letter" else (_DIGITS, _digits(text))
    if kind == "digits" and last in _KINDS_OF_SUFFIXES and not match["dot"]:
        return _SUFFIX_NUMBER, _number(text)
    if kind == "suffix" and text in _SUFFIXES and last not in {_HASH, _REVISION}:
        return _SUFFIXES[text], b""
    if kind == "hash" and last not in {_HASH, _REVISION}:
        return _HASH, text.encode() + b"\0"
    return (_REVISION, _number(text)) if kind == "revision" and last != _REVISION else (_INVALID, b"")


def _digits(digits: str) -> bytes:
    # With a leading zero they compare as text, as digits after a decimal point do.
    return b"\0" + digits.encode() + b"\0" if digits[0] == "0" else _number(digits)


def _number(digits: str) -> bytes:
    if len(digits) <= _SAFE_DIGITS:
        return number(digits)
    value = 0
    for one in digits:  # apk-tools counts in 64 bits, and beyond begins again at 0
        value = (value * 10 + int(one)) & _MASK
    return number(str(value))
