"""Who asks, and what they may do: tokens with scopes, and the Docker token endpoint.

A token `cops_...` has 214 characters, because Apptainer refuses token files shorter than 200. The hub keeps only its
sha256. It is accepted as `Authorization: Bearer`, as the password of `Basic` with any user name, and by the token
endpoint (https://distribution.github.io/distribution/spec/auth/token/), which answers with a session token: a token's
id and an end, authenticated with the hub's own key, so that what a revoked token may do ends at once.

A scope is `ACTION:PATTERN`: the actions are pull < push < delete, each including those before; the pattern is a
repository, `collection/*` for all in it, or `*`.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from computeops.errors import LoginError, StorageError, UsageError, did_you_mean
from computeops.hub.db import Database, Repository, tokens

ACTIONS = ("pull", "push", "delete")
SESSION_SECONDS = 3600
_SESSION = "copss."
_NOBODY = "0"
_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 209
_KEY_BYTES = 32
_PATTERN = re.compile(r"\*|[a-z0-9][a-z0-9._/-]*(/\*)?")
_DAY = 24 * 3600
_MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Scope:
    """An action on the repositories that match a pattern."""

    action: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `push:bio/*`.

        Raises:
            UsageError: it is not a scope.
        """
        action, _, pattern = text.partition(":")
        if action not in ACTIONS:
            raise UsageError(
                f"unknown action in scope {text!r}{did_you_mean(action, ACTIONS)}", hint="write for example push:bio/*"
            )
        if not _PATTERN.fullmatch(pattern):
            raise UsageError(f"not a pattern of repositories: {pattern!r}", hint="write *, bio/* or bio/samtools")
        return cls(action, pattern)

    def allows(self, action: str, repository: str) -> bool:
        """Return whether this scope covers `action` on `repository`."""
        if ACTIONS.index(action) > ACTIONS.index(self.action):
            return False
        if self.pattern.endswith("*"):
            return repository.startswith(self.pattern[:-1])
        return repository == self.pattern

    def reaches(self, action: str, prefix: str) -> bool:
        """Return whether this scope covers `action` on any repository whose name begins with `prefix`."""
        if ACTIONS.index(action) > ACTIONS.index(self.action):
            return False
        below = self.pattern.rstrip("*")
        return below.startswith(prefix) or (below != self.pattern and prefix.startswith(below))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; nobody in particular has no name and no scopes."""

    name: str = ""
    scopes: tuple[Scope, ...] = ()
    token: int = 0
    expires: float = float("inf")
    """When the token ends, seconds since 1970."""

    def may(self, action: str, repository: str) -> bool:
        """Return whether a scope of this caller covers `action` on `repository`."""
        return any(scope.allows(action, repository) for scope in self.scopes)

    def may_below(self, action: str, prefix: str) -> bool:
        """Return whether a scope of this caller covers `action` on any repository whose name begins with `prefix`."""
        return any(scope.reaches(action, prefix) for scope in self.scopes)

    def sees(self, repository: Repository) -> bool:
        """Return whether this caller may know that `repository` exists."""
        return repository.public or self.may("pull", repository.name)


ANYONE = Caller()


class Auth:
    """The tokens of one hub."""

    def __init__(self, database: Database, data: Path) -> None:
        self._database = database
        self._key = _key(data / "session.key")

    def issue(self, name: str, scopes: Sequence[Scope], *, days: int) -> str:
        """Return a new token; it is shown once and cannot be read again.

        Raises:
            UsageError: no name, no scope, or not 1 to 3650 days.
        """
        if not name or not scopes or not 1 <= days <= _MAX_DAYS:
            raise UsageError(f"a token needs a name, a scope and 1 to {_MAX_DAYS} days")
        token = "cops_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        now = int(time.time())
        row = {
            "name": name,
            "hash": _hash(token),
            "scopes": [f"{s.action}:{s.pattern}" for s in scopes],
            "created": now,
            "expires": now + days * _DAY,
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(tokens).values(**row))
        return token

    def caller(self, authorization: str) -> Caller:
        """Return who sends this `Authorization` header; without one, anyone.

        Raises:
            LoginError: a token that is wrong, expired or revoked: never silently "anyone".
        """
        caller = self._database.remember(("caller", authorization), lambda: self._caller(authorization))
        if caller.expires < time.time():
            raise LoginError("the token has expired", hint="log in again")
        return caller

    def _caller(self, authorization: str) -> Caller:
        kind, _, value = authorization.strip().partition(" ")
        value = value.strip()
        if not value:  # also Apptainer's empty `Bearer `
            return ANYONE
        if kind.lower() == "basic":
            value = _password(value)
        elif kind.lower() != "bearer":
            raise LoginError(f"unknown kind of authorization: {kind[:20]!r}")
        return self._of_session(value) if value.startswith(_SESSION) else self._of_token(value)

    def session(self, caller: Caller) -> str:
        """Return a session token of `caller`, good for `SESSION_SECONDS`."""
        text = f"{_SESSION}{caller.token}.{int(time.time()) + SESSION_SECONDS}"
        return f"{text}.{self._sign(text)}"

    def _of_token(self, token: str) -> Caller:
        return self._find(tokens.c.hash == _hash(token))

    def _of_session(self, session: str) -> Caller:
        text, _, signature = session.rpartition(".")
        if not hmac.compare_digest(self._sign(text).encode(), signature.encode()):
            raise LoginError("the session is not valid", hint="log in again")
        identity, _, end = text.removeprefix(_SESSION).partition(".")
        caller = ANYONE if identity == _NOBODY else self._find(tokens.c.id == int(identity))
        return replace(caller, expires=min(caller.expires, float(end)))

    def _find(self, condition: sa.ColumnElement[bool]) -> Caller:
        with self._database.read() as connection:
            row = connection.execute(sa.select(tokens).where(condition)).first()
        if row is None:
            raise LoginError("the token is not valid", hint="ask the hub's operator for a new one")
        return Caller(row.name, tuple(Scope.parse(text) for text in row.scopes), row.id, row.expires)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def challenge(base: str, repository: str = "", actions: str = "pull") -> str:
    """Return the `WWW-Authenticate` header that sends a client to the token endpoint of the hub at `base`."""
    scope = f',scope="repository:{repository}:{actions}"' if repository else ""
    return f'Bearer realm="{base}/auth/token",service="{base.partition("://")[2]}"{scope}'


def _password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise LoginError("the Basic authorization cannot be read") from None


def _hash(token: str) -> str:
    # a fast hash is right here: a token has over 1,000 random bits, nothing to guess
    return hashlib.sha256(token.encode()).hexdigest()


def _key(path: Path) -> bytes:
    """Return the hub's secret key; the first caller makes it, and it appears whole."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first
            path.hardlink_to(temporary)
        temporary.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StorageError(f"{path} is damaged", hint="remove it; everyone's session ends, no token does")
    return key
