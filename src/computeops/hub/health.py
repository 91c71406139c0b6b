"""What a machine that watches the hub asks: does it live, may it be sent requests, how does it do.

/healthz    the process answers
/readyz     the database answers and the storage takes a file: what a load balancer asks
/metrics    numbers for Prometheus; for this machine, or with a token that may pull everything
"""

import time
from asyncio import to_thread
from threading import Lock

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from computeops import __version__
from computeops.errors import ComputeOpsError, NotFoundError
from computeops.hub.meter import METER
from computeops.hub.state import Hub
from computeops.hub.tables import links, manifests, repositories, tags

_PROBE = "uploads/.probe"
_KEPT_SECONDS = 2.0
_COUNTED_SECONDS = 60.0
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


class _Ready:
    """The last answers of the database and the storage, which are not asked at every request."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._lock = hub, Lock()
        self._asked, self._faults = 0.0, dict[str, str]()
        self._counted, self._counts = 0.0, dict[str, int]()

    def faults(self) -> dict[str, str]:
        """Return what does not answer, with the reason."""
        with self._lock:
            if time.monotonic() - self._asked > _KEPT_SECONDS:
                self._faults = {name: fault for name in ("database", "storage") if (fault := self._try(name))}
                self._asked = time.monotonic()
            return self._faults

    def _try(self, name: str) -> str:
        try:
            if name == "database":
                with self._hub.database.read() as connection:
                    connection.execute(sa.select(repositories.c.id).limit(1))
            else:
                self._hub.blobs.storage.write(_PROBE, b"")
        except (ComputeOpsError, OSError) as error:
            return str(error)
        return ""

    def counts(self) -> dict[str, int]:
        """Return how much the hub holds, counted once a minute."""
        with self._lock:
            if time.monotonic() - self._counted > _COUNTED_SECONDS or not self._counts:
                self._counts, self._counted = self._count(), time.monotonic()
            return self._counts

    def _count(self) -> dict[str, int]:
        each = sa.select(links.c.digest, links.c.size).distinct().subquery()
        with self._hub.database.read() as connection:
            blobs, size = connection.execute(
                sa.select(sa.func.count(), sa.func.sum(each.c.size)).select_from(each)
            ).one()
            found = {
                table.name: int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
                for table in (repositories, manifests, tags)
            }
        return found | {"blobs": int(blobs), "blob_bytes": int(size or 0)}


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    ready = _Ready(hub)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers={"cache-control": "no-store"})

    async def readyz(_request: Request) -> Response:
        faults = await to_thread(ready.faults)
        said = {name: "does not answer" if name in faults else "ok" for name in ("database", "storage")}
        return JSONResponse(said, 503 if faults else 200, headers={"cache-control": "no-store"})

    async def metrics(request: Request) -> Response:
        _require_operator(hub, request)
        counts = await to_thread(ready.counts)
        lines = [f'computeops_info{{version="{__version__}"}} 1']
        lines += [f"computeops_{name} {count}" for name, count in sorted(counts.items())]
        return PlainTextResponse(METER.text() + "\n".join(lines) + "\n", media_type=_TEXT)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def _require_operator(hub: Hub, request: Request) -> None:
    here = request.client is not None and request.client.host in _LOOPBACK
    proxied = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    if not ((here and not proxied) or hub.caller(request.scope).may("pull", "*")):
        raise NotFoundError("there is no such page here")
