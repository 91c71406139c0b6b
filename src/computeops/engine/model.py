"""The nouns of starting a container: Bind, Request, Plan, and the Engine that makes one of the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self, runtime_checkable

from computeops.errors import UsageError

ACTIONS = ("run", "exec", "shell")
ABILITIES = {
    "isolated": "a container with a /tmp, /dev and home of its own",
    "no-home": "a container without the home folder",
    "read-only binds": "binds that cannot be written",
    "gpu nvidia": "NVIDIA GPUs",
    "gpu amd": "AMD GPUs",
    "gpu intel": "Intel GPUs",
    "gpu xilinx": "Xilinx accelerators",
    "gpu cdi": "devices that a CDI file describes",
    "mpi": "ranks of an MPI that the machine starts",
    "pmi": "ranks that reach their launcher by a file it opened for them, as MPICH and its family do",
    "writable": "an image that the program may write into",
    "x11": "windows on this machine's display",
}
"""What a request may ask for beyond the program itself: the word in `Engine.CAN`, and how people say it."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of this machine that the container sees."""

    source: Path
    target: str
    """Absolute path inside the container."""
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read `SRC[:DST[:ro|rw]]`; a colon in a path is written `\:`.

        Raises:
            UsageError: it does not follow the grammar, DST is not absolute, or SRC does not exist.
        """
        parts = [part.replace("\0", ":") for part in text.replace("\\:", "\0").split(":")]
        source, target, mode = [*parts, "", "", ""][:3]
        if len(parts) > 3 or not source or mode not in {"", "ro", "rw"}:
            raise UsageError(f"not a bind: {text!r}", hint=r"write SRC[:DST[:ro]], and \: for a colon in a path")
        path = Path(source).absolute()
        if target and not target.startswith("/"):
            raise UsageError(f"bind {text!r}: {target!r} is not an absolute path inside the container")
        if not path.exists():
            raise UsageError(f"bind {text!r}: there is no {path} on this machine")
        return cls(path, target or str(path), mode == "ro")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user wants of a container, in words that every engine understands."""

    action: str
    """`run` the image's own command, `exec` a program in it, or an interactive `shell`."""
    argv: tuple[str, ...] = ()
    """Arguments of the command (`run`), program and arguments (`exec`), arguments of the shell."""
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables that win over those of the image; this machine's other variables are inherited."""
    cwd: str = ""
    """Folder inside the container; empty: the caller's own."""
    gpu: str = "none"
    """`auto`, `nvidia`, `amd`, `intel`, `xilinx`, a CDI device VENDOR/CLASS=NAME, or `none`."""
    x11: bool = False
    """Whether the program opens windows on this machine's display."""
    mpi: str = "none"
    """`auto`, `host` (the machine's own in place of the image's), `none`, or how this process was started as a rank:
    `pmi`, `pmix`."""
    isolated: bool = False
    """Whether the container has /tmp, /dev and a home of its own."""
    writable: bool = False
    """Whether the program may write into the image, which stays as it is: what it writes is in memory, and lost."""
    home: bool = True
    """Whether the container sees the user's home."""

    @property
    def vendor(self) -> str:
        """Whose GPU it wants."""
        if "=" not in self.gpu:
            return self.gpu
        from computeops.engine import gpu

        return gpu.vendor(self.gpu)

    @property
    def asks(self) -> frozenset[str]:
        """The abilities that an engine must have for this; `gpu` and `mpi` are not `auto` any more."""
        wanted = {
            "isolated": self.isolated,
            "no-home": not self.home,
            "read-only binds": any(bind.read_only for bind in self.binds),
            f"gpu {self.vendor}": self.gpu not in {"none", "auto"},
            "mpi": self.mpi not in {"none", "auto"},
            "pmi": self.mpi == "pmi",
            "writable": self.writable,
            "x11": self.x11,
        }
        return frozenset(word for word, asked in wanted.items() if asked)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image in the form that an engine starts from."""

    image: Path
    """The file or folder that the user named."""
    path: Path
    """The SIF file, or the folder with the root filesystem."""
    accounts: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    """Path in the container to the file to lay over it: the image's accounts and the user's own."""
    name: str = ""
    """What the engine's own store calls it, for one that starts from nothing else."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the unpacked images are that the users of a site share, and whose they may be."""

    folder: Path
    owners: frozenset[int] = frozenset({0})
    """User ids of those who are believed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The process that is the container: nothing has been started yet."""

    engine: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


class Engine(Protocol):
    """A module that runs images."""

    TAKES: frozenset[str]
    """Forms it starts from: `tree` (a folder), `foreign tree` (one that another user owns), `sif`."""
    CAN: frozenset[str]
    """What it can do of `ABILITIES`."""
    BRINGS_GPUS: bool
    """Whether it finds devices and drivers itself; else they are among the binds."""

    def available(self) -> str:
        """Return "" if it works on this machine for this user, else why not."""
        ...

    def argv(self, image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return command and environment of the process that runs `request` in `image`.

        Raises:
            ComputeOpsError: the request cannot be carried out on this image.
        """
        ...


@runtime_checkable
class Storing(Engine, Protocol):
    """An engine that starts only what lies in a store of its own."""

    def stored(self, image: Prepared, cache: Path) -> Prepared:
        """Return `image` with its name in the store, handed over if it was not yet.

        Raises:
            EngineError: the store does not take it.
        """
        ...
