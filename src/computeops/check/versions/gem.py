"""RubyGems' order of versions (https://docs.ruby-lang.org/en/master/Gem/Version.html).

Segments are numbers and words; a version with a word comes before the release of the numbers in front of it, and zeros
at the end of the numbers, or of what begins with the word, do not count.
"""

import re

from computeops.check.versions.number import number

_SEGMENTS = re.compile(r"[0-9]+|[A-Za-z]+")
_WORD, _END, _NUMBER = b"\x01", b"\x02", b"\x03"


def key(version: str) -> bytes:
    """Return the key of `version`: keys compare as `Gem::Version`."""
    segments = _SEGMENTS.findall(version.replace("-", ".pre."))
    words = next((place for place, one in enumerate(segments) if not one[0].isdigit()), len(segments))
    made = (
        _NUMBER + number(one) if one[0].isdigit() else _WORD + one.encode() + b"\0"
        for part in (segments[:words], segments[words:])
        for one in _trimmed(part)
    )
    return b"".join(made) + _END


def _trimmed(segments: list[str]) -> list[str]:
    while segments and not segments[-1].strip("0"):
        segments.pop()
    return segments
