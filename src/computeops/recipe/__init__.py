"""The recipe: `computeops.toml`, the model of one release and how it is built, run and tested.

`load` reads one and reports every problem it finds at once, each with file, line, key, value and what to write instead.
`model` documents the format.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from computeops.errors import LimitError, NotFoundError, RecipeError
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe.lines import lines_of, too_deep
from computeops.recipe.model import (
    BESIDE,
    BUILDERS,
    FILE_NAME,
    ON_DEBIAN,
    SOURCES,
    Build,
    DebianSource,
    GitSource,
    Maintainer,
    Package,
    PathSource,
    PypiSource,
    Recipe,
    Requires,
    Run,
    Source,
    Test,
    UrlSource,
    Variant,
)
from computeops.recipe.reader import Reader

__all__ = [
    "BESIDE",
    "BUILDERS",
    "FILE_NAME",
    "ON_DEBIAN",
    "Build",
    "DebianSource",
    "GitSource",
    "Maintainer",
    "Package",
    "PathSource",
    "PypiSource",
    "Recipe",
    "Requires",
    "Run",
    "Source",
    "Test",
    "UrlSource",
    "Variant",
    "build_files",
    "digest",
    "load",
    "parse",
    "schema",
]


def load(path: Path, *, builders: Sequence[str] = BUILDERS) -> Recipe:
    """Read and check the recipe at `path`, a computeops.toml or the folder that has one.

    Raises:
        RecipeError: one line for each problem.
        NotFoundError: there is no such file.
        LimitError: it is larger than `LIMITS.recipe_bytes`.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.recipe_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no recipe {file}", hint="computeops new NAME writes one") from None
    return parse(data, file=str(file), folder=file.parent, builders=builders)


def parse(
    data: bytes, *, file: str = FILE_NAME, folder: Path | None = None, builders: Sequence[str] | None = BUILDERS
) -> Recipe:
    """Read and check the bytes of a recipe; with `folder`, also that the files it names are there.

    `builders`: those that it may name, beside those of other packages; None: any.

    Raises:
        RecipeError: one line for each problem, `file` in front.
        LimitError: it is larger than `LIMITS.recipe_bytes`.
    """
    if len(data) > LIMITS.recipe_bytes:
        raise LimitError(f"{file}: larger than {LIMITS.recipe_bytes} bytes")
    text, table = _toml(data, file)
    reader = Reader(file, lines_of(text), folder, builders)
    recipe = reader.struct(Recipe, table, ())
    if reader.problems:
        raise RecipeError(
            "\n".join(reader.sorted()),
            hint="`computeops schema` prints all keys, docs/reference/recipe.md describes them",
        )
    assert isinstance(recipe, Recipe)
    return recipe


def build_files(folder: Path, recipe: Recipe) -> list[str]:
    """Return the names of the files that say how the root filesystem is made: the build file, and what goes with it."""
    beside = [one for one in BESIDE.get(recipe.build.builder, ()) if (folder / one).is_file()]
    return [recipe.build.file, *beside] if recipe.build.file else beside


def digest(folder: Path) -> Digest:
    """Return the digest of the recipe in `folder`: over computeops.toml and its build files.

    It is the SHA-256 of one line `sha256  name` for each, sorted by name, as `sha256sum` prints them.
    """
    recipe = load(folder)
    names = sorted({FILE_NAME, *build_files(folder, recipe)})
    lines = [f"{Digest.of((folder / name).read_bytes()).hex}  {name}\n" for name in names]
    return Digest.of("".join(lines).encode())


def schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the recipe."""
    kinds = list(SOURCES.values())
    (top, *_), parts = msgspec.json.schema_components([Recipe, *kinds], ref_template="#/$defs/{name}")
    for part in parts.values():
        part["additionalProperties"] = False
    parts["Source"] = {
        "title": "Source",
        "description": Source.__doc__,
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE_NAME, **top, "$defs": parts}


def _toml(data: bytes, file: str) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{file}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from None
    text = text.replace("\r\n", "\n")
    if line := too_deep(text, LIMITS.json_depth):
        raise RecipeError(f"{file}:{line}: a key of more than {LIMITS.json_depth} names")
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{file}: nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        message = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        where = f":{place[1]}:{place[2]}" if place else ""
        raise RecipeError(f"{file}{where}: {message[: place.start()] if place else message[:200]}") from None
