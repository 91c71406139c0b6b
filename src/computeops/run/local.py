"""This machine as a scheduler: a supervisor that outlives the client, its terminal and its session."""

import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from computeops.errors import SchedulerError
from computeops.run import body, handover
from computeops.run.model import Phase, Plan, Record, Seen, State

SHOWS_ENV = False
STARTS_CONTAINERS = False
_GRACE = 5.0
"""Seconds between the request to end and the end by force."""


def available() -> str:
    """Return "": a machine can always run its own jobs."""
    return ""


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a script that the supervisor runs once for each task."""
    del after  # the supervisor waits for them
    job = record.job
    launcher = ["mpirun", "-n", str(job.tasks)] if job.tasks > 1 else []
    text = body.text(record, number="$1", launcher=launcher)
    argv = (sys.executable, "-m", "computeops.run.supervisor", str(record.folder))
    return Plan(argv, {body.NAME: text})


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Start the supervisor and return `HOST:PID:START`.

    Raises:
        SchedulerError: it did not start.
    """
    return handover.submit(record, plan, env)


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what the supervisors are doing; without one, what has not ended is cancelled or lost.

    Raises:
        SchedulerError: one is on another machine.
    """
    return {one.id: _seen(one) for one in records}


def _seen(record: Record) -> Seen:
    if not record.native:
        return Seen()
    if alive(record.native):
        return Seen(record.native, rest=State(Phase.WAITING))
    if record.cancelled:
        return Seen(record.native, rest=State(Phase.CANCELLED, None, "by its owner"))
    return Seen(record.native, rest=State(Phase.LOST, None, "its supervisor was killed, or the machine started anew"))


def alive(native: str) -> bool:
    """Return whether the process `HOST:PID:START` still runs: a later one with the same number is another.

    Raises:
        SchedulerError: it is on another machine.
    """
    host, pid, start = native.rsplit(":", 2)
    if host != platform.node():
        raise SchedulerError(f"it runs on {host}, and this is {platform.node()}", hint=f"ask on {host}")
    return _fields(pid)[1] == start


def name_of(pid: int) -> str:
    """Return `HOST:PID:START` of a process of this machine."""
    return f"{platform.node()}:{pid}:{_fields(str(pid))[1]}"


def cancel(record: Record) -> None:
    """Ask every process of the supervisor's session to end, and end by force those that do not.

    Raises:
        SchedulerError: it is on another machine.
    """
    if not record.native or not alive(record.native):
        return
    session = record.native.rsplit(":", 2)[1]
    until = time.monotonic() + _GRACE
    _signal(_members(session), signal.SIGTERM)
    while _members(session) and time.monotonic() < until:
        time.sleep(0.05)
    _signal(_members(session), signal.SIGKILL)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(session: str) -> list[int]:
    processes = [one.name for one in Path("/proc").iterdir() if one.name.isdigit()]
    return [int(pid) for pid in processes if _fields(pid)[0] == session]


def _fields(pid: str) -> tuple[str, str]:
    """Return session and start of a process (proc(5), fields 6 and 22); nothing of one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return ("", "") if fields[0] in {"Z", "X"} else (fields[3], fields[19])
