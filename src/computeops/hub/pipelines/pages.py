"""What the portal shows of pipelines: a list, and one with its steps and its log, which comes anew while it runs."""

from asyncio import to_thread
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import NotFoundError, UsageError
from computeops.hub import audit, browser, names, pages, roles
from computeops.hub.pipelines import start, view
from computeops.hub.pipelines.start import Started
from computeops.hub.pipelines.words import CANCELLED, ENDED, FAILED, Source
from computeops.hub.state import Hub

_PAGE = 50
_LOG_BYTES = 128 * 1024
_FRESH_SECONDS = 3
_HERE = "/-/pipelines"


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def everything(request: Request) -> Response:
        if request.method == "POST":
            return await _start(hub, request)
        return await to_thread(_list, hub, request)

    async def one(request: Request) -> Response:
        if request.method == "POST":
            return await _change(hub, request)
        return await to_thread(_show, hub, request)

    return [
        Route(_HERE, everything, methods=["GET", "POST"]),
        Route(f"{_HERE}/{{pipeline}}", one, methods=["GET", "POST"]),
    ]


def _list(hub: Hub, request: Request) -> Response:
    caller, asked = browser.somebody(hub, request, "see pipelines"), request.query_params
    before = asked.get("before", "0")
    if not (before.isascii() and before.isdigit() and len(before) < 18):
        raise UsageError(f"before is a number, not {before[:40]!r}")
    found = view.entries(
        hub.database, caller, repository=asked.get("repository", ""), before=int(before), limit=_PAGE + 1
    )
    shown: dict[str, Any] = {
        "title": "Pipelines",
        "pipelines": found[:_PAGE],
        "repository": asked.get("repository", ""),
    }
    shown["more"] = found[_PAGE - 1].id if len(found) > _PAGE else 0
    return pages.own_page(hub, request, "pipelines.html", shown)


def _show(hub: Hub, request: Request) -> Response:
    caller = browser.somebody(hub, request, "see pipelines")
    found = view.show(hub, caller, _number(request))
    log = view.log(hub, caller, found.id, max(0, found.log_bytes - _LOG_BYTES))
    shown = {
        "title": f"Pipeline {found.id}",
        "pipeline": found,
        "log": log,
        "fresh": 0 if found.state in ENDED else _FRESH_SECONDS,
        "may": hub.admit(caller, "push", found.repository),
        "ended": found.state in ENDED,
        "again": found.state in {FAILED, CANCELLED},
    }
    answer = pages.own_page(hub, request, "pipeline.html", shown)
    if shown["fresh"]:
        answer.headers["Refresh"] = str(_FRESH_SECONDS)
    return answer


async def _start(hub: Hub, request: Request) -> Response:
    """Start the pipeline of a commit that a form names."""
    fields = await browser.form(hub, request)
    caller = await to_thread(browser.somebody, hub, request, "start pipelines")
    repository, git, commit, folder = (
        fields.get(name, "").strip() for name in ("repository", "git", "commit", "folder")
    )
    names.require(repository)
    if not await to_thread(hub.admit, caller, "push", repository):
        raise roles.refused(caller, f"publish {repository}")
    source = Source(git=git, commit=commit, folder=folder.strip("/"))
    started = await to_thread(lambda: start.start(hub, repository, source, asked_by=caller.name))
    audit.note(request.scope, f"start pipeline {started.id} of {repository}")
    return pages.see_other(f"{_HERE}/{started.id}")


async def _change(hub: Hub, request: Request) -> Response:
    fields = await browser.form(hub, request)
    caller = await to_thread(browser.somebody, hub, request, "see pipelines")
    found = await to_thread(view.show, hub, caller, _number(request))
    manifest = fields.get("manifest", "")
    changes: dict[str, Callable[[], Started]] = {
        "cancel": lambda: start.cancel(hub, found.id),
        "retry": lambda: start.retry(hub, found.id),
        "rebuild": lambda: start.rebuild(hub, found.repository, manifest, asked_by=caller.name),
    }
    do = changes.get(fields.get("do", ""))
    if do is None:
        raise UsageError("unknown form", hint="open the page again")
    if not await to_thread(hub.admit, caller, "push", found.repository):
        raise roles.refused(caller, f"change the pipelines of {found.repository}")
    audit.note(request.scope, f"{fields['do']} pipeline {found.id}")
    return pages.see_other(f"{_HERE}/{(await to_thread(do)).id}")


def _number(request: Request) -> int:
    text = request.path_params["pipeline"]
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise NotFoundError("there is no such page here")
    return int(text)
