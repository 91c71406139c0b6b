"""Sign-in at another's: OpenID Connect Core 1.0 (section 3.1, authorization code) and GitHub's OAuth 2, both with PKCE.

`begin` says where to send the browser, and what must be remembered in it until it comes back; `finish` turns the code
it comes back with into who it is. Nothing here knows cookies or pages.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from computeops.errors import LoginError, NetworkError
from computeops.http import Session
from computeops.hub.id_tokens import Issuers
from computeops.hub.settings import Provider, secure
from computeops.limits import LIMITS

_DEFAULT_ISSUERS = {"gitlab": "https://gitlab.com", "github": "https://github.com"}
_GITHUB_API = "https://api.github.com"
_SECONDS = 10.0
_LOGINS = ("preferred_username", "nickname", "email", "name")
_TEXT = 200


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in that was begun: what the browser that comes back must prove to know."""

    url: str
    """Where the browser is sent."""
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed in, as the provider says."""

    issuer: str
    subject: str
    """What never changes and is never given to another."""
    login: str
    title: str


def issuer_of(provider: Provider) -> str:
    """Return the address of the provider."""
    return provider.issuer or _DEFAULT_ISSUERS[provider.kind]


def begin(provider: Provider, issuers: Issuers, redirect: str) -> Started:
    """Begin a sign-in that comes back to the address `redirect`.

    Raises:
        NetworkError: the provider does not answer.
    """
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    github = provider.kind == "github"
    scopes = provider.scopes or (() if github else ("openid", "profile"))
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **({"scope": " ".join(scopes)} if scopes else {}),
        **({} if github else {"nonce": nonce}),
    }
    if github:
        place = f"{issuer_of(provider)}/login/oauth/authorize"
    else:
        place = _endpoint(issuers.about(issuer_of(provider)), "authorization_endpoint")
    return Started(f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}", state, nonce, verifier)


def finish(
    provider: Provider, secret: str, issuers: Issuers, *, code: str, redirect: str, nonce: str, verifier: str
) -> Identity:
    """Return who it is that came back with `code`.

    Raises:
        LoginError: the code, or what the provider gave for it, does not hold.
        NetworkError: the provider does not answer, or not as it must.
    """
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
    with Session(seconds=_SECONDS) as session:
        if provider.kind == "github":
            return _github(session, provider, secret, form)
        about = issuers.about(issuer_of(provider))
        methods = about.get("token_endpoint_auth_methods_supported")
        basic = not isinstance(methods, list) or "client_secret_basic" in methods
        given = _exchange(session, _endpoint(about, "token_endpoint"), form, provider.client_id, secret, basic=basic)
        token = given.get("id_token")
        if not isinstance(token, str):
            raise LoginError(f"{provider.name} gave no ID token", hint="its client must have the scope openid")
        claims = issuers.verify(token, issuer=issuer_of(provider), audience=provider.client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):  # step 11
            raise LoginError("the ID token is of another sign-in", hint="sign in again")
        return _named(provider, _with_userinfo(session, about, claims, given))


def _exchange(
    session: Session, url: str, form: Mapping[str, str], client: str, secret: str, *, basic: bool
) -> Mapping[str, Any]:
    """Return what the token endpoint gives for a code (RFC 6749, section 4.1.3)."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    sent = dict(form)
    if secret and basic:
        pair = urlencode({client: secret}).replace("=", ":", 1)  # both parts form-encoded: RFC 6749, section 2.3.1
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        sent |= {"client_id": client, **({"client_secret": secret} if secret else {})}
    answer = session.request(
        "POST", url, headers=headers, body=urlencode(sent).encode(), limit_bytes=LIMITS.token_answer_bytes
    )
    given = answer.json() if answer.status in {200, 400, 401} else answer.expect(200)
    if not isinstance(given, dict) or answer.status != 200 or "error" in given:
        why = str(given.get("error", ""))[:_TEXT] if isinstance(given, dict) else ""
        raise LoginError(f"the provider did not accept this sign-in: {why or answer.status}", hint="sign in again")
    return given


def _github(session: Session, provider: Provider, secret: str, form: Mapping[str, str]) -> Identity:
    """GitHub has no ID token: the access token is used once, to ask whose it is, and forgotten."""
    place = f"{issuer_of(provider)}/login/oauth/access_token"
    given = _exchange(session, place, form, provider.client_id, secret, basic=False)
    headers = {"Authorization": f"Bearer {given.get('access_token', '')}", "Accept": "application/vnd.github+json"}
    user = session.request("GET", f"{provider.api or _GITHUB_API}/user", headers=headers).expect(200).json()
    subject = user.get("id") if isinstance(user, dict) else None
    if not isinstance(subject, int) or isinstance(subject, bool):
        raise NetworkError("GitHub did not say who signed in")
    claims = {"sub": str(subject), "preferred_username": user.get("login"), "name": user.get("name")}
    return _named(provider, claims)


def _with_userinfo(
    session: Session, about: Mapping[str, Any], claims: Mapping[str, Any], given: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Ask for the name where the ID token has none (section 5.3)."""
    place = about.get("userinfo_endpoint")
    if any(claims.get(one) for one in _LOGINS) or not isinstance(place, str) or not secure(place.partition("?")[0]):
        return claims
    headers = {"Authorization": f"Bearer {given.get('access_token', '')}", "Accept": "application/json"}
    answer = session.request("GET", place, headers=headers, limit_bytes=LIMITS.token_answer_bytes)
    more = answer.json() if answer.status == 200 else {}
    same = isinstance(more, dict) and more.get("sub") == claims["sub"]  # else it may be about another: section 5.3.2
    return {**more, **claims} if same else claims


def _named(provider: Provider, claims: Mapping[str, Any]) -> Identity:
    login = next((str(claims[one]) for one in _LOGINS if claims.get(one)), "").partition("@")[0]
    title = "".join(char for char in str(claims.get("name") or login) if char.isprintable())
    return Identity(issuer_of(provider), str(claims["sub"]), login[:_TEXT], title[:_TEXT])


def _endpoint(about: Mapping[str, Any], name: str) -> str:
    place = about.get(name)
    if not isinstance(place, str) or not secure(place.partition("?")[0]):
        raise NetworkError(f"the provider has no {name} that is an https address")
    return place
