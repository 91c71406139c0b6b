"""Tables of TOML into the nouns of a recipe: every problem is noted with its line, none stops the reading."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from computeops.errors import did_you_mean
from computeops.recipe.lines import Key
from computeops.recipe.model import BUILDERS, ON_DEBIAN, SOURCES, Build, Source, Test, Variant
from computeops.spdx import license_fault

_MOST_PROBLEMS = 100


class Reader:
    """Turns tables into structs and collects problems instead of stopping at the first."""

    def __init__(
        self, file: str, lines: Mapping[Key, int], folder: Path | None, builders: Sequence[str] | None
    ) -> None:
        self.problems: list[tuple[int, str]] = []
        self._file = file
        self._lines = lines
        self._folder = folder
        self._builders = builders

    def sorted(self) -> list[str]:
        """Return the problems in the order of the file."""
        return [f"{self._file}:{line}: {text}" for line, text in sorted(self.problems, key=lambda one: one[0])]

    @property
    def is_full(self) -> bool:
        """Whether there are as many problems as anybody will read."""
        return len(self.problems) >= _MOST_PROBLEMS

    def problem(self, at: Key, value: Any, what: str) -> None:
        """Note one problem at the key `at`."""
        if self.is_full:
            return
        near = at
        while near and near not in self._lines:
            near = near[:-1]
        key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        shown = "" if value is _ABSENT else f" = {_short(value)}"
        self.problems.append((self._lines.get(near, 1), f"{key[:160]}{shown}: {what}"))

    def struct(self, kind: type[Struct], table: Any, at: Key) -> Struct | None:
        """Return `table` as a `kind`, or None after noting what is wrong with it."""
        if not isinstance(table, dict):
            self.problem(at, table, f"must be a table, [{'.'.join(map(str, at))}]")
            return None
        if kind is Source:
            found = [key for key in SOURCES if key in table]
            if len(found) != 1:
                self.problem(at, _ABSENT, f"must have exactly one of {', '.join(SOURCES)}")
                return None
            kind = SOURCES[found[0]]
        fields = {one.name: one for one in msgspec.structs.fields(kind)}
        before = len(self.problems)
        for key in table:
            if key not in fields and not self.is_full:
                hint = did_you_mean(key, fields) or f"; there are: {', '.join(fields)}"
                self.problem((*at, key), _ABSENT, f"unknown key{hint}")
        values: dict[str, Any] = {}
        for name, one in fields.items():
            if name in table:
                values[name] = self.value(one.type, table[name], (*at, name))
            elif one.required:
                self.problem((*at, name), _ABSENT, f"is missing: must be {_wanted(one.type)}")
        if len(self.problems) > before:
            return None
        made = kind(**values)
        if isinstance(made, Build):
            for key, value, what in _build_rules(made):
                self.problem((*at, key), value, what)
        return made

    def value(self, kind: Any, value: Any, at: Key) -> Any:
        """Return `value` as a `kind`: a struct, a list of structs or a leaf."""
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self.struct(kind, value, at)
        (element, *_) = get_args(kind) if get_origin(kind) is tuple else (None,)
        if element is None:
            return self._leaf(kind, value, at)
        if not isinstance(value, list):
            table = isinstance(element, type) and issubclass(element, Struct)
            self.problem(at, value, f"must be a list of tables, [[{at[-1]}]]" if table else "must be a list of texts")
            return None
        if element in {Variant, Test}:
            self._unique(value, at)
        return tuple(self.value(element, one, (*at, i)) for i, one in enumerate(value))

    def _unique(self, tables: list[Any], at: Key) -> None:
        seen: set[str] = set()
        for i, table in enumerate(tables):
            name = table.get("name") if isinstance(table, dict) else None
            if not isinstance(name, str):
                continue
            if name in seen:
                self.problem((*at, i, "name"), name, f"there is another of this name among the {at[-1]}")
            seen.add(name)

    def _leaf(self, kind: Any, value: Any, at: Key) -> Any:
        try:
            made = msgspec.convert(value, kind, strict=True)
        except (msgspec.ValidationError, TypeError):
            self.problem(at, value, f"must be {_wanted(kind)}")
            return None
        for meta in getattr(kind, "__metadata__", ()):
            if fault := self._check((meta.extra or {}).get("check", ""), made):
                self.problem(at, value, fault)
        return made

    def _check(self, rule: str, value: Any) -> str:
        """Return what `rule` finds wrong with `value`, or ""."""
        if rule == "license":
            return license_fault(value)
        if rule == "inside":
            return _path_fault(value, self._folder)
        if rule == "address":
            return _address_fault(value)
        if rule == "builder" and self._builders is not None and value not in self._builders:
            known = [*self._builders, *_installed()]
            if value not in known:
                return f"there is no such builder{did_you_mean(value, known)}; there are: {', '.join(known)}"
        return ""


def _installed() -> list[str]:
    """Return the builders of other packages."""
    # costs 30 ms: only asked for what is not one of ours
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group="computeops.build")})


_ABSENT = object()


def _short(value: Any) -> str:
    """Return `value` nearly as TOML writes it, at most 80 characters."""
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _wanted(kind: Any) -> str:
    if kind is bool:
        return "true or false"
    for meta in getattr(kind, "__metadata__", ()):
        if meta.description:
            (example,) = meta.examples or [""]
            quoted = f'"{example}"' if isinstance(example, str) and example[:1] not in "[{" else str(example)
            what = meta.description
            what = what if what.startswith(("a ", "an ", "the ")) or kind.__origin__ is not str else f"a text: {what}"
            return f"{what}, for example {quoted}"
    return "a table" if isinstance(kind, type) and issubclass(kind, Struct) else "a text"


def _build_rules(build: Build) -> Iterator[tuple[str, Any, str]]:
    """What one key's type cannot say: key, value, problem."""
    if build.builder in ON_DEBIAN:
        if not build.suite:
            yield "suite", _ABSENT, 'is missing: must be a Debian suite, for example "bookworm"'
        if build.build_packages and not build.file:
            yield "build_packages", _ABSENT, "are for a build.sh: set build.file too"
    if build.builder in BUILDERS and build.builder != "debian" and not build.file:
        what = f'is missing: must be what "{build.builder}" builds, for example "Dockerfile" or "a.def"'
        yield "file", _ABSENT, what
    if build.builder in BUILDERS and build.builder not in ON_DEBIAN:
        for key in ("suite", "packages", "build_packages", "snapshot"):
            if value := getattr(build, key):
                yield key, value, f'is for the builder "debian", not "{build.builder}"'


def _address_fault(text: str) -> str:
    try:
        parts = urlsplit(text)
        secret = parts.password is not None or (parts.scheme != "ssh" and parts.username is not None)
    except ValueError as error:
        return f"is not an address: {error}"
    return "must not have a user or password in it: a recipe is public" if secret else ""


def _path_fault(text: str, folder: Path | None) -> str:
    parts = PurePosixPath(text).parts
    if ".." in parts or not parts:
        return "must name something inside the recipe's folder, without .."
    if folder is None:
        return ""
    target = folder / text
    if not target.resolve().is_relative_to(folder.resolve()):
        return "leads out of the recipe's folder by a symbolic link"
    return "" if target.exists() else "there is no such file beside the recipe"
