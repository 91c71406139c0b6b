"""Slurm: sbatch, squeue, sacct, scancel (https://slurm.schedmd.com/archive/slurm-24.11.5/man_index.html)."""

import os
import re
import time
from collections.abc import Mapping, Sequence

from computeops.errors import MissingProgramError, SchedulerError
from computeops.run import body, handover
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State

SHOWS_ENV = False
STARTS_CONTAINERS = False
# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
_PHASES = {
    "PENDING": Phase.WAITING,
    "CONFIGURING": Phase.WAITING,
    "REQUEUED": Phase.WAITING,
    "REQUEUE_FED": Phase.WAITING,
    "REQUEUE_HOLD": Phase.WAITING,
    "RESV_DEL_HOLD": Phase.WAITING,
    "SPECIAL_EXIT": Phase.WAITING,
    "RUNNING": Phase.RUNNING,
    "COMPLETING": Phase.RUNNING,
    "RESIZING": Phase.RUNNING,
    "SIGNALING": Phase.RUNNING,
    "STAGE_OUT": Phase.RUNNING,
    "STOPPED": Phase.RUNNING,
    "SUSPENDED": Phase.RUNNING,
    "COMPLETED": Phase.SUCCEEDED,
    "BOOT_FAIL": Phase.FAILED,
    "FAILED": Phase.FAILED,
    "LAUNCH_FAILED": Phase.FAILED,
    "NODE_FAIL": Phase.FAILED,
    "OUT_OF_MEMORY": Phase.FAILED,
    "RECONFIG_FAIL": Phase.FAILED,
    "CANCELLED": Phase.CANCELLED,
    "PREEMPTED": Phase.CANCELLED,
    "REVOKED": Phase.CANCELLED,
    "DEADLINE": Phase.TIMEOUT,
    "TIMEOUT": Phase.TIMEOUT,
}
_HELD = {"JobHeldAdmin", "JobHeldUser", "launch_failed_requeued_held", "launch failed requeued held"}
_PASSES = ("SLURM_CONF", "SBATCH_")
_ID = re.compile(r"(\d+)(?:_(\d+))?(?:_\[.*\])?")
_NO_ACCOUNTING = "accounting storage is disabled"


def available() -> str:
    """Return "" if Slurm's commands are here."""
    return handover.missing("sbatch", "squeue", "scancel")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a batch script; several tasks are started by srun, which gives MPI programs their PMI."""
    job = record.job
    launcher = ["srun", f"--cpus-per-task={job.cpus}"] if job.nodes > 1 or job.tasks > 1 else []
    text = body.text(record, number="$SLURM_ARRAY_TASK_ID", launcher=launcher)
    argv = ("sbatch", "--parsable", *_options(record, after), body.NAME)
    return Plan(argv, {body.NAME: text}, passes=_PASSES)


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to sbatch and return the number of the job.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    answer = handover.submit(record, plan, env).splitlines()
    number = answer[-1].partition(";")[0] if answer else ""  # NUMBER[;CLUSTER], behind what a site's plugin says
    if not number.isdigit():
        raise SchedulerError(f"sbatch did not answer with the number of a job but {answer!r}")
    return number


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what squeue knows of `records`, and of those that it does not know or that ended, sacct.

    Raises:
        SchedulerError: it does not answer.
    """
    queue = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%j|%r"]
    seen = _read(records, handover.ask(queue))
    told = {one.id: seen[one.id] for one in records if one.id in seen}
    dark = [one for one in records if one.id not in told or any(s.phase.ended for s in told[one.id].tasks.values())]
    if not dark:
        return told
    accounts = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,JobName,ExitCode"]
    try:
        answer = handover.ask([*accounts, f"--starttime={_day_before(dark)}", f"--user={os.getuid()}"])
    except (SchedulerError, MissingProgramError) as error:
        if _NO_ACCOUNTING not in error.message and any(one.id not in told for one in dark):
            raise
        return told
    return told | _joined(told, _read(dark, answer))


def cancel(record: Record) -> None:
    """End its tasks.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    handover.ask(["scancel", "--quiet", record.native])


def _options(record: Record, after: Sequence[Record]) -> list[str]:
    job = record.job
    words = [f"--job-name={record.label}", f"--chdir={record.folder}", "--output=logs/scheduler.log"]
    words += ["--open-mode=append", "--export=ALL", f"--nodes={job.nodes}", f"--ntasks={job.tasks}"]
    words += [f"--cpus-per-task={job.cpus}"]
    words += [f"--gres=gpu:{job.gpus}"] if job.gpus else []
    words += [f"--mem={job.memory}M"] if job.memory else []
    if job.seconds:
        words.append(f"--time={job.seconds // 60}:{job.seconds % 60:02}")
    if job.array:
        limit = f"%{job.array.at_once}" if job.array.at_once else ""
        words.append(f"--array={job.array.first}-{job.array.last}{limit}")
    if after:
        words += [f"--dependency=afterok:{':'.join(one.native for one in after)}", "--kill-on-invalid-dep=yes"]
    words += [f"--partition={job.queue}"] if job.queue else []
    words += [f"--account={job.account}"] if job.account else []
    return [*words, *job.options]


def _day_before(records: Sequence[Record]) -> str:
    """Return the day before the oldest of `records`, for the clocks and time zones of others."""
    oldest = min(one.created for one in records)
    return time.strftime("%Y-%m-%d", time.localtime(oldest - 86400))


def _read(records: Sequence[Record], answer: str) -> dict[str, Seen]:
    """Return by id what lines of `NUMBER|STATE|NAME|MORE` say; a job without a number is known by its name."""
    by_native = {one.native: one for one in records if one.native}
    by_label = {one.label: one for one in records if not one.native}
    found: dict[str, tuple[str, dict[int, State], list[State]]] = {}
    for line in answer.splitlines():
        identity, word, name, more = [*line.split("|", 3), "", "", ""][:4]
        match = _ID.fullmatch(identity)
        record = match and (by_native.get(match[1]) or by_label.get(name))
        if not match or not record:
            continue
        _, tasks, rest = found.setdefault(record.id, (match[1], {}, []))
        state = _state(word, more)
        if match[2]:
            tasks[int(match[2])] = state
        elif record.job.array:
            rest.append(state)
        else:
            tasks[SINGLE] = state
    return {key: Seen(native, tasks, rest[0] if rest else None) for key, (native, tasks, rest) in found.items()}


def _state(word: str, more: str) -> State:
    """Return the state that Slurm calls `word`: `CANCELLED by 1000`; `more` is a reason, or `CODE:SIGNAL` of sacct."""
    words = word.split()
    phase = _PHASES.get(words[0].rstrip("+") if words else "", Phase.UNKNOWN)
    if phase is Phase.WAITING and more in _HELD:
        return State(Phase.HELD, None, more)
    code, colon, signal = more.partition(":")
    if colon and code.isdigit() and signal.isdigit():
        number = int(code) or (128 + int(signal) if int(signal) else 0)
        known = phase is Phase.SUCCEEDED or (phase is Phase.FAILED and number)
        return State(phase, number if known else None, "" if phase is Phase.SUCCEEDED else word.lower())
    reason = "" if more in {"None", ""} or phase is Phase.RUNNING else more
    return State(phase, 0 if phase is Phase.SUCCEEDED else None, reason or ("" if phase is Phase.SUCCEEDED else word))


def _joined(queue: Mapping[str, Seen], accounts: Mapping[str, Seen]) -> dict[str, Seen]:
    """Return both: the end that accounting tells before the queue's, and of what has not ended only the queue's."""
    found = {}
    for key, told in accounts.items():
        ends = {number: state for number, state in told.tasks.items() if state.phase.ended}
        known = queue.get(key, Seen(told.native))
        found[key] = Seen(told.native, {**known.tasks, **ends}, known.rest)
    return found
