"""The wiring of a hub: which door a request goes through, and in which shape an error leaves it.

    /v2/<repository>/...                  registry   OCI distribution 1.1
    /auth/token                           login      the token endpoint of Docker's protocol
    /v1/... /v2/imagefile/... /version    library    the Library API of Apptainer and SingularityCE
    /pks/...                              keys       HKP
    /api/v1/...                           api        our own JSON
    /api/v1/pipelines/... /-/pipelines    pipelines  what is built here; /api/v1/work is for workers, /hooks for pushes
    /api/v1/deposits/... /-/deposits      deposits   sources that are kept, and become releases
    /auth/publish                         publishing push tokens for CI
    /auth/login/... /auth/callback/...    signin     people sign in and out
    /auth/tokens /auth/collections/...    account_pages  their tokens and collections, and the audit log
    /api/v1/collections/... /api/v1/tokens  manage   the same as JSON
    /api/v1/findings/... /-/findings/...  vulnerabilities  what is known to be wrong with releases
    everything else                       portal     HTML for people

The registry is an ASGI application of its own, because its reads are the hub's hot path; the others are Starlette
routes. Beside them run the works of the background: `Courier` tells webhooks, `Inspector` looks into what was pushed,
`Timer` begins pipelines. The role of a process says which of the two it has.
"""

import logging
from asyncio import to_thread
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from computeops.errors import ComputeOpsError, NotFoundError, StorageError, UsageError
from computeops.hub import audit, browser, health
from computeops.hub.auth import ANYONE, Caller
from computeops.hub.meter import Measured
from computeops.hub.pipelines.timer import Timer
from computeops.hub.rate import Limited
from computeops.hub.registry import Registry
from computeops.hub.settings import Secrets, Settings
from computeops.hub.shapes import answer
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities.inspector import Inspector
from computeops.hub.webhooks import Courier

_log = logging.getLogger(__name__)
Role = Literal["all", "web", "background"]
_DOORS = (
    "login",
    "publishing",
    "signin",
    "account_pages",
    "multipart",  # before the library, whose last routes take any name
    "library",
    "keys",
    "pipelines.work",
    "pipelines.hooks",
    "pipelines.doors",  # before `manage`, whose last route takes any name
    "pipelines.pages",
    "deposits.doors",
    "deposits.pages",
    "vulnerabilities.doors",
    "vulnerabilities.pages",
    "manage",
    "health",
    "api",
    "portal",
)


def create_app(
    data: Path,
    *,
    base: str = "",
    settings: Settings | None = None,
    secrets: Secrets | None = None,
    role: Role = "all",
) -> ASGIApp:
    """Return the hub in the folder `data` as an ASGI application. `base`: its address, where it knows it.

    `role`: `web` answers requests, `background` does what can wait and says how it is, `all` both.
    """
    hub = Hub.open(data, base=base, settings=settings, secrets=secrets)
    works = () if role == "web" else _WORKS
    if role == "background":
        doors = Router(health.routes(hub), default=_nowhere)
        return Measured(Limited(hub, _App(hub, doors, doors, works)))
    return Measured(Limited(hub, _App(hub, Registry(hub), Router(routes(hub), default=_nowhere), works)))


async def _nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answer for an address that no door has, in the form that who asked reads."""
    raise NotFoundError("no such page")


def routes(hub: Hub) -> list[Route]:
    """Return the routes of every door but the registry, which finds its way by itself."""
    found: list[Route] = []
    for door in _DOORS:
        if find_spec(f"computeops.hub.{door}") is not None:
            found += import_module(f"computeops.hub.{door}").routes(hub)
    return found


class _Work(Protocol):
    def start(self) -> None: ...

    async def stop(self) -> None: ...


_WORKS: tuple[Callable[[Hub], _Work], ...] = (Courier, Inspector, Timer)


class _App:
    def __init__(self, hub: Hub, registry: ASGIApp, others: ASGIApp, works: Sequence[Callable[[Hub], _Work]]) -> None:
        self._hub, self._registry, self._others, self._works = hub, registry, others, works

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        works = [work(self._hub) for work in self._works]
        for work in works:
            work.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for work in reversed(works):
            await work.stop()
        self._hub.database.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False
        reads = scope["method"] in audit.READING
        caller = ANYONE if reads else self._known(scope)  # before it is answered: it may end its own token

        async def watched(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start" and not reads:
                await self._log(scope, caller, message["status"])
            began = True
            await send(message)

        door = self._registry if _is_registry(scope["path"]) else self._others
        try:
            await door(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            if began:
                raise  # the answer is under way: breaking the connection is all that is left to say
            known = _known(error)
            if not reads and known.status < 500:
                await self._log(scope, caller, known.status)
            await answer(self._hub, Request(scope), known)(scope, receive, send)

    def _known(self, scope: Scope) -> Caller:
        try:
            return browser.caller(self._hub, Request(scope))
        except ComputeOpsError:
            return ANYONE

    async def _log(self, scope: Scope, caller: Caller, status: int) -> None:
        """Write what the request changed into the audit log, before the answer says so."""
        if (entry := audit.entry(scope, caller, status)) is not None:
            await to_thread(audit.record, self._hub.database, entry)


def _is_registry(path: str) -> bool:
    return (path.startswith("/v2/") and not path.startswith(("/v2/imagefile/", "/v2/tags/"))) or path == "/v2"


def _known(error: Exception) -> ComputeOpsError:
    """Return `error` as one of ours; what is none is a bug, logged for the operator and not shown."""
    if isinstance(error, ComputeOpsError):
        if error.status >= 500:
            _log.error("%s", error.message)
        return error
    if isinstance(error, HTTPException):
        known = NotFoundError("no such page") if error.status_code == 404 else UsageError(str(error.detail))
        known.status = error.status_code
        return known
    if isinstance(error, OSError):
        _log.error("storage: %s", error)
        return StorageError("the hub cannot store or read this now", hint="ask its operator")
    _log.error("a bug", exc_info=error)
    return ComputeOpsError("the hub failed; its log says why", hint="ask its operator")
