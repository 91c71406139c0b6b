"""What a build file of somebody else takes from beside it: COPY and ADD of a Dockerfile, %files of a definition.

A recipe names these as sources, since a build sees nothing else of what lies beside it.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from computeops.build.instructions import instructions
from computeops.limits import LIMITS

_FETCHES = re.compile(
    r"\b(?:apt(?:-get)?|apk|dnf|yum|zypper|microdnf|pip3?|conda|mamba|micromamba|npm|cargo|go) +(?:-\S+ +)*"
    r"(?:install|add|update|get|ci|env|create)\b|\b(?:wget|curl)\b|\bgit +clone\b"
)
_FLAGS = re.compile(r"(?:--\S+\s+)*")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*://|git@|<<")
"""An address, or the text of a here-document."""


def fetches(text: str) -> list[int]:
    """Return the numbers of the lines of a build file that seem to use the network."""
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if _FETCHES.search(line) and not line.lstrip().startswith("#")]


def names(builder: str, text: str) -> list[str]:
    """Return the paths that the build file `text` takes from beside it, as they are written."""
    found = {"dockerfile": _copied, "apptainer": _files}.get(builder, lambda _: iter(()))(text)
    return list(dict.fromkeys(found))


def beside(folder: Path, written: str) -> dict[str, bytes] | None:
    """Return path and content of the files in `folder` that `written` names; None where there are none, or too much.

    Links are not followed: they may lead to what nobody meant to publish.
    """
    parts = PurePosixPath(written.lstrip("/")).parts
    if not parts or ".." in parts:
        return None
    found: dict[str, bytes] = {}
    left = LIMITS.taken_bytes
    for one in _files_of(folder, str(PurePosixPath(*parts))):
        left -= one.stat().st_size
        if left < 0 or len(found) >= LIMITS.taken_files:
            return None
        found[str(one.relative_to(folder))] = one.read_bytes()
    return found or None


def _files_of(folder: Path, pattern: str) -> Iterator[Path]:
    for top in sorted(folder.glob(pattern)):
        inside = [top, *top.parents]
        if any(one.is_symlink() for one in inside[: inside.index(folder)]):
            continue
        yield from (one for one in sorted([top, *top.rglob("*")]) if one.is_file() and not one.is_symlink())


def _copied(text: str) -> Iterator[str]:
    for one in instructions(text):
        flags = _FLAGS.match(one.rest)
        if one.word in {"COPY", "ADD"} and flags and "--from=" not in flags[0]:
            given = _words(one.rest[flags.end() :])[:-1]
            yield from (word for word in given if not _ELSEWHERE.match(word))


def _files(text: str) -> Iterator[str]:
    """Yield the first word of each line of %files; `%files from STAGE` takes from another stage."""
    inside = False
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("%"):
            inside = stripped.split() == ["%files"]
        elif inside and stripped and not stripped.startswith("#"):
            yield from _words(stripped)[:1]


def _words(text: str) -> list[str]:
    try:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text, type=list[str])
        return shlex.split(text)
    except (ValueError, msgspec.DecodeError):
        return text.split()
