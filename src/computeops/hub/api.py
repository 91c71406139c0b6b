"""The JSON API, `/api/v1`: search, one release, and the OpenAPI document that is made of the structs below."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops import __version__
from computeops.errors import ComputeOpsError, UsageError
from computeops.hub import contents, details, manage, search, terms
from computeops.hub.commands import commands
from computeops.hub.contents import File
from computeops.hub.deposits import doors as deposit_doors
from computeops.hub.details import Details
from computeops.hub.etag import tagged
from computeops.hub.listed import Item, Listed
from computeops.hub.pipelines import doors
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import doors as vulnerability_doors
from computeops.limits import LIMITS

_JSON = "application/json"


class Entry(Struct, frozen=True, kw_only=True):
    """One image of a release."""

    reference: str
    """`collection/name:tag`."""
    collection: str
    name: str
    version: str
    variant: str
    summary: str
    domains: Sequence[str]
    license: str
    arch: str
    """OCI architecture."""
    size: int
    """Bytes of the OCI image."""
    created: int
    """When it was published, seconds since 1970."""
    image: str
    """Digest of the config: the identity of the image in all its forms."""
    manifest: str
    """Digest of the OCI manifest."""
    verdict: str
    """What its known vulnerabilities amount to: clean, vulnerable, stale, unscannable or waiting."""


class Found(Struct, frozen=True, kw_only=True):
    """One page of a search."""

    releases: Sequence[Entry]
    next: str | None
    """Give it as `after` to get the next page; null: this is the last."""


class Part(Struct, frozen=True):
    """A file of a release, kept as the blob `digest` of its repository."""

    name: str
    size: int
    digest: str


class EvidenceEntry(Struct, frozen=True, kw_only=True):
    """One piece of evidence. Its signatures are checked again, against keys of one's own, where the image is used."""

    kind: str
    """Predicate type."""
    passed: bool | None
    """Its verdict, for kinds that have one; null too if it is about another image."""
    signers: Sequence[str]
    """Key ids that the envelope names."""
    digest: str
    """Of the manifest that carries it."""
    created: int
    blob: str
    """Digest of the DSSE envelope."""
    size: int
    words: str
    fault: str
    """Why it counts for nothing; empty if it does count."""
    signature: str
    """valid (by a key that the collection trusts), unknown, invalid, unsigned, unreadable or waiting."""
    verified: Sequence[str]
    """Names of the keys whose signature holds."""


class Release(Entry, frozen=True, kw_only=True):
    """One image of a release with all that is known of it."""

    about: dict[str, Any]
    """The table [package] of the recipe; empty if there is no recipe, or a broken one."""
    fault: str
    """What is wrong with the recipe."""
    versions: Sequence[str]
    """The newest versions in the repository, newest first."""
    variants: Sequence[Entry]
    """All images of this version."""
    tags: Sequence[str]
    recipe: dict[str, str]
    """Files of the recipe that are text."""
    files: Sequence[Part]
    """All files of the recipe."""
    sources: Sequence[Part]
    sif: Part | None
    evidence: Sequence[EvidenceEntry]
    commands: dict[str, str]
    """Tool to the command that runs it."""


class Fault(Struct, frozen=True, kw_only=True):
    """What went wrong, and what to do next."""

    code: str
    message: str
    hint: str


class Failure(Struct, frozen=True, kw_only=True):
    """The body of every answer that is none."""

    error: Fault


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    document = msgspec.json.encode(openapi())

    async def find(request: Request) -> Response:
        return await run_in_threadpool(_search, hub, request)

    async def release(request: Request) -> Response:
        return await run_in_threadpool(_release, hub, request)

    async def describe(request: Request) -> Response:
        return tagged(request, document, _JSON)

    return [
        Route("/api/v1/search", find),
        Route("/api/v1/releases/{repository:path}", release),
        Route("/api/v1/openapi.json", describe),
    ]


def failure(error: ComputeOpsError) -> Response:
    """Return `error` as this door says it."""
    kind = type(error).__name__.removesuffix("Error")
    code = "".join(f"_{char.lower()}" if char.isupper() else char for char in kind).lstrip("_")
    body = Failure(error=Fault(code=code, message=error.message, hint=error.hint))
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return Response(msgspec.json.encode(body), error.status, headers, _JSON)


def _search(hub: Hub, request: Request) -> Response:
    asked = request.query_params
    page = search.search(
        hub.database,
        hub.caller(request.scope),
        asked.get("q", ""),
        facts={key: asked[key] for key in terms.FACTS if asked.get(key)},
        limit=_number(asked.get("limit", "20")),
        after=asked.get("after", ""),
    )
    found = Found(releases=[Entry(**_fields(one)) for one in page.entries], next=page.after or None)
    return tagged(request, msgspec.json.encode(found), _JSON)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"not a number: {text[:40]!r}")
    return int(text)


def _release(hub: Hub, request: Request) -> Response:
    asked = request.query_params
    repository = details.repository(hub.database, hub.caller(request.scope), request.path_params["repository"])
    found = details.details(hub.database, repository, asked.get("version", ""), arch=asked.get("arch", ""))
    versions = [one.version for one in details.versions(hub.database, repository, limit=LIMITS.page_rows).entries]
    said = _told(found, contents.texts(hub.blobs, found.recipe, LIMITS.recipe_bytes), versions, hub.url(request.scope))
    return tagged(request, msgspec.json.encode(said), _JSON)


def _told(found: Details, recipe: dict[str, str], versions: Sequence[str], base: str) -> Release:
    shown = commands(base, found.release, has_sif=found.sif is not None)
    return Release(
        **_fields(found.release),
        about=found.about.get("package", {}),
        fault=found.fault,
        versions=versions,
        variants=[Entry(**_fields(one)) for one in found.images],
        tags=found.tags,
        recipe=recipe,
        files=[_part(file) for file in found.recipe],
        sources=[_part(file) for file in found.sources],
        sif=_part(found.sif) if found.sif else None,
        evidence=[_evidence(item) for item in found.release.evidence],
        commands={tool: one.run for tool, one in shown.items()},
    )


def _fields(one: Listed) -> dict[str, Any]:
    own = {name: getattr(one, name) for name in Entry.__struct_fields__ if name != "manifest"}
    return own | {"manifest": one.digest}


def _part(file: File) -> Part:
    return Part(file.name, file.size, file.digest)


def _evidence(item: Item) -> EvidenceEntry:
    return EvidenceEntry(**{name: getattr(item, name) for name in EvidenceEntry.__struct_fields__})


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this door."""
    _, schemas = msgspec.json.schema_components([Found, Release, Failure], ref_template="#/components/schemas/{name}")
    search_parameters = [
        _parameter("q", "Words in name, collection, version, domains or summary.", maxLength=LIMITS.search_chars),
        *(_parameter(key, f"Only {text}.", maxLength=LIMITS.search_chars) for key, text in terms.FACTS.items()),
        _parameter("limit", "Entries of a page.", type="integer", minimum=1, maximum=LIMITS.page_rows, default=20),
        _parameter("after", "`next` of the page before.", pattern=f"^({search.PLACE.pattern})?$"),
    ]
    release_parameters = [
        {"name": "repository", "in": "path", "required": True, "schema": {"type": "string"}},
        _parameter("version", "A version or a tag; without it, the newest."),
        _parameter("arch", "OCI architecture; without it, amd64 where there is one."),
    ]
    release_parameters[0]["description"] = "`collection/name`."
    managed = {**manage.paths(schemas), **doors.paths(schemas)}
    managed |= vulnerability_doors.paths(schemas)
    managed |= deposit_doors.paths(schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ComputeOps hub", "version": __version__, "description": __doc__},
        "paths": {
            "/api/v1/search": {"get": manage.reading("search", "Find releases.", search_parameters, "Found")},
            "/api/v1/releases/{repository}": {
                "get": manage.reading(
                    "release", "One release with all that is known of it.", release_parameters, "Release"
                )
            },
            **managed,
        },
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}
