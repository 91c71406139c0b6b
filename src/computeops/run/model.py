"""The nouns of jobs: Array, Job, Plan, Phase, State, Seen, and the Scheduler that takes jobs."""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self, runtime_checkable

from computeops.errors import UsageError
from computeops.limits import LIMITS

_ARRAY = re.compile(r"(?:(\d+)-)?(\d+)(?:%(\d+))?", re.ASCII)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPAN = re.compile(r"(\d+)([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SINGLE = 0
"""The number of the only task of a job that is no array."""


@dataclass(frozen=True, slots=True)
class Array:
    """Tasks `first` to `last` of one job, each with its number in COMPUTEOPS_TASK_ID."""

    first: int
    last: int
    at_once: int = 0
    """How many may run at the same time; 0: as many as there is room for."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `N` (tasks 1 to N), `A-B`, each with `%K` behind for K at once.

        Raises:
            UsageError: it does not follow the grammar, or there are too many tasks.
        """
        match = _ARRAY.fullmatch(text)
        if match is None:
            raise UsageError(f"--array {text!r}: not a range of tasks", hint="write 100, 1-100 or 1-100%10")
        found = cls(int(match[1] or 1), int(match[2]), int(match[3] or 0))
        if not 0 < found.first <= found.last or match[3] == "0":
            raise UsageError(f"--array {text!r}: tasks are numbered from 1 upwards, and %K is at least 1")
        if found.size > LIMITS.array_tasks or found.last >= 1 << 31:
            raise UsageError(f"--array {text!r}: more than {LIMITS.array_tasks} tasks")
        return found

    @property
    def size(self) -> int:
        """The number of tasks."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What shall run, and what it needs; values of variables are no part of it."""

    name: str
    """As its owner wrote it; schedulers get `label`."""
    command: tuple[str, ...]
    """Program and arguments, on the machine that computes."""
    cwd: str
    """Folder that the command starts in."""
    image: str = ""
    """The image: a file, or for schedulers that start containers themselves a name in a registry, with its digest."""
    inside: tuple[str, ...] = ()
    """What such schedulers start in it: the image's own command and the arguments."""
    nodes: int = 1
    tasks: int = 1
    """Processes that are started together, as MPI programs want."""
    cpus: int = 1
    """CPUs of each task."""
    gpus: int = 0
    """GPUs on each node."""
    memory: int = 0
    """MiB on each node; 0: what the scheduler gives."""
    seconds: int = 0
    """Time that it may run; 0: what the scheduler gives."""
    array: Array | None = None
    after: tuple[str, ...] = ()
    """Ids of jobs that must have succeeded before."""
    env: tuple[str, ...] = ()
    """Names of the variables that the program gets."""
    private: tuple[str, ...] = ()
    """Those of `env` whose values other people must not see."""
    stdin: str = ""
    """Absolute path of the file that the program reads; empty: nothing. In this and the next two, `{task}` is the
    number of the task."""
    stdout: str = ""
    """Absolute path of the file for its output; empty: the job's own logs."""
    stderr: str = ""
    volumes: tuple[str, ...] = ()
    """NAME:PATH[:ro]: storage of the scheduler that the container sees at PATH, for those that start containers."""
    retries: int = 0
    """How often it is started again when it fails."""
    queue: str = ""
    account: str = ""
    options: tuple[str, ...] = ()
    """More words for the scheduler's own command, as they are."""
    modules: tuple[str, ...] = ()
    """Environment modules of the site that are loaded before the program starts."""

    @property
    def numbers(self) -> range:
        """The numbers of its tasks."""
        return range(self.array.first, self.array.last + 1) if self.array else range(SINGLE, SINGLE + 1)


class Phase(enum.StrEnum):
    """How far a task has come."""

    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    """It waits, and will not start unless somebody does something."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    """It left the queue and nothing tells how it ended. Never taken for success."""
    UNKNOWN = "unknown"
    """The scheduler does not answer, or not yet."""

    @property
    def ended(self) -> bool:
        """Whether it will stay so."""
        return self not in {Phase.WAITING, Phase.RUNNING, Phase.HELD, Phase.UNKNOWN}


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one task."""

    phase: Phase
    code: int | None = None
    """Exit code, where the program had one."""
    reason: str = ""

    @classmethod
    def of_code(cls, code: int, reason: str = "") -> Self:
        """Return the state of a task that ended with exit code `code`."""
        return cls(Phase.FAILED if code else Phase.SUCCEEDED, code, reason)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is handed over: nothing has been started yet."""

    argv: tuple[str, ...]
    """The scheduler's own command, to be run in the job's folder."""
    files: Mapping[str, str]
    """Name to text of the files that it reads there."""
    stdin: str = ""
    """Name of the one that it reads from standard input."""
    passes: tuple[str, ...] = ()
    """Beginnings of the names of variables that the command itself needs."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job that was handed to a scheduler, or is about to be."""

    id: str
    """Our name for it, part of its name in the scheduler, so that it is found there even if the answer got lost."""
    on: str
    """The scheduler."""
    job: Job
    created: float
    """Seconds since 1970."""
    folder: Path
    """Where its script, logs and exits lie; seen by the machines that compute."""
    native: str = ""
    """The scheduler's name for it; empty: not known that it was accepted."""
    cancelled: bool = False
    """Whether its owner wanted it to end."""

    @property
    def label(self) -> str:
        """Its name in the scheduler: harmless characters, a letter in front, the id at the end."""
        return label(self.job.name, self.id)


def label(name: str, identity: str, length: int = 60) -> str:
    """Return `NAME-ID` of at most `length` characters that no scheduler and no shell takes for anything else."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
    if not plain[:1].isalpha():
        plain = f"job-{plain}".rstrip("-")
    return f"{plain[: length - len(identity) - 1]}-{identity}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scheduler says about one job."""

    native: str = ""
    tasks: Mapping[int, State] = field(default_factory=lambda: MappingProxyType({}))
    rest: State | None = None
    """The state of the tasks that are not listed; None: the scheduler does not know them."""


class Scheduler(Protocol):
    """A module that hands jobs to a scheduler. Only `submit`, `states` and `cancel` start anything."""

    SHOWS_ENV: bool
    """Whether other people can read the variables of a job in its queue."""
    STARTS_CONTAINERS: bool
    """Whether it fetches and starts images itself."""

    def available(self) -> str:
        """Return "" if its commands are here, else why not."""
        ...

    def script(self, record: Record, after: Sequence[Record]) -> Plan:
        """Return how `record` is handed over, to start once all of `after` succeeded.

        Raises:
            UsageError: the job asks for something that this scheduler does not have.
        """
        ...

    def submit(self, record: Record, plan: Plan, env: Mapping[str, str]) -> str:
        """Hand it over and return the scheduler's name for it. The files of `plan` are there already.

        Raises:
            SchedulerError: it was not accepted, or nobody knows.
        """
        ...

    def states(self, records: Sequence[Record]) -> Mapping[str, Seen]:
        """Return, by id, what queue and accounting know of `records`, in few commands whatever their number.

        Raises:
            SchedulerError: it does not answer.
        """
        ...

    def cancel(self, record: Record) -> None:
        """End all its tasks that have not ended.

        Raises:
            SchedulerError: it does not answer; where all have ended already, it may say so.
        """
        ...


@runtime_checkable
class Fetching(Scheduler, Protocol):
    """A scheduler whose machines share no file system with ours: it keeps the output of jobs itself."""

    def fetch(self, record: Record) -> None:
        """Bring the output of its tasks into `logs`, as far as it has come.

        Raises:
            SchedulerError: it does not answer.
        """
        ...


def is_variable(name: str) -> bool:
    """Return whether a variable of an environment may be called so in every shell."""
    return _VARIABLE.fullmatch(name) is not None


def volume(text: str) -> tuple[str, str, bool]:
    """Return name, place in the container, and whether it is read-only, of `NAME:PATH[:ro]`.

    Raises:
        UsageError: it does not follow the grammar.
    """
    name, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not name or not path.startswith("/") or mode not in {"", "ro", "rw"}:
        raise UsageError(f"--volume {text!r}: not a volume", hint="write NAME:/PATH[:ro]")
    return name, path, mode == "ro"


def memory(text: str) -> int:
    """Return MiB of `512M`, `4G`, `1.5T`; a bare number is MiB.

    Raises:
        UsageError: it is no size.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"--memory {text!r}: not a size", hint="write for example 512M or 4G")
    factor = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024**2}[match[2].upper()]
    return max(1, round(float(match[1]) * factor))


def seconds(text: str) -> int:
    """Return the seconds of `90m`, `1h30m`, `2d`, `HH:MM[:SS]` or `D-HH:MM:SS`; a bare number is minutes.

    Raises:
        UsageError: it is no span of time.
    """
    if (match := _TIME.fullmatch(text)) is not None:
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif text.isascii() and text.isdigit():
        total = int(text) * 60
    else:
        total = sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text)) if _spans(text) else 0
    if not 0 < total < 1 << 31:
        raise UsageError(f"--time {text!r}: not a span of time", hint="write for example 30m, 1h30m or 02:00:00")
    return total


def _spans(text: str) -> bool:
    return re.fullmatch(rf"(?:{_SPAN.pattern})+", text, re.ASCII) is not None
