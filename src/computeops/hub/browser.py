"""Browsers: the cookie of a session, and forms that nobody but our own pages can have sent.

A form carries a signature of the session's cookie, or, before there is one, of a cookie that exists for this purpose.
Another site can make a browser send a form and the cookies, but can know neither signature (OWASP: signed double
submit). With TLS the cookies are `__Host-`: no other machine of the domain can set them.
"""

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from computeops.errors import DeniedError, LoginError
from computeops.hub import receive, roles
from computeops.hub.auth import ANYONE, Caller
from computeops.hub.state import Hub

SESSION = "computeops_session"
LOGIN = "computeops_login"
_FORM = "computeops_form"
_FORM_BYTES = 16 * 1024
_FORM_SECONDS = 3600
_OURS = frozenset({"", "same-origin", "none"})  # Sec-Fetch-Site; old browsers do not send it


def get(hub: Hub, request: Request, name: str) -> str:
    """Return the cookie `name` of a request; empty without one."""
    return request.cookies.get(_full(hub, request, name), "")


def put(hub: Hub, request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    """Let the browser keep a cookie that no script sees and that no other site's forms send."""
    answer.set_cookie(
        _full(hub, request, name), value, seconds, httponly=True, samesite="lax", secure=_tls(hub, request)
    )


def drop(hub: Hub, request: Request, answer: Response, name: str) -> None:
    """Let the browser forget a cookie."""
    answer.delete_cookie(_full(hub, request, name), httponly=True, samesite="lax", secure=_tls(hub, request))


def _full(hub: Hub, request: Request, name: str) -> str:
    return f"__Host-{name}" if _tls(hub, request) else name


def _tls(hub: Hub, request: Request) -> bool:
    return hub.url(request.scope).startswith("https:")


def caller(hub: Hub, request: Request) -> Caller:
    """Return who asks for a page: by the header, else by the cookie.

    Raises:
        LoginError: a wrong token in the header; a cookie that has ended is nobody's.
    """
    by_header = hub.caller(request.scope)
    return by_header if by_header is not ANYONE else hub.auth.visitor(get(hub, request, SESSION))


def somebody(hub: Hub, request: Request, deed: str) -> Caller:
    """Return who asks for `deed`, in words.

    Raises:
        LoginError: nobody in particular.
    """
    found = caller(hub, request)
    if not found.name:
        raise roles.refused(found, deed)
    return found


def signature(hub: Hub, request: Request, *, begin: bool = False) -> str:
    """Return what the forms of the page that answers `request` carry in their field `form`.

    Empty: this browser has no cookie yet that it could sign; with `begin` one is made, and `with_form` sends it.
    """
    known = get(hub, request, SESSION) or get(hub, request, _FORM) or getattr(request.state, "form", "")
    if begin and not known:
        known = request.state.form = secrets.token_urlsafe(32)
    return hub.auth.sign("form", known) if known else ""


def with_form(hub: Hub, request: Request, answer: Response) -> Response:
    """Let the browser keep what `signature` began."""
    if made := getattr(request.state, "form", ""):
        put(hub, request, answer, _FORM, made, _FORM_SECONDS)
    return answer


async def form(hub: Hub, request: Request) -> Mapping[str, str]:
    """Return the fields of a form that one of our pages sent.

    Raises:
        DeniedError: another site sent it, or the page is too old.
        LimitError: it is too large.
    """
    sent = parse_qs((await receive.whole(request.receive, _FORM_BYTES)).decode("latin-1"))
    fields = {name: values[0] for name, values in sent.items()}
    require_ours(hub, request, fields.get("form", ""))
    return fields


def require_ours(hub: Hub, request: Request, signed: str) -> None:
    """Let only forms go on that one of our pages sent; `signed` is their field `form`.

    Raises:
        DeniedError: another site sent it, or the page is too old.
    """
    expected = signature(hub, request)
    ours = request.headers.get("sec-fetch-site", "") in _OURS
    if not ours or not expected or not hmac.compare_digest(signed.encode(), expected.encode()):
        raise DeniedError("this form was not sent by a page of this hub, or the page is too old", hint="open it again")


def person(found: Caller) -> Caller:
    """Return the caller if it is a person.

    Raises:
        LoginError: it is nobody, or a token of the operator.
    """
    if not found.person:
        raise LoginError("sign in with your account to do this", hint="see /auth/tokens")
    return found
