"""Who may what in which collection: members and their roles, and who may bring a collection into being.

A role holds in one collection, not in those below it (`bio` says nothing about `bio/rna`).
"""

import re
import time
from dataclasses import dataclass

import sqlalchemy as sa

from computeops.errors import ConflictError, DeniedError, LoginError, NotFoundError, UsageError, did_you_mean
from computeops.hub.auth import ROLES, Caller
from computeops.hub.db import Database, upsert
from computeops.hub.tables import collections, members, people

NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Member:
    """A person with a role in a collection."""

    name: str
    title: str
    role: str
    created: int


def allows(database: Database, caller: Caller, action: str, repository: str) -> bool:
    """Return whether `caller` may `action` on `repository`, which may be the first of a new collection."""
    if caller.may(action, repository):
        return True
    collection = repository.rpartition("/")[0]
    if action != "push" or not caller.person or not caller.covers(action, repository):
        return False
    with database.read() as connection:
        return not _exists(connection, collection) and _may_create(connection, caller, collection)


def admit(database: Database, caller: Caller, action: str, repository: str, *, public: bool = True) -> bool:
    """Answer as `allows`; a person who so begins a new collection becomes its owner, and it is `public` or not."""
    if not allows(database, caller, action, repository):
        return False
    collection = repository.rpartition("/")[0]
    if action != "push" or collection in (caller.roles or {}) or (public and not caller.person):
        return True
    if exists(database, collection):
        return caller.may(action, repository)
    with database.write() as connection:
        if _exists(connection, collection):  # somebody else was faster
            return caller.may(action, repository)
        _create(database, connection, caller, collection, public=public)
    return True


def create(database: Database, caller: Caller, collection: str, *, public: bool) -> None:
    """Make an empty collection; the person who does so becomes its owner.

    Raises:
        UsageError: no collection can be called so.
        LoginError, DeniedError: the caller may not.
        ConflictError: there is one.
    """
    check_name(collection)
    with database.write() as connection:
        if not caller.covers("manage", f"{collection}/*") or not _may_create(connection, caller, collection):
            raise refused(caller, f"make the collection {collection}")
        if _exists(connection, collection):
            raise ConflictError(f"there is a collection {collection}")
        _create(database, connection, caller, collection, public=public)


def check_name(collection: str) -> None:
    """Refuse what no collection can be called.

    Raises:
        UsageError: so.
    """
    if len(collection) > _NAME_LENGTH or not NAME.fullmatch(collection):
        raise UsageError(f"not a collection: {collection[:80]!r}", hint="write it in lower case, for example bio")


def _exists(connection: sa.Connection, collection: str) -> bool:
    return connection.execute(sa.select(collections.c.name).where(collections.c.name == collection)).first() is not None


def _may_create(connection: sa.Connection, caller: Caller, collection: str) -> bool:
    """Below an existing collection its owners may; elsewhere who may create collections at all."""
    if caller.administrator or caller.roles is None:
        return True
    above = collection
    while above := above.rpartition("/")[0]:
        if _exists(connection, above):
            return (caller.roles or {}).get(above) == "owner"
    return caller.creates


def _create(database: Database, connection: sa.Connection, caller: Caller, collection: str, *, public: bool) -> None:
    now = int(time.time())
    connection.execute(sa.insert(collections).values(name=collection, public=public, created=now))
    database.record_collection(connection, collection)
    if caller.person:
        row = {"collection": collection, "person": caller.person, "role": "owner", "created": now}
        connection.execute(sa.insert(members).values(**row))


def require(database: Database, caller: Caller, collection: str, role: str) -> None:
    """Let only those go on who have `role`, or a greater one, in the collection.

    Raises:
        LoginError: nobody asks.
        NotFoundError: there is no such collection, or none that the caller may know of: the same words for both.
        DeniedError: the caller may see it, but not do this.
    """
    if not caller.name:
        raise LoginError("a token is needed", hint="sign in, or send one as Authorization: Bearer")
    with database.read() as connection:
        row = connection.execute(sa.select(collections.c.public).where(collections.c.name == collection)).first()
    if row is None or not (row.public or caller.may("pull", f"{collection}/any")):
        raise NotFoundError(f"no collection {collection[:80]}")
    if not caller.manages(collection, role):
        raise DeniedError(f"only one who is {role} of {collection} may do this", hint="ask an owner of the collection")


def exists(database: Database, collection: str) -> bool:
    """Return whether there is such a collection, whoever asks."""
    with database.read() as connection:
        return _exists(connection, collection)


def is_public(database: Database, collection: str) -> bool:
    """Return whether everybody sees the collection."""
    with database.read() as connection:
        query = sa.select(collections.c.public).where(collections.c.name == collection)
        return bool(connection.execute(query).scalar())


def list_members(database: Database, collection: str) -> list[Member]:
    """Return the members of a collection, the greatest roles first."""
    query = (
        sa.select(people.c.name, people.c.title, members.c.role, members.c.created)
        .join_from(members, people, people.c.id == members.c.person)
        .where(members.c.collection == collection)
        .order_by(people.c.name)
    )
    with database.read() as connection:
        found = [Member(*row) for row in connection.execute(query)]
    return sorted(found, key=lambda one: -ROLES.index(one.role))


def set_member(database: Database, collection: str, name: str, role: str) -> None:
    """Give the person `name` this role in the collection.

    Raises:
        UsageError: there is no such role.
        NotFoundError: there is no such person or collection.
        ConflictError: the collection would be without an owner.
    """
    if role not in ROLES:
        raise UsageError(f"no such role: {role[:40]!r}{did_you_mean(role, ROLES)}; there are: {', '.join(ROLES)}")
    with database.write() as connection:
        person = _person(connection, name)
        if not _exists(connection, collection):
            raise NotFoundError(f"no collection {collection}")
        row = {"collection": collection, "person": person, "role": role, "created": int(time.time())}
        if role != "owner":
            _keep_an_owner(connection, collection, person)
        upsert(connection, members, row, change=["role"])


def remove_member(database: Database, collection: str, name: str) -> None:
    """Take the role of the person `name` in the collection away.

    Raises:
        NotFoundError: that person has none.
        ConflictError: the collection would be without an owner.
    """
    with database.write() as connection:
        person = _person(connection, name)
        _keep_an_owner(connection, collection, person)
        here = (members.c.collection == collection) & (members.c.person == person)
        if not connection.execute(sa.delete(members).where(here)).rowcount:
            raise NotFoundError(f"{name} has no role in {collection}")


def _person(connection: sa.Connection, name: str) -> int:
    found = connection.execute(sa.select(people.c.id).where(people.c.name == name)).scalar()
    if found is None:
        raise NotFoundError(f"there is nobody called {name[:80]!r} here", hint="people appear when they first sign in")
    return int(found)


def _keep_an_owner(connection: sa.Connection, collection: str, person: int) -> None:
    owners = sa.select(members.c.person).where(members.c.collection == collection, members.c.role == "owner")
    if set(connection.scalars(owners)) == {person}:
        raise ConflictError(f"{collection} would be without an owner", hint="make somebody else its owner first")


def of_person(database: Database, person: int) -> dict[str, str]:
    """Return collection to role of one person."""
    query = sa.select(members.c.collection, members.c.role).where(members.c.person == person)
    with database.read() as connection:
        return {row.collection: row.role for row in connection.execute(query.order_by(members.c.collection))}


def refused(caller: Caller, what: str) -> LoginError | DeniedError:
    """Return the error of a caller who may not do this."""
    if not caller.name:
        return LoginError(f"a token is needed to {what}", hint="sign in, or send one as Authorization: Bearer")
    return DeniedError(f"{caller.name} may not {what}")
