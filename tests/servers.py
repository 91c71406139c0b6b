"""Servers for tests: one that does whatever a test wants, however wrong, and Debian's docker-registry."""

import contextlib
import http.client
import itertools
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Asked:
    """One request, and the ways to answer it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    handler: BaseHTTPRequestHandler = field(repr=False)

    def body(self) -> bytes:
        return self.handler.rfile.read(int(self.headers.get("content-length", "0")))

    def whole_body(self) -> bytes:
        """Return the body, also where its length was not told in advance."""
        if "transfer-encoding" not in self.headers:
            return self.body()
        found, lines = b"", self.handler.rfile
        while size := int(lines.readline().partition(b";")[0], 16):
            found += lines.read(size)
            lines.readline()
        lines.readline()
        return found

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.start(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.method != "HEAD":
            self.send(body)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def cut(self) -> None:
        """Break the connection as a failing network does."""
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)


Answers = Callable[[Asked], None]


class Server:
    """A real HTTP server on a free port of this machine; `asked` is what came in."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.asked = answers, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

            def do_any(self) -> None:
                path, _, query = self.path.partition("?")
                names = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, path, query, names, self)
                outer.asked.append(asked)
                outer.answers(asked)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815  http.server's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    asked: list[Asked]

    def paths(self, method: str = "GET") -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[Server]:
    server = Server(answers)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def balancer(hosts: Sequence[str]) -> Iterator[Server]:
    """A load balancer that sends each request to the next of `hosts`, whoever it is from."""
    turn = itertools.cycle(hosts)

    def forward(asked: Asked) -> None:
        with contextlib.closing(http.client.HTTPConnection(next(turn), timeout=60)) as connection:
            path = f"{asked.path}?{asked.query}" if asked.query else asked.path
            body = asked.whole_body()
            connection.putrequest(asked.method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in asked.headers.items():
                if name not in {"transfer-encoding", "connection", "expect", "content-length"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data, length = answer.read(), answer.headers.get("Content-Length", "")
            for name in ("Transfer-Encoding", "Connection", "Content-Length", "Date"):
                del answer.headers[name]
            if asked.method == "HEAD":
                asked.start(answer.status, {**answer.headers, "Content-Length": length or "0"})
            elif answer.status in {204, 304}:
                asked.start(answer.status, dict(answer.headers))
            else:
                asked.answer(answer.status, data, dict(answer.headers))

    with serving(forward) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def docker_registry(folder: Path, passwords: str = "") -> Iterator[str]:
    """Run Debian's docker-registry on a free port and give its `127.0.0.1:PORT`. `passwords`: lines of htpasswd."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    auth = ""
    if passwords:
        (folder / "htpasswd").write_text(passwords)
        auth = f"auth:\n  htpasswd:\n    realm: tests\n    path: {folder}/htpasswd\n"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\n"
        f"http:\n  addr: 127.0.0.1:{port}\n  secret: x\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait(f"http://127.0.0.1:{port}/v2/", process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "docker-registry did not start"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("docker-registry did not answer")
