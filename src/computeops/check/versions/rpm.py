"""RPM's order of versions: rpm-version(7), and the cases of rpm's own test rpmvercmp.at.

`[epoch:]version[-release]`; each text is a row of numbers and words, all else only separates them. `~` comes before the
end of the text, `^` after it and before anything else; a number is newer than a word.
"""

import re

from computeops.check.versions.number import number

_TOKENS = re.compile(r"[0-9]+|[A-Za-z]+|[~^]")
_TILDE, _END, _CARET, _WORD, _NUMBER = b"\x01", b"\x02", b"\x03", b"\x10", b"\x20"
_EPOCH = re.compile(r"[0-9]*:")
_MINOR = re.compile(r"\.el[0-9]+_[0-9]+(?![0-9])")
_MODULE = re.compile(r"\.module(?:\+|_)el")


def key(version: str) -> bytes:
    """Return the key of `version`: keys compare as rpm's `labelCompare`; no epoch is epoch 0."""
    match = _EPOCH.match(version)
    epoch = match[0][:-1] if match else ""
    upstream, hyphen, release = version[match.end() if match else 0 :].rpartition("-")
    if not hyphen:
        upstream, release = release, ""
    return number(epoch) + text_key(upstream) + text_key(release)


def key_without_epoch(version: str) -> bytes:
    """Return the key of `version` with epoch 0, for distributions whose advisories name none (openEuler)."""
    return key(_EPOCH.sub("", version, count=1))


def text_key(text: str) -> bytes:
    """Return the key of one part of a version: keys compare as `rpmvercmp`."""
    made = []
    for token in _TOKENS.findall(text):
        if token == "~":  # noqa: S105  not a password
            made.append(_TILDE)
        elif token == "^":  # noqa: S105
            made.append(_CARET)
        elif token[0].isdigit():
            made.append(_NUMBER + number(token))
        else:
            made.append(_WORD + token.encode() + b"\0")
    return b"".join(made) + _END


def modular(version: str) -> bool:
    """Return whether `version` is of a package that belongs to a module, and so to one stream of several."""
    return _MODULE.search(version) is not None


def minor_release(version: str) -> str:
    """Return `.el9_2` of a version that was built for one minor release of Red Hat's kind, else ""."""
    match = _MINOR.search(version)
    return match[0] if match else ""
