"""Versions as people expect them where an ecosystem has no rule of its own that is known here: numbers between words.

For R this is R's own rule (`package_version`): numbers between `.` and `-`, and a longer row is newer.
"""

import re

from computeops.check.versions.number import number

_TOKENS = re.compile(r"[0-9]+|[A-Za-z]+")
_BEFORE = frozenset({"alpha", "a", "beta", "b", "pre", "preview", "rc", "cr", "dev", "snapshot", "m", "milestone"})
_EARLY, _END, _WORD, _NUMBER = b"\x01", b"\x02", b"\x03", b"\x04"


def key(version: str) -> bytes:
    """Return the key of `version`; words that announce a release come before it, others after it."""
    made = []
    for token in _TOKENS.findall(version.removeprefix("v")):
        if token[0].isdigit():
            made.append(_NUMBER + number(token))
        else:
            word = token.lower()
            made.append((_EARLY if word in _BEFORE else _WORD) + word.encode() + b"\0")
    return b"".join(made) + _END
