"""HTCondor: condor_submit, condor_q, condor_history, condor_rm (https://htcondor.readthedocs.io/en/latest/man-pages/).

Jobs are of the vanilla universe, on machines that share the file system. HTCondor has dependencies only in
DAGMan: a job that must wait is submitted on hold, and a watcher of the scheduler universe, which takes no slot,
releases it.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from computeops.errors import SchedulerError, UsageError
from computeops.run import body, handover
from computeops.run.model import Phase, Plan, Record, Seen, State

SHOWS_ENV = True
STARTS_CONTAINERS = False
PASSES = ("CONDOR_CONFIG", "_CONDOR_")
_FILE, _WATCHER, _SUBMIT = "job.sub", "watch.sub", "submit.sh"
ID, _WATCHES = "ComputeOpsId", "ComputeOpsWatches"
"""Attributes of our own: the id of a job, and of the one that a watcher releases."""
_ASKED = f"{ID},ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,RemoveReason,ExitCode,ExitBySignal,ExitSignal"
# https://htcondor.readthedocs.io/en/latest/codes-other-values/job-status-codes.html
_PHASES = {
    1: Phase.WAITING,  # idle
    2: Phase.RUNNING,
    3: Phase.CANCELLED,  # removed
    4: Phase.SUCCEEDED,  # completed: the exit code decides
    5: Phase.WAITING,  # held
    6: Phase.RUNNING,  # transferring output
    7: Phase.RUNNING,  # suspended
}
_COMPLETED, _HELD = 4, 5
_BY_SUBMITTER = 15
"""Code of a hold that the submit description asked for."""
_OVER_TIME = frozenset({46, 47})
"""Codes of a hold because the job took longer than allowed_job_duration or allowed_execute_duration."""
_LATE = 60
"""Seconds over its time after which HTCondor itself ends a job whose script did not."""


log_files = body.log_files
"""Where output and errors of a job go."""


def available() -> str:
    """Return "" if HTCondor's commands are here."""
    return handover.missing("condor_submit", "condor_q", "condor_history", "condor_rm")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a submit description and its script.

    Raises:
        UsageError: it asks for more than one node or task, or for a queue.
    """
    job = record.job
    if job.nodes > 1 or job.tasks > 1:
        raise UsageError("htcondor starts one process for each job", hint="use --cpus, --array, or another scheduler")
    if job.queue:
        raise UsageError("htcondor has no queues", hint="say what the job needs: --cpus, --memory, --time")
    text = body.text(record, number=f"$(($1 + {job.numbers[0]}))")
    files = {body.NAME: text, _FILE: _description(record, held=bool(after))}
    submit = ("condor_submit", "-terse", *job.options, _FILE)
    if not after:
        return Plan(submit, files, passes=PASSES)
    files |= {"watch.sh": _watch(record, after), _WATCHER: _watcher(record)}
    # The watcher first: a job on hold that nobody watches would wait for ever.
    files[_SUBMIT] = f'#!/bin/sh\ncondor_submit -terse {_WATCHER} >watcher || exit\nexec "$@"\n'
    return Plan(("sh", _SUBMIT, *submit), files, passes=PASSES)


def _description(record: Record, *, held: bool) -> str:
    job = record.job
    lines = [
        "universe = vanilla",
        "executable = /bin/sh",
        f'arguments = "{body.NAME} $(Process)"',
        "transfer_executable = false",
        "should_transfer_files = NO",
        "output = logs/scheduler.log",
        "error = logs/scheduler.log",
        "log = events.log",
        f"getenv = {', '.join([*handover.INHERITED, f'{handover.OURS}*', *job.env])}",
        f"batch_name = {record.label}",
        f'My.{ID} = "{record.id}"',
        f"request_cpus = {job.cpus}",
    ]
    lines += [f"request_memory = {job.memory}"] if job.memory else []
    lines += [f"request_gpus = {job.gpus}"] if job.gpus else []
    if job.seconds:
        lines.append(f"periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > {job.seconds + _LATE}")
    lines += [f"max_materialize = {job.array.at_once}"] if job.array and job.array.at_once else []
    lines += [f"accounting_group = {word(job.account)}"] if job.account else []
    lines += ["hold = true"] if held else []
    return "\n".join([*lines, f"queue {len(job.numbers)}"]) + "\n"


def word(text: str) -> str:
    """Return `text` if a submit description takes it for nothing but itself.

    Raises:
        UsageError: it does not.
    """
    if not all(one.isalnum() or one in "._-" for one in text):
        raise UsageError(f"--account {text!r}: letters, digits and ._- only")
    return text


def _watch(record: Record, after: Sequence[Record]) -> str:
    """Return a script that waits for the ends of `after` and then releases or removes the job on hold."""
    mine = f"-constraint '{ID} =?= \"{record.id}\"'"
    steps = []
    for one in after:
        steps += [
            f"condor_wait {shlex.quote(f'{one.folder}/events.log')} >/dev/null",
            f"{body.succeeded(one)} || good=",
        ]
    return (
        "\n".join(
            [
                "#!/bin/sh",
                "good=yes",
                *steps,
                # The job itself is submitted after its watcher.
                f'for second in $(seq 60); do [ -z "$(condor_q {mine} -af ClusterId)" ] || break; sleep 1; done',
                f'[ -z "$good" ] || exec condor_release {mine}',
                f"for number in $(seq {record.job.numbers[0]} {record.job.numbers[-1]}); do",
                f'    : >{shlex.quote(str(record.folder))}/exits/"$number".dependency',
                "done",
                f"exec condor_rm {mine}",
            ]
        )
        + "\n"
    )


def _watcher(record: Record) -> str:
    lines = [
        "universe = scheduler",
        "executable = /bin/sh",
        'arguments = "watch.sh"',
        "output = logs/scheduler.log",
        "error = logs/scheduler.log",
        f"getenv = {', '.join([*handover.INHERITED, 'CONDOR_CONFIG', '_CONDOR_*'])}",
        f"batch_name = {record.label}",
        f'My.{_WATCHES} = "{record.id}"',
        "queue",
    ]
    return "\n".join(lines) + "\n"


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to condor_submit and return the number of the cluster.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    answer = handover.submit(record, plan, env)  # 12.0 - 12.3
    cluster = answer.splitlines()[-1].partition(".")[0] if answer else ""
    if not cluster.isdigit():
        raise SchedulerError(f"condor_submit did not answer with the number of a job but {answer!r}")
    return cluster


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what condor_q knows of `records`, and of those of which it does not know all, condor_history.

    Raises:
        SchedulerError: it does not answer.
    """
    ids = {one.id: one for one in records}
    found = _read(ids, handover.ask(["condor_q", "-json", "-attributes", _ASKED, "-constraint", _any(ids)]))
    dark = {key: one for key, one in ids.items() if len(found.get(key, Seen()).tasks) < len(one.job.numbers)}
    if not dark:
        return found
    most = str(sum(len(one.job.numbers) for one in dark.values()))
    history = ["condor_history", "-json", "-attributes", _ASKED, "-constraint", _any(dark), "-limit", most]
    for key, told in _read(dark, handover.ask(history)).items():
        known = found.get(key, told)
        found[key] = Seen(told.native, {**told.tasks, **known.tasks}, known.rest)
    return found


def cancel(record: Record) -> None:
    """Remove it and its watcher from the queue.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    both = f'{ID} =?= "{record.id}" || {_WATCHES} =?= "{record.id}"'
    handover.ask(["condor_rm", "-constraint", both])


def _any(ids: Mapping[str, Record]) -> str:
    return " || ".join(f'{ID} =?= "{one}"' for one in ids)


def _read(ids: Mapping[str, Record], answer: str) -> dict[str, Seen]:
    """Return by id what a list of ClassAds says; an empty answer is an empty list."""
    try:
        jobs: list[dict[str, Any]] = json.loads(answer) if answer.strip() else []
        found: dict[str, tuple[str, dict[int, State]]] = {}
        for one in jobs:
            first = ids[one[ID]].job.numbers[0]
            _, tasks = found.setdefault(one[ID], (str(one["ClusterId"]), {}))
            tasks[first + one["ProcId"]] = _state(one)
    except (ValueError, KeyError, TypeError) as error:
        raise SchedulerError(f"HTCondor answered with something else than its jobs: {error!r}") from error
    return {key: Seen(native, tasks, _unmade(ids[key])) for key, (native, tasks) in found.items()}


def _unmade(record: Record) -> State | None:
    """Return the state of tasks that are not listed: where only some may run at once, the others are made later."""
    return State(Phase.WAITING) if record.job.array and record.job.array.at_once else None


def _state(job: Mapping[str, Any]) -> State:
    status = job.get("JobStatus")
    phase = _PHASES.get(status, Phase.UNKNOWN) if isinstance(status, int) else Phase.UNKNOWN
    if status == _COMPLETED:
        if job.get("ExitBySignal"):
            return State.of_code(128 + int(job.get("ExitSignal", 0)), "ended by a signal")
        return State.of_code(int(job["ExitCode"]))
    if status == _HELD and job.get("HoldReasonCode") not in _OVER_TIME and job.get("HoldReasonCode") != _BY_SUBMITTER:
        return State(Phase.HELD, None, f"{job.get('HoldReason', '')}")
    if job.get("HoldReasonCode") in _OVER_TIME:
        return State(Phase.TIMEOUT, None, "its time was over")
    return State(phase, None, str(job.get("RemoveReason", "")) if phase is Phase.CANCELLED else "")
