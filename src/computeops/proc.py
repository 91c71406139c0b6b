"""The only module that starts processes: argv lists, never a shell, a clear error for a missing program."""

import contextlib
import errno
import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from computeops.errors import NO_ROOM, ComputeOpsError, EngineError, MissingProgramError

if TYPE_CHECKING:  # `become`, the hot path, needs neither subprocess nor shutil, which cost 5 ms
    from subprocess import CompletedProcess
    from subprocess import Popen as Process

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""As `subprocess` has them."""

_PACKAGES = {
    "apptainer": "apptainer",
    "buildah": "buildah",
    "bwrap": "bubblewrap",
    "git": "git",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "podman": "podman",
    "squashfuse": "squashfuse",
    "squashfuse_ll": "squashfuse",
    "unsquashfs": "squashfs-tools",
}
_LINE_BYTES = 64 * 1024  # a longer line of a program is given in pieces
_TAIL_LINES = 30


def find(program: str) -> str | None:
    """Return the path of `program`, or None if it is not installed."""
    if "/" in program:
        return program if _can_be_executed(program) else None
    places = (f"{folder or '.'}/{program}" for folder in os.get_exec_path())  # shutil.which costs an import of 4 ms
    return next((place for place in places if _can_be_executed(place)), None)


def _can_be_executed(path: str) -> bool:
    return os.access(path, os.X_OK) and not Path(path).is_dir()


def need(program: str) -> str:
    """Return the path of `program`.

    Raises:
        MissingProgramError: with the one line that installs it.
    """
    path = find(program)
    if path is None:
        package = _PACKAGES.get(program, program)
        tool = "dnf" if find("dnf") else "apt-get"
        raise MissingProgramError(f"{program} is not installed", hint=f"install it with: {tool} install {package}")
    return path


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    error: type[ComputeOpsError] = ComputeOpsError,
) -> str:
    """Run `argv` to its end and return its standard output.

    Raises:
        MissingProgramError: `argv[0]` is not installed.
        ComputeOpsError: as `error`: it exited with another code than 0 or ran longer than `timeout` seconds; the
            message carries the command and the last lines of its output.
    """
    done = capture(argv, env=env, cwd=cwd, stdin=stdin, timeout=timeout, error=error)
    if done.returncode != 0:
        raise failed(argv, done.returncode, done.stderr or done.stdout, error)
    return done.stdout.decode(errors="replace")


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    error: type[ComputeOpsError] = ComputeOpsError,
) -> "CompletedProcess[bytes]":
    """Run `argv` to its end, whatever its exit code, and return exit code and output."""
    import subprocess

    need(argv[0])
    source = subprocess.DEVNULL if stdin is None else None
    try:
        return subprocess.run(
            list(argv), env=env, cwd=cwd, stdin=source, input=stdin, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise error(f"no end after {timeout:g} s: {shlex.join(argv)}") from None


@dataclass(frozen=True, slots=True)
class Observed:
    """What a process did that was let run to its end or to its time."""

    code: int
    """Exit code; minus the signal that ended it."""
    output: bytes
    """The end of both of its streams, as they came."""
    seconds: float
    timed_out: bool


def observe(
    argv: Sequence[str], *, env: Mapping[str, str] | None, timeout: float, limit_bytes: int, cwd: Path | None = None
) -> Observed:
    """Run `argv` for at most `timeout` seconds and return the last `limit_bytes` of its output, whatever it did.

    At its time it is killed with every process of its session.

    Raises:
        MissingProgramError: `argv[0]` is not installed.
    """
    import selectors

    began = time.monotonic()
    with start(argv, env=env, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, new_session=True) as child:
        assert child.stdout is not None
        tail, timed_out = bytearray(), False
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                left = began + timeout - time.monotonic()
                if left <= 0 or not selector.select(left):
                    timed_out = True
                    break
                block = os.read(child.stdout.fileno(), 1 << 16)
                if not block:
                    break
                tail = (tail + block)[-limit_bytes:]
        if not timed_out:
            timed_out = not ends(child, began + timeout - time.monotonic())
        _kill_session(child)
    return Observed(child.returncode, bytes(tail), time.monotonic() - began, timed_out)


def ends(child: "Process[bytes]", seconds: float) -> bool:
    """Wait at most `seconds` for `child`, and return whether it has ended."""
    import subprocess

    try:
        child.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_session(child: "Process[bytes]") -> None:
    """Kill what is left of a process that leads its own session, and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def stream(
    argv: Sequence[str],
    *,
    line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    error: type[ComputeOpsError] = ComputeOpsError,
) -> None:
    """Run `argv`, giving each line of its output (both streams) to `line` as it comes.

    Raises:
        ComputeOpsError: as `error`, with the last lines, if the exit code is not 0.
    """
    tail: list[str] = []
    with start(argv, env=env, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT) as child:
        out = child.stdout
        assert out is not None
        for raw in iter(lambda: out.readline(_LINE_BYTES), b""):
            text = raw.decode(errors="replace").rstrip("\n")
            tail = [*tail[1 - _TAIL_LINES :], text]
            line(text)
    if child.returncode != 0:
        raise failed(argv, child.returncode, "\n".join(tail).encode(), error)


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> "Process[bytes]":
    """Start `argv` and return the running process; use it as a context manager."""
    import subprocess

    need(argv[0])
    return subprocess.Popen(
        list(argv),
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=new_session,
    )


def become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by `argv`: exit code, signals and terminal are the program's own.

    Raises:
        EngineError: the program could not be executed.
    """
    path = need(argv[0])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and what is ignored stays so in the program
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execve(path, list(argv), dict(env))
    except OSError as error:
        raise EngineError(f"cannot execute {path}: {error.strerror}") from error


def failed(argv: Sequence[str], code: int, output: bytes, error: type[ComputeOpsError]) -> ComputeOpsError:
    """Return the error of a command that exited with `code` after printing `output`."""
    lines = output.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    hint = NO_ROOM if os.strerror(errno.ENOSPC) in output.decode(errors="replace") else ""
    return error("\n".join([f"{how}: {shlex.join(argv)}", *(f"  {line}" for line in lines)]), hint=hint)
