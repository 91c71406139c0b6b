"""The door of the workers, `/api/v1/work`: take a pipeline, report about it, get a token to push what it made.

A worker is known by its token, which opens nothing else. It asks and never is asked, so it may be anywhere; it sees
neither the index nor the storage of the hub.
"""

import os
import time
from asyncio import to_thread
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import ConflictError, DeniedError, LoginError, NotFoundError, UsageError
from computeops.hub import audit, receive
from computeops.hub.auth import WORKER, Scope, lifetime
from computeops.hub.pipelines import publish, queue
from computeops.hub.pipelines.machine import machine
from computeops.hub.pipelines.tables import pipelines, workers
from computeops.hub.pipelines.words import ENDED, REBUILD, Report, Worker
from computeops.hub.state import Hub
from computeops.hub.tables import tokens
from computeops.sign.key import Key

_BODY_BYTES = 4 * 1024 * 1024
_T = TypeVar("_T")


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    def endpoint(do: Callable[[Hub, int, Request, bytes], Any]) -> Any:
        async def answer(request: Request) -> Response:
            body = await receive.whole(request.receive, _BODY_BYTES)
            said = await to_thread(lambda: do(hub, _worker(hub, request), request, body))
            headers = {"Cache-Control": "no-store"}
            if said is None:
                return Response(status_code=204, headers=headers)
            return Response(msgspec.json.encode(said), 200, headers, "application/json")

        return answer

    return [
        Route("/api/v1/work/take", endpoint(_take), methods=["POST"]),
        Route("/api/v1/work/{pipeline}/pass", endpoint(_pass), methods=["POST"]),
        Route("/api/v1/work/{pipeline}", endpoint(_report), methods=["POST"]),
    ]


def _worker(hub: Hub, request: Request) -> int:
    caller = hub.caller(request.scope)
    found = queue.worker_of(hub, caller.token) if caller.kind == WORKER else 0
    if not found:
        raise LoginError("only workers of this hub may do this", hint="its operator: computeops hub workers add NAME")
    return found


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"not what a worker says: {error}") from None


def _number(request: Request) -> int:
    text = request.path_params["pipeline"]
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise NotFoundError(f"there is no pipeline {text[:40]!r}")
    return int(text)


def _take(hub: Hub, worker: int, request: Request, body: bytes) -> Any:
    said = _decoded(body, Worker)
    if said.machine == machine() and said.uid == os.geteuid():
        raise DeniedError(
            f"a worker must not be the user of the hub ({said.uid}): what it builds could read the hub's secrets",
            hint="run it as another user",
        )
    _introduce(hub, worker, said)
    task = queue.take(hub, worker)
    if task is not None:
        audit.note(request.scope, f"take pipeline {task.id}")
    return task


def _introduce(hub: Hub, worker: int, said: Worker) -> None:
    """Remember the key of a worker, once and for all, and that it was here; often nothing is to be written."""
    now, here = int(time.time()), workers.c.id == worker
    key = Key.read("worker", said.key.encode())
    about = {"builder": said.builder, "uid": said.uid}
    with hub.database.read() as connection:
        row = connection.execute(sa.select(workers).where(here)).one()
    if row.keyid not in {"", key.keyid}:
        raise DeniedError(
            f"worker {row.name} has the key {row.keyid}, not {key.keyid}", hint="add a worker of another name"
        )
    if row.keyid and row.about == about and now - row.seen < 60:
        return
    with hub.database.write(queue.LOCK) as connection:
        new = {"key": said.key, "keyid": key.keyid, "seen": now, "about": about}
        connection.execute(sa.update(workers).where(here).values(**new))


def _report(hub: Hub, worker: int, request: Request, body: bytes) -> Any:
    said, number = _decoded(body, Report), _number(request)
    with hub.database.read() as connection:
        row = queue.held(connection, worker, number, said.lease)
    if said.publish and row.kind == REBUILD:
        reply = queue.report(hub, worker, number, said)
        _rebuilt(hub, number)
        return msgspec.structs.replace(reply, state="succeeded")
    if said.publish:
        reply = publish.publish(hub, worker, number, said)
        audit.note(request.scope, f"publish pipeline {number}: {reply.state}")
        return reply
    reply = queue.report(hub, worker, number, said)
    if reply.state in ENDED:
        audit.note(request.scope, f"pipeline {number}: {reply.state}")
        if row.kind == REBUILD:
            publish.rebuilt(hub, row.repository)
    return reply


def _rebuilt(hub: Hub, number: int) -> None:
    with hub.database.write(queue.LOCK) as connection:
        row = connection.execute(sa.select(pipelines).where(pipelines.c.id == number)).one()
        if row.state not in ENDED:
            new = {"state": "succeeded", "ended": int(time.time()), "lease_until": None}
            connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))
        queue.revoke(connection, number)
    publish.rebuilt(hub, row.repository)


def _pass(hub: Hub, worker: int, request: Request, body: bytes) -> Any:
    said = _decoded(body, Report)
    found = queue.push_pass(hub, worker, _number(request), said.lease)
    audit.note(request.scope, "token to push")
    return found


def add(hub: Hub, name: str, *, days: int) -> str:
    """Let a new worker called `name` take pipelines; return its token, which is shown once.

    Raises:
        ConflictError: there is one of this name.
        UsageError: the name or the days are wrong.
    """
    with hub.database.read() as connection:
        if connection.execute(sa.select(workers.c.id).where(workers.c.name == name)).first() is not None:
            raise ConflictError(f"there is a worker {name}", hint=f"computeops hub workers remove {name}")
    token = hub.auth.grant(name, [Scope("pull", "*")], seconds=lifetime(days), kind=WORKER)
    number = hub.auth.caller(f"Bearer {token}").token
    row = {"name": name, "token": number, "keyid": "", "key": "", "about": {}, "seen": 0, "created": int(time.time())}
    with hub.database.write(queue.LOCK) as connection:
        connection.execute(sa.insert(workers).values(**row))
    return token


def remove(hub: Hub, name: str) -> None:
    """End a worker's token; what it works on is given to another. Its key goes on proving what it built.

    Raises:
        NotFoundError: there is none.
    """
    with hub.database.write(queue.LOCK) as connection:
        row = connection.execute(sa.select(workers).where(workers.c.name == name)).first()
        if row is None:
            raise NotFoundError(f"there is no worker {name}")
        connection.execute(sa.delete(tokens).where(tokens.c.id == row.token))
        held = (pipelines.c.worker == row.id) & pipelines.c.lease_until.is_not(None)
        connection.execute(sa.update(pipelines).where(held).values(lease_until=0))
        gone = {"name": f"{name} (removed {int(time.time())})", "token": -row.id}
        connection.execute(sa.update(workers).where(workers.c.id == row.id).values(**gone))
