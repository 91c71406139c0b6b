"""The hub beside Distribution (Debian's docker-registry): manifests, blobs whole and in ranges, pushes.

    .venv/bin/python bench/hub_registry.py [--seconds 3]

Both serve from the same disk of this machine, one after the other in each round, and the medians of the rounds are
compared. The hub checks a token and the visibility of the repository with every request and syncs every push to the
disk before it answers; docker-registry runs without login, as Debian starts it.
"""

import argparse
import hashlib
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "/v2/bench/image"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MIB = 1024 * 1024
ROUNDS = 3


@dataclass(frozen=True)
class Server:
    """A registry that runs for the benchmark."""

    name: str
    host: str
    port: int
    authorization: str
    process: subprocess.Popen[bytes]

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(
            method, path, body, sent | ({"Authorization": self.authorization} if self.authorization else {})
        )
        return connection.getresponse()

    def raw(self, path: str, more: str = "") -> bytes:
        """The bytes of a GET request."""
        login = f"Authorization: {self.authorization}\r\n" if self.authorization else ""
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{login}{more}\r\n".encode()

    def push(self, data: bytes) -> str:
        """Push a blob as clients do, in two requests, and return its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        place = self.ask("POST", f"{REPOSITORY}/blobs/uploads/").headers["Location"]
        place = place.partition(f"{self.host}:{self.port}")[2] if place.startswith("http") else place
        answer = self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data)
        assert answer.status == 201, answer.read()
        return digest


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def hub(folder: Path) -> Server:
    (folder / "hub").mkdir(mode=0o700)
    (folder / "hub/hub.toml").write_text("requests_per_second = 0\n")  # one caller, as fast as it can
    command = [sys.executable, "-m", "computeops", "hub"]
    scope = ["--name", "bench", "--scope", "push:bench/*"]
    token = subprocess.run([*command, "token", "--data", folder / "hub", *scope], capture_output=True, check=True)
    process = subprocess.Popen([*command, "serve", "--data", folder / "hub", "--port", "0"], stdout=subprocess.PIPE)
    assert process.stdout
    address = process.stdout.readline().decode().strip()
    return Server(
        "hub", "127.0.0.1", int(address.rpartition(":")[2]), f"Bearer {token.stdout.decode().strip()}", process
    )


def distribution(folder: Path) -> Server:
    port = free_port()
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/distribution}}, cache: {{blobdescriptor: inmemory}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    return Server("docker-registry", "127.0.0.1", port, "", process)


def load(server: Server, request: bytes, clients: int, seconds: float) -> tuple[float, float, float]:
    """Send `request` again and again on `clients` connections; return requests/s, bytes/s and 99th percentile in ms."""
    with multiprocessing.Pool(min(clients, 2)) as pool:
        share = clients // min(clients, 2)
        runs = pool.starmap(_client, [(server.port, request, share, seconds)] * min(clients, 2))
    times = sorted(one for run in runs for one in run[0])
    return len(times) / seconds, sum(run[1] for run in runs) / seconds, times[int(len(times) * 0.99)] * 1000


def _client(port: int, request: bytes, connections: int, seconds: float) -> tuple[list[float], int]:
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    buffer, times, received = bytearray(MIB), [], 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = [0.0] * connections
        for number, one in enumerate(sockets):  # all connections have a request under way
            began[number] = time.perf_counter()
            one.sendall(request)
        for number, one in enumerate(sockets):
            received += _answer(one, buffer)
            times.append(time.perf_counter() - began[number])
    return times, received


def _answer(one: socket.socket, buffer: bytearray) -> int:
    count = one.recv_into(buffer)
    head, _, _ = bytes(buffer[: min(count, 4096)]).partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206")), head
    left = len(head) + 4 + length - count
    while left > 0:
        left -= one.recv_into(buffer, min(left, len(buffer)))
    return length


def pushes(server: Server, size: int, count: int) -> float:
    """Return pushed blobs per second, one client."""
    began = time.perf_counter()
    for _ in range(count):
        server.push(os.urandom(16) + bytes(size - 16))
    return count / (time.perf_counter() - began)


def prepare(server: Server) -> tuple[str, str]:
    """Push an image; return the paths of its manifest and of a blob of 100 MiB."""
    config, large = b"{}", bytes(100 * MIB)
    layers = [{"mediaType": "application/octet-stream", "digest": server.push(large), "size": len(large)}]
    about = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": server.push(config),
        "size": len(config),
    }
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": layers}).encode()
    answer = server.ask("PUT", f"{REPOSITORY}/manifests/1.0", body, Content_Type=MANIFEST)
    assert answer.status == 201, answer.read()
    return f"{REPOSITORY}/manifests/1.0", f"{REPOSITORY}/blobs/{layers[0]['digest']}"


def measures(server: Server, seconds: float) -> dict[str, Callable[[], float]]:
    manifest, blob = prepare(server)
    get_manifest = server.raw(manifest, f"Accept: {MANIFEST}\r\n")
    part = server.raw(blob, f"Range: bytes={10 * MIB}-{15 * MIB - 1}\r\n")
    return {
        "manifest GET, 16 clients [1/s]": lambda: load(server, get_manifest, 16, seconds)[0],
        "manifest GET, 16 clients, p99 [ms]": lambda: load(server, get_manifest, 16, seconds)[2],
        "blob of 100 MiB, 2 clients [MB/s]": lambda: load(server, server.raw(blob), 2, seconds)[1] / 1e6,
        "5 MiB of it by Range, 4 clients [MB/s]": lambda: load(server, part, 4, seconds)[1] / 1e6,
        "push of 1 MiB, 1 client [1/s]": lambda: pushes(server, MIB, 20),
        "push of 100 MiB, 1 client [MB/s]": lambda: pushes(server, 100 * MIB, 2) * 104.8576,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        servers = [hub(Path(name)), distribution(Path(name))]
        try:
            table = {server.name: measures(server, seconds) for server in servers}
            print(f"{'':42}{'hub':>12}{'docker-registry':>18}{'ratio':>8}")
            for what in table["hub"]:
                rounds = [[table[server.name][what]() for server in servers] for _ in range(ROUNDS)]
                ours, theirs = (statistics.median(one[at] for one in rounds) for at in (0, 1))
                print(f"{what:42}{ours:12.1f}{theirs:18.1f}{ours / theirs:8.2f}", flush=True)
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()


if __name__ == "__main__":
    main()
