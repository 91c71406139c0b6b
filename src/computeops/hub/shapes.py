"""An error in the shape that the clients of each door understand."""

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from computeops.errors import ComputeOpsError
from computeops.hub.auth import challenge
from computeops.hub.oci_error import OciError
from computeops.hub.state import Hub

_CODES = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    409: "DENIED",
    413: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
}
"""HTTP status to the error code of OCI distribution-spec, where the error does not know a better one."""


def answer(hub: Hub, request: Request, error: ComputeOpsError) -> Response:
    """Return `error` as the door of `request` says it."""
    path = request.url.path
    if path == "/v2" or (path.startswith("/v2/") and not path.startswith(("/v2/imagefile/", "/v2/tags/"))):
        return _oci(hub, request, error)
    if path.startswith(("/v1/", "/v2/", "/version", "/assets/")):
        body: dict[str, Any] = {"error": {"code": error.status, "message": _text(error)}}
        return JSONResponse(body, error.status)
    if path.startswith("/api/") or path == "/auth/publish":
        from computeops.hub.api import failure

        return failure(error)
    if path.startswith("/pks/") or path == "/auth/token":
        return PlainTextResponse(_text(error) + "\n", error.status)
    return _page(hub, request, error)


def _oci(hub: Hub, request: Request, error: ComputeOpsError) -> Response:
    own = error if isinstance(error, OciError) else None
    code = own.code if own else _CODES.get(error.status, "UNSUPPORTED" if error.status < 500 else "UNKNOWN")
    headers = dict(own.headers) if own else {}
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", challenge(hub.url(request.scope)))
    body = {"errors": [{"code": code, "message": _text(error), "detail": {}}]}
    return JSONResponse(body, error.status, headers)


def _page(hub: Hub, request: Request, error: ComputeOpsError) -> Response:
    try:
        from computeops.hub.portal import error_page
    except ImportError:
        return HTMLResponse(f"<!doctype html><title>{error.status}</title>", error.status)
    page: Response = error_page(hub, request, error)
    return page


def _text(error: ComputeOpsError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
