"""Webhooks: a collection tells other machines what was pushed to it, signed, and tries again until they have heard it.

The signature is that of https://www.standardwebhooks.com, for which there are libraries in every language. What is to
be told is stored with the push and told by `Courier`, a task of every hub process; two processes do not tell the same
at the same time, and a receiver that gets something twice (after a crash) knows it by its id.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.errors import (
    ComputeOpsError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UsageError,
    did_you_mean,
)
from computeops.hub import outside
from computeops.hub.background import Background
from computeops.hub.db import Database, Repository
from computeops.hub.state import Hub
from computeops.hub.tables import collections, deliveries, webhooks
from computeops.image.oci import EVIDENCE_ARTIFACT, PREDICATE_TYPE

EVENTS = ("push", "evidence", "vulnerability.found", "rebuild.wanted")
"""A tag that was pushed; evidence about an image; what became known of releases; that another build would mend one."""
ATTEMPTS_SECONDS = (5, 30, 300, 1800, 7200, 21600, 43200)
"""Pauses behind each failed attempt; behind the last, it is given up: after about a day."""
_MOST = 20
_URL = 1000
_PREFIX = "whsec_"
_POLL_SECONDS = 2.0
_AT_ONCE = 8
_LEASE_SECONDS = 60
_KEPT_SECONDS = 30 * 24 * 3600
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a collection tells what was pushed; its secret was shown once."""

    id: int
    collection: str
    url: str
    events: tuple[str, ...]
    added_by: str
    created: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something told, or to be told."""

    id: int
    event: str
    created: int
    attempts: int
    due: int | None
    """When it is tried next; None: it was told, or given up."""
    outcome: str


def add(hub: Hub, collection: str, url: str, events: Sequence[str], *, added_by: str) -> tuple[Webhook, str]:
    """Return a new webhook and the secret of its signatures, which is shown once.

    Raises:
        UsageError: the address or an event is wrong.
        NotFoundError: there is no such collection.
        ConflictError: the collection has too many.
    """
    outside.check(url, private=hub.settings.webhooks_to_private_addresses)
    if len(url) > _URL:
        raise UsageError(f"the address has more than {_URL} characters")
    for event in events:
        if event not in EVENTS:
            raise UsageError(
                f"no such event: {event[:40]!r}{did_you_mean(event, EVENTS)}; there are: {', '.join(EVENTS)}"
            )
    secret = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    row = {
        "collection": collection,
        "url": url,
        "secret": secret,
        "events": sorted(set(events or EVENTS)),
        "added_by": added_by,
        "created": int(time.time()),
    }
    with hub.database.write() as connection:
        here = sa.select(collections.c.name).where(collections.c.name == collection)
        if connection.execute(here).first() is None:
            raise NotFoundError(f"no collection {collection}")
        count = sa.select(sa.func.count()).where(webhooks.c.collection == collection)
        if (connection.execute(count).scalar() or 0) >= _MOST:
            raise ConflictError(f"{collection} has {_MOST} webhooks already")
        made = connection.execute(sa.insert(webhooks).values(**row)).inserted_primary_key
    assert made is not None
    return next(one for one in list_webhooks(hub.database, collection) if one.id == made[0]), secret


def list_webhooks(database: Database, collection: str) -> list[Webhook]:
    """Return the webhooks of a collection."""
    query = sa.select(webhooks).where(webhooks.c.collection == collection).order_by(webhooks.c.id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Webhook(one.id, one.collection, one.url, tuple(one.events), one.added_by, one.created) for one in rows]


def remove(database: Database, collection: str, webhook: int) -> None:
    """Delete a webhook with all that it was to tell.

    Raises:
        NotFoundError: the collection has no such webhook.
    """
    with database.write() as connection:
        _require(connection, collection, webhook)
        connection.execute(sa.delete(deliveries).where(deliveries.c.webhook == webhook))
        connection.execute(sa.delete(webhooks).where(webhooks.c.id == webhook))


def list_deliveries(database: Database, collection: str, webhook: int, *, limit: int = 50) -> list[Delivery]:
    """Return the newest things told.

    Raises:
        NotFoundError: the collection has no such webhook.
    """
    columns = (deliveries.c[name] for name in Delivery.__slots__)
    query = sa.select(*columns).where(deliveries.c.webhook == webhook).order_by(deliveries.c.id.desc()).limit(limit)
    with database.read() as connection:
        _require(connection, collection, webhook)
        return [Delivery(*row) for row in connection.execute(query)]


def _require(connection: sa.Connection, collection: str, webhook: int) -> None:
    here = (webhooks.c.id == webhook) & (webhooks.c.collection == collection)
    if connection.execute(sa.select(webhooks.c.id).where(here)).first() is None:
        raise NotFoundError(f"{collection} has no webhook {webhook}")


def announce(hub: Hub, repository: Repository, digest: str, tag: str = "") -> None:
    """Store what the webhooks of the collection are to tell about a manifest that was just pushed."""
    collection = repository.name.rpartition("/")[0]
    known = hub.database.remember(("webhooks", collection), lambda: list_webhooks(hub.database, collection))
    if not known:
        return
    row = hub.database.manifest(repository, digest)
    is_evidence = row is not None and row.artifact_type == EVIDENCE_ARTIFACT and bool(row.subject)
    event = "evidence" if is_evidence else "push" if tag else ""
    if row is None or not event:
        return
    said: dict[str, Any] = {"repository": repository.name, "digest": digest}
    said |= {"subject": row.subject, "kind": row.annotations.get(PREDICATE_TYPE, "")} if is_evidence else {"tag": tag}
    now = int(time.time())
    body = json.dumps({"type": f"computeops.{event}", "timestamp": _iso(now), "data": said}, separators=(",", ":"))
    told = {"event": event, "body": body, "created": now, "attempts": 0, "due": now, "outcome": ""}
    rows = [told | {"webhook": one.id} for one in known if event in one.events]
    if rows:
        with hub.database.write() as connection:
            connection.execute(sa.insert(deliveries), rows)


def tell(connection: sa.Connection, collection: str, event: str, said: Mapping[str, Any], now: int) -> None:
    """Store what the webhooks of a collection are to tell about `event`, in the transaction in which it happens."""
    query = sa.select(webhooks.c.id, webhooks.c.events).where(webhooks.c.collection == collection)
    body = json.dumps({"type": f"computeops.{event}", "timestamp": _iso(now), "data": said}, separators=(",", ":"))
    told = {"event": event, "body": body, "created": now, "attempts": 0, "due": now, "outcome": ""}
    rows = [told | {"webhook": row.id} for row in connection.execute(query) if event in row.events]
    if rows:
        connection.execute(sa.insert(deliveries), rows)


def _iso(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def headers_of(secret: str, number: int, at: int, body: bytes) -> dict[str, str]:
    """Return the headers that let a receiver check who sent `body`, when, and that it comes once."""
    identity = f"msg_{number}"
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = hmac.new(key, f"{identity}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


class Courier(Background):
    """Tells what is due, as long as the hub runs."""

    def works(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return the one work: to tell."""
        return [self._work()]

    async def _work(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(self._claim)
                await asyncio.gather(*(self._tell(row) for row in found))
            except UnavailableError as error:
                _log.error("webhooks wait: %s", error.message)
                found = []
            except Exception:  # noqa: BLE001  a database that is away for a while must not end this task for ever
                _log.exception("webhooks")
                found = []
            if not found:
                await asyncio.sleep(_POLL_SECONDS)

    def _claim(self) -> Sequence[sa.Row[Any]]:
        """Return what is due, which no other process tells as long as the lease holds."""
        now = int(time.time())
        # what is due later than can be was noted when the clock was ahead
        late = (deliveries.c.due <= now) | (deliveries.c.due > now + max(_LEASE_SECONDS, *ATTEMPTS_SECONDS))
        due = sa.select(deliveries, webhooks.c.url, webhooks.c.secret).join(webhooks).where(late)
        with self._hub.database.read() as connection:
            rows = connection.execute(due.order_by(deliveries.c.due).limit(_AT_ONCE)).all()
        if not rows:
            return []
        claimed = []
        with self._hub.database.write() as connection:
            for row in rows:
                here = (deliveries.c.id == row.id) & (deliveries.c.due == row.due)
                if connection.execute(sa.update(deliveries).where(here).values(due=now + _LEASE_SECONDS)).rowcount:
                    claimed.append(row)
        return claimed

    async def _tell(self, row: sa.Row[Any]) -> None:
        body, now = row.body.encode(), int(time.time())
        try:
            headers = headers_of(row.secret, row.id, now, body)
            status = await outside.post(
                row.url, body, headers, private=self._hub.settings.webhooks_to_private_addresses
            )
            outcome, told = f"answered {status}", 200 <= status < 300
        except ComputeOpsError as error:
            outcome, told = error.message[:300], False
        pause = None if told or row.attempts >= len(ATTEMPTS_SECONDS) else ATTEMPTS_SECONDS[row.attempts]
        await asyncio.to_thread(self._note, row.id, row.attempts + 1, outcome, None if pause is None else now + pause)

    def _note(self, number: int, attempts: int, outcome: str, due: int | None) -> None:
        old = (deliveries.c.created < int(time.time()) - _KEPT_SECONDS) & deliveries.c.due.is_(None)
        with self._hub.database.write() as connection:
            new = {"attempts": attempts, "outcome": outcome, "due": due}
            connection.execute(sa.update(deliveries).where(deliveries.c.id == number).values(**new))
            connection.execute(sa.delete(deliveries).where(old))
