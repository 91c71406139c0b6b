"""The process of a worker: takes pipelines, has them built, signs and pushes what came out, and tells the hub of it.

It may be killed at any point. Its job goes on meanwhile, or is submitted again and goes on with the step that was
interrupted; when the agent is back, it finds the folder of the pipeline and goes on too.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from computeops import __version__, proc
from computeops.config import Settings
from computeops.errors import DeniedError, LoginError, NetworkError, UsageError
from computeops.hub.pipelines.machine import machine
from computeops.hub.pipelines.words import Task, Worker
from computeops.hub.worker.client import Client
from computeops.hub.worker.plan import END, Folder, Plan, Site
from computeops.hub.worker.work import Work
from computeops.sign.keyring import Keyring

KEY = "worker"
"""Name of the key that signs what a worker builds."""
_POLL_SECONDS = 0.5
_SLOW_SECONDS = 5.0
_KEPT_SECONDS = 7 * 24 * 3600
_UNSEEN = ("/home", "/root", "/srv", "/mnt", "/media", "/run", "/tmp", "/var/tmp")  # noqa: S108  what no build sees
_NEEDED = ("unshare", "git")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Where a worker works, and with what."""

    hub: str
    token: str
    state: Path
    """Folder with everything that it keeps."""
    on: str
    """Scheduler that gets its jobs."""
    at_once: int
    settings: Settings
    environ: Mapping[str, str]
    """What the commands of the scheduler find set."""
    seconds: int = 0
    """Time that a job asks the scheduler for; 0: none is asked for."""
    memory: int = 0
    """MiB that a job asks for."""
    cpus: int = 1

    @property
    def keys(self) -> Settings:
        """The settings with the worker's own keyring, which is all that signing needs."""
        return replace(self.settings, keys=self.state / "keys", key=KEY, policy="")


class Agent:
    """A worker at work."""

    def __init__(self, post: Post, told: Callable[[str], None]) -> None:
        self._post, self._told = post, told
        self._stopping = threading.Event()
        self._running: dict[int, threading.Thread] = {}

    def stop(self) -> None:
        """Take nothing more; jobs that run go on, and the next agent in this folder goes on with them."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            LoginError: the hub does not know the token; DeniedError: this worker must not build for it.
            UsageError: the place is not safe.
        """
        check(self._post)
        me = self._introduction()
        client = Client(self._post.hub, self._post.token)
        self._told(f"{client.base}: worker ready, with the key {self._keyid()}")
        for folder in self._left():
            task = folder.read("task.json", Task)
            if task is not None:
                self._start(folder, task)
        try:
            while not self._stopping.is_set():
                self._stopping.wait(_POLL_SECONDS if self._turn(client, me) else _SLOW_SECONDS)
        finally:
            client.close()
            for thread in list(self._running.values()):
                thread.join()

    def _turn(self, client: Client, me: Worker) -> bool:
        """Take a pipeline if there is room for one; return whether the hub answered."""
        for number, thread in list(self._running.items()):
            if not thread.is_alive():
                del self._running[number]
                if not self._running:
                    tidy(self._post.state, self._post.settings.cache_bytes, time.time())
        try:
            while len(self._running) < self._post.at_once and (task := client.take(me)) is not None:
                self._start(self._laid(task), task)
        except (LoginError, DeniedError, UsageError):
            raise
        except NetworkError as error:
            self._told(error.message)
            return False
        return True

    def _start(self, folder: Folder, task: Task) -> None:
        work = Work(self._post, folder, task, self._stopping, self._told)
        thread = threading.Thread(target=work.go, name=f"pipeline {task.id}", daemon=True)
        self._running[task.id] = thread
        self._told(f"pipeline {task.id}: {task.kind} of {task.repository}")
        thread.start()

    def _laid(self, task: Task) -> Folder:
        """Write down what was taken, before anything is done about it."""
        folder = Folder(self._post.state / "pipelines" / str(task.id))
        folder.path.mkdir(parents=True, exist_ok=True)
        cache = self._post.state / "cache" / task.repository.rpartition("/")[0].replace("/", "__")
        cache.mkdir(parents=True, exist_ok=True)
        own = {name: getattr(self._post.settings, name) for name in Site.__struct_fields__ if name != "advisories"}
        plan = Plan(
            kind=task.kind,
            repository=task.repository,
            source=task.source,
            bounds=task.bounds,
            network=task.network,
            private=task.private,
            cache=str(cache),
            built=str(cache / "built"),
            site=Site(advisories=str(self._post.settings.advisories), **own),
        )
        _forget_ends(folder)
        folder.write("plan.json", plan)
        folder.write("task.json", task)
        if not folder.log.exists():
            with folder.log.open("wb") as log:  # what another worker told of it stands before
                log.truncate(task.log_bytes)
        return folder

    def _left(self) -> list[Folder]:
        """Return what an agent before this one did not bring to its end."""
        folders = self._post.state / "pipelines"
        return [Folder(path) for path in sorted(folders.iterdir())] if folders.is_dir() else []

    def _introduction(self) -> Worker:
        public = (self._post.state / "keys" / KEY / "public").read_text()
        return Worker(key=public, machine=machine(), uid=os.geteuid(), builder=__version__)

    def _keyid(self) -> str:
        return Keyring(self._post.state / "keys").get(KEY).keyid


def _forget_ends(folder: Folder) -> None:
    """A pipeline that is taken again goes on: what failed before is done again, what ended well is not."""
    for name in ("fault.json", "job", END):
        (folder.path / name).unlink(missing_ok=True)


def check(post: Post) -> None:
    """Refuse a place where builds could read the worker's secrets, and make the key of a new worker.

    Raises:
        UsageError: so, or it would run as root.
        MissingProgramError: a program that every build needs is not installed.
    """
    if os.geteuid() == 0:
        raise UsageError("a worker does not run as root", hint="start it as an ordinary user, or give --user NAME")
    state = post.state.resolve()
    if not any(state.is_relative_to(one) for one in _UNSEEN):
        raise UsageError(
            f"builds could read {state}, where the worker keeps its key",
            hint=f"give a --state folder below one of {', '.join(_UNSEEN)}",
        )
    for program in _NEEDED:
        proc.need(program)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o711)  # in its box a build is not always this user, and must get to its own folder
    ring = Keyring(state / "keys")
    if KEY not in ring.names():
        ring.new(KEY, "ComputeOps worker")


def tidy(state: Path, most_bytes: int, now: float) -> None:
    """Remove what failed long ago, and what was fetched or built longest ago until the rest takes `most_bytes`.

    Nothing may be building meanwhile.
    """
    for folder in state.glob("pipelines/*"):
        if not (folder / "task.json").exists() and folder.stat().st_mtime < now - _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    kept = [path for kind in ("built", "sources", "bases") for path in state.glob(f"cache/*/{kind}/*")]
    total = 0
    for path in sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True):
        total += _size(path)
        if total > most_bytes and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif total > most_bytes:
            path.unlink()


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(one.stat().st_size for one in files if one.is_file() and not one.is_symlink())
