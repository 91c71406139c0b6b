"""Apptainer definition files as far as pinning needs: the header of each stage, and the values of its variables.

Reference: https://apptainer.org/docs/user/latest/definition_files.html. Apptainer reads the rest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from computeops.errors import RecipeError

_STAGE = re.compile(r"^\s*bootstrap\s*:", re.IGNORECASE)
_SECTION = re.compile(r"^\s*%(\w+)")
_HEADER = re.compile(r"^\s*(\w+)\s*:\s*(.*?)\s*$")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Stage:
    """The header of one stage: keys in lower case, values with their variables replaced, and where it stands."""

    line: int
    """Number of its Bootstrap line, from 1."""
    keys: Mapping[str, str]
    end: int
    """Number of the line behind the header, from 1."""


def stages(text: str, options: Mapping[str, str], file: str = "definition file") -> list[Stage]:
    """Return the stages of a definition file; `options` are build arguments and win over %arguments.

    Raises:
        RecipeError: there is no Bootstrap line, or a variable in a header has no value.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if _STAGE.match(line)]
    if not starts:
        raise RecipeError(f"{file}: has no line Bootstrap:")
    return [
        _stage(lines, start, end, options, file) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]


def used(text: str) -> set[str]:
    """Return the names of the variables, `{{ NAME }}`, in a definition file."""
    return set(_VARIABLE.findall(text))


def pinned(text: str, froms: Mapping[int, tuple[str, str]]) -> str:
    """Return a definition file with other agents and images: line of Bootstrap to the new Bootstrap and From."""
    lines = text.splitlines()
    section = False
    now: tuple[str, str] | None = None
    for i, line in enumerate(lines):
        if _STAGE.match(line):
            now, section = froms.get(i + 1), False
            lines[i] = f"Bootstrap: {now[0]}" if now else line
        elif _SECTION.match(line):
            section = True
        elif now and not section and (match := _HEADER.match(line)):
            if match[1].lower() == "from":
                lines[i] = f"From: {now[1]}"
            elif match[1].lower() in {"registry", "namespace", "fingerprints"}:
                lines[i] = ""
    return "\n".join([*lines, ""])


def _stage(lines: list[str], start: int, end: int, options: Mapping[str, str], file: str) -> Stage:
    head = next((i for i in range(start, end) if _SECTION.match(lines[i])), end)
    values = {**_arguments(lines[head:end]), **options}
    keys: dict[str, str] = {}
    for number, line in enumerate(lines[start:head], start + 1):
        if (match := _HEADER.match(line.partition("#")[0])) is None:
            continue
        for name in _VARIABLE.findall(match[2]):
            if name not in values:
                hint = f"give it a default in %arguments, or set {name} in the options of every variant"
                raise RecipeError(f"{file}:{number}: {{{{ {name} }}}} has no value", hint=hint)
        keys[match[1].lower()] = _VARIABLE.sub(lambda found: values[found[1]], match[2])
    return Stage(start + 1, keys, head + 1)


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    section = ""
    for line in lines:
        if match := _SECTION.match(line):
            section = match[1].lower()
        elif section == "arguments" and "=" in (text := line.strip()) and not text.startswith("#"):
            name, _, value = text.partition("=")
            found[name.strip()] = value.strip().strip("\"'")
    return found
