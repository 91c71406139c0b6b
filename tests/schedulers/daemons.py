"""What the real schedulers of the tests share: a folder, processes that are ended again, and waiting for a sign."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest


class Daemons:
    """Processes of one scheduler, with all of their state in one folder."""

    def __init__(self, name: str) -> None:
        if os.geteuid() != 0:
            pytest.skip(f"only root can start a {name} that runs jobs of other users")
        self.folder = Path(tempfile.mkdtemp(prefix=f"cops-{name}-", dir="/tmp"))  # short: paths of sockets are bounded
        self.folder.chmod(0o755)
        self.env: dict[str, str] = {}
        """What its commands need to find it."""
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, argv: Sequence[str | Path], *, user: str = "", env: Mapping[str, str] | None = None) -> None:
        """Start a daemon in the foreground; its output goes to a file."""
        prefix = ["env", "--default-signal"]  # what tests in the background ignore, jobs would ignore too
        prefix += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
        log = self.folder / f"{Path(argv[0]).name}-{len(self._running)}.out"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*prefix, *map(str, argv)],
                env={**os.environ, **self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)

    @property
    def master(self) -> subprocess.Popen[bytes]:
        """The daemon that was started first."""
        return self._running[0]

    def killed(self, name: str) -> None:
        """End a daemon as a crash would."""
        alive = [one for one in self._running if one.poll() is None]
        (process,) = (one for one in alive if name in {Path(word).name for word in one.args})
        process.kill()
        process.wait()

    def run(self, argv: Sequence[str | Path], *, check: bool = True) -> str:
        """Run one of its commands to the end."""
        done = subprocess.run(
            list(map(str, argv)), env={**os.environ, **self.env}, capture_output=True, check=False, timeout=60
        )
        if check and done.returncode != 0:
            pytest.fail(f"{argv} exited with {done.returncode}: {done.stdout.decode()} {done.stderr.decode()}")
        return done.stdout.decode()

    def wait(self, sign: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for a sign of life; the end of every log is shown where none comes."""
        until = time.monotonic() + seconds
        while not sign():
            if time.monotonic() > until:
                logs = [*self.folder.glob("*.out"), *self.folder.glob("log/*")]
                tails = [f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in logs if log.is_file()]
                pytest.fail("it does not come up\n" + "\n".join(tails))
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 8) -> None:
        """End every daemon, the youngest first, and remove the folder."""
        for process in reversed(self._running):
            process.send_signal(number)
        until = time.monotonic() + seconds
        for process in reversed(self._running):
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name: str, text: str, *, mode: int = 0o644) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def folders(self, *names: str, user: str) -> None:
        for name in names:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            shutil.chown(self.folder / name, user, user)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
