"""What the storage itself says of repositories, so that the index can be made anew from it alone.

    collections/<name>/_settings                        {"public": false, "quota": null, "created": ...}
    repositories/<name>/_manifests/sha256/<hex>         {"media_type": ..., "created": ..., "place": ...}
    repositories/<name>/_tags/<tag>                     {"digest": ..., "moved": ..., "retired": false}
    repositories/<name>/_deposits/<hex of its tree>     {"archive": ..., "tree": ..., "origin": ..., "found": ...}

The bodies of manifests are blobs. A record is written inside the transaction that changes the index, just before its
end: in the order of the transactions, and never after an answer. No component of a name begins with `_`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from computeops.errors import NotFoundError
from computeops.hub.storage import Storage

_REPOSITORIES, _MANIFESTS, _TAGS, _DEPOSITS = "repositories", "_manifests", "_tags", "_deposits"
_COLLECTIONS, _SETTINGS = "collections", "_settings"
_MAX_BYTES = 256 * 1024


class Collection(Struct, frozen=True):
    """The settings of a collection."""

    public: bool
    quota: int | None = None
    created: int = 0


class Manifest(Struct, frozen=True):
    """That a repository has a manifest."""

    media_type: str
    created: int
    place: int


class Tag(Struct, frozen=True):
    """Where a tag points to, or that it was a release and is never used again."""

    digest: str
    moved: int
    retired: bool = False


class Deposit(Struct, frozen=True):
    """A source that is kept; its fields are columns of the table."""

    archive: str
    size: int
    content: str
    tree: str
    origin: str
    found: dict[str, Any]
    tops: list[str]
    whole: bool
    asked_by: str
    created: int


Record = Collection | Manifest | Tag | Deposit
_T = TypeVar("_T", Collection, Manifest, Tag, Deposit)


@dataclass(frozen=True, slots=True)
class Found:
    """A record in the storage."""

    name: str
    """Of the collection or repository."""
    kind: type[Record]
    value: str
    """The digest of the manifest, the tag, or the hash of the deposit's tree."""
    key: str


def manifest_key(repository: str, digest: str) -> str:
    """Return where a manifest is recorded."""
    return f"{_REPOSITORIES}/{repository}/{_MANIFESTS}/{digest.replace(':', '/')}"


def tag_key(repository: str, tag: str) -> str:
    """Return where a tag is recorded."""
    return f"{_REPOSITORIES}/{repository}/{_TAGS}/{tag}"


def deposit_key(repository: str, tree: str) -> str:
    """Return where a source with the SWHID `tree` is recorded."""
    return f"{_REPOSITORIES}/{repository}/{_DEPOSITS}/{tree.rpartition(':')[2]}"


def collection_key(name: str) -> str:
    """Return where the settings of a collection are recorded."""
    return f"{_COLLECTIONS}/{name}/{_SETTINGS}"


def write(storage: Storage, key: str, record: Record) -> None:
    """Store a record, durably."""
    storage.write(key, msgspec.json.encode(record))


def read(storage: Storage, key: str, kind: type[_T]) -> _T | None:
    """Return a record; None: it is not there, or damaged."""
    try:
        return msgspec.json.decode(storage.read(key, 0, _MAX_BYTES), type=kind)
    except (NotFoundError, msgspec.MsgspecError):
        return None


def find(storage: Storage) -> Iterator[Found]:
    """Yield all records, in no order; what has another shape is left out."""
    for entry in storage.entries(f"{_COLLECTIONS}/"):
        name, _, end = entry.key.removeprefix(f"{_COLLECTIONS}/").rpartition("/")
        if end == _SETTINGS and name:
            yield Found(name, Collection, "", entry.key)
    for entry in storage.entries(f"{_REPOSITORIES}/"):
        rest = entry.key.removeprefix(f"{_REPOSITORIES}/")
        if f"/{_TAGS}/" in rest:
            name, _, tag = rest.partition(f"/{_TAGS}/")
            yield Found(name, Tag, tag, entry.key)
        elif f"/{_DEPOSITS}/" in rest:
            name, _, tree = rest.partition(f"/{_DEPOSITS}/")
            yield Found(name, Deposit, tree, entry.key)
        elif f"/{_MANIFESTS}/" in rest:
            name, _, digest = rest.partition(f"/{_MANIFESTS}/")
            yield Found(name, Manifest, digest.replace("/", ":"), entry.key)


def any_repository(storage: Storage) -> bool:
    """Return whether the storage knows of any repository."""
    return next(iter(storage.entries(f"{_REPOSITORIES}/")), None) is not None
