"""Answers that a client may keep and ask about again: strong ETags, 304 (RFC 9110, section 13.1.2)."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def tagged(request: Request, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return `body` with an ETag, or 304 where the sender of `request` has it already.

    What it says may depend on who asks: no cache between gives it to another, each asks again.
    """
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    always = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Cookie",
        "X-Content-Type-Options": "nosniff",
        **(headers or {}),
    }
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=always)
    return Response(body, media_type=media_type, headers=always)
