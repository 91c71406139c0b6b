"""SPDX licence expressions: their grammar (SPDX 2.3, annex D), not the ever-changing list of identifiers."""

import re

_ID = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+|[A-Za-z0-9][A-Za-z0-9.-]*\+?")
_EXAMPLE = 'for example "MIT OR Apache-2.0"'


def license_fault(expression: str) -> str:
    """Return what is wrong with a licence expression, or ""."""
    words = re.findall(r"[()]|[^\s()]+", expression)
    depth, operand = 0, True
    for i, word in enumerate(words):
        if word == "(" and operand:
            depth += 1
        elif word == ")" and not operand and depth:
            depth -= 1
        elif operand and word not in {"AND", "OR", "WITH"} and _ID.fullmatch(word):
            operand = False
        elif not operand and (word in {"AND", "OR"} or (word == "WITH" and _may_have_exception(words[:i]))):
            operand = True
        else:
            hint = "" if operand else "; join licences by AND or OR"
            return f"not an SPDX licence expression at {word!r}{hint}, {_EXAMPLE}"
    return f"not a whole SPDX licence expression, {_EXAMPLE}" if depth or operand else ""


def _may_have_exception(before: list[str]) -> bool:
    """Whether WITH may follow: after one licence, not after `)` or another exception."""
    return before[-1] != ")" and before[-2:-1] != ["WITH"]
