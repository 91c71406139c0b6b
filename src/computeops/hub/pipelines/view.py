"""What people see of pipelines: a list, one with its steps, its log as it grows; and of the workers."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from computeops.errors import NotFoundError
from computeops.hub.auth import Caller
from computeops.hub.db import Database
from computeops.hub.pipelines.tables import pipeline_log, pipeline_steps, pipelines, workers
from computeops.hub.pipelines.words import ENDED, WAITING
from computeops.hub.state import Hub

_CHUNK = 256 * 1024
_ROUNDS = 20


class PipelineEntry(Struct, frozen=True, kw_only=True):
    """A pipeline in a list."""

    id: int
    kind: str
    """`build` or `rebuild`."""
    repository: str
    version: str
    """Of a rebuild the digest of the manifest; empty: not known yet."""
    state: str
    """`waiting`, `running`, `proving` (it waits for others who rebuild it), `succeeded`, `failed` or `cancelled`."""
    asked_by: str
    created: int
    began: int | None
    ended: int | None
    error: str
    hint: str


class StepEntry(Struct, frozen=True, kw_only=True):
    """One step of a pipeline."""

    name: str
    state: str
    """`running`, `done` or `failed`."""
    began: int
    """Milliseconds since 1970."""
    seconds: float
    facts: dict[str, Any]


class Pipeline(PipelineEntry, frozen=True, kw_only=True):
    """A pipeline with its steps."""

    source: dict[str, Any]
    worker: str
    attempts: int
    """How often a worker took it."""
    ending: bool
    answered_by: int | None
    """The pipeline whose result this is."""
    images: Sequence[dict[str, Any]]
    steps: Sequence[StepEntry]
    ahead: int
    """How many of its collection wait before it."""
    log_bytes: int


class Log(Struct, frozen=True, kw_only=True):
    """A part of a log."""

    at: int
    next: int
    """Where the next part begins."""
    text: str
    ended: bool
    """Whether nothing will follow behind `next`."""


class WorkerEntry(Struct, frozen=True, kw_only=True):
    """A worker of the hub."""

    id: int
    name: str
    keyid: str
    """Of the key that signs what it builds; empty: it has never asked for work."""
    about: dict[str, Any]
    seen: int
    """When it last asked for work; 0: never."""
    running: int


_ENTRY = [pipelines.c[name] for name in PipelineEntry.__struct_fields__]


def entries(
    database: Database, caller: Caller, *, repository: str = "", state: str = "", before: int = 0, limit: int = 50
) -> list[PipelineEntry]:
    """Return the newest pipelines that `caller` may see; of a repository or a collection, in a state."""
    query, before = sa.select(*_ENTRY).order_by(pipelines.c.id.desc()), before or 1 << 31
    for condition, wanted in (
        ((pipelines.c.repository == repository) | (pipelines.c.collection == repository), bool(repository)),
        (pipelines.c.state == state, bool(state)),
    ):
        query = query.where(condition) if wanted else query
    if caller.roles is not None and not caller.administrator:
        query = query.where(pipelines.c.collection.in_(caller.roles))
    found: list[PipelineEntry] = []
    with database.read() as connection:
        for _ in range(_ROUNDS):  # most often all that is there may be seen, and the first round is enough
            rows = connection.execute(query.where(pipelines.c.id < before).limit(limit)).all()
            # `_mapping` is a public name of SQLAlchemy
            seen = [one for one in rows if sees(caller, one.repository)]
            found += [PipelineEntry(**one._mapping) for one in seen[: limit - len(found)]]  # noqa: SLF001
            if len(found) == limit or len(rows) < limit:
                break
            before = rows[-1].id
    return found


def sees(caller: Caller, repository: str) -> bool:
    """Return whether `caller` may know of the pipelines of `repository`: who is a member of its collection."""
    return caller.may("pull", repository)


def show(hub: Hub, caller: Caller, number: int) -> Pipeline:
    """Return one pipeline.

    Raises:
        NotFoundError: there is none that the caller may see.
    """
    with hub.database.read() as connection:
        row = row_for(connection, caller, number)
        steps = sa.select(pipeline_steps).where(pipeline_steps.c.pipeline == number).order_by(pipeline_steps.c.place)
        names = StepEntry.__struct_fields__
        listed = [StepEntry(**{name: getattr(one, name) for name in names}) for one in connection.execute(steps)]
        worker = connection.execute(sa.select(workers.c.name).where(workers.c.id == row.worker)).scalar() or ""
        waiting = (pipelines.c.state == WAITING) & (pipelines.c.collection == row.collection)
        query = sa.select(sa.func.count()).where(waiting, pipelines.c.id < number)
        ahead = int(connection.execute(query).scalar() or 0) if row.state == WAITING else 0
    more = {name: getattr(row, name) for name in ("attempts", "ending", "answered_by", "images", "log_bytes")}
    shared = {name: getattr(row, name) for name in PipelineEntry.__struct_fields__}
    source = {name: value for name, value in row.source.items() if value}
    return Pipeline(**shared, **more, source=source, worker=worker, steps=listed, ahead=ahead)


def row_for(connection: sa.Connection, caller: Caller, number: int) -> sa.Row[Any]:
    """Return the row of a pipeline.

    Raises:
        NotFoundError: there is none that the caller may see.
    """
    row = connection.execute(sa.select(pipelines).where(pipelines.c.id == number)).first()
    if row is None or not sees(caller, row.repository):
        raise NotFoundError(f"there is no pipeline {number}")
    return row


def log(hub: Hub, caller: Caller, number: int, at: int = 0) -> Log:
    """Return the log from its byte `at` on, in parts that are not too long.

    Raises:
        NotFoundError: there is no such pipeline that the caller may see.
    """
    with hub.database.read() as connection:
        row = row_for(connection, caller, number)
        mine = (pipeline_log.c.pipeline == number) & (pipeline_log.c.start >= _part(connection, number, at))
        data, begin = bytearray(), at
        for part in connection.execute(sa.select(pipeline_log).where(mine).order_by(pipeline_log.c.start).limit(64)):
            data += part.text[max(0, begin - part.start) :] if part.start < begin else part.text
            if len(data) >= _CHUNK:
                break
    text = bytes(data)
    # what is cut inside a character is asked for again with the next part
    whole = text if row.state in ENDED else text[: len(text) - _unfinished(text)]
    ended = row.state in ENDED and at + len(text) >= row.log_bytes
    return Log(at=at, next=at + len(whole), text=whole.decode(errors="replace"), ended=ended)


def _part(connection: sa.Connection, number: int, at: int) -> int:
    """Return where the part begins that has the byte `at`."""
    before = sa.select(sa.func.max(pipeline_log.c.start)).where(
        pipeline_log.c.pipeline == number, pipeline_log.c.start <= at
    )
    return int(connection.execute(before).scalar() or 0)


def _unfinished(text: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character."""
    for count in range(1, min(4, len(text)) + 1):
        byte = text[-count]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return count if length > count else 0
        if byte < 0x80:
            return 0
    return 0


def worker_entries(database: Database) -> list[WorkerEntry]:
    """Return all workers."""
    busy = (
        sa.select(pipelines.c.worker, sa.func.count().label("running"))
        .where(pipelines.c.state == "running")
        .group_by(pipelines.c.worker)
        .subquery()
    )
    query = sa.select(workers, busy.c.running).join(busy, busy.c.worker == workers.c.id, isouter=True)
    with database.read() as connection:
        return [
            WorkerEntry(
                id=one.id, name=one.name, keyid=one.keyid, about=one.about, seen=one.seen, running=one.running or 0
            )
            for one in connection.execute(query.order_by(workers.c.id))
        ]
