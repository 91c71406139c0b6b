"""Deposits in a hub, the client's side: a source is sent, what the hub read in it comes back, and answers go there."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from computeops.errors import NotFoundError
from computeops.http.download import download
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.store import pipelines
from computeops.store.oci import Registry
from computeops.store.pipelines import Started, ask
from computeops.store.upload import Sent, push_blob


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the recipe says."""

    key: str
    label: str
    example: str
    value: str = ""
    source: str = ""
    missing: bool = False


class Deposit(msgspec.Struct, frozen=True, kw_only=True):
    """A source that the hub keeps."""

    id: int
    repository: str
    archive: str
    size: int
    content: str
    tree: str
    origin: str
    whole: bool
    questions: list[Question]
    pipeline: int | None = None
    known: bool = False


def send(registry: Registry, repository: str, source: Path, name: str, sent: Sent = lambda _: None) -> Deposit:
    """Send an archive, or a folder as one, and let the hub keep it; what arrived before a break stays.

    Raises:
        NotFoundError: there is no such file; LoginError, DeniedError: we may not push there.
        FormatError, LimitError: the hub can make nothing of it.
    """
    if source.is_dir():
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            pipelines.pack(source, packed)
            packed.flush()
            return send(registry, repository, Path(packed.name), name, sent)
    if not source.is_file():
        raise NotFoundError(f"there is no file or folder {source}")
    with source.open("rb") as stream:
        digest = Digest("sha256", hashlib.file_digest(stream, "sha256").hexdigest())
    push_blob(registry, repository, digest, source, sent=sent)
    return ask(registry, "POST", "deposits", Deposit, {"repository": repository, "archive": str(digest), "name": name})


def fetch(registry: Registry, repository: str, url: str, sent: Sent = lambda _: None) -> Deposit:
    """Fetch an archive from the web, and send it as `send` does.

    Raises:
        NetworkError: it could not be fetched; LimitError: it is too large.
    """
    name = unquote(urlsplit(url).path.rpartition("/")[2]) or "source"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "archive"
        download(url, file, limit_bytes=LIMITS.deposit_bytes)
        return send(registry, repository, file, name, sent)


def git(registry: Registry, repository: str, address: str, ref: str) -> Deposit:
    """Let the hub fetch a tag or a commit of a git repository, and keep it.

    Raises:
        NotFoundError: it has no such tag; UsageError: the hub takes nothing from there.
    """
    return ask(registry, "POST", "deposits", Deposit, {"repository": repository, "git": address, "ref": ref})


def release(registry: Registry, number: int, answers: Mapping[str, str]) -> Started:
    """Let a deposit become a release, of what its source says and of what we answer.

    Raises:
        UsageError: something is still to be answered; ConflictError: the version is a release already.
    """
    return ask(registry, "POST", f"deposits/{number}", Started, {"answers": dict(answers)})
