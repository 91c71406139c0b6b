"""What nobody starts: releases are rebuilt again after a time, what others found worth a rebuild is, old logs go.

A task of every hub process; one of them does it.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import sqlalchemy as sa

from computeops.check import kinds
from computeops.errors import ComputeOpsError, UnavailableError
from computeops.hub.background import Background
from computeops.hub.db import upsert
from computeops.hub.pipelines import publish, start
from computeops.hub.pipelines.queue import LOCK
from computeops.hub.pipelines.tables import hooks_heard, pipeline_log, pipelines, rebuilds_wanted
from computeops.hub.pipelines.words import ENDED, PROVING, REBUILD
from computeops.hub.state import Hub
from computeops.hub.tables import evidence, recipes, releases, repositories
from computeops.hub.vulnerabilities import told

_PAUSE_SECONDS = 60.0
_AT_ONCE = 100
_DAY = 24 * 3600
_HEARD_DAYS = 400
_ASKED_BY = "the hub"
_log = logging.getLogger(__name__)


class Timer(Background):
    """Looks every minute at what is due, as long as the hub runs."""

    def works(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return the one work: to look."""
        return [self._work()]

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await asyncio.to_thread(look, self._hub, int(time.time()))
            except UnavailableError as error:
                _log.error("pipelines wait: %s", error.message)
            except Exception:  # noqa: BLE001  a database that is away for a while must not end this task for ever
                _log.exception("pipelines")


def want(hub: Hub, repository: str, manifest: str, reason: str) -> None:
    """Say that an image is worth a rebuild before its time, for example after an advisory about what built it."""
    row = {"repository": repository, "digest": manifest, "reason": reason[:200], "created": int(time.time())}
    with hub.database.write(LOCK) as connection:
        upsert(connection, rebuilds_wanted, row, keep=True)


def look(hub: Hub, now: int) -> int:
    """Start what is due at `now` and forget what is too old; return how many rebuilds were started."""
    with hub.database.exclusive("pipelines timer") as free:
        if not free:
            return 0
        _take(hub)
        count = _wanted(hub) + _old(hub, now)
        _look_at_proofs(hub)
        _forget(hub, now)
        return count


def _take(hub: Hub) -> None:
    """Take the requests for releases that another build would repair; both or neither is written."""
    with hub.database.write(LOCK) as connection:
        for one in told.rebuild_wanted(connection, limit=_AT_ONCE):
            if not told.take_rebuild(connection, one.id):
                continue
            reason = ", ".join(str(each["id"]) for each in one.reason.get("findings", ())[:5]) or "an advisory"
            row = {"repository": one.repository, "digest": one.digest, "reason": f"repairs {reason}"[:200]}
            upsert(connection, rebuilds_wanted, row | {"created": one.created}, keep=True)


def _look_at_proofs(hub: Hub) -> None:
    """Let none wait for a rebuild that was given up without a word."""
    query = sa.select(pipelines.c.repository).where(pipelines.c.state == PROVING).distinct()
    with hub.database.read() as connection:
        waiting = list(connection.scalars(query))
    for repository in waiting:
        publish.rebuilt(hub, repository)


def _wanted(hub: Hub) -> int:
    with hub.database.read() as connection:
        rows = connection.execute(sa.select(rebuilds_wanted).order_by(rebuilds_wanted.c.created).limit(_AT_ONCE)).all()
    count = 0
    for row in rows:
        count += _start(hub, row.repository, row.digest, row.reason)
        here = (rebuilds_wanted.c.repository == row.repository) & (rebuilds_wanted.c.digest == row.digest)
        with hub.database.write(LOCK) as connection:
            connection.execute(sa.delete(rebuilds_wanted).where(here))
    return count


def _old(hub: Hub, now: int) -> int:
    """Rebuild releases with a recipe whose last verdict, or publication, is too long ago; the newest first."""
    if not hub.settings.pipelines.rebuild_days:
        return 0
    before = now - hub.settings.pipelines.rebuild_days * _DAY
    judged = sa.exists().where(
        evidence.c.repository == releases.c.repository,
        evidence.c.subject == releases.c.digest,
        evidence.c.kind == kinds.REBUILD,
        evidence.c.created >= before,
    )
    tried = sa.exists().where(
        pipelines.c.repository == repositories.c.name,
        pipelines.c.kind == REBUILD,
        pipelines.c.version == releases.c.digest,
        (pipelines.c.created >= before) | pipelines.c.state.not_in(ENDED),
    )
    query = (
        sa.select(repositories.c.name, releases.c.digest)
        .join_from(releases, repositories, repositories.c.id == releases.c.repository)
        .join(recipes, (recipes.c.repository == releases.c.repository) & (recipes.c.subject == releases.c.digest))
        .where(releases.c.created < before, ~judged, ~tried)
        .order_by(releases.c.id.desc())
        .limit(_AT_ONCE)
    )
    with hub.database.read() as connection:
        rows = connection.execute(query).all()
    return sum(_start(hub, row.name, row.digest, "its time") for row in rows)


def _start(hub: Hub, repository: str, digest: str, reason: str) -> int:
    try:
        start.rebuild(hub, repository, digest, asked_by=f"{_ASKED_BY}: {reason}")
    except ComputeOpsError as error:  # it may be gone by now, or too many wait: another minute
        _log.info("no rebuild of %s@%s: %s", repository, digest, error.message)
        return 0
    return 1


def _forget(hub: Hub, now: int) -> None:
    """Remove the logs of pipelines that ended long ago, and the events that nobody can send again by now."""
    before = now - hub.settings.pipelines.keep_days * _DAY
    old = sa.select(pipelines.c.id).where(
        pipelines.c.state.in_(ENDED), pipelines.c.ended < before, pipelines.c.log_bytes > 0
    )
    with hub.database.read() as connection:
        numbers = list(connection.scalars(old.limit(_AT_ONCE)))
        heard = connection.execute(
            sa.select(hooks_heard.c.at).where(hooks_heard.c.at < now - _HEARD_DAYS * _DAY)
        ).first()
    if not numbers and heard is None:
        return
    with hub.database.write(LOCK) as connection:
        connection.execute(sa.delete(pipeline_log).where(pipeline_log.c.pipeline.in_(numbers)))
        connection.execute(sa.update(pipelines).where(pipelines.c.id.in_(numbers)).values(log_bytes=0))
        connection.execute(sa.delete(hooks_heard).where(hooks_heard.c.at < now - _HEARD_DAYS * _DAY))
