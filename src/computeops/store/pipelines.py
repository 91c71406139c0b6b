"""A hub's pipelines, the client's side: a folder is packed and sent, a pipeline started, looked at, and changed."""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from computeops.errors import ComputeOpsError, NetworkError, NotFoundError, RecipeError, UsageError
from computeops.image import folders
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.store.oci import Registry
from computeops.store.upload import Sent, push_blob

_T = TypeVar("_T")
_OURS_TO_MEND: Mapping[int, type[ComputeOpsError]] = {400: UsageError, 422: RecipeError}
"""Statuses that say that we asked for, or sent, something wrong."""
_LEFT_OUT = frozenset({".git", ".hg", ".svn"})


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline that was started, or was there already."""

    id: int
    state: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a pipeline."""

    name: str
    state: str
    seconds: float
    facts: dict[str, Any] = {}


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline; in a list its steps are left out."""

    id: int
    kind: str
    repository: str
    version: str
    state: str
    asked_by: str
    created: int
    began: int | None = None
    ended: int | None = None
    error: str = ""
    hint: str = ""
    worker: str = ""
    attempts: int = 0
    ahead: int = 0
    answered_by: int | None = None
    images: list[dict[str, str]] = []
    steps: list[Step] = []

    @property
    def has_ended(self) -> bool:
        """Whether it will stay as it is."""
        return self.state in {"succeeded", "failed", "cancelled"}


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a log."""

    next: int
    """Where the next part begins."""
    text: str
    ended: bool


def send(registry: Registry, repository: str, folder: Path, sent: Sent = lambda _: None) -> Digest:
    """Pack `folder` and store it in the repository; return the digest of the archive. Equal folders give equal ones.

    Raises:
        NotFoundError: there is no such folder; LoginError, DeniedError: we may not push there.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}")
    with tempfile.TemporaryFile() as file:
        pack(folder, file)
        file.seek(0)
        digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
        push_blob(registry, repository, digest, Path(f"/proc/self/fd/{file.fileno()}"), sent=sent)
    return digest


def pack(folder: Path, into: IO[bytes]) -> None:
    """Write a folder as a tar file, without what version control keeps; equal folders give equal ones."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _files(folder):
            folders.add(tar, path, str(path.relative_to(folder)))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name not in _LEFT_OUT:
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _files(path)


def start(registry: Registry, repository: str, **source: str) -> Started:
    """Start a pipeline of an `archive` that was sent, or of a `commit` of `git`; `folder`: of the recipe inside.

    Raises:
        ConflictError: the version is a release already; ComputeOpsError: as the hub says.
    """
    given = {name: value for name, value in source.items() if value}
    return ask(registry, "POST", "pipelines", Started, {"repository": repository, **given})


def rebuild(registry: Registry, repository: str, digest: Digest) -> Started:
    """Let a worker of the hub rebuild the image with this manifest.

    Raises:
        NotFoundError: there is no such image.
    """
    return ask(registry, "POST", "rebuilds", Started, {"repository": repository, "digest": str(digest)})


def entries(registry: Registry, *, repository: str = "", state: str = "", limit: int = 50) -> list[Pipeline]:
    """Return the newest pipelines that we may see; of a repository or a collection, in a state."""
    query = urlencode({"repository": repository, "state": state, "limit": limit})
    return ask(registry, "GET", f"pipelines?{query}", list[Pipeline])


def show(registry: Registry, number: int) -> Pipeline:
    """Return one pipeline with its steps.

    Raises:
        NotFoundError: there is none that we may see.
    """
    return ask(registry, "GET", f"pipelines/{number}", Pipeline)


def log(registry: Registry, number: int, at: int) -> Log:
    """Return the log of a pipeline from its byte `at` on.

    Raises:
        NotFoundError: there is no such pipeline that we may see.
    """
    return ask(registry, "GET", f"pipelines/{number}/log?at={at}", Log)


def change(registry: Registry, number: int, what: str) -> Started:
    """Let a pipeline `cancel` or `retry`.

    Raises:
        ConflictError: it has ended, or has not failed.
    """
    return ask(registry, "POST", f"pipelines/{number}/{what}", Started)


def ask(registry: Registry, method: str, path: str, kind: type[_T], body: Mapping[str, Any] | None = None) -> _T:
    """Ask the hub's API, and return its answer as a `kind`.

    Raises:
        NetworkError: it answers something else; UsageError, RecipeError: it says that we are wrong.
    """
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if registry.login:
        headers["Authorization"] = registry.login.header
    sent = msgspec.json.encode(body) if body is not None else b"" if method == "POST" else None
    url = f"{registry.base}/api/v1/{path}"
    answer = registry.session.request(method, url, headers=headers, body=sent, limit_bytes=LIMITS.json_answer_bytes)
    try:
        answer.expect(200, 201)
    except NetworkError as error:
        if answer.status in _OURS_TO_MEND:
            raise _OURS_TO_MEND[answer.status](error.message) from None
        raise
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise NetworkError(f"{registry.base} described a pipeline in a way we do not know: {error}") from error
