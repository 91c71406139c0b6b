"""The one way out of a step that fetches: a proxy that looks at each address before anything is sent there.

The step is in a network namespace of its own. Whatever program it starts, Skopeo, apt, pip or git, and wherever a name
or a redirect leads it, there is only this proxy (RFC 9110, section 9.3.6, and absolute addresses for http), a part of
the process that watches the step. It resolves each name once: what it looked at is what it connects to.
"""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from computeops.errors import ComputeOpsError, DeniedError, NetworkError

_HEAD_BYTES = 64 * 1024
_CHUNK = 256 * 1024
_SECONDS = 30.0
_IDLE_SECONDS = 300.0
_AT_ONCE = 64


class Gateway:
    """A proxy on a listening socket, in threads, until it is closed."""

    def __init__(self, listener: socket.socket, resolve: Callable[[str, int], str]) -> None:
        self._listener, self._resolve = listener, resolve
        self._open: set[socket.socket] = set()
        self._lock, self._room = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)
        self.refused = ""
        """Why it let the last one through that it did not let through."""
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._threads = [self._accepting]
        self._accepting.start()

    def close(self) -> None:
        """End all connections, and all threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(_SECONDS)
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_SECONDS)

    def _accept(self) -> None:
        while True:
            self._room.acquire()
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=[client], daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _one(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(self._room.release)
            self._keep(client, stack)
            client.settimeout(_SECONDS)
            head, rest = _head(client)
            try:
                host, port, first = _asked(head)
                server = self._connect(host, port)
            except ComputeOpsError as error:
                status = "403 Forbidden" if isinstance(error, DeniedError) else "502 Bad Gateway"
                self.refused = error.message
                client.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{error.message}\n".encode())
                return
            self._keep(server, stack)
            if not first:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            server.sendall(first + rest)
            _relay(client, server)

    def _connect(self, host: str, port: int) -> socket.socket:
        address = self._resolve(host, port) or host
        try:
            return socket.create_connection((address, port), timeout=_SECONDS)
        except OSError as error:
            raise NetworkError(f"no answer from {host[:200]}: {error.strerror or error}") from None

    def _keep(self, one: socket.socket, stack: contextlib.ExitStack) -> None:
        """Hold a connection until `stack` ends, so that `close` can end it."""
        with self._lock:
            self._open.add(one)
        stack.callback(one.close)
        stack.callback(self._forget, one)

    def _forget(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return the head of a request, and what came behind it already."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(_HEAD_BYTES)
        data += more
        if not more or len(data) > _HEAD_BYTES:
            raise ValueError("not the head of a request")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _asked(head: bytes) -> tuple[str, int, bytes]:
    """Return host and port of a request, and its head as the server gets it; none for CONNECT."""
    line, *headers = head.decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    if method == "CONNECT":
        found = urlsplit(f"//{target}")
        return found.hostname or "", found.port or 443, b""
    found = urlsplit(target)
    if found.scheme != "http" or not found.hostname:
        raise DeniedError(f"not an address of http: {target[:200]}")
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    kept = [one for one in headers if not one.lower().startswith(("proxy-", "connection:", "keep-alive:"))]
    lines = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
    return found.hostname, found.port or 80, "\r\n".join(lines).encode("latin-1")


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Carry what each side says to the other, until one has said all."""
    pairs = {one.fileno(): (one, other), other.fileno(): (other, one)}
    with selectors.DefaultSelector() as ready:
        for number, (source, _) in pairs.items():
            source.settimeout(_IDLE_SECONDS)
            ready.register(number, selectors.EVENT_READ)
        while events := ready.select(_IDLE_SECONDS):
            for key, _ in events:
                source, target = pairs[key.fd]
                if data := source.recv(_CHUNK):
                    target.sendall(data)
                    continue
                if source is other:  # the server has said all
                    return
                ready.unregister(key.fd)
                target.shutdown(socket.SHUT_WR)
