"""A hub in a process of its own: granian around `create_app`, secure by default, stopped by a signal."""

import asyncio
import errno
import gc
import ipaddress
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from computeops.errors import StorageError, UsageError
from computeops.hub.settings import Secrets, Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from computeops.hub.app import Role

_BACKLOG = 1024
_EXTERNAL = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")
_POLL_SECONDS = 0.02
_POLLS = 500
_GRACE_SECONDS = 20
_HEADER_MILLISECONDS = 15_000  # for one request line and its headers
_WORLD = "a name and a token sent over a network without TLS can be read by others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a hub listens, and how the world reaches it."""

    host: str
    port: int
    """0: a free one."""
    external: str = ""
    """`https://csan.example.org`, if a proxy with TLS stands in front."""
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Refuse a place where tokens would travel in the clear.

        Raises:
            UsageError: other machines could reach it without TLS, or an option contradicts another.
        """
        if (self.certificate is None) != (self.key is None):
            raise UsageError("TLS needs both a certificate and its key")
        if self.external and not _EXTERNAL.fullmatch(self.external):
            raise UsageError(f"the external address must be https://HOST[:PORT], not {self.external!r}", hint=_WORLD)
        if not (self.external or self.certificate or _is_loopback(self.host)):
            raise UsageError(
                f"refused to listen on {self.host} without TLS: {_WORLD}",
                hint="give --tls-cert and --tls-key, --external-url https://... of a proxy, or --host 127.0.0.1",
            )

    def address(self, port: int) -> str:
        """Return the URL under which this machine reaches the hub on `port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    data: Path,
    place: Place,
    *,
    settings: Settings | None = None,
    secrets: Secrets | None = None,
    role: "Role" = "all",
    ready: Callable[[str], None],
) -> None:
    """Serve the hub in `data` until SIGTERM or SIGINT; call `ready` with its address once it accepts connections.

    `role`: as for `create_app`.

    Raises:
        UsageError: `place` is not safe.
        StorageError: the port is taken, or `data` cannot be used.
    """
    place.check()
    with _reserved(place) as held:
        gc.disable()  # nearly all that a start makes stays: to search it for rubbish is a tenth of the time
        from computeops.hub.app import create_app

        app = create_app(data, base=place.external, settings=settings, secrets=secrets, role=role)
        asyncio.run(_serve(app, place, held.getsockname()[1], ready))


def _reserved(place: Place) -> socket.socket:
    """Return a socket that holds the port, which it never listens on, so that no other hub can take it."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        if place.port:  # granian shares ports between its workers: two hubs on one would go unnoticed
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((place.host, place.port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((place.host, place.port))
    except OSError as error:
        held.close()
        hint = "choose another with --port; 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise StorageError(
            f"cannot listen on {place.host}:{place.port}: {error.strerror or error}", hint=hint
        ) from None
    return held


async def _serve(app: "ASGIApp", place: Place, port: int, ready: Callable[[str], None]) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    server = Server(
        target=app,
        address=place.host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto if place.certificate else HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MILLISECONDS),
        ssl_cert=place.certificate,
        ssl_key=place.key,
    )
    server.workers_kill_timeout = _GRACE_SECONDS
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    serving = loop.create_task(server.serve())
    for _ in range(_POLLS):
        if serving.done() or await _accepts(place.host, port):
            break
        await asyncio.sleep(_POLL_SECONDS)
    gc.freeze()
    gc.enable()
    if not serving.done():
        ready(place.address(port))
    try:
        await serving
    except TimeoutError:  # a request did not end within the grace: its sender will see it fail
        loop.set_exception_handler(lambda *_: None)  # granian would complain about its own waiting, cut short


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
