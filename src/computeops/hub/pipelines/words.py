"""What hub and worker tell each other, and the words for how far a pipeline and its steps have come."""

from typing import Annotated, Any

from msgspec import Meta, Struct

WAITING, RUNNING, PROVING = "waiting", "running", "proving"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
"""States that stay. `proving`: it is built and signed, and waits for others who rebuild it."""
BUILD, REBUILD = "build", "rebuild"
DONE = "done"
"""State of a step that ended well; the others are `running` and `failed`."""

Text = Annotated[str, Meta(max_length=4000)]
Name = Annotated[str, Meta(max_length=200)]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class Bounds(Struct, frozen=True, kw_only=True):
    """What one build may take."""

    seconds: int
    """Of one step."""
    memory: int
    """MiB of all its processes together."""
    disk: int
    """MiB in its folder."""
    log_bytes: int
    processes: int


class Source(Struct, frozen=True, kw_only=True):
    """What a pipeline begins with: a stored archive, a commit, or, to rebuild it, an image that was published."""

    archive: str = ""
    """Digest of a tar file that the repository has as a blob."""
    git: str = ""
    commit: str = ""
    folder: str = ""
    """Of the recipe, inside the archive or the commit."""
    image: str = ""
    """Digest of the manifest that is to be rebuilt."""


class Worker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks for work."""

    key: Annotated[str, Meta(max_length=256 * 1024)]
    """Public halves of the key that signs what it builds."""
    machine: Name = ""
    """Which boot of which machine, so that the hub can tell whether it is its own."""
    uid: int = -1
    builder: Name = ""
    """Version of the program."""


class Task(Struct, frozen=True, kw_only=True):
    """A pipeline that a worker got."""

    id: int
    kind: str
    lease: str
    repository: str
    source: Source
    bounds: Bounds
    network: bool
    """Whether a build file may reach the network."""
    private: bool
    """Whether sources may come from machines of the own network."""
    log_bytes: int = 0
    """How much of its log the hub has already."""
    archive_bytes: int = 0
    """Size of the archive."""


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far one step is."""

    name: Annotated[str, Meta(max_length=100)]
    state: Annotated[str, Meta(pattern=r"^(running|done|failed)\Z")]
    began: Annotated[int, Meta(ge=0, lt=1 << 60)]
    """Milliseconds since 1970."""
    seconds: Annotated[float, Meta(ge=0, lt=1 << 31)] = 0.0
    facts: dict[Name, Any] = {}


class Made(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variant that was pushed, by its digests."""

    variant: Annotated[str, Meta(max_length=128)]
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}\Z")]
    """The recipe's version with the variant behind: what it will be called."""
    manifest: Digest
    image: Digest
    """Of its config."""


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker says about a pipeline that it holds."""

    lease: Name
    steps: Annotated[list[Step], Meta(max_length=2000)] = []
    """Those that changed since the last report."""
    log_at: Annotated[int, Meta(ge=0, lt=1 << 60)] = 0
    """Where `log` begins."""
    log: bytes = b""
    version: Annotated[str, Meta(max_length=128)] = ""
    locked: bool = False
    made: Annotated[list[Made], Meta(max_length=1000)] = []
    """With `publish`: what is to be published; it is all signed and pushed."""
    publish: bool = False
    failed: bool = False
    cancelled: bool = False
    returned: bool = False
    """The worker gives it back unfinished."""
    error: Text = ""
    hint: Text = ""


class Reply(Struct, frozen=True, kw_only=True):
    """What the hub answers to a report."""

    state: str
    ending: bool
    """Whether the work shall stop."""
    log_at: int
    """How much of the log the hub has."""


class Pass(Struct, frozen=True, kw_only=True):
    """A token for one repository."""

    token: str
    seconds: int
