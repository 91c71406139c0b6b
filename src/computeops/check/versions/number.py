"""Numbers of any size as bytes whose order is the order of the numbers."""

_LONG = 0xFF


def number(digits: str) -> bytes:
    """Return the key of a run of decimal digits; "" is 0, and leading zeros do not count."""
    text = digits.lstrip("0").encode()
    length = len(text)
    if length < _LONG:
        return bytes((length,)) + text
    return bytes((_LONG,)) + length.to_bytes(8, "big") + text
