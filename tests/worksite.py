"""A hub with a worker, each in a process of its own and of a user of its own, and recipes for them to build."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from backends import missing_program
from building import base_layout
from computeops.model import Digest
from conftest import RunningHub, Scientist
from servers import Asked, serving

ENDED = {"succeeded", "failed", "cancelled"}
_PATIENCE_SECONDS = 240


def tiny(into: Path, build: str = "echo hello > /made\n", *, test: str = "cat /made") -> Path:
    """Write a recipe that is built of Busybox in a moment; `build` is the script that runs in the box."""
    into.mkdir(parents=True)
    base_layout(into / "base.oci")
    (into / "Dockerfile").write_text("FROM oci:base.oci\nCOPY build.sh /build.sh\nRUN sh /build.sh\n")
    (into / "build.sh").write_text(build)
    (into / "computeops.toml").write_text(
        '[package]\nname = "tiny"\nversion = "1.0"\nsummary = "Tiny"\nlicense = "MIT"\n'
        '[[sources]]\npath = "build.sh"\n[build]\nbuilder = "dockerfile"\nfile = "Dockerfile"\n'
        f'[[tests]]\nname = "says"\nrun = "{test}"\nexpect = "hello"\n'
    )
    subprocess.run([sys.executable, "-m", "computeops", "lock", into], check=True, capture_output=True)
    return into


def packed(folder: Path) -> bytes:
    """Return a folder as a tar file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return data.getvalue()


def archive_of(file: Path, members: list[tuple[str, str, str]]) -> Path:
    """Write a tar file of hostile members: name, kind (file, link, hard link, device) and content or target."""
    kinds = {"f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "d": tarfile.CHRTYPE}
    with tarfile.open(file, "w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kinds[kind], "" if kind == "f" else text
            info.size = len(text) if kind == "f" else 0
            tar.addfile(info, io.BytesIO(text.encode()))
    return file


@contextmanager
def git_over_http(work: Path, bare: Path) -> Iterator[tuple[str, str]]:
    """Serve what is in `work` as a repository with hooks and a submodule; give its address and its newest commit."""
    (work / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = https://evil.invalid/x\n')
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]

    def git(*argv: str | Path) -> str:
        return subprocess.run(["git", *who, *argv], cwd=work, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    git("commit", "--quiet", "-m", "all")
    commit = git("rev-parse", "HEAD")
    git("clone", "--quiet", "--bare", work, bare)
    for hook in ("post-checkout", "post-merge", "pre-auto-gc", "reference-transaction"):
        (bare / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {bare.parent}/ran\n")
        (bare / "hooks" / hook).chmod(0o755)
    git("--git-dir", bare, "update-server-info")

    def answers(asked: Asked) -> None:
        file = bare / asked.path.lstrip("/")
        found = file.read_bytes() if file.is_file() and file.resolve().is_relative_to(bare.resolve()) else None
        asked.answer(404 if found is None else 200, found or b"")

    with serving(answers) as server:
        yield server.url, commit


class Worksite:
    """One hub, the people who use it, and its workers."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.hub = RunningHub(folder / "hub")
        self.hub.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.hub.data / "hub.toml").open("a") as file:
            file.write(f"\nrequests_per_second = 0\n[pipelines]\nprivate_addresses = true\n{settings}\n")
        self.hub.start()
        self.token = self.hub.token("push:*", name="ada")
        self.workers: dict[str, Worker] = {}

    def run(self, *argv: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run computeops with the rights of ada."""
        env = {**os.environ, "HOME": str(self.folder), "COMPUTEOPS_HUB": self.hub.address}
        env = {name: value for name, value in env.items() if not name.startswith("XDG_")}
        words = [sys.executable, "-m", "computeops", *map(str, argv)]
        return subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, check=False)

    def login(self) -> None:
        assert self.run("login", self.hub.address, "--token-stdin", stdin=self.token).returncode == 0

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, Any]:
        """Send a request to the API and return status and answer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token or self.token}"}
        request = urllib.request.Request(f"{self.hub.address}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text[:1] in {b"{", b"["} else text.decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def start(self, recipe: Path, repository: str) -> int:
        """Send a recipe and start its pipeline."""
        data = packed(recipe)
        digest = str(Digest.of(data))
        status, said = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert status == 201, said
        status, said = self.ask("POST", "/api/v1/pipelines", {"repository": repository, "archive": digest})
        assert status == 201, said
        return int(said["id"])

    def show(self, number: int) -> dict[str, Any]:
        status, said = self.ask("GET", f"/api/v1/pipelines/{number}")
        assert status == 200, said
        found: dict[str, Any] = said
        return found

    def log(self, number: int) -> str:
        text, at = "", 0
        while True:
            part = self.ask("GET", f"/api/v1/pipelines/{number}/log?at={at}")[1]
            if not part["text"]:
                return text
            text, at = text + part["text"], part["next"]

    def ended(self, number: int, state: str = "succeeded") -> dict[str, Any]:
        """Wait until a pipeline has ended, as it is expected to."""
        found = self.waited(number, ENDED | {state})
        assert found["state"] == state, (found, self.log(number), [one.log() for one in self.workers.values()])
        return found

    def waited(self, number: int, states: set[str]) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE_SECONDS
        while (found := self.show(number))["state"] not in states:
            assert time.monotonic() < until, (found, [one.log() for one in self.workers.values()])
            time.sleep(0.05)
        return found

    def worker(self, name: str = "one", *options: str, env: Mapping[str, str] | None = None) -> "Worker":
        argv = [sys.executable, "-m", "computeops", "hub", "workers", "add", name, "--data", str(self.hub.data)]
        token = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        made = self.workers[name] = Worker(self.hub.address, token, options, env or {})
        return made.start()

    def close(self) -> None:
        for one in self.workers.values():
            one.close()
        if self.hub.process:
            self.hub.stop()


class Worker:
    """A worker as its operator starts it, which can be killed with all that it has begun."""

    def __init__(self, hub: str, token: str, options: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.hub, self.token, self.options = hub, token, options
        self.home = Path(tempfile.mkdtemp(prefix="cops-", dir="/tmp"))
        self.home.chmod(0o755)
        self.user = Scientist(self.home)
        self.state = self.home / "worker"
        self.python, self.env = python_for(self.user)
        self.env = {**self.env, **env}
        self.process: subprocess.Popen[bytes] | None = None

    def argv(self) -> list[str]:
        words = [self.python, "-m", "computeops", "hub", "worker", self.hub, "--state", self.state, *self.options]
        return self.user.argv(words)

    def start(self) -> "Worker":
        env = self.user.env({**self.env, "COMPUTEOPS_WORKER_TOKEN": self.token})
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(self.argv(), env=env, stdout=log, stderr=log, cwd=self.home)
        return self

    def kill(self, *, all_of_it: bool) -> None:
        """End the agent by kill -9; with `all_of_it` its jobs too, as when a machine goes down."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        for pid in self.pids() if all_of_it else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Return the processes that work in this worker's folder."""
        found = []
        for one in Path("/proc").iterdir():
            with suppress(OSError):
                if one.name.isdigit() and str(self.state).encode() in (one / "cmdline").read_bytes():
                    found.append(int(one.name))
        return found

    def steps(self, number: int) -> dict[str, dict[str, Any]]:
        """Return what the worker's folder says of the steps of a pipeline."""
        found = {}
        for file in (self.state / "pipelines" / str(number) / "steps").glob("*.json"):
            with suppress(OSError, ValueError):
                step = json.loads(file.read_text())
                found[step["name"]] = step
        return found

    def log(self) -> str:
        return (self.home / "log").read_text()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill(all_of_it=True)
        shutil.rmtree(self.home, ignore_errors=True)


def python_for(user: Scientist) -> tuple[str, Mapping[str, str]]:
    """Return a Python that the user can run, and what it needs to find our packages."""
    python = Path(sys.executable).resolve()
    if user.run(["test", "-x", python], check=False).returncode:
        python = Path("/usr/bin/python3.11") if sys.version_info[:2] == (3, 11) else Path("/usr/bin/python3")
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    if user.run([python, "-c", "import msgspec, computeops"], env=env, check=False).returncode:
        missing_program("a Python that the ordinary user can run with this one's packages")
    return str(python), env


@contextmanager
def worksite(folder: Path, settings: str = "") -> Iterator[Worksite]:
    """Give a hub that is no one's worker yet."""
    if os.geteuid() != 0:
        pytest.skip("hub and worker are two users: this test needs root to become both")
    made = Worksite(folder, settings)
    try:
        yield made
        assert "Traceback" not in made.hub.log()
    finally:
        made.close()
