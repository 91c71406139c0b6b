"""The recipe: `computeops.toml`, the model of one release and how it is built, run and tested.

`load` reads one and reports every problem it finds at once, each with file, line, key, value and what to write instead.
The structs below are the documentation of the format: `schema` turns them into a JSON schema for editors.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from computeops.errors import LimitError, NotFoundError, RecipeError, did_you_mean
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.spdx import license_fault
from computeops.toml_lines import Key, lines_of

FILE_NAME = "computeops.toml"
BUILDERS = ("debian", "dockerfile", "apptainer", "python", "conda", "guix", "spack")
"""The builders that come with ComputeOps."""
ON_DEBIAN = ("debian", "python", "conda", "spack")
"""Those that begin with packages of Debian."""
BESIDE = {"guix": ("channels.scm",)}
"""What a builder reads beside its build file, where it is there."""

_END = r"$(?!\n)"


_MOST_PROBLEMS = 100


def _text(shape: str, what: str, example: str, check: str = "", most: int | None = None) -> Meta:
    """A text of `shape` and at most `most` characters; `check` names a rule that a pattern cannot say."""
    return Meta(
        pattern=rf"^{shape}{_END}", max_length=most, description=what, examples=[example], extra={"check": check}
    )


# What steers a terminal, or makes a text look like another, is in no text: C0 and C1 controls, directions of writing.
_CONTROLS = r"\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff"
_FREE = rf"[^\x00-\x08\x0b-\x1f{_CONTROLS}]*"
Line = Annotated[
    str, _text(rf"(?=.*\S)[^\x00-\x1f{_CONTROLS}]+", "a text of one line", "Tools for sequencing data", most=1000)
]
Script = Annotated[str, _text(_FREE, "a text", "samtools --version")]
Name = Annotated[
    str,
    _text(
        r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*",
        "at most 128 lower case letters, digits and single . _ - between",
        "samtools",
        most=128,
    ),
]
Version = Annotated[str, _text(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", "a text of letters, digits and . _ + -", "1.21")]
License = Annotated[str, _text(r"[A-Za-z0-9.+:() -]+", "an SPDX licence expression", "MIT OR Apache-2.0", "license")]
WebAddress = Annotated[str, _text(r"https?://[!-.0-~][!-~]*", "a web address", "https://www.htslib.org", "address")]
Address = Annotated[
    str,
    _text(
        r"(?:https?|file)://[!-~]+",
        "an https, http or file address",
        "https://example.org/samtools-1.21.tar.bz2",
        "address",
    ),
]
GitAddress = Annotated[
    str,
    _text(
        r"(?:https?|ssh|file)://[!-,.-~][!-~]*",
        "the address of a git repository",
        "https://github.com/samtools/samtools",
        "address",
    ),
]
Sha256 = Annotated[str, _text(r"[0-9a-f]{64}", "64 lower case hex digits", "e3b0c442...")]
Commit = Annotated[str, _text(r"[0-9a-f]{40}", "the 40 hex digits of a commit", "8d1c56f5...")]
Inside = Annotated[
    str,
    _text(
        rf"[^/\x00-\x1f{_CONTROLS}][^\x00-\x1f{_CONTROLS}]*", "a path inside the recipe's folder", "build.sh", "inside"
    ),
]
Email = Annotated[str, _text(r"[!-;=?A-~]+@[!-;=?A-~]+", "an e-mail address", "ada@example.org")]
Orcid = Annotated[str, _text(r"[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]", "an ORCID iD", "0000-0002-1825-0097")]
Doi = Annotated[
    str, _text(r"10\.[0-9]{4,9}/[!-~]+", "a DOI without https://doi.org/ in front", "10.1093/gigascience/giab008")
]
Suite = Annotated[str, _text(r"[a-z][a-z0-9-]*", "a Debian suite", "bookworm")]
DebianPackage = Annotated[str, _text(r"[a-z0-9][a-z0-9+.-]+", "the name of a Debian package", "libhts3")]
DebianVersion = Annotated[str, _text(r"[0-9][A-Za-z0-9.+:~-]*", "the version of a Debian source package", "1.16.1-1")]
PythonPackage = Annotated[
    str, _text(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "the name of a Python package", "cutadapt")
]
Snapshot = Annotated[str, _text(r"[0-9]{8}T[0-9]{6}Z", "a time as snapshot.debian.org writes it", "20250520T000000Z")]
Cpu = Annotated[str, _text(r"[a-z0-9_]+", "an archspec CPU name", "x86_64_v3")]
Gpu = Annotated[str, _text("(?:nvidia|amd|intel|xilinx)", "nvidia, amd, intel or xilinx", "nvidia")]
Variable = Annotated[str, _text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable", "CFLAGS")]
Variables = Annotated[
    dict[Variable, Script], Meta(description="a table of names and texts", examples=['{ CFLAGS = "-O3" }'])
]
Program = Annotated[
    str, _text(rf"[^\s/\x00-\x1f{_CONTROLS}-][^\s/\x00-\x1f{_CONTROLS}]*", "the name of a program", "samtools")
]
Constraint = Annotated[
    str,
    _text(
        r"[A-Za-z0-9_.-]*(?:(?:>=|<=|==|>|<)[0-9][0-9A-Za-z.]*(?:,(?!$)|$))*",
        "a name, a range of versions, or both",
        "openmpi>=4",
    ),
]


class Package(Struct, frozen=True, kw_only=True):
    """What the release is; names follow CodeMeta and CITATION.cff where they have a word."""

    name: Name
    version: Version
    summary: Line
    license: License
    """SPDX expression; its grammar is checked, not whether SPDX lists each identifier."""
    homepage: WebAddress = ""
    domains: tuple[Name, ...] = ()
    citation: Doi = ""


class Maintainer(Struct, frozen=True, kw_only=True):
    """Who answers for the release."""

    name: Line
    email: Email = ""
    orcid: Orcid = ""


class Source(Struct, frozen=True):
    """One input that is archived with the release, so that it can be rebuilt from zero."""


class UrlSource(Source, frozen=True, kw_only=True):
    """A file on the web, pinned by its digest."""

    url: Address
    sha256: Sha256


class GitSource(Source, frozen=True, kw_only=True):
    """One commit of a git repository, archived as a tar file."""

    git: GitAddress
    commit: Commit


class PathSource(Source, frozen=True, kw_only=True):
    """A file or folder beside the recipe; a folder is archived as a tar file."""

    path: Inside
    sha256: Sha256 = ""


class DebianSource(Source, frozen=True, kw_only=True):
    """A Debian source package: its .dsc and tar files."""

    debian: DebianPackage
    version: DebianVersion


class PypiSource(Source, frozen=True, kw_only=True):
    """The source distribution of a Python package."""

    pypi: PythonPackage
    version: Version


_SOURCES: Mapping[str, type[Source]] = {
    "url": UrlSource,
    "git": GitSource,
    "path": PathSource,
    "debian": DebianSource,
    "pypi": PypiSource,
}


class Build(Struct, frozen=True, kw_only=True):
    """How the root filesystem is made."""

    builder: Annotated[str, _text(r"[A-Za-z0-9_.-]+", "the name of a builder", "debian", "builder")]
    file: Inside = ""
    """Definition file, Dockerfile or build.sh; `debian` needs none."""
    suite: Suite = ""
    """`debian`: the release of Debian."""
    components: tuple[Suite, ...] = ("main",)
    """`debian`: the parts of the archive to take packages from."""
    packages: tuple[DebianPackage, ...] = ()
    """`debian`: what the image has, beside Debian's essential packages."""
    build_packages: tuple[DebianPackage, ...] = ()
    """`debian`: what build.sh needs; removed again after it."""
    snapshot: Snapshot = ""
    """`debian`: the time at which the archive is looked at; empty: now, and the lock file keeps what was found."""
    network: bool = False
    """Whether the build file may use the network; what it fetches is then not pinned."""


class Run(Struct, frozen=True, kw_only=True):
    """What the image does when it is run."""

    command: Annotated[tuple[Script, ...], Meta(description="a list of texts", examples=['["samtools"]'])] = ()
    programs: tuple[Program, ...] = ()
    """Other programs of the image that may be named first on the command line."""
    env: Variables = field(default_factory=dict)


class Variant(Struct, frozen=True, kw_only=True):
    """One target of the release."""

    name: Name
    cpu: Cpu = ""
    gpu: Gpu = ""
    """The GPU that it was made for; wins over `gpu` of [requires]."""
    driver: Constraint = ""
    """The versions of that GPU's driver; wins over `driver` of [requires]."""
    options: Variables = field(default_factory=dict)
    """Environment of build.sh, build arguments of a Dockerfile or definition file."""


class Requires(Struct, frozen=True, kw_only=True):
    """What the host must have."""

    gpu: Gpu = ""
    driver: Constraint = ""
    mpi: Constraint = ""
    x11: bool = False


class Test(Struct, frozen=True, kw_only=True):
    """A command that is run inside the image and must succeed; the same tests validate it at a site."""

    name: Line
    run: Script
    """Shell text."""
    expect: Script = ""
    """Text that the output must contain."""
    expect_exit: Annotated[int, Meta(ge=0, le=255, description="an exit code from 0 to 255", examples=[0])] = 0
    timeout: Annotated[int, Meta(ge=1, le=86400, description="a number of seconds from 1 to 86400", examples=[300])] = (
        300
    )


class Recipe(Struct, frozen=True, kw_only=True):
    """A whole computeops.toml."""

    package: Package
    build: Build
    maintainers: tuple[Maintainer, ...] = ()
    sources: tuple[Source, ...] = ()
    run: Run = field(default_factory=Run)
    variants: tuple[Variant, ...] = ()
    requires: Requires = field(default_factory=Requires)
    tests: tuple[Test, ...] = ()

    def variant(self, name: str) -> Variant | None:
        """Return the variant called `name`; None for "", the generic one.

        Raises:
            NotFoundError: there is no such variant.
        """
        if not name:
            return None
        for one in self.variants:
            if one.name == name:
                return one
        known = [one.name for one in self.variants]
        raise NotFoundError(
            f"the recipe has no variant {name!r}{did_you_mean(name, known)}",
            hint=f"there are: {', '.join(known)}" if known else "it has no variants",
        )


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
    return parse(data, file=file.name, folder=file.parent, builders=builders)


def parse(
    data: bytes, *, file: str = FILE_NAME, folder: Path | None = None, builders: Sequence[str] = BUILDERS
) -> Recipe:
    """Read and check the bytes of a recipe; with `folder`, also that the files it names are there.

    Raises:
        RecipeError: one line for each problem, `file` in front.
        LimitError: it is larger than `LIMITS.recipe_bytes`.
    """
    if len(data) > LIMITS.recipe_bytes:
        raise LimitError(f"{file}: larger than {LIMITS.recipe_bytes} bytes")
    text, table = _toml(data, file)
    reader = _Reader(file, lines_of(text), folder, builders)
    recipe = reader.struct(Recipe, table, ())
    if reader.problems:
        raise RecipeError("\n".join(reader.sorted()), hint="the keys are described in docs/reference/recipe.md")
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
    kinds = list(_SOURCES.values())
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
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise RecipeError(f"{file}: nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        message = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        where = f":{place[1]}:{place[2]}" if place else ""
        raise RecipeError(f"{file}{where}: {message[: place.start()] if place else message[:200]}") from None


class _Reader:
    """Turns tables into structs and collects problems instead of stopping at the first."""

    def __init__(self, file: str, lines: Mapping[Key, int], folder: Path | None, builders: Sequence[str]) -> None:
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
            found = [key for key in _SOURCES if key in table]
            if len(found) != 1:
                self.problem(at, _ABSENT, f"must have exactly one of {', '.join(_SOURCES)}")
                return None
            kind = _SOURCES[found[0]]
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
        if rule == "builder" and value not in self._builders:
            near = did_you_mean(value, self._builders)
            return f"there is no such builder{near}; there are: {', '.join(self._builders)}"
        return ""


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
