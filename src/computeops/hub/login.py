"""The token endpoint of Docker's registry protocol: a password or token becomes a session.

https://distribution.github.io/distribution/spec/auth/token/ (GET with Basic) and .../auth/oauth/ (POST with a form).
"""

from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from computeops.errors import UsageError
from computeops.hub import receive
from computeops.hub.auth import SESSION_SECONDS, Caller
from computeops.hub.state import Hub

_FORM_BYTES = 64 * 1024


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def by_header(request: Request) -> Response:
        return _session(hub, hub.caller(request.scope))

    async def by_form(request: Request) -> Response:
        form = parse_qs((await receive.whole(request.receive, _FORM_BYTES)).decode("latin-1"))
        kind = form.get("grant_type", [""])[0]
        if kind not in {"password", "refresh_token"}:
            raise UsageError(f"unknown grant_type {kind[:40]!r}", hint="use password or refresh_token")
        secret = form.get("password" if kind == "password" else kind, [""])[0]
        return _session(hub, hub.auth.caller(f"Bearer {secret}"), refresh=secret)

    return [
        Route("/auth/token", by_header, methods=["GET"]),
        Route("/auth/token", by_form, methods=["POST"]),
    ]


def _session(hub: Hub, caller: Caller, refresh: str = "") -> Response:
    token = hub.auth.session(caller)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {"token": token, "access_token": token, "expires_in": SESSION_SECONDS, "issued_at": now}
    return JSONResponse(said | ({"refresh_token": refresh} if refresh else {}), headers={"cache-control": "no-store"})
