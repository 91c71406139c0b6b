"""People sign in: at a provider, or with a token; and out again.

What a sign-in at a provider needs when the browser comes back (state, nonce, PKCE verifier, where to go) waits in the
browser itself, in a signed cookie for ten minutes: so whoever comes back with a code must be the browser that began.
"""

import base64
import hmac
from asyncio import to_thread
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from computeops.errors import DeniedError, LoginError, NotFoundError
from computeops.hub import accounts, audit, browser, clock, oidc, pages
from computeops.hub.auth import ANYONE, SESSION_SECONDS
from computeops.hub.id_tokens import Issuers
from computeops.hub.settings import Provider
from computeops.hub.state import Hub

_SECONDS = 600
_TEXT = 2000


class _Waiting(msgspec.Struct, frozen=True):
    """A sign-in that was begun in this browser."""

    provider: str
    state: str
    nonce: str
    verifier: str
    onward: str
    ends: int


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    door = SignIn(hub, Issuers())
    return [
        Route("/auth/login", door.by_token, methods=["POST"]),
        Route("/auth/logout", door.out, methods=["POST"]),
        Route("/auth/login/{provider}", door.begin, methods=["GET"]),
        Route("/auth/callback/{provider}", door.finish, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True)
class SignIn:
    """The ways in and out."""

    hub: Hub
    issuers: Issuers

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        provider = self._provider(request)
        started = await to_thread(oidc.begin, provider, self.issuers, self._redirect(request, provider))
        ends = int(clock.now()) + _SECONDS
        onward = local(request.query_params.get("next", "/"))
        waiting = _Waiting(provider.name, started.state, started.nonce, started.verifier, onward, ends)
        answer = RedirectResponse(started.url, 303, pages.HEADERS | {"Cache-Control": "no-store"})
        browser.put(self.hub, request, answer, browser.LOGIN, _sealed(self.hub, waiting), _SECONDS)
        return answer

    async def finish(self, request: Request) -> Response:
        """Take the browser back from the provider: signed in, or with the reason why not."""
        provider, asked = self._provider(request), request.query_params
        waiting = _opened(self.hub, browser.get(self.hub, request, browser.LOGIN))
        if waiting is None or waiting.provider != provider.name or waiting.ends < clock.now():
            raise LoginError("this sign-in was not begun in this browser, or too long ago", hint="sign in again")
        if not hmac.compare_digest(asked.get("state", "").encode(), waiting.state.encode()):
            raise DeniedError("this is the end of another sign-in than the one that was begun", hint="sign in again")
        if asked.get("iss", oidc.issuer_of(provider)) != oidc.issuer_of(provider):  # RFC 9207: mixed up by an attacker
            raise DeniedError("another provider answered than the one that was asked", hint="sign in again")
        if not asked.get("code"):
            why = "".join(char for char in asked.get("error", "no code")[:100] if char.isprintable())
            raise LoginError(f"{provider.name} did not let you in: {why}", hint="sign in again")
        session = await to_thread(self._session, request, provider, waiting, asked["code"][:_TEXT])
        answer = pages.see_other(waiting.onward)
        browser.put(self.hub, request, answer, browser.SESSION, session, accounts.BROWSER_SECONDS)
        browser.drop(self.hub, request, answer, browser.LOGIN)
        return answer

    def _session(self, request: Request, provider: Provider, waiting: _Waiting, code: str) -> str:
        identity = oidc.finish(
            provider,
            self.hub.secrets.of(provider.name),
            self.issuers,
            code=code,
            redirect=self._redirect(request, provider),
            nonce=waiting.nonce,
            verifier=waiting.verifier,
        )
        person = accounts.signed_in(
            self.hub.database,
            issuer=identity.issuer,
            subject=identity.subject,
            login=identity.login,
            title=identity.title,
        )
        accounts.forget_ended(self.hub.database)
        client = str((request.scope.get("client") or ("",))[0])
        told = audit.Entry(
            who=person.name, address=client, action=f"sign in by {provider.name}", target="/auth/callback"
        )
        audit.record(self.hub.database, told)
        return accounts.begin_browser(self.hub.auth, person)

    async def by_token(self, request: Request) -> Response:
        """Sign in with a token for an hour; the browser then may what the token may."""
        token = (await browser.form(self.hub, request)).get("token", "").strip()
        caller = await to_thread(self.hub.auth.caller, f"Bearer {token}")
        if caller is ANYONE or not caller.name:
            raise LoginError("no token was given", hint="paste the token that the hub's operator gave you")
        audit.note(request.scope, f"sign in with a token of {caller.name}")
        answer = pages.see_other("/")
        browser.put(self.hub, request, answer, browser.SESSION, self.hub.auth.session(caller), SESSION_SECONDS)
        return answer

    async def out(self, request: Request) -> Response:
        """Sign out: also whoever copied the cookie is out."""
        await browser.form(self.hub, request)
        await to_thread(self.hub.auth.end, browser.get(self.hub, request, browser.SESSION))
        answer = pages.see_other("/")
        browser.drop(self.hub, request, answer, browser.SESSION)
        return answer

    def _provider(self, request: Request) -> Provider:
        for one in self.hub.settings.providers:
            if one.name == request.path_params["provider"]:
                return one
        raise NotFoundError("this hub knows no such provider", hint="see /auth/tokens")

    def _redirect(self, request: Request, provider: Provider) -> str:
        return f"{self.hub.url(request.scope)}/auth/callback/{provider.name}"


def local(place: str) -> str:
    """Return `place` if it is a path of this hub, else `/`: nobody is sent to another site from here."""
    plain = place.isascii() and place.isprintable() and "\\" not in unquote(place) and len(place) <= _TEXT
    return place if plain and place.startswith("/") and not place.startswith("//") else "/"


def _sealed(hub: Hub, waiting: _Waiting) -> str:
    text = base64.urlsafe_b64encode(msgspec.json.encode(waiting)).decode().rstrip("=")
    return f"{text}.{hub.auth.sign('login', text)}"


def _opened(hub: Hub, cookie: str) -> _Waiting | None:
    text, _, signature = cookie.rpartition(".")
    if not hmac.compare_digest(hub.auth.sign("login", text).encode(), signature.encode()):
        return None
    return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Waiting)
