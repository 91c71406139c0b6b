"""What a hub offers: search among its releases, and everything that it says about one. Its JSON API, version 1."""

from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from computeops.errors import NetworkError, NotFoundError
from computeops.http import Answer
from computeops.limits import LIMITS
from computeops.model import Reference
from computeops.store.oci import Registry, tag

_T = TypeVar("_T")
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One release, as the hub lists it."""

    reference: str
    collection: str
    name: str
    version: str
    variant: str = ""
    summary: str = ""
    domains: tuple[str, ...] = ()
    license: str = ""
    arch: str = ""
    size: int = 0
    """Bytes of the OCI image."""
    created: int = 0
    """When it was published, seconds since 1970."""
    image: str = ""
    """Digest of the image's config: its identity."""
    manifest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the releases that were found."""

    releases: tuple[Entry, ...]
    next: str | None = None
    """Give it as `after` for those that follow; None: these are the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One piece of evidence, as the hub describes it; nothing of it is verified."""

    kind: str
    digest: str
    passed: bool | None = None
    signers: tuple[str, ...] = ()
    created: int = 0
    words: str = ""
    """What it says, in a few words."""
    fault: str = ""
    """Why it counts for nothing; empty if it does count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One archived source of a release."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class About(Entry):
    """One release with everything that the hub knows of it."""

    about: dict[str, Any] = field(default_factory=dict)
    """The [package] table of its recipe."""
    versions: tuple[str, ...] = ()
    variants: tuple[Entry, ...] = ()
    """All images of this version."""
    recipe: dict[str, str] = field(default_factory=dict)
    """File name to text."""
    sources: tuple[Source, ...] = ()
    evidence: tuple[Known, ...] = ()
    commands: dict[str, str] = field(default_factory=dict)
    """Program to the command line that fetches this release with it."""


def search(registry: Registry, words: str, *, limit: int = 50, after: str = "") -> Page:
    """Return the first `limit` releases of a hub that have all `words`; without words, of all.

    Raises:
        NotFoundError: it is a registry without a catalogue; NetworkError: its answer makes no sense.
    """
    found: list[Entry] = []
    following: str | None = after
    while following is not None and len(found) < limit:
        query = {"q": words, "limit": str(min(limit - len(found), _PAGE)), "after": following}
        page = _read(registry, f"search?{urlencode(query)}", Page)
        found += page.releases
        following = page.next if page.releases else None
    return Page(releases=tuple(found[:limit]), next=following)


def show(registry: Registry, reference: Reference) -> About:
    """Return what a hub knows of a release; without a version in `reference`, of the newest.

    Raises:
        NotFoundError: there is none, or the registry has no catalogue; NetworkError: its answer makes no sense.
    """
    query = f"?{urlencode({'version': tag(reference)})}" if reference.version else ""
    return _read(registry, f"releases/{quote(reference.collection)}/{quote(reference.name)}{query}", About)


def _read(registry: Registry, path: str, kind: type[_T]) -> _T:
    answer = _ask(registry, f"{registry.base}/api/v1/{path}")
    try:
        return msgspec.convert(answer.json(), kind, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise NetworkError(f"{registry.base} described a release in a way we do not know: {error}") from error


def _ask(registry: Registry, url: str) -> Answer:
    headers = {"Accept": "application/json"}
    if registry.login:
        headers["Authorization"] = registry.login.header
    answer = registry.session.request("GET", url, headers=headers, limit_bytes=LIMITS.json_answer_bytes)
    if answer.status == 404 and "json" not in answer.headers.get("content-type", ""):
        raise NotFoundError(f"{registry.base} is a registry without a catalogue", hint="give its full name: pull works")
    return answer.expect(200)
