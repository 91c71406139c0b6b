"""`computeops` as an ordinary user who has a scheduler, and jobs that are all submitted before the first is awaited."""

import contextlib
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops.image import convert, oci
from computeops.image.tree import Directory
from conftest import Scientist
from containers import Launcher, root_filesystem
from schedulers.daemons import Daemons

_MANY = """
import json, os, sys, tempfile
import computeops.cli.jobs, computeops.cli.submit, computeops.run.local, msgspec, shutil
from computeops.cli.root import call
from computeops import run
for name in run.BUILT_IN:
    run.load(name)

def begin(one):
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.environ.update(one["env"])
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = call(one["words"])
        sys.stdout.flush()
        os._exit(code)
    return child, out, err

def end(child, out, err):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for file in (out, err):
        file.seek(0)
    return [code, out.read().decode(errors="replace"), err.read().decode(errors="replace")]

calls, running, ended = json.load(sys.stdin), [], []
for one in calls:
    running.append(begin(one))
    if len(running) - len(ended) >= 4:
        ended.append(end(*running[len(ended)]))
ended += [end(*one) for one in running[len(ended):]]
json.dump(ended, sys.stdout)
"""
"""A program that runs many command lines, a few at a time, each in a child that need not import anything again."""
ENDED = {"succeeded", "failed", "timeout", "cancelled", "lost", "held"}


class User(Launcher):
    """A user of one scheduler, whose home is on a file system that its machines share."""

    def __init__(self, home: Path, scheduler: str, daemons: Any) -> None:
        super().__init__(Scientist(home))
        self.scheduler, self.daemons = scheduler, daemons
        self.image = _shell(home)

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        found = {**super().env(), **(self.daemons.env if self.daemons else {}), **(more or {})}
        return {name: value for name, value in found.items() if name != "TMPDIR"}

    def submit(self, *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Submit a job whose command is a shell in a container; return its id."""
        done = self("submit", "--on", self.scheduler, self.image, *words, env=env, cwd=cwd)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def many(
        self, calls: Sequence[Sequence[str | Path]], envs: Sequence[Mapping[str, str]] = ()
    ) -> list[tuple[int, str, str]]:
        """Run many command lines and return code, output and errors of each, in order."""
        asked = [
            {"words": list(map(str, words)), "env": dict(env)}
            for words, env in itertools.zip_longest(calls, envs, fillvalue={})
        ]
        python = self.argv()[: -len(["-m", "computeops"])]
        done = subprocess.run(
            [*python, "-c", _MANY],
            input=json.dumps(asked).encode(),
            env=self.env(),
            cwd=self.home,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [(code, out, err) for code, out, err in json.loads(done.stdout)]

    def submit_all(self, jobs: Sequence[Sequence[str | Path]], envs: Sequence[Mapping[str, str]] = ()) -> list[str]:
        """Submit many jobs as `submit` does one; return their ids."""
        done = self.many([["submit", "--on", self.scheduler, self.image, *words] for words in jobs], envs)
        assert all(code == 0 for code, _, _ in done), [err for _, _, err in done if err]
        return [out.strip() for _, out, _ in done]

    def jobs(self, *ids: str) -> list[dict[str, Any]]:
        done = self("jobs", "--json", *ids)
        assert done.returncode == 0, done.stderr.decode()
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def until(self, *ids: str, states: set[str] = ENDED, seconds: float = 90) -> list[dict[str, Any]]:
        """Wait until every job is in one of `states`."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.jobs(*ids)
            if all(one["state"] in states for one in found):
                return found
            assert time.monotonic() < deadline, [(one["name"], one["state"], one["reason"]) for one in found]
            time.sleep(0.5)

    def logs(self, identity: str, *words: str) -> tuple[str, str]:
        done = self("logs", identity, *words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(), done.stderr.decode()

    def folder(self, identity: str) -> Path:
        return self.home / ".local/state/computeops/jobs" / identity


def _shell(home: Path) -> Path:
    """An image whose command is a shell."""
    sif = home / "shell.sif"
    with tempfile.TemporaryDirectory() as tree:
        root = root_filesystem(Path(tree) / "root")
        description = oci.Description("amd64", env={"PATH": "/usr/bin:/bin"}, command=("sh",))
        writer = convert.Writer(level=1)
        convert.pack(Directory(root), description, to_sif=sif, writer=writer, epoch=315532800)
    sif.chmod(0o644)
    return sif


@contextlib.contextmanager
def using(scheduler: str, module: Any) -> Iterator[User]:
    """A user of a scheduler that is started for them, and ended."""
    daemons = module.up() if module else None
    try:
        with tempfile.TemporaryDirectory(prefix="cops-", dir="/tmp", ignore_cleanup_errors=True) as home:
            Path(home).chmod(0o755)
            user = User(Path(home), scheduler, daemons)
            try:
                yield user
            finally:
                _end(user)
    finally:
        if module and daemons:
            getattr(module, "down", Daemons.stop)(daemons)


def _end(user: User) -> None:
    """Cancel what still runs."""
    open_ = [one["id"] for one in user.jobs() if one["state"] not in ENDED]
    if open_:
        user("cancel", *open_)
