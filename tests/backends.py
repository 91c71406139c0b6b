"""The other places where a hub keeps things: a PostgreSQL server and an S3 server, started for the tests.

With `--hub-database=postgresql` or `--hub-storage=s3` every hub of the test run uses them instead of its folder.
"""

import atexit
import base64
import email.utils
import functools
import hmac
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa


def missing_program(names: str) -> NoReturn:
    """Skip the test that needs these programs, with the reason; in continuous integration it fails."""
    reason = f"{names} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and in CI no test is skipped")
    pytest.skip(reason)


CHOSEN = {"database": "sqlite", "storage": "folder"}
_BUCKET = "hubs"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _programs() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent


@dataclass
class Postgresql:
    """A server with a cluster in a temporary folder."""

    folder: Path
    port: int
    prefix: Sequence[str]
    buffers: str

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers={self.buffers}"
        self._ctl("start", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self._ctl("stop", "-m", "immediate")

    def _ctl(self, *argv: str) -> None:
        done = subprocess.run(
            [*self.prefix, _programs() / "pg_ctl", "-w", "-D", self.folder / "data", *argv],
            capture_output=True,
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr.decode() + (self.folder / "log").read_text()

    def database(self, name: str) -> str:
        """Make a database and return its URL."""
        root = f"postgresql+psycopg://computeops@127.0.0.1:{self.port}/postgres"
        engine = sa.create_engine(root, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        engine.dispose()
        return f"postgresql://computeops@127.0.0.1:{self.port}/{name}"


def start_postgresql(beside: Path = Path("/tmp"), buffers: str = "32MB") -> Postgresql:
    folder = Path(tempfile.mkdtemp(prefix="cops-pg-", dir=beside))
    prefix: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    initdb = [
        _programs() / "initdb",
        "-D",
        folder / "data",
        "-U",
        "computeops",
        "-A",
        "trust",
        "--no-sync",
        "--locale=C.UTF-8",
    ]
    subprocess.run([*prefix, *initdb], check=True, capture_output=True, cwd="/")
    server = Postgresql(folder, free_port(), prefix, buffers)
    server.start()
    return server


@functools.cache
def postgresql() -> Postgresql:
    """The server of this test run."""
    server = start_postgresql()
    atexit.register(shutil.rmtree, server.folder, ignore_errors=True)
    atexit.register(server.stop)
    return server


@dataclass
class S3:
    """An S3 server on loopback: versitygw where it is installed, else moto."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        gateway = shutil.which("versitygw")
        if gateway:
            argv = [
                gateway,
                "--port",
                f"127.0.0.1:{self.port}",
                "--access",
                "test",
                "--secret",
                "testtest",
                "posix",
                str(self.folder),
            ]
        else:
            argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with (self.folder.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.1)
        self._make_bucket()

    def _make_bucket(self) -> None:
        if shutil.which("versitygw"):
            (self.folder / _BUCKET).mkdir(exist_ok=True)
        else:
            urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{_BUCKET}", method="PUT")).close()

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def start_s3() -> S3:
    folder = Path(tempfile.mkdtemp(prefix="cops-s3-", dir="/var/tmp")) / "root"
    folder.mkdir()
    server = S3(free_port(), folder)
    server.start()
    return server


@functools.cache
def s3() -> S3:
    """The server of this test run."""
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="testtest")
    server = start_s3()
    atexit.register(shutil.rmtree, server.folder.parent, ignore_errors=True)
    atexit.register(server.stop)
    return server


AZURE_ACCOUNT = {
    "account_name": "devstoreaccount1",  # the one that Azurite has, with the key that its manual prints
    "account_key": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}


@functools.cache
def azure() -> dict[str, str]:
    """Options for `az://hubs/...`, a container on Azurite, Microsoft's emulator of Azure Blob Storage."""
    folder, port = tempfile.mkdtemp(prefix="cops-az-", dir="/var/tmp"), str(free_port())
    argv = ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", port, "--location", folder, "--silent"]
    argv += ["--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.wait)
    atexit.register(process.kill)
    place = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT['account_name']}"
    for _ in range(600):
        try:
            _make_container(f"{place}/{_BUCKET}")
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    return AZURE_ACCOUNT | {"endpoint": place}


def _make_container(url: str) -> None:
    """As https://learn.microsoft.com/rest/api/storageservices/create-container says; obstore makes none."""
    name = AZURE_ACCOUNT["account_name"]
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    said = "".join(f"{key}:{value}\n" for key, value in headers.items())
    signed = f"PUT{chr(10) * 12}{said}/{name}/{name}/{_BUCKET}\nrestype:container"
    key = base64.b64decode(AZURE_ACCOUNT["account_key"])
    proof = base64.b64encode(hmac.digest(key, signed.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {name}:{proof}", "Content-Length": "0"}
    urllib.request.urlopen(
        urllib.request.Request(f"{url}?restype=container", method="PUT", headers=headers), timeout=30
    ).close()


def settings(database: str = "", storage: str = "", endpoint: str = "", more: str = "") -> str:
    """The text of a hub.toml."""
    lines = [f"database = {json.dumps(database)}"] if database else []
    if storage:
        lines += [f"storage = {json.dumps(storage)}"]
        lines += [f"storage_options = {{ endpoint = {json.dumps(endpoint)}, region = 'us-east-1' }}"]
    return "\n".join([*lines, more]) + "\n"


def furnish(folder: Path, *, database: str = "", storage: str = "", more: str = "") -> None:
    """Write the hub.toml of a hub in `folder`: what this test asks for, else what the test run does."""
    name = f"hub{os.urandom(6).hex()}"
    on_server = (database or CHOSEN["database"]) == "postgresql"
    in_bucket = (storage or CHOSEN["storage"]) == "s3"
    if not (on_server or in_bucket or more) or (folder / "hub.toml").exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = postgresql().database(name) if on_server else ""
    place = f"s3://{_BUCKET}/{name}" if in_bucket else ""
    (folder / "hub.toml").write_text(settings(url, place, s3().endpoint if in_bucket else "", more))
