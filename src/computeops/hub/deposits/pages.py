"""What the portal shows of deposits: the forms to make one, and one with what was found in it and what is asked."""

from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import ComputeOpsError, LimitError, NotFoundError
from computeops.hub import audit, browser, names, pages, receive, roles
from computeops.hub.auth import Caller
from computeops.hub.deposits import keep
from computeops.hub.deposits.apart import Asked
from computeops.hub.deposits.fields import FIELDS
from computeops.hub.deposits.upload import Form
from computeops.hub.state import Hub
from computeops.limits import LIMITS
from computeops.model import Digest

_HERE = "/-/deposits"
_SHOWN = 50


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def everything(request: Request) -> Response:
        if request.method == "POST":
            return await _deposit(hub, request)
        return await to_thread(_list, hub, request)

    async def one(request: Request) -> Response:
        if request.method == "POST":
            return await _release(hub, request)
        return await to_thread(_show, hub, request)

    return [
        Route(_HERE, everything, methods=["GET", "POST"]),
        Route(f"{_HERE}/{{deposit}}", one, methods=["GET", "POST"]),
    ]


def _list(hub: Hub, request: Request) -> Response:
    caller = browser.somebody(hub, request, "deposit sources")
    shown = {
        "title": "Deposit a release",
        "deposits": keep.entries(hub, caller, limit=_SHOWN),
        "most": LIMITS.deposit_bytes,
        "repository": request.query_params.get("repository", ""),
    }
    return pages.own_page(hub, request, "deposits.html", shown)


async def _deposit(hub: Hub, request: Request) -> Response:
    """Keep what a form names, or sends, and show what is in it."""
    caller = await to_thread(browser.somebody, hub, request, "deposit sources")
    sent = request.headers.get("content-type", "")
    if sent.startswith("multipart/"):
        form = Form(sent, receive.chunks(request.receive))
        fields = await form.fields()
        browser.require_ours(hub, request, fields.get("form", ""))
        repository = await to_thread(_admitted, hub, request, caller, fields)
        asked, archive = Asked(name=form.name), str(await _received(hub, repository, form))
    else:
        fields = await browser.form(hub, request)
        repository = await to_thread(_admitted, hub, request, caller, fields)
        asked, archive = Asked(git=fields.get("git", "").strip(), ref=fields.get("ref", "").strip()), ""
    kept = await to_thread(lambda: keep.deposit(hub, repository, asked, archive=archive, asked_by=caller.name))
    return pages.see_other(f"{_HERE}/{kept.id}{'?known=yes' if kept.known else ''}")


def _admitted(hub: Hub, request: Request, caller: Caller, fields: Mapping[str, str]) -> str:
    """Return the repository that a form names, if the caller may push to it."""
    repository = fields.get("repository", "").strip()
    names.require(repository)
    audit.note(request.scope, f"deposit {repository}")
    if not hub.admit(caller, "push", repository):
        raise roles.refused(caller, f"publish {repository}")
    return repository


async def _received(hub: Hub, repository: str, form: Form) -> Digest:
    """Make the file of a form a blob of the repository."""
    await to_thread(hub.require_room, repository, 0)
    upload = await to_thread(hub.blobs.begin, repository)
    try:
        await upload.append(_at_most(LIMITS.deposit_bytes, form.file()))
        digest = await to_thread(upload.digest, "sha256")
    except BaseException:
        await to_thread(hub.blobs.forget, upload)
        raise
    await to_thread(hub.finish, upload, repository, digest)
    return digest


async def _at_most(limit: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    left = limit
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise LimitError(f"a source has at most {limit} bytes")
        yield chunk


def _show(hub: Hub, request: Request, answers: Mapping[str, str] | None = None, fault: str = "") -> Response:
    caller = browser.somebody(hub, request, "deposit sources")
    kept = keep.show(hub, caller, _number(request))
    shown = {
        "title": f"Deposit {kept.id}",
        "deposit": kept,
        "values": answers or {},
        "fault": fault,
        "known": request.query_params.get("known") == "yes",
        "may": hub.admit(caller, "push", kept.repository),
    }
    return pages.own_page(hub, request, "deposit.html", shown, 400 if fault else 200)


async def _release(hub: Hub, request: Request) -> Response:
    """Start the pipeline, or show the page again with what is wrong and all that was written into it."""
    fields = await browser.form(hub, request)
    caller = await to_thread(browser.somebody, hub, request, "deposit sources")
    kept = await to_thread(keep.show, hub, caller, _number(request))
    if not await to_thread(hub.admit, caller, "push", kept.repository):
        raise roles.refused(caller, f"publish {kept.repository}")
    answers = {} if kept.whole else {key: fields.get(key, "") for key in FIELDS}
    audit.note(request.scope, f"release deposit {kept.id}")
    try:
        started = await to_thread(lambda: keep.release(hub, kept, answers, asked_by=caller.name))
    except ComputeOpsError as error:
        if error.status not in {400, 422}:
            raise
        return await to_thread(_show, hub, request, answers, error.message)
    return pages.see_other(f"/-/pipelines/{started.id}")


def _number(request: Request) -> int:
    text = request.path_params["deposit"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFoundError("there is no such page here")
    return int(text)
