"""Signed tokens of others (OpenID Connect Core 1.0): who issued one, whether it is genuine, and what it claims.

The steps of `Issuers.verify` are those of section 3.1.3.7. Keys are fetched from the issuer and kept; a key that is
not known makes the hub ask again, but not more often than once a minute, however many forged tokens come. An issuer
that does not answer is left alone for a while, and nobody waits long for the answer that another waits for.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from computeops.errors import LoginError, NetworkError
from computeops.http import Session
from computeops.hub import clock
from computeops.hub.settings import secure
from computeops.limits import LIMITS

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""With public keys only: a token that is signed with what everybody can read proves nothing."""
_SECONDS = 5.0
_WAIT_SECONDS = 3.0
_SILENT_SECONDS = 15.0
_KEPT_SECONDS = 3600
_AGAIN_SECONDS = 60
_LEEWAY_SECONDS = 60
_MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class _Known:
    """What an issuer said of itself."""

    fetched: float
    about: Mapping[str, Any]
    keys: KeySet


class Issuers:
    """Issuers of tokens, as far as they were asked; for several threads at once."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._silent: dict[str, tuple[float, NetworkError]] = {}
        self._asking: dict[str, Lock] = {}

    def about(self, issuer: str) -> Mapping[str, Any]:
        """Return what the issuer says of itself (OpenID Connect Discovery 1.0): its endpoints.

        Raises:
            NetworkError: it does not answer, or not as it must.
        """
        return self._get(issuer, _KEPT_SECONDS).about

    def verify(self, token: str, *, issuer: str, audience: str) -> Mapping[str, Any]:
        """Return the claims of `token` if `issuer` made it for `audience` and it holds now.

        Raises:
            LoginError: it is forged, foreign, expired, or none.
            NetworkError: the issuer does not answer.
        """
        if len(token) > LIMITS.token_answer_bytes:
            raise LoginError("the token of the identity provider is too long")
        try:
            claims = self._signed(token, issuer)
        except (JoseError, ValueError, TypeError, KeyError, UnicodeError) as error:
            raise LoginError(f"the token is not one of {issuer}: {type(error).__name__}") from None
        _require(claims, issuer, audience)
        return claims

    def _signed(self, token: str, issuer: str) -> Mapping[str, Any]:
        """Return what `issuer` signed; its keys are asked for again if it has new ones since."""
        try:
            return jwt.decode(token, self._get(issuer, _KEPT_SECONDS).keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError, TypeError, KeyError):
            newer = self._get(issuer, _AGAIN_SECONDS).keys
        return jwt.decode(token, newer, algorithms=ALGORITHMS).claims

    def _get(self, issuer: str, oldest: float) -> _Known:
        if (known := self._fresh(issuer, oldest)) is not None:
            return known
        asking = self._asking.setdefault(issuer, Lock())
        if not asking.acquire(timeout=_WAIT_SECONDS):
            raise NetworkError(f"{issuer} is slow to answer", hint="try again in a minute")
        try:
            known = self._fresh(issuer, oldest)  # another may have asked meanwhile
            if known is None:
                known = self._known[issuer] = _fetch(issuer)
        except NetworkError as error:
            self._silent[issuer] = time.monotonic(), error
            raise
        finally:
            asking.release()
        return known

    def _fresh(self, issuer: str, oldest: float) -> _Known | None:
        """Return what is known of the issuer, unless it is too old; raise again what went wrong just now."""
        known = self._known.get(issuer)
        if known is not None and time.monotonic() - known.fetched <= oldest:
            return known
        at, error = self._silent.get(issuer, (-_SILENT_SECONDS, None))
        if error is not None and time.monotonic() - at < _SILENT_SECONDS:
            raise NetworkError(error.message, hint=error.hint)
        return None


def _fetch(issuer: str) -> _Known:
    with Session(seconds=_SECONDS) as session:
        about = _json(session, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if str(about.get("issuer", "")) != issuer:
            raise NetworkError(f"{issuer} says that it is {str(about.get('issuer'))[:200]!r}")
        place = str(about.get("jwks_uri", ""))
        if not secure(place.partition("?")[0]):
            raise NetworkError(f"{issuer} has its keys at an address that is not https: {place[:200]!r}")
        found = _json(session, place).get("keys")
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        raise NetworkError(f"{issuer} has no list of at most {_MOST_KEYS} keys at {place}")
    return _Known(time.monotonic(), about, _keys(found))


def _keys(found: list[Any]) -> KeySet:
    """Return the keys that sign and that we understand; others are as good as none."""
    keys = []
    for one in found:
        if isinstance(one, dict) and one.get("kty") in {"RSA", "EC", "OKP"} and one.get("use", "sig") == "sig":
            try:
                keys += KeySet.import_key_set({"keys": [one]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    return KeySet(keys)


def _json(session: Session, url: str) -> Mapping[str, Any]:
    found = session.request("GET", url, limit_bytes=LIMITS.token_answer_bytes).expect(200).json()
    if not isinstance(found, dict):
        raise NetworkError(f"{url} did not answer with a JSON object")
    return found


def _require(claims: Mapping[str, Any], issuer: str, audience: str) -> None:
    now = clock.now()
    if claims.get("iss") != issuer:  # step 2
        raise LoginError("the token is of another issuer")
    meant = claims.get("aud")
    if audience not in (meant if isinstance(meant, list) else [meant]):  # step 3
        raise LoginError("the token is meant for somebody else", hint=f"its audience must be {audience}")
    if isinstance(meant, list) and len(meant) > 1 and claims.get("azp", audience) != audience:  # steps 4 and 5
        raise LoginError("the token was given to somebody else")
    if _time(claims, "exp") <= now - _LEEWAY_SECONDS:  # step 9
        raise LoginError("the token of the identity provider has expired")
    if _time(claims, "iat") > now + _LEEWAY_SECONDS or _time({"nbf": 0, **claims}, "nbf") > now + _LEEWAY_SECONDS:
        raise LoginError("the token of the identity provider is of the future", hint="check the hub's clock")  # step 10
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise LoginError("the token does not say who it is about")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LoginError(f"the token of the identity provider has no {name}")
    return float(value)
