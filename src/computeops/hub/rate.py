"""How much one caller may ask for: a bucket of requests that fills up again, and so many at a time.

A caller is who sent a valid token, else an address (of IPv6 the network of 64 bits). So those behind one address who
have tokens do not take each other's share, and a stranger's false tokens are all counted together.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Hashable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from computeops.errors import ComputeOpsError, LoginError
from computeops.hub.shapes import answer
from computeops.hub.state import Hub, header
from computeops.limits import LIMITS

_BURST_SECONDS = 10
_CALLERS = 100_000
_SEARCH_COST = 5.0  # a search or a page for people, in requests of a registry
_GUESS_COST = 20.0  # a token that is none
_PLAIN = ("/v2/", "/v1/", "/assets/", "/-/", "/healthz", "/readyz", "/metrics")


class BusyError(ComputeOpsError):
    """This caller asks for too much; the hint says when it may ask again."""

    exit_code = 14
    status = 429


class HeadersError(ComputeOpsError):
    """The request's headers are larger than the hub reads."""

    exit_code = 15
    status = 431


class Bucket:
    """The requests that one caller has left."""

    __slots__ = ("at", "left", "running")

    def __init__(self, left: float, at: float) -> None:
        self.left, self.at, self.running = left, at, 0


class Limited:
    """An ASGI application that answers each caller only so often, and so many requests at a time."""

    def __init__(self, hub: Hub, app: ASGIApp) -> None:
        self._hub, self._app = hub, app
        self._rate, self._most = hub.settings.requests_per_second, hub.settings.requests_at_once
        self._proxies = frozenset(hub.settings.trusted_proxies)
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._from_client(scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LIMITS.header_bytes:
            await self._refuse(HeadersError(f"headers of more than {LIMITS.header_bytes} bytes"), scope, receive, send)
            return
        bucket, cost = self._bucket(scope)
        if bucket is None:
            await self._app(scope, receive, send)
            return
        wait = self._take(bucket, cost)
        if wait or bucket.running >= self._most:
            seconds = max(1, math.ceil(wait))
            error = BusyError("too many requests", hint=f"ask again in {seconds} s")
            await self._refuse(error, scope, receive, send, seconds)
            return
        bucket.running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            bucket.running -= 1

    def _from_client(self, scope: Scope) -> Scope:
        """Return the scope with the address that a proxy of the settings vouches for."""
        host = (scope.get("client") or ("", 0))[0]
        if host not in self._proxies:
            return scope
        forwarded = header(scope, b"x-forwarded-for").rpartition(",")[2].strip()
        return {**scope, "client": (forwarded, 0)} if forwarded else scope

    def _bucket(self, scope: Scope) -> tuple[Bucket | None, float]:
        if not self._rate:
            return None, 0.0
        cost = 1.0 if scope["path"].startswith(_PLAIN) else _SEARCH_COST
        token = 0
        try:
            token = self._hub.caller(scope).token
        except LoginError:
            cost = _GUESS_COST
        except ComputeOpsError:  # the index does not answer: who asks will hear of it
            pass
        key: Hashable = token or _network((scope.get("client") or ("", 0))[0])
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _CALLERS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = Bucket(self._rate * _BURST_SECONDS, time.monotonic())
        self._buckets.move_to_end(key)
        return bucket, cost

    def _take(self, bucket: Bucket, cost: float) -> float:
        """Take `cost` out of the bucket; return after how many seconds there will be as much, if there is not."""
        now = time.monotonic()
        bucket.left = min(self._rate * _BURST_SECONDS, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.left < cost:
            return (cost - bucket.left) / self._rate
        bucket.left -= cost
        return 0.0

    async def _refuse(self, error: ComputeOpsError, scope: Scope, receive: Receive, send: Send, wait: int = 0) -> None:
        response = answer(self._hub, Request(scope), error)
        if wait:
            response.headers["Retry-After"] = str(wait)
        await response(scope, receive, send)


def _network(host: str) -> str:
    if ":" not in host:
        return host[:64]
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host[:64]
    return str(address.ipv4_mapped or f"{int(address) >> 64:x}")
