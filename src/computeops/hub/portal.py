"""The pages for people: a list with a search, the versions of a repository, one release. HTML without scripts.

These pages only read; `signin` and `account_pages` have those with forms.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from computeops.errors import ComputeOpsError, NotFoundError
from computeops.hub import browser, contents, details, pages, search
from computeops.hub.commands import commands
from computeops.hub.db import Repository
from computeops.hub.etag import tagged
from computeops.hub.highlight import highlight
from computeops.hub.send import send_blob
from computeops.hub.state import Hub
from computeops.hub.storage import Storage
from computeops.hub.vulnerabilities import gates
from computeops.limits import LIMITS
from computeops.model import Digest

_TYPES = {".css": "text/css", ".svg": "image/svg+xml"}
_PAGE = 25


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door; the last takes every path that no other wanted."""

    def in_thread(page: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            answer: Response = await run_in_threadpool(page, hub, request)
            return answer

        return endpoint

    return [
        Route("/", in_thread(_index)),
        Route("/-/files/{digest}/{repository:path}", in_thread(_file)),
        Route("/-/{name}", in_thread(_static)),
        Route("/{path:path}", in_thread(_named)),
    ]


def error_page(hub: Hub, request: Request, error: ComputeOpsError) -> Response:
    """Return the page that says what went wrong."""
    html = pages.render("error.html", pages.common(hub, request) | {"error": error, "title": str(error.status)})
    return Response(html, error.status, pages.HEADERS | {"Cache-Control": "no-store"}, pages.HTML)


def _index(hub: Hub, request: Request) -> Response:
    query, after = request.query_params.get("q", "").strip(), request.query_params.get("after", "")
    page = search.search(hub.database, browser.caller(hub, request), query, limit=_PAGE, after=after, by_version=True)
    return pages.page(hub, request, "index.html", {"page": page, "query": query, "after": after, "title": query})


def _named(hub: Hub, request: Request) -> Response:
    """Answer `/COLLECTION/NAME`, `/COLLECTION/NAME/VERSION`, and a reference as people paste it."""
    path = request.path_params["path"].strip("/")
    name, colon, version = path.partition(":")
    if colon and "/" in name:
        return RedirectResponse(f"/{quote(name)}/{quote(version, safe='')}", 308, pages.HEADERS)
    caller = browser.caller(hub, request)
    try:
        repository = details.repository(hub.database, caller, path)
    except NotFoundError:
        name, _, version = path.rpartition("/")
        if "/" not in name:
            raise NotFoundError("there is no such page here", hint="search for what you need") from None
        return _release(hub, request, details.repository(hub.database, caller, name), version)
    return _versions(hub, request, repository)


def _versions(hub: Hub, request: Request, repository: Repository) -> Response:
    after = request.query_params.get("after", "")
    page = details.versions(hub.database, repository, limit=_PAGE, after=after)
    if not page.entries:
        raise NotFoundError(f"no release {repository.name}", hint="nothing that is tagged as an image was pushed to it")
    newest = details.details(hub.database, repository)
    shown = {"page": page, "after": after, "newest": newest, "title": repository.name}
    return pages.page(hub, request, "versions.html", shown | {"commands": _commands(hub, request, newest)})


def _release(hub: Hub, request: Request, repository: Repository, version: str) -> Response:
    found = details.details(hub.database, repository, version, arch=request.query_params.get("arch", ""))
    texts = contents.texts(hub.blobs, found.recipe, LIMITS.shown_bytes)
    shown = {
        "found": found,
        "release": found.release,
        "package": {"homepage": "", "citation": "", **found.about.get("package", {})},
        "maintainers": found.about.get("maintainers", []),
        "requires": {"gpu": "", "driver": "", "mpi": "", "x11": False, **found.about.get("requires", {})},
        "evidence": sorted(found.release.evidence, key=lambda one: (one.passed is None, one.kind)),
        "recipe": {name: highlight(text, name) for name, text in texts.items()},
        "commands": _commands(hub, request, found),
        "packages": next((one.packages for one in found.release.evidence if one.packages is not None), None),
        "title": found.release.reference,
    }
    return pages.page(hub, request, "release.html", shown)


def _commands(hub: Hub, request: Request, found: details.Details) -> Mapping[str, Any]:
    return commands(hub.url(request.scope), found.release, has_sif=found.sif is not None)


class _Download(Response):
    """A blob, never shown in the page's place: whoever pushed it chose its bytes."""

    def __init__(self, storage: Storage, digest: Digest, size: int) -> None:
        super().__init__()
        self._storage, self._digest, self._size = storage, digest, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = {"content-type": "application/octet-stream", "content-disposition": "attachment"}
        headers |= {k.lower(): v for k, v in pages.HEADERS.items()}
        await send_blob(scope, send, self._storage, self._digest, self._size, headers)


def _file(hub: Hub, request: Request) -> Response:
    digest = Digest.parse(request.path_params["digest"])
    repository = details.repository(hub.database, browser.caller(hub, request), request.path_params["repository"])
    size = hub.blobs.size(digest)
    if size is None or not hub.database.linked(repository, str(digest)):
        raise NotFoundError(f"no file {digest} in {repository.name}")
    gates.require_open(hub.database, browser.caller(hub, request), repository, str(digest))
    return _Download(hub.blobs.storage, digest, size)


def _static(_hub: Hub, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in pages.STATIC:
        raise NotFoundError("there is no such page here")
    kept = {"Cache-Control": "public, max-age=86400", "Vary": "Accept-Encoding"}
    return tagged(request, pages.STATIC[name], _TYPES[Path(name).suffix], pages.HEADERS | kept)
