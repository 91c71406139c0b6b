"""People with an account: how they come, what they are in the hub, and the tokens that they and collections have."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.errors import ConflictError, DeniedError, NotFoundError, UsageError, did_you_mean
from computeops.hub.auth import BROWSER, CI, PERSONAL, ROBOT, Auth, Scope, lifetime
from computeops.hub.db import Database, upsert
from computeops.hub.tables import experts, identities, people, tokens

EXPERTISE = ("scientific", "technical")
BROWSER_SECONDS = 12 * 3600
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_DOMAIN = re.compile(r"[a-z0-9]+(?:[ ._-][a-z0-9]+)*|\*")
_NAME_LENGTH = 60
_MOST_TOKENS = 200
_MOST_NAMESAKES = 1000


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    id: int
    name: str
    title: str
    administrator: bool
    active: bool
    created: int
    experts: Mapping[str, tuple[str, ...]]
    """`scientific` or `technical` to domains; the domain `*` is every one."""


@dataclass(frozen=True, slots=True)
class Token:
    """What can be told of a token; the token itself was shown once."""

    id: int
    name: str
    kind: str
    owner: str
    """Name of the person, or the collection; empty: the operator's."""
    scopes: tuple[str, ...]
    created: int
    expires: int


def add(database: Database, name: str, *, administrator: bool = False, title: str = "") -> Person:
    """Make an account.

    Raises:
        UsageError: nobody can be called so.
        ConflictError: somebody is called so.
    """
    if len(name) > _NAME_LENGTH or not _NAME.fullmatch(name):
        raise UsageError(f"not a name: {name[:80]!r}", hint="use lower case letters, digits and single . _ - between")
    with database.write() as connection:
        if connection.execute(sa.select(people.c.id).where(people.c.name == name)).first() is not None:
            raise ConflictError(f"there is somebody called {name}", hint="`hub user set` changes an account")
        _insert(connection, name, title or name, administrator=administrator)
    return find(database, name)


def _insert(connection: sa.Connection, name: str, title: str, *, administrator: bool = False) -> int:
    row = {"name": name, "title": title, "administrator": administrator, "active": True, "created": int(time.time())}
    made = connection.execute(sa.insert(people).values(**row)).inserted_primary_key
    assert made is not None
    return int(made[0])


def find(database: Database, name: str) -> Person:
    """Return the person called `name`.

    Raises:
        NotFoundError: there is nobody.
    """
    found = everybody(database, people.c.name == name)
    if not found:
        raise NotFoundError(f"there is nobody called {name[:80]!r} here", hint="people appear when they first sign in")
    return found[0]


def everybody(database: Database, condition: sa.ColumnElement[bool] | None = None) -> list[Person]:
    """Return all who have an account, by name."""
    query = sa.select(people).order_by(people.c.name)
    with database.read() as connection:
        rows = connection.execute(query if condition is None else query.where(condition)).all()
        known = connection.execute(sa.select(experts).order_by(experts.c.domain)).all()
    return [
        Person(
            *(row.id, row.name, row.title, row.administrator, row.active, row.created),
            {
                kind: tuple(one.domain for one in known if (one.person, one.kind) == (row.id, kind))
                for kind in EXPERTISE
                if any((one.person, one.kind) == (row.id, kind) for one in known)
            },
        )
        for row in rows
    ]


def change(database: Database, name: str, *, administrator: bool | None = None, active: bool | None = None) -> None:
    """Make the person an administrator or none, or let them in or not; it holds at once, for all their tokens.

    Raises:
        NotFoundError: there is nobody called so.
    """
    person = find(database, name)
    new = {key: value for key, value in (("administrator", administrator), ("active", active)) if value is not None}
    if new:
        with database.write() as connection:
            connection.execute(sa.update(people).where(people.c.id == person.id).values(**new))


def set_expert(database: Database, name: str, kind: str, domain: str, *, is_one: bool) -> None:
    """Say whether the person is an expert of this kind in this domain.

    Raises:
        UsageError: no such kind, or no domain.
        NotFoundError: there is nobody called so.
    """
    if kind not in EXPERTISE:
        raise UsageError(f"no such kind of expert: {kind[:40]!r}{did_you_mean(kind, EXPERTISE)}")
    if not _DOMAIN.fullmatch(domain) or len(domain) > _NAME_LENGTH:
        raise UsageError(f"not a domain: {domain[:80]!r}", hint="write it as recipes do, or * for every one")
    row = {"person": find(database, name).id, "kind": kind, "domain": domain}
    with database.write() as connection:
        if is_one:
            upsert(connection, experts, row, keep=True)
        else:
            connection.execute(sa.delete(experts).where(*(experts.c[key] == value for key, value in row.items())))


def signed_in(database: Database, *, issuer: str, subject: str, login: str, title: str) -> Person:
    """Return who is `subject` at `issuer`; who comes for the first time gets an account, named after `login`.

    Raises:
        DeniedError: the account was closed.
    """
    key = (identities.c.issuer == issuer) & (identities.c.subject == subject)
    with database.write() as connection:
        person = connection.execute(sa.select(identities.c.person).where(key)).scalar()
        if person is None:
            person = _insert(connection, _free_name(connection, login), title or login)
            row = {"issuer": issuer, "subject": subject, "person": person, "login": login, "created": int(time.time())}
            connection.execute(sa.insert(identities).values(**row))
    found = everybody(database, people.c.id == person)[0]
    if not found.active:
        raise DeniedError("this account was closed", hint="ask the hub's operator")
    return found


def _free_name(connection: sa.Connection, login: str) -> str:
    """Return a name like `login` that nobody has: a name elsewhere is no claim to the same name here."""
    base = re.sub(r"[^a-z0-9]+", "-", login.lower())[: _NAME_LENGTH - 10].strip("-") or "someone"
    for number in range(1, _MOST_NAMESAKES):
        name = base if number == 1 else f"{base}-{number}"
        if connection.execute(sa.select(people.c.id).where(people.c.name == name)).first() is None:
            return name
    raise ConflictError(f"too many people are called {base}")


# tokens


def begin_browser(auth: Auth, person: Person) -> str:
    """Return the secret of a new session in a browser."""
    whole = [Scope.parse("manage:*")]
    return auth.grant("browser", whole, seconds=BROWSER_SECONDS, kind=BROWSER, person=person.id)


def personal_token(database: Database, auth: Auth, person: int, name: str, scopes: Sequence[Scope], days: int) -> str:
    """Return a new token of a person, which may what its scopes say and the person's roles allow.

    Raises:
        UsageError: the name, the scopes or the days are wrong.
        ConflictError: the person has too many.
    """
    _require_room(database, tokens.c.person == person)
    return auth.grant(name, scopes, seconds=lifetime(days), kind=PERSONAL, person=person)


def robot_token(database: Database, auth: Auth, collection: str, name: str, actions: Sequence[str], days: int) -> str:
    """Return a new token that belongs to a collection and works there only.

    Raises:
        UsageError: the name, the actions or the days are wrong.
        ConflictError: the collection has too many.
    """
    if wrong := [one for one in actions if one not in {"pull", "push", "delete"}]:
        raise UsageError(f"a robot may pull, push or delete, not {wrong[0][:40]!r}")
    _require_room(database, tokens.c.collection == collection)
    scopes = [Scope.parse(f"{action}:{collection}/*") for action in actions]
    return auth.grant(name, scopes, seconds=lifetime(days), kind=ROBOT, collection=collection)


def _require_room(database: Database, whose: sa.ColumnElement[bool]) -> None:
    counted = sa.select(sa.func.count()).select_from(tokens).where(whose, tokens.c.expires > int(time.time()))
    with database.read() as connection:
        if (connection.execute(counted).scalar() or 0) >= _MOST_TOKENS:
            raise ConflictError(f"there are {_MOST_TOKENS} tokens already", hint="revoke those that nobody uses")


def list_tokens(database: Database, *, person: int | None = None, collection: str | None = None) -> list[Token]:
    """Return the tokens that have not ended: of a person, of a collection, or all; no sessions of browsers."""
    query = (
        sa.select(tokens, people.c.name.label("person_name"))
        .join(people, people.c.id == tokens.c.person, isouter=True)
        .where(tokens.c.kind != BROWSER, tokens.c.expires > int(time.time()))
        .order_by(tokens.c.id)
    )
    for column, value in ((tokens.c.person, person), (tokens.c.collection, collection)):
        query = query if value is None else query.where(column == value)
    with database.read() as connection:
        return [_token(row) for row in connection.execute(query)]


def _token(row: sa.Row[Any]) -> Token:
    owner = row.person_name or row.collection or ""
    return Token(row.id, row.name, row.kind, owner, tuple(row.scopes), row.created, row.expires)


def revoke(database: Database, token: int, *, person: int | None = None, collection: str | None = None) -> None:
    """End a token at once: one of a person, of a collection, or any.

    Raises:
        NotFoundError: there is none.
    """
    here = (tokens.c.id == token) & (tokens.c.kind != BROWSER)
    for column, value in ((tokens.c.person, person), (tokens.c.collection, collection)):
        here = here if value is None else here & (column == value)
    with database.write() as connection:
        if not connection.execute(sa.delete(tokens).where(here)).rowcount:
            raise NotFoundError(f"there is no token {token}")


def forget_ended(database: Database) -> None:
    """Delete the sessions of browsers and the tokens of CI that have ended."""
    ended = tokens.c.kind.in_([BROWSER, CI]) & (tokens.c.expires < int(time.time()))
    with database.write() as connection:
        connection.execute(sa.delete(tokens).where(ended))
