"""Who asks, and what they may do: tokens with scopes, and the Docker token endpoint.

A token `cops_...` has 214 characters, because Apptainer refuses token files shorter than 200. The hub keeps only its
sha256. It is accepted as `Authorization: Bearer`, as the password of `Basic` with any user name, and by the token
endpoint (https://distribution.github.io/distribution/spec/auth/token/), which answers with a session token: a token's
id and an end, authenticated with the hub's own key, so that what a revoked token may do ends at once.

A scope is `ACTION:PATTERN`: the actions are pull < push < delete < manage, each including those before; the pattern is
a repository, `collection/*` for all below it, or `*`.

An operator's token may what its scopes say. A person's may what its scopes say and the person's roles allow, looked up
at every request: a token never gives more than its person has now. A robot's is bound to its collection, one that CI
got (`publishing`) to its repository, and a browser's works as a cookie only.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from computeops.errors import LoginError, StorageError, UsageError, did_you_mean
from computeops.files import whole_file
from computeops.hub import clock
from computeops.hub.db import Database, Repository
from computeops.hub.tables import members, people, tokens

ACTIONS = ("pull", "push", "delete", "manage")
ROLES = ("reader", "contributor", "maintainer", "owner")
"""Of people in a collection, each including those before."""
_LEAST = {"pull": "reader", "push": "contributor", "delete": "maintainer", "manage": "owner"}
OPERATOR, PERSONAL, ROBOT, CI, BROWSER, WORKER = KINDS = ("operator", "personal", "robot", "ci", "browser", "worker")
EVERYTHING = "manage:*"
SESSION_SECONDS = 3600
_SESSION = "copss."
_NOBODY = "0"
_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 209
_KEY_BYTES = 32
_PATTERN = re.compile(r"\*|[a-z0-9][a-z0-9._/-]*(/\*)?")
_DAY = 24 * 3600
_MAX_DAYS = 3650
_NAME_LENGTH = 100


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
    kind: str = ""
    """One of `KINDS`."""
    person: int = 0
    roles: Mapping[str, str] | None = None
    """Collection to role, for people and robots; None: the scopes alone count."""
    administrator: bool = False
    creates: bool = False
    """Whether this person may bring new collections into being."""

    def may(self, action: str, repository: str) -> bool:
        """Return whether this caller may `action` on `repository`: by a scope, and by a role where those count."""
        return self.covers(action, repository) and self._has(_LEAST[action], repository.rpartition("/")[0])

    def covers(self, action: str, repository: str) -> bool:
        """Return whether a scope of this caller covers `action` on `repository`, whatever its roles."""
        return any(scope.allows(action, repository) for scope in self.scopes)

    def may_below(self, action: str, prefix: str) -> bool:
        """Return whether this caller may `action` on any repository whose name begins with `prefix`."""
        if not any(scope.reaches(action, prefix) for scope in self.scopes):
            return False
        if self.roles is None or self.administrator or self.creates:
            return True
        return any(f"{one}/".startswith(prefix) and self._has(_LEAST[action], one) for one in self.roles)

    def manages(self, collection: str, role: str) -> bool:
        """Return whether this caller may manage `collection` as one who has `role` there."""
        return self.covers("manage", f"{collection}/*") and self._has(role, collection)

    @property
    def rules(self) -> bool:
        """Whether this caller may manage the hub itself."""
        return self.covers("manage", "*") and (self.roles is None or self.administrator)

    def _has(self, role: str, collection: str) -> bool:
        """Return whether this caller has `role`, or a greater one, in `collection`."""
        if self.roles is None or self.administrator:
            return True
        known = self.roles.get(collection, "")
        return known in ROLES and ROLES.index(known) >= ROLES.index(role)

    def sees(self, repository: Repository) -> bool:
        """Return whether this caller may know that `repository` exists."""
        return repository.public or self.may("pull", repository.name)


ANYONE = Caller()


class Auth:
    """The tokens of one hub."""

    def __init__(self, database: Database, data: Path, *, people_create: bool = False) -> None:
        self._database = database
        self._people_create = people_create
        self._key = _key(data / "session.key")

    def issue(self, name: str, scopes: Sequence[Scope], *, days: int) -> str:
        """Return a new token of the operator; it is shown once and cannot be read again.

        Raises:
            UsageError: no name, no scope, or not 1 to 3650 days.
        """
        return self.grant(name, scopes, seconds=lifetime(days))

    def grant(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        seconds: int,
        kind: str = OPERATOR,
        person: int | None = None,
        collection: str | None = None,
        publisher: int | None = None,
    ) -> str:
        """Return a new token of `kind` that ends after `seconds`; what it belongs to is never asked for here.

        Raises:
            UsageError: no name, a name that is no line of 1 to 100 characters, or no scope.
        """
        if not scopes:
            raise UsageError("a token needs a scope", hint="for example pull:bio/*")
        if not name.isprintable() or not 1 <= len(name) <= _NAME_LENGTH:
            raise UsageError(f"a token needs a name of 1 to {_NAME_LENGTH} characters")
        token = "cops_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        now = int(clock.now())
        row = {
            "name": name,
            "hash": _hash(token),
            "scopes": [f"{s.action}:{s.pattern}" for s in scopes],
            "created": now,
            "expires": now + seconds,
            "kind": kind,
            "person": person,
            "collection": collection,
            "publisher": publisher,
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
        if caller.expires < clock.now():
            raise LoginError("the token has expired", hint="log in again")
        return caller

    def visitor(self, cookie: str) -> Caller:
        """Return who sends this cookie of the portal; one that has ended, or is none, is anyone's."""
        try:
            if cookie.startswith(_SESSION):
                return self.caller(f"Bearer {cookie}")
            caller = self._database.remember(("visitor", cookie), lambda: self._of_browser(cookie))
        except LoginError:
            return ANYONE
        return caller if caller.expires >= clock.now() else ANYONE

    def end(self, cookie: str) -> None:
        """End the session in a browser, so that nobody who has copied the cookie can go on."""
        with self._database.write() as connection:
            connection.execute(sa.delete(tokens).where(tokens.c.hash == _hash(cookie), tokens.c.kind == BROWSER))

    def sign(self, purpose: str, text: str) -> str:
        """Return a signature of `text` that holds for `purpose` only, and only this hub can make."""
        return self._sign(f"{purpose}\0{text}")

    def _of_browser(self, cookie: str) -> Caller:
        return self._find((tokens.c.hash == _hash(cookie)) & (tokens.c.kind == BROWSER))

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
        text = f"{_SESSION}{caller.token}.{int(clock.now()) + SESSION_SECONDS}"
        return f"{text}.{self._sign(text)}"

    def _of_token(self, token: str) -> Caller:
        return self._find((tokens.c.hash == _hash(token)) & (tokens.c.kind != BROWSER))

    def _of_session(self, session: str) -> Caller:
        text, _, signature = session.rpartition(".")
        if not hmac.compare_digest(self._sign(text).encode(), signature.encode()):
            raise LoginError("the session is not valid", hint="log in again")
        identity, _, end = text.removeprefix(_SESSION).partition(".")
        caller = ANYONE if identity == _NOBODY else self._find(tokens.c.id == int(identity))
        return replace(caller, expires=min(caller.expires, float(end)))

    def _find(self, condition: sa.ColumnElement[bool]) -> Caller:
        person = people.c.name.label("person_name"), people.c.administrator, people.c.active
        query = sa.select(tokens, *person).join(people, people.c.id == tokens.c.person, isouter=True).where(condition)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            if row is None or row.active is False:
                raise LoginError("the token is not valid", hint="make a new one at /auth/tokens, or ask the operator")
            roles = _roles(connection, row)
        return Caller(
            row.person_name or row.name,
            tuple(Scope.parse(text) for text in row.scopes),
            row.id,
            row.expires,
            kind=row.kind,
            person=row.person or 0,
            roles=roles,
            administrator=bool(row.administrator),
            creates=bool(row.administrator) or (row.person is not None and self._people_create),
        )

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def lifetime(days: int) -> int:
    """Return `days` in seconds.

    Raises:
        UsageError: it is not 1 to 3650 days.
    """
    if not 1 <= days <= _MAX_DAYS:
        raise UsageError(f"a token is for 1 to {_MAX_DAYS} days")
    return days * _DAY


def _roles(connection: sa.Connection, token: Any) -> Mapping[str, str] | None:
    """Return the roles that bound this token; it fails closed: only an operator's and CI's have none."""
    if token.kind in {OPERATOR, CI}:
        return None
    if token.kind == ROBOT:
        return {token.collection: "maintainer"}
    query = sa.select(members.c.collection, members.c.role).where(members.c.person == token.person)
    return {row.collection: row.role for row in connection.execute(query)}


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


def share_key(database: Database, data: Path) -> None:
    """Let all machines of a hub have the secret key of the first one, which their database remembers."""
    path = data / "session.key"
    own = _key(path)
    shared = bytes.fromhex(database.note("session.key", own.hex()))
    if shared != own:
        with whole_file(path, 0o600) as file:
            file.write(shared)


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
