"""PBS Pro and OpenPBS: qsub, qstat, qdel.

https://help.altair.com/2022.1.0/PBS%20Professional/PBSReferenceGuide2022.1.pdf. Jobs that ended are told by `qstat -x`
where the server keeps them (job_history_enable). `torque` is this module's cousin with another dialect.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from computeops.errors import SchedulerError
from computeops.run import body, handover
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State

SHOWS_ENV = True
STARTS_CONTAINERS = False
_PASSES = ("PBS_CONF_FILE", "PBS_SERVER", "PBS_EXEC")
_NATIVE = re.compile(r"(\d+)(?:\[(\d*)\])?(?:\..*)?")
# PBS Professional Reference Guide, "Job States"
_PHASES = {
    "B": Phase.RUNNING,  # an array of which some run
    "E": Phase.RUNNING,  # exiting
    "F": Phase.FAILED,  # finished: the exit status decides
    "H": Phase.WAITING,  # held
    "M": Phase.WAITING,  # moved to another server
    "Q": Phase.WAITING,
    "R": Phase.RUNNING,
    "S": Phase.RUNNING,  # suspended
    "T": Phase.WAITING,  # in transit
    "U": Phase.RUNNING,  # suspended: the machine is used by its owner
    "W": Phase.WAITING,
    "X": Phase.FAILED,  # finished, of a task
}
_DELETED, _OVER_TIME = 271, -29
"""Exit status of a job that was killed by SIGTERM (256 + 15), and of one that used up its time."""


def available() -> str:
    """Return "" if the commands of PBS are here."""
    return handover.missing("qsub", "qstat", "qdel")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a job script; several tasks are started by mpirun, which learns the nodes from PBS."""
    job = record.job
    launcher = ["mpirun", "-n", str(job.tasks)] if job.tasks > 1 else []
    text = body.text(record, number="$PBS_ARRAY_INDEX", launcher=launcher)
    words = ["qsub", "-N", record.label, "-S", "/bin/sh", "-j", "oe", "-o", f"{record.folder}/logs/scheduler.log"]
    words += ["-V", "-l", f"select={_chunks(record)}"]
    words += ["-l", f"walltime={clock(job.seconds)}"] if job.seconds else []
    if job.array:
        words += ["-J", f"{job.array.first}-{job.array.last}" + (f"%{job.array.at_once}" if job.array.at_once else "")]
    words += ["-W", f"depend=afterok:{':'.join(one.native for one in after)}"] if after else []
    words += ["-q", job.queue] if job.queue else []
    words += ["-A", job.account] if job.account else []
    return Plan((*words, *job.options, body.NAME), {body.NAME: text}, passes=_PASSES)


def _chunks(record: Record) -> str:
    """Return the nodes of `record` as chunks: so many, each with so many CPUs, processes, GPUs and memory."""
    job = record.job
    each = -(-job.tasks // job.nodes)
    parts = [str(job.nodes), f"ncpus={each * job.cpus}", f"mpiprocs={each}"]
    parts += [f"ngpus={job.gpus}"] if job.gpus else []
    return ":".join([*parts, *([f"mem={job.memory}mb"] if job.memory else [])])


def clock(seconds: int) -> str:
    """Return `seconds` as HH:MM:SS."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to qsub and return the name of the job: NUMBER.SERVER, NUMBER[].SERVER.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    answer = handover.submit(record, plan, env).splitlines()
    if not answer or _NATIVE.fullmatch(answer[-1].strip()) is None:
        raise SchedulerError(f"qsub did not answer with the name of a job but {answer!r}")
    return answer[-1].strip()


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what `qstat -x` knows of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    by_number = {_number(one.native): one for one in records if one.native}
    by_label = {one.label: one for one in records if not one.native}
    found: dict[str, tuple[str, dict[int, State]]] = {}
    rest: dict[str, State] = {}
    for name, facts in _jobs(handover.ask(["qstat", "-x", "-t", "-f", "-F", "json"])):
        match = _NATIVE.fullmatch(name)
        record = match and (by_number.get(match[1]) or by_label.get(str(facts.get("Job_Name"))))
        if not match or not record:
            continue
        _, tasks = found.setdefault(record.id, (_whole(name), {}))
        if record.job.array and not match[2]:
            rest[record.id] = _state(facts)
        else:
            tasks[int(match[2] or SINGLE)] = _state(facts)
    return {key: Seen(native, tasks, _waiting(rest.get(key))) for key, (native, tasks) in found.items()}


def cancel(record: Record) -> None:
    """Delete it.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    handover.ask(["qdel", record.native])


def _number(native: str) -> str:
    match = _NATIVE.fullmatch(native)
    return match[1] if match else native


def _whole(name: str) -> str:
    """Return the name of the array that task `NUMBER[TASK].SERVER` is part of."""
    return re.sub(r"\[\d+\]", "[]", name)


def _waiting(array: State | None) -> State | None:
    """Return the state of tasks that are not listed: of an array that goes on they wait, of one that ended none is."""
    return None if array is None or array.phase.ended else State(Phase.WAITING)


def _jobs(answer: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        return list(json.loads(answer).get("Jobs", {}).items())
    except (ValueError, AttributeError) as error:
        raise SchedulerError(f"qstat answered with something else than its jobs: {error!r}") from error


def _state(facts: Mapping[str, Any]) -> State:
    phase, reason = _PHASES.get(str(facts.get("job_state")), Phase.UNKNOWN), str(facts.get("comment", ""))
    if not phase.ended:
        return State(phase, None, reason if phase is Phase.WAITING else "")
    status = facts.get("Exit_status")
    if not isinstance(status, int):
        return State(Phase.CANCELLED, None, reason)  # finished without having run
    return ended(status, reason)


def ended(status: int, reason: str) -> State:
    """Return the state of a job with this exit status: below 0 PBS itself ended it, above 255 a signal did."""
    if status == _OVER_TIME:
        return State(Phase.TIMEOUT, None, reason)
    if status == _DELETED:
        return State(Phase.CANCELLED, None, reason)
    if status < 0:
        return State(Phase.FAILED, None, f"PBS ended it: {status} {reason}".rstrip())
    return State.of_code(status - 128 if status > 255 else status)
