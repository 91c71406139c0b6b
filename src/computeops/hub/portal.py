"""The pages for people: a list with a search, the versions of a repository, one release. HTML without scripts.

What people wrote is escaped by Jinja, and the Content-Security-Policy lets nothing run even if it were not. Who has
a token may sign in for an hour to see what is private: a cookie that only these pages look at, and they only read.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from computeops import __version__
from computeops.errors import ComputeOpsError, LoginError, NotFoundError
from computeops.hub import contents, details, facts, present, receive, search
from computeops.hub.auth import ANYONE, SESSION_SECONDS, Caller
from computeops.hub.commands import commands
from computeops.hub.db import Repository
from computeops.hub.etag import tagged
from computeops.hub.highlight import highlight
from computeops.hub.send import send_file
from computeops.hub.state import Hub
from computeops.limits import LIMITS
from computeops.model import Digest

_FOLDER = Path(__file__).parent
_STATIC = {path.name: path.read_bytes() for path in (_FOLDER / "static").iterdir()}
_TYPES = {".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_COOKIE = "computeops_session"
_FORM_BYTES = 4096
_HTML = "text/html"
_PAGE = 25


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door; the last takes every path that no other wanted."""

    def in_thread(page: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            answer: Response = await run_in_threadpool(page, hub, request)
            return answer

        return endpoint

    async def sign_in(request: Request) -> Response:
        form = parse_qs((await receive.whole(request.receive, _FORM_BYTES)).decode("latin-1"))
        return await run_in_threadpool(_sign_in, hub, request, form.get("token", [""])[0].strip())

    return [
        Route("/", in_thread(_index)),
        Route("/-/files/{digest}/{repository:path}", in_thread(_file)),
        Route("/-/{name}", in_thread(_static)),
        Route("/auth/tokens", in_thread(_tokens)),
        Route("/auth/login", sign_in, methods=["POST"]),
        Route("/auth/logout", in_thread(_sign_out), methods=["POST"]),
        Route("/{path:path}", in_thread(_named)),
    ]


def error_page(hub: Hub, request: Request, error: ComputeOpsError) -> Response:
    """Return the page that says what went wrong."""
    html = _render("error.html", _common(hub, request) | {"error": error, "title": str(error.status)})
    return Response(html, error.status, _HEADERS | {"Cache-Control": "no-store"}, _HTML)


def _index(hub: Hub, request: Request) -> Response:
    query, after = request.query_params.get("q", "").strip(), request.query_params.get("after", "")
    page = search.search(hub.database, _caller(hub, request), query, limit=_PAGE, after=after, by_version=True)
    return _page(hub, request, "index.html", {"page": page, "query": query, "after": after, "title": query})


def _named(hub: Hub, request: Request) -> Response:
    """Answer `/COLLECTION/NAME`, `/COLLECTION/NAME/VERSION`, and a reference as people paste it."""
    path = request.path_params["path"].strip("/")
    name, colon, version = path.partition(":")
    if colon and "/" in name:
        return RedirectResponse(f"/{quote(name)}/{quote(version, safe='')}", 308, _HEADERS)
    caller = _caller(hub, request)
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
    return _page(hub, request, "versions.html", shown | {"commands": _commands(hub, request, newest)})


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
    return _page(hub, request, "release.html", shown)


def _commands(hub: Hub, request: Request, found: details.Details) -> Mapping[str, Any]:
    return commands(hub.url(request.scope), found.release, has_sif=found.sif is not None)


def _tokens(hub: Hub, request: Request) -> Response:
    return _page(hub, request, "tokens.html", {"title": "Tokens", "base": hub.url(request.scope)})


def _sign_in(hub: Hub, request: Request, token: str) -> Response:
    caller = hub.auth.caller(f"Bearer {token}")
    answer = RedirectResponse("/", 303, _HEADERS)
    if caller is ANYONE:
        raise LoginError("no token was given", hint="paste the token that the hub's operator gave you")
    secure = hub.url(request.scope).startswith("https:")
    answer.set_cookie(
        _COOKIE, hub.auth.session(caller), SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
    )
    return answer


def _sign_out(_hub: Hub, _request: Request) -> Response:
    answer = RedirectResponse("/", 303, _HEADERS)
    answer.delete_cookie(_COOKIE)
    return answer


class _Download(Response):
    """A blob, never shown in the page's place: whoever pushed it chose its bytes."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._path, self._size = path, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = {"content-type": "application/octet-stream", "content-disposition": "attachment"}
        await send_file(scope, send, self._path, self._size, headers | {k.lower(): v for k, v in _HEADERS.items()})


def _file(hub: Hub, request: Request) -> Response:
    digest = Digest.parse(request.path_params["digest"])
    repository = details.repository(hub.database, _caller(hub, request), request.path_params["repository"])
    size = hub.blobs.size(digest)
    if size is None or not hub.database.linked(repository, str(digest)):
        raise NotFoundError(f"no file {digest} in {repository.name}")
    return _Download(hub.blobs.path(digest), size)


def _static(_hub: Hub, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise NotFoundError("there is no such page here")
    kept = {"Cache-Control": "public, max-age=86400", "Vary": "Accept-Encoding"}
    return tagged(request, _STATIC[name], _TYPES[Path(name).suffix], _HEADERS | kept)


def _caller(hub: Hub, request: Request) -> Caller:
    """Return who reads: by the header, else by the cookie; one that has ended is nobody's."""
    caller = hub.caller(request.scope)
    session = request.cookies.get(_COOKIE, "")
    if caller is not ANYONE or not session:
        return caller
    try:
        return hub.auth.caller(f"Bearer {session}")
    except LoginError:
        return ANYONE


def _common(hub: Hub, request: Request) -> dict[str, Any]:
    try:
        caller = _caller(hub, request)
    except ComputeOpsError:
        caller = ANYONE
    return {"caller": caller, "query": "", "version": __version__, "style": _STYLE, "private": False}


def _page(hub: Hub, request: Request, template: str, values: Mapping[str, Any]) -> Response:
    html = _render(template, {**_common(hub, request), **values})
    return tagged(request, html.encode(), _HTML, _HEADERS)


def _render(template: str, values: Mapping[str, Any]) -> str:
    return _TEMPLATES.get_template(template).render(values)


def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": present.size, "day": present.day, "moment": present.moment, "short": present.short}
    made.filters |= {"badges": present.badges, "title_of": facts.title, "sentence": present.sentence}
    made.filters |= {"architectures": present.architectures, "variants": present.variants}
    return made


_TEMPLATES = _templates()
_STYLE = "/-/portal.css?" + hashlib.sha256(_STATIC["portal.css"]).hexdigest()[:12]
