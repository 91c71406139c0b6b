"""Who we are to a registry: the token protocol of Docker's registries, with Basic where a registry asks for it.

https://distribution.github.io/distribution/spec/auth/token/: a registry answers 401 and names a realm; the realm gives
a token for one scope. A password goes only to the registry itself, or to the realm that it names if that is reached
by https; never to an address that others on the network could read along.
"""

import re
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from computeops.errors import LoginError, NetworkError
from computeops.http import Answer, Session
from computeops.http.addresses import origin, shown
from computeops.limits import LIMITS
from computeops.store.credentials import Login, loopback

_PARAMETER = re.compile(r'([a-z_]+)="([^"\\]*)"')
_CHALLENGE = re.compile(r"(?:^|,)\s*(bearer|basic)(?:\s+|$)", re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_SECONDS = 60.0  # what a token is good for if its realm does not say (the specification's default)
_EARLY = 10.0  # a token is renewed so many seconds before its end


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for in `WWW-Authenticate`."""

    scheme: str
    """`bearer` or `basic`."""
    realm: str = ""
    service: str = ""

    @classmethod
    def of(cls, answer: Answer) -> "Challenge | None":
        """Return the challenge of an answer 401 that we can meet, `bearer` before `basic`; None if there is none."""
        header = answer.headers.get("www-authenticate", "")
        found = {}
        marks = list(_CHALLENGE.finditer(header))
        for mark, following in zip(marks, [*marks[1:], None], strict=True):
            part = header[mark.end() : following.start() if following else len(header)]
            values = dict(_PARAMETER.findall(part))
            found[mark[1].lower()] = cls(mark[1].lower(), values.get("realm", ""), values.get("service", ""))
        return found.get("bearer") or found.get("basic")


class Tokens:
    """The `Authorization` headers of one registry, one per scope; shared by threads."""

    def __init__(self, base: str, login: Login | None) -> None:
        self._base, self._login = base, login
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}

    def header(self, scope: str) -> dict[str, str]:
        """Return the header for `scope` as far as it is known, else nothing."""
        with self._lock:
            value, until = self._known.get(scope, ("", 0.0))
        return {"Authorization": value} if value and time.monotonic() < until else {}

    def meet(self, answer: Answer, scope: str, session: Session) -> dict[str, str]:
        """Return the header that an answer 401 of the registry asks for.

        Raises:
            LoginError: it needs a login that we do not have, or refuses the one we have.
            NetworkError: the challenge makes no sense, or would send a secret in the open.
        """
        challenge = Challenge.of(answer) if origin(answer.url) == origin(self._base) else None
        if challenge is None:
            raise self._refused(answer)
        if challenge.scheme == "basic":
            if self._login is None:
                raise self._refused(answer)
            value, seconds = self._login.basic, float("inf")
        else:
            value, seconds = self._fetch(challenge, scope, session)
        with self._lock:
            self._known[scope] = (value, time.monotonic() + seconds)
        return {"Authorization": value}

    def _fetch(self, challenge: Challenge, scope: str, session: Session) -> tuple[str, float]:
        self._check_realm(challenge.realm)
        query = [("service", challenge.service)] if challenge.service else []
        query += [("scope", scope)] if scope else []
        separator = "&" if urlsplit(challenge.realm).query else "?"
        url = challenge.realm + (separator + urlencode(query) if query else "")
        headers = {"Authorization": self._login.basic} if self._login else {}
        answer = session.request("GET", url, headers=headers, limit_bytes=LIMITS.token_answer_bytes)
        if answer.status in {401, 403}:
            raise self._refused(answer)
        data = answer.expect(200).json()
        data = data if isinstance(data, dict) else {}
        token = data.get("token") or data.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise NetworkError(f"{shown(url)} gave no token")
        return f"Bearer {token}", _seconds(data.get("expires_in"))

    def _check_realm(self, realm: str) -> None:
        """Refuse a realm that would carry a secret, or a token, over a network in the open."""
        scheme, host, _ = origin(realm)
        here = origin(self._base)
        same = origin(realm) == here
        local = scheme == "http" and loopback(host) and loopback(here[1])
        if not host or not (scheme == "https" or same or (local and here[0] == "http")):
            raise NetworkError(f"{self._base} asks to log in at {shown(realm)}, which is not encrypted")

    def _refused(self, answer: Answer) -> LoginError:
        if self._login is None:
            return LoginError(f"{shown(answer.url)} asks who you are", hint=f"log in: computeops login {self._base}")
        return LoginError(
            f"{shown(answer.url)} does not accept the stored login",
            hint=f"it may have expired or not cover this; get a new one and: computeops login {self._base}",
        )


def _seconds(given: Any) -> float:
    seconds = float(given) if isinstance(given, int | float) and 0 < given < 10**9 else _SECONDS
    return max(seconds - _EARLY, 1.0)
