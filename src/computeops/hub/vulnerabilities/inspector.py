"""The worker that looks into what was pushed: one of all processes of a hub at any time, in steps that may be repeated.

A step does the most urgent: a new index of advisories before new images, because it concerns all of them. What it does
is written with the mark that says so, so that a hub that was killed goes on where it was.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import sqlalchemy as sa

from computeops import __version__
from computeops.check.advisories.lookup import Index
from computeops.check.advisories.update import update
from computeops.check.inventory import Inventory
from computeops.errors import ComputeOpsError
from computeops.hub.background import Background
from computeops.hub.db import upsert
from computeops.hub.state import Hub
from computeops.hub.tables import notes
from computeops.hub.vulnerabilities import index as advisories
from computeops.hub.vulnerabilities import inventory, judging, matching, signatures, told
from computeops.hub.vulnerabilities.judging import Judge
from computeops.hub.vulnerabilities.matching import Changes
from computeops.hub.vulnerabilities.tables import verdicts

WORK = "vulnerabilities"
_DIRTY = "vulnerabilities.dirty"
_POLL_SECONDS = 1.0
_ERROR_SECONDS = 30.0
_DAILY_SECONDS = 24 * 3600
_HOURLY_SECONDS = 3600
_log = logging.getLogger(__name__)


class Inspector(Background):
    """Looks into what was pushed, as long as the hub runs."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._ending = threading.Event()

    def works(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return the works: to look into images, and to bring the advisories up to date where the settings say so."""
        return [self._work(), *([self._refresh()] if self._hub.settings.advisories_hours else [])]

    async def stop(self) -> None:
        """End; the image that is being read is read again by the next hub."""
        self._ending.set()
        await super().stop()

    async def _work(self) -> None:
        while True:
            try:
                busy = await _finished(asyncio.create_task(asyncio.to_thread(step, self._hub, self._ending)))
                pause = 0.0 if busy else _POLL_SECONDS
            except ComputeOpsError as error:
                _log.error("vulnerabilities wait: %s", error.message)
                pause = _ERROR_SECONDS
            except Exception:  # noqa: BLE001  one image must not end this task for ever
                _log.exception("vulnerabilities")
                pause = _ERROR_SECONDS
            await asyncio.sleep(pause)

    async def _refresh(self) -> None:
        """Bring the advisories up to date, as often as the settings say."""
        while True:
            try:
                await asyncio.to_thread(refresh, self._hub)
            except ComputeOpsError as error:
                _log.error("advisories: %s", error.message)
            except Exception:  # noqa: BLE001  a feed of tomorrow must not end this task for ever
                _log.exception("advisories")
            await asyncio.sleep(_HOURLY_SECONDS / 4)


async def _finished(task: "asyncio.Task[bool]") -> bool:
    """Wait for a step even where this is cancelled meanwhile: nothing may use the database after its end."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise


def refresh(hub: Hub) -> None:
    """Update the index of advisories if it is older than the settings want.

    Raises:
        ComputeOpsError: no feed could be loaded.
    """
    path = advisories.place(hub)
    due = hub.settings.advisories_hours * 3600
    if path.exists() and time.time() - path.stat().st_mtime < due:
        return
    for one in update(path, mirror=hub.settings.advisories_from, now=int(time.time())):
        if one.done == "refused":
            _log.error("advisories: %s: %s", one.feed, one.why)


def step(hub: Hub, ending: threading.Event) -> bool:
    """Do the most urgent thing; return whether there was one.

    Raises:
        UnavailableError: the database or the storage does not answer.
    """
    with hub.database.exclusive(WORK) as free:
        if not free:
            return False
        with advisories.opened(hub) as index:
            if index is not None and _is_new(hub, index):
                rematch(hub, index)
                return True
            if signatures.check(hub):
                return True
            if Judge(hub, index, int(time.time())).batch():
                return True
            if hub.settings.inventory and (row := inventory.next_waiting(hub)) is not None:
                return inventory.make(hub, row, lambda found: _keep(hub, row, found, index), ending.is_set)
            _hourly(hub, index)
    return False


def _keep(hub: Hub, row: "sa.Row[tuple[object, ...]]", found: Inventory, index: Index | None) -> None:
    """Store an inventory and match those of its packages that no image had before."""
    with hub.database.write() as connection:
        new = inventory.store(connection, row.id, found)
        if index is not None:
            matching.match(connection, index, new, Changes(), now=int(time.time()), new=True)
        connection.execute(sa.update(verdicts).where(verdicts.c.digest == row.digest).values(pending=True))


def _mark(index: Index) -> str:
    return f"{__version__} {advisories.mark(index.path)}"


def _is_new(hub: Hub, index: Index) -> bool:
    version, _, said = _note(hub, "advisories").partition(" ")
    (then, _, known), (now, _, own) = said.partition("-"), advisories.mark(index.path).partition("-")
    # of several processes each has its own: who has an older one must not go back to it, or they take turns for ever
    return version != __version__ or (own != known and int(now) >= int(then))


def rematch(hub: Hub, index: Index, *, full: bool = False) -> Changes:
    """Match what `index` says something else about, or everything; what changed is to be judged again."""
    now, mark, dirty = int(time.time()), _mark(index), bool(_note(hub, _DIRTY))
    with hub.database.write() as connection:
        upsert(connection, notes, {"name": _DIRTY, "value": "1"})
    version = _note(hub, "advisories").partition(" ")[0]
    known = version == __version__ and not full
    touched = advisories.touched(hub, index) if known else None
    if touched is None:
        changes = matching.match_all(hub.database, index, now=now, renew_names=version != __version__)
    else:
        changes = matching.match_touched(hub.database, index, touched, now=now)
    with hub.database.write() as connection:
        if version != __version__ or dirty:  # until now nobody could be asked, or a hub was killed while it asked
            connection.execute(sa.update(verdicts).values(pending=True))
        else:
            judging.mark(connection, sorted(changes.packages))
        upsert(connection, notes, {"name": "advisories", "value": mark})
        upsert(connection, notes, {"name": _DIRTY, "value": ""})
    advisories.keep(hub, index)
    judging.age(hub, index)
    _log.info(
        "advisories: %s; %d packages changed, %d are new",
        "everything matched" if touched is None else f"{len(touched.packages)} packages asked",
        len(changes.packages),
        len(changes.found),
    )
    return changes


def _hourly(hub: Hub, index: Index | None) -> None:
    """Once an hour: what became old by time alone; once a day: everything anew, whatever was missed."""
    now = int(time.time())
    if now - int(_note(hub, "vulnerabilities.hour") or 0) < _HOURLY_SECONDS:
        return
    with hub.database.write() as connection:
        told.forget(connection)
        upsert(connection, notes, {"name": "vulnerabilities.hour", "value": str(now)})
    judging.age(hub, index)
    last = int(_note(hub, "vulnerabilities.day") or 0)
    if index is not None and now - last > _DAILY_SECONDS:
        if last:
            rematch(hub, index, full=True)
        with hub.database.write() as connection:
            upsert(connection, notes, {"name": "vulnerabilities.day", "value": str(now)})


def _note(hub: Hub, name: str) -> str:
    query = sa.select(notes.c.value).where(notes.c.name == name)
    with hub.database.read() as connection:
        return str(connection.execute(query).scalar() or "")
