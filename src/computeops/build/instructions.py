"""Which images a Dockerfile takes files from: FROM, COPY --from, ADD --from and RUN --mount=from.

Reference: https://docs.docker.com/reference/dockerfile/. Only what names an image is understood here; Buildah reads the
rest.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from computeops.errors import RecipeError
from computeops.limits import LIMITS

_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_FROM = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its lines joined."""

    line: int
    word: str
    """In upper case."""
    rest: str


def images(text: str, options: Mapping[str, str], file: str = "Dockerfile") -> list[tuple[str, str]]:
    """Return each image of the Dockerfile `text` as it is written and with its variables replaced.

    `options` are build arguments; they win over the defaults of ARG.

    Raises:
        RecipeError: a FROM has no image, or a variable in it has no value.
    """
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, str] = {}
    for one in instructions(text):
        if one.word == "ARG" and not stages:
            name, _, default = one.rest.partition("=")
            arguments[name] = options.get(name, _plain(expand(default, arguments)))
        elif one.word == "FROM":
            match = _FROM.fullmatch(one.rest)
            if match is None:
                raise RecipeError(f"{file}:{one.line}: not an image: FROM {one.rest[:80]}")
            image = expand(_plain(match[1]), arguments)
            if not image:
                hint = "give the ARG before it a default, or set it in the options of every variant"
                raise RecipeError(f"{file}:{one.line}: FROM {match[1]} has no value", hint=hint)
            if image.lower() not in stages and image.lower() != "scratch":
                found[_plain(match[1])] = image
            stages.add((match[2] or "scratch").lower())
        elif one.word in {"COPY", "ADD", "RUN"}:
            named = _sources(one.rest)
            found |= {image: image for image in named if image.lower() not in stages and not image.isdigit()}
    if not stages:
        raise RecipeError(f"{file}: has no FROM")
    return list(found.items())


def _sources(rest: str) -> Iterator[str]:
    """Yield the images of `--from=IMAGE` and `--mount=...,from=IMAGE,...` before the first other word."""
    for word in rest.split():
        option, _, value = word.partition("=")
        if not option.startswith("--"):
            return
        parts = [word[2:]] if option == "--from" else value.split(",") if option == "--mount" else []
        yield from (part.removeprefix("from=") for part in parts if part.startswith("from="))


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile; comments and the bodies of here-documents are left out."""
    lines = iter(enumerate(text.splitlines(), 1))
    escape = "\\"
    for number, line in lines:
        if directive := _ESCAPE.fullmatch(line.strip()):
            escape = directive[1]
        parts = [line.strip()]
        if not parts[0] or parts[0].startswith("#"):
            continue
        while parts[-1].endswith(escape):
            _, more = next(lines, (0, ""))
            if not more.strip().startswith("#"):
                parts[-1:] = [parts[-1].removesuffix(escape), more.strip()]
        word, rest = [*" ".join(parts).split(maxsplit=1), "", ""][:2]
        yield Instruction(number, word.upper(), rest)
        if word.upper() in {"RUN", "COPY", "ADD"}:
            for _, end in _HEREDOC.findall(rest):
                for _, body in lines:
                    if body.strip() == end:
                        break


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$NAME`, `${NAME}`, `${NAME:-DEFAULT}` and `${NAME:+OTHER}` in `text`.

    Raises:
        RecipeError: their values are longer than any name, as where each is twice the one before.
    """
    left = LIMITS.path_bytes

    def value(match: re.Match[str]) -> str:
        nonlocal left
        found = values.get(match[1] or match[2], "")
        if match[3] == "-":
            found = found or match[4]
        elif match[3] == "+":
            found = match[4] if found else ""
        left -= len(found)
        if left < 0:
            raise RecipeError(f"the variables in {text[:80]!r} are longer than {LIMITS.path_bytes} characters")
        return found

    return _VARIABLE.sub(value, text)


def _plain(text: str) -> str:
    """Return a word without the quotes around it."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
