"""How many requests a process has answered, how fast and with how many bytes: for Prometheus and for the log."""

import time
from collections import Counter, defaultdict

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from computeops.hub import logs

_SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_DOORS = {"v2": "registry", "v1": "library", "pks": "keys", "api": "api", "auth": "auth"}
_BROKEN = 499
"""Counted for who went away before the answer, as other servers do."""


class Meter:
    """Counts of the requests that this process has answered."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._bytes: Counter[str] = Counter()
        self.running = 0

    def count(self, door: str, method: str, status: int, seconds: float, sent: int) -> None:
        """Count one answer."""
        self._requests[door, method, status] += 1
        bucket = next((at for at, limit in enumerate(_SECONDS) if seconds <= limit), len(_SECONDS))
        self._buckets[door][bucket] += 1
        self._sums[door] += seconds
        self._bytes[door] += sent

    def text(self) -> str:
        """Return the counts as Prometheus reads them."""
        lines = ["# TYPE computeops_requests_total counter"]
        for (door, method, status), count in sorted(self._requests.items()):
            labels = f'door="{door}",method="{method}",status="{status}"'
            lines.append(f"computeops_requests_total{{{labels}}} {count}")
        lines.append("# TYPE computeops_request_seconds histogram")
        for door, buckets in sorted(self._buckets.items()):
            total = 0
            for limit, count in zip((*map(str, _SECONDS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'computeops_request_seconds_bucket{{door="{door}",le="{limit}"}} {total}')
            lines.append(f'computeops_request_seconds_sum{{door="{door}"}} {self._sums[door]:.6f}')
            lines.append(f'computeops_request_seconds_count{{door="{door}"}} {total}')
        lines.append("# TYPE computeops_sent_bytes_total counter")
        lines += [
            f'computeops_sent_bytes_total{{door="{door}"}} {count}' for door, count in sorted(self._bytes.items())
        ]
        lines += ["# TYPE computeops_requests_running gauge", f"computeops_requests_running {self.running}"]
        return "\n".join(lines) + "\n"


METER = Meter()
"""Of this process."""


class Measured:
    """An ASGI application whose answers are counted and logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, sent = _BROKEN, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = next((int(value) for name, value in message["headers"] if name == b"content-length"), 0)
            await send(message)

        METER.running += 1
        try:
            await self._app(scope, receive, watched)
        finally:
            METER.running -= 1
            seconds = time.perf_counter() - began
            # names from outside must not grow the table without end
            door = _DOORS.get(scope["path"][1:].partition("/")[0], "portal")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            METER.count(door, method, status, seconds, 0 if method == "HEAD" else sent)
            client = scope["client"][0] if scope.get("client") else ""
            logs.request(door, method, scope["path"], status, seconds, sent, client)
