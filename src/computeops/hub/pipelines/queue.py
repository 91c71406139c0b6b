"""Who gets which pipeline next, and what workers say about those that they have: each change in one transaction.

Collections have turns: of those with something to do and room for it, the one whose last turn is longest ago. Two
indexed queries find it, however many wait.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from computeops.errors import ConflictError, NotFoundError
from computeops.hub.auth import CI, Scope
from computeops.hub.db import upsert
from computeops.hub.pipelines.tables import (
    pipeline_log,
    pipeline_steps,
    pipeline_turns,
    pipelines,
    workers,
)
from computeops.hub.pipelines.words import (
    BUILD,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    RUNNING,
    WAITING,
    Bounds,
    Pass,
    Reply,
    Report,
    Source,
    Step,
    Task,
)
from computeops.hub.state import Hub
from computeops.hub.tables import tokens
from computeops.model import Digest

LOCK = "pipelines"
PUSH_SECONDS = 3600
_MOST_ATTEMPTS = 3
_CUT = b"\n[the log was longer than is kept]\n"


def take(hub: Hub, worker: int) -> Task | None:
    """Return the pipeline that is next, now held by `worker`; None: there is nothing to do."""
    now = int(time.time())
    with hub.database.read() as connection:  # most often there is nothing, and readers block nobody
        if not _stale(connection, now) and not _in_turn(hub, connection):
            return None
    with hub.database.write(LOCK) as connection:
        for lost in _stale(connection, now):
            _free(connection, lost)
        row = next(filter(None, (_next(connection, one, worker) for one in _in_turn(hub, connection))), None)
        if row is None:
            return None
        lease = secrets.token_urlsafe(24)
        until = now + hub.settings.pipelines.lease_seconds
        held = {"state": RUNNING, "worker": worker, "lease": lease, "lease_until": until}
        held |= {"attempts": row.attempts + 1, "began": row.began or now}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == row.id).values(**held))
        upsert(connection, pipeline_turns, {"collection": row.collection, "at": time.time_ns()})
    return _task(hub, row, lease)


def _task(hub: Hub, row: sa.Row[Any], lease: str) -> Task:
    chosen, source = hub.settings.pipelines, Source(**{n: v for n, v in row.source.items() if n != "others"})
    bounds = Bounds(**{name: getattr(chosen, name) for name in Bounds.__struct_fields__})
    return Task(
        id=row.id,
        kind=row.kind,
        lease=lease,
        repository=row.repository,
        source=source,
        bounds=bounds,
        network=chosen.network,
        private=chosen.private_addresses,
        log_bytes=row.log_bytes,
        archive_bytes=(hub.blobs.size(Digest.parse(source.archive)) or 0) if source.archive else 0,
    )


def _stale(connection: sa.Connection, now: int) -> list[sa.Row[Any]]:
    """Return the pipelines whose worker was silent for too long."""
    query = sa.select(pipelines).where(pipelines.c.state == RUNNING, pipelines.c.lease_until < now)
    return list(connection.execute(query))


def _free(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Take a pipeline away from the worker that was lost, and what it could have pushed with."""
    revoke(connection, row.id)
    new: dict[str, Any] = {"state": WAITING, "lease": "", "lease_until": None}
    if row.ending:
        new |= {"state": CANCELLED, "ended": int(time.time())}
    elif row.attempts >= _MOST_ATTEMPTS:
        lost = f"{row.attempts} workers were lost while they worked on it"
        new |= {"state": FAILED, "ended": int(time.time()), "error": lost, "hint": "start it again with: retry"}
    connection.execute(sa.update(pipelines).where(pipelines.c.id == row.id).values(**new))
    open_ = (pipeline_steps.c.pipeline == row.id) & (pipeline_steps.c.state == RUNNING)
    connection.execute(sa.delete(pipeline_steps).where(open_))


def _in_turn(hub: Hub, connection: sa.Connection) -> list[str]:
    """Return the collections with something to do and room for it, whose turn is longest ago first."""
    waits = sa.select(pipelines.c.collection).where(pipelines.c.state == WAITING).distinct().subquery()
    busy = (
        sa.select(pipelines.c.collection, sa.func.count().label("running"))
        .where(pipelines.c.state == RUNNING)
        .group_by(pipelines.c.collection)
        .subquery()
    )
    query = (
        sa.select(waits.c.collection)
        .join(busy, busy.c.collection == waits.c.collection, isouter=True)
        .join(pipeline_turns, pipeline_turns.c.collection == waits.c.collection, isouter=True)
        .where(sa.func.coalesce(busy.c.running, 0) < hub.settings.pipelines.at_once)
        .order_by(sa.func.coalesce(pipeline_turns.c.at, 0), waits.c.collection)
        .limit(100)
    )
    return list(connection.scalars(query))


def _next(connection: sa.Connection, collection: str, worker: int) -> sa.Row[Any] | None:
    """Return the oldest of the collection; a rebuild is for somebody who has not signed one of that image yet."""
    mine = sa.select(pipelines).where(pipelines.c.state == WAITING, pipelines.c.collection == collection)
    for row in connection.execute(mine.order_by(pipelines.c.id).limit(100)):
        if row.kind == BUILD or not row.source.get("others") or not _knows(connection, row, worker):
            return row
    return None


def _knows(connection: sa.Connection, row: sa.Row[Any], worker: int) -> bool:
    """Return whether `worker` built or rebuilt the image already: it would be no second opinion."""
    same = (pipelines.c.repository == row.repository) & (pipelines.c.worker == worker) & (pipelines.c.id != row.id)
    for other in connection.execute(sa.select(pipelines).where(same)):
        digests = {one["manifest"] for one in other.images} | {other.source.get("image")}
        if row.source["image"] in digests:
            return True
    return False


def held(connection: sa.Connection, worker: int, number: int, lease: str) -> sa.Row[Any]:
    """Return the pipeline if this worker holds it by this lease.

    Raises:
        NotFoundError: there is none.
        ConflictError: it was given to another, or it has ended.
    """
    row = connection.execute(sa.select(pipelines).where(pipelines.c.id == number)).first()
    if row is None:
        raise NotFoundError(f"there is no pipeline {number}")
    if row.worker != worker or not lease or not secrets.compare_digest(row.lease.encode(), lease.encode()):
        raise ConflictError(f"pipeline {number} is not yours any more", hint="forget it")
    return row


def report(hub: Hub, worker: int, number: int, said: Report) -> Reply:
    """Take a worker's report in, and renew its lease.

    Raises:
        NotFoundError, ConflictError: as `held`.
    """
    now = int(time.time())
    with hub.database.write(LOCK) as connection:
        row = held(connection, worker, number, said.lease)
        if row.state in ENDED:
            return Reply(state=row.state, ending=True, log_at=row.log_bytes)
        for step in said.steps:
            note_step(connection, number, step)
        logged = _log(hub, connection, row, said)
        new: dict[str, Any] = {"lease_until": now + hub.settings.pipelines.lease_seconds, "log_bytes": logged}
        new |= {"version": said.version} if said.version else {}
        new |= {"locked": True} if said.locked else {}
        new |= _outcome(row, said, now)
        connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))
        if "state" in new:
            revoke(connection, number)
    return Reply(state=new.get("state", row.state), ending=row.ending, log_at=logged)


def _outcome(row: sa.Row[Any], said: Report, now: int) -> Mapping[str, Any]:
    free = {"lease_until": None}
    if said.returned and not row.ending:
        return free | {"state": WAITING, "lease": "", "attempts": max(0, row.attempts - 1)}
    if said.cancelled or (said.returned and row.ending):
        return free | {"state": CANCELLED, "ended": now}
    if said.failed:
        return free | {"state": FAILED, "ended": now, "error": said.error, "hint": said.hint}
    return {}


def note_step(connection: sa.Connection, number: int, step: Step) -> None:
    """Write how far a step is; one that ended well stays so."""
    mine = pipeline_steps.c.pipeline == number
    known = connection.execute(sa.select(pipeline_steps).where(mine, pipeline_steps.c.name == step.name)).first()
    if known is not None and known.state == DONE:
        return
    place = known.place if known is not None else _count(connection, mine)
    began, seconds = step.began, step.seconds
    if known is not None and not seconds and step.state != RUNNING:  # whoever ends it did not begin it
        began, seconds = known.began, max(0.0, step.began - known.began) / 1000
    row = {"pipeline": number, "name": step.name, "place": place, "state": step.state}
    row |= {"began": began, "seconds": seconds, "facts": step.facts}
    upsert(connection, pipeline_steps, row)


def _count(connection: sa.Connection, mine: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(pipeline_steps).where(mine)).scalar() or 0)


def _log(hub: Hub, connection: sa.Connection, row: sa.Row[Any], said: Report) -> int:
    """Add what is new to the log, up to its bound; return how long it is."""
    most = hub.settings.pipelines.log_bytes
    if said.log_at != row.log_bytes or not said.log or row.log_bytes >= most:
        return int(row.log_bytes)  # the worker hears where to go on
    text = said.log[: most - row.log_bytes]
    end = row.log_bytes + len(text)
    kept = text + _CUT if end >= most else text
    connection.execute(sa.insert(pipeline_log).values(pipeline=row.id, start=row.log_bytes, text=kept))
    return int(end)


def push_pass(hub: Hub, worker: int, number: int, lease: str) -> Pass:
    """Return a token that may push to the pipeline's repository as long as the worker holds it.

    Raises:
        NotFoundError, ConflictError: as `held`.
    """
    with hub.database.write(LOCK) as connection:
        row = held(connection, worker, number, lease)
        if row.state in ENDED:
            raise ConflictError(f"pipeline {number} has {row.state}")
    token = hub.auth.grant(_pass_name(number), [Scope("push", row.repository)], seconds=PUSH_SECONDS, kind=CI)
    with hub.database.write(LOCK) as connection:
        held(connection, worker, number, lease)  # else nobody hears of the token
    return Pass(token=token, seconds=PUSH_SECONDS)


def revoke(connection: sa.Connection, number: int) -> None:
    """End what the pipeline could push with."""
    connection.execute(sa.delete(tokens).where(tokens.c.kind == CI, tokens.c.name == _pass_name(number)))


def _pass_name(number: int) -> str:
    return f"pipeline {number}"


def worker_of(hub: Hub, token: int) -> int:
    """Return the number of the worker with this token; 0: it is none's."""
    with hub.database.read() as connection:
        return int(connection.execute(sa.select(workers.c.id).where(workers.c.token == token)).scalar() or 0)
