"""The audit log: who changed what, when, from where, and with which result. Rows are added, and nothing else.

What a request changed is written here before it is answered: no 201 without its row. Tokens, forms and bodies are never
in it. Steps of an upload are not writes yet; what strangers try and may not is in the hub's log, not here, else they
could fill it.
"""

import getpass
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.hub.auth import Caller
from computeops.hub.db import Database
from computeops.hub.tables import audit

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
_TEXT = 500
_NOTE = "computeops.note"
_QUESTIONS = ("/auth/token", "/v1/entities", "/v1/collections", "/v1/containers")
"""Paths to which a POST changes nothing."""
_WORK = "/api/v1/work/"
"""Where workers report every second; what is worth a line there has a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log."""

    id: int = 0
    at: int = 0
    who: str
    token: int = 0
    """Id of the token; 0: none, or a command on the hub's machine."""
    address: str = ""
    action: str
    target: str
    status: int = 200
    """HTTP status of the answer."""


def record(database: Database, entry: Entry) -> None:
    """Add one line; it is durable when this returns."""
    row = {
        "at": int(time.time()),
        "who": _clean(entry.who),
        "token": entry.token,
        "address": _clean(entry.address),
        "action": _clean(entry.action),
        "target": _clean(entry.target),
        "status": entry.status,
    }
    with database.write() as connection:
        connection.execute(sa.insert(audit).values(**row))


def by_operator(database: Database, action: str, target: str) -> None:
    """Add a line about a command on the hub's own machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    record(database, Entry(who=f"{user} on the hub's machine", action=action, target=target))


def note(scope: MutableMapping[str, Any], text: str) -> None:
    """Say in a few words what the request with this ASGI `scope` changes, for its line; no secrets."""
    scope[_NOTE] = text


def entry(scope: Mapping[str, Any], caller: Caller, status: int) -> Entry | None:
    """Return the line about a request that is about to be answered with `status`; None: it is not worth one."""
    method, path = str(scope["method"]), str(scope["path"])
    if method in READING or path in _QUESTIONS or (status >= 400 and not caller.name):
        return None
    if "/blobs/uploads" in path and status in {202, 204, 416}:
        return None
    if path.startswith(_WORK) and _NOTE not in scope:
        return None
    client = scope.get("client") or ("",)
    action = f"{method} {scope.get(_NOTE, '')}".strip()
    return Entry(who=caller.name, token=caller.token, address=str(client[0]), action=action, target=path, status=status)


def lines(database: Database, *, limit: int, before: int = 0, who: str = "", target: str = "") -> list[Entry]:
    """Return the newest lines, at most `limit` of those before the id `before`; of one person, of paths with a text."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit.c.id < before)
    if who:
        query = query.where(audit.c.who == who)
    if target:
        query = query.where(audit.c.target.contains(target, autoescape=True))
    with database.read() as connection:
        return [Entry(**row._mapping) for row in connection.execute(query)]  # noqa: SLF001  its public name in SQLAlchemy


def _clean(text: str) -> str:
    """Return text as one line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:_TEXT])
