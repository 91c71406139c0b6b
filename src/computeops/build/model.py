"""The nouns of building: Place, Material, Lock, Job, Built, and the Protocol of a builder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, Self

import msgspec

from computeops.errors import FormatError, RecipeError
from computeops.image.tree import Tree
from computeops.model import Digest
from computeops.recipe import Recipe, Variant

LOCK_NAME = "computeops.lock"
LOCK_VERSION = 1


class Moving(str):
    """What `lint` says of inputs that move: it does not hold where a lock of the present recipe pins them."""

    __slots__ = ()


def moving(file: str, names: Sequence[str], what: str = "names no version of") -> list[Moving]:
    """Return the note that `file` leaves it open what `names` are, if there are any."""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return [Moving(f"{file} {what} {shown}: only the lock pins them")] if names else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and with what a build is done; chosen by the caller, never by the recipe."""

    work: Path
    """Folder for temporary trees, removed by the caller."""
    cache: Path
    """Folder that keeps fetched materials between builds."""
    mirror: str = ""
    pypi: str = ""
    epoch: int = 0
    """SOURCE_DATE_EPOCH of the build, seconds since 1970."""
    jobs: int = 0
    """CPUs to use; 0: all."""
    progress: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Material:
    """One pinned input of a build (SLSA v1, `resolvedDependencies`)."""

    name: str
    """File name, unique among the materials of its role."""
    uri: str
    digest: Digest
    size: int = 0
    """Bytes; 0: not known before it is fetched."""
    role: str = "source"
    """`source` (archived with the release), `package` (a .deb), `wheel` (of Python), `conda` (a package of
    conda), `base` (an image), `file` (beside the recipe)."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What a builder pinned: materials, and what else it needs to build the same again."""

    materials: tuple[Material, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Lock:
    """Every input of a build, pinned by digest: the file `computeops.lock` beside the recipe."""

    builder: str
    inputs: Digest
    """Digest of the parts of the recipe that decide what is built; another one makes the lock stale."""
    materials: tuple[Material, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def of_role(self, role: str) -> tuple[Material, ...]:
        """Return the materials with `role`."""
        return tuple(one for one in self.materials if one.role == role)

    def as_json(self) -> dict[str, Any]:
        """Return the lock as the JSON object of its file."""
        return {
            "version": LOCK_VERSION,
            "builder": self.builder,
            "inputs": str(self.inputs),
            "options": dict(self.options),
            "materials": [
                {"role": m.role, "name": m.name, "uri": m.uri, "digest": str(m.digest), "size": m.size}
                for m in self.materials
            ],
        }

    @classmethod
    def from_json(cls, data: bytes, where: str = LOCK_NAME) -> Self:
        """Read the bytes of a lock file.

        Raises:
            RecipeError: it is not one.
        """
        try:
            lock = msgspec.json.decode(data, type=_LockFile)
            materials = tuple(Material(m.name, m.uri, Digest.parse(m.digest), m.size, m.role) for m in lock.materials)
            return cls(lock.builder, Digest.parse(lock.inputs), materials, lock.options)
        except (msgspec.DecodeError, ValueError, RecursionError, FormatError) as error:
            raise RecipeError(f"{where}: not a lock file: {error}", hint="run `computeops lock` again") from error


class _MaterialEntry(msgspec.Struct, forbid_unknown_fields=True):
    role: Annotated[str, msgspec.Meta(pattern=r"^(source|package|wheel|conda|base|file)$(?!\n)")]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~%:@-]*$(?!\n)", max_length=255)]
    uri: Annotated[str, msgspec.Meta(max_length=4096)]
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0)]


class _LockFile(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    builder: str
    inputs: str
    options: dict[str, Any]
    materials: list[_MaterialEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One build, with all its materials on disk."""

    folder: Path
    """The recipe's folder."""
    recipe: Recipe
    variant: Variant | None
    lock: Lock
    files: Mapping[str, Path]
    """Role and name of a material, `role/name`, to its file in the cache."""
    place: Place

    @property
    def options(self) -> Mapping[str, str]:
        """The variant's options."""
        return self.variant.options if self.variant else {}

    def sources(self) -> Mapping[str, Path]:
        """Return the name and file of each archived source."""
        return {m.name: self.files[f"source/{m.name}"] for m in self.lock.of_role("source")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A root filesystem and how it wants to be run."""

    tree: Tree
    command: tuple[str, ...]
    env: Mapping[str, str]
    labels: Mapping[str, str]
    working_dir: str
    materials: tuple[Material, ...]
    log: Path


class Builder(Protocol):
    """A module of `computeops.build`, or an entry point in the group `computeops.build`."""

    def detect(self, folder: Path) -> str:
        """Return the name of the build file in `folder` that this builder understands, or ""."""
        ...

    def lint(self, folder: Path, recipe: Recipe) -> Sequence[str]:
        """Return what a user of the build file should know, without asking any server; a `Moving` is what a lock pins.

        Raises:
            RecipeError: the build file is wrong.
        """
        ...

    def lock(self, folder: Path, recipe: Recipe, place: Place, /) -> Pins:
        """Pin every input but the recipe's sources."""
        ...

    def build(self, job: Job) -> Built:
        """Make the root filesystem; equal jobs give equal trees.

        Raises:
            BuildError: the build file failed.
            MissingProgramError: the builder's program is not installed.
        """
        ...
