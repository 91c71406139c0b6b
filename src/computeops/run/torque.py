"""Torque, with Maui or Moab as its scheduler: qsub, qstat, qdel.

https://docs.adaptivecomputing.com/9-1-0/Torque/torque.htm. Jobs that ended are listed as long as the server's
keep_completed says; after that only the script's own file tells.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from computeops.errors import SchedulerError
from computeops.run import body, handover, pbs
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State, label

SHOWS_ENV = True
STARTS_CONTAINERS = False
_PASSES = ("PBS_DEFAULT", "PBS_SERVER", "MAUI", "MOAB")
_NAME_LENGTH = 15
"""Longest name of a job that every version takes."""
_NATIVE = re.compile(r"(\d+)(?:\[(\d*)\])?(?:\..*)?")
_NAME = re.compile(r"-\d+$")
_PHASES = {
    "C": Phase.FAILED,  # completed: the exit status decides
    "E": Phase.RUNNING,
    "H": Phase.WAITING,
    "Q": Phase.WAITING,
    "R": Phase.RUNNING,
    "S": Phase.RUNNING,
    "T": Phase.WAITING,
    "W": Phase.WAITING,
}


def available() -> str:
    """Return "" if the commands of Torque are here."""
    return handover.missing("qsub", "qstat", "qdel")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a job script; several tasks are started by mpirun, which learns the nodes from Torque."""
    job = record.job
    launcher = ["mpirun", "-n", str(job.tasks)] if job.tasks > 1 else []
    text = body.text(record, number="$PBS_ARRAYID", launcher=launcher)
    words = ["qsub", "-N", _label(record), "-S", "/bin/sh", "-j", "oe", "-o", f"{record.folder}/logs/scheduler.log"]
    gpus = f":gpus={job.gpus}" if job.gpus else ""
    words += ["-V", "-l", f"nodes={job.nodes}:ppn={-(-job.tasks // job.nodes) * job.cpus}{gpus}"]
    words += ["-l", f"mem={job.memory * job.nodes}mb"] if job.memory else []
    words += ["-l", f"walltime={pbs.clock(job.seconds)}"] if job.seconds else []
    if job.array:
        words += ["-t", f"{job.array.first}-{job.array.last}" + (f"%{job.array.at_once}" if job.array.at_once else "")]
    if after:
        kinds = [f"afterok{'array' if one.job.array else ''}:{one.native}" for one in after]
        words += ["-W", f"depend={','.join(kinds)}"]
    words += ["-q", job.queue] if job.queue else []
    words += ["-A", job.account] if job.account else []
    return Plan((*words, *job.options, body.NAME), {body.NAME: text}, passes=_PASSES)


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to qsub and return the name of the job.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    return pbs.submit(record, plan, env)


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what qstat knows of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    by_number = {one.native.partition(".")[0].rstrip("[]"): one for one in records if one.native}
    by_label = {_label(one): one for one in records if not one.native}
    found: dict[str, tuple[str, dict[int, State]]] = {}
    for facts in _jobs(handover.ask(["qstat", "-t", "-x"])):
        match = _NATIVE.fullmatch(facts.get("Job_Id", ""))
        # A task of an array is called NAME-NUMBER.
        name = facts.get("Job_Name", "")
        record = match and (by_number.get(match[1]) or by_label.get(name) or by_label.get(_NAME.sub("", name)))
        if match and record:
            whole = re.sub(r"\[\d+\]", "[]", facts["Job_Id"])
            found.setdefault(record.id, (whole, {}))[1][int(match[2] or SINGLE)] = _state(facts)
    return {key: Seen(native, tasks) for key, (native, tasks) in found.items()}


def cancel(record: Record) -> None:
    """Delete it.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    handover.ask(["qdel", record.native])


def _label(record: Record) -> str:
    return label(record.job.name, record.id, _NAME_LENGTH)


def _jobs(answer: str) -> Iterator[dict[str, str]]:
    """Yield the elements of every job; an empty answer is an empty queue."""
    if not answer.strip():
        return
    try:
        tree = ET.fromstring(answer)  # noqa: S314  of the site's own server; entities are not expanded from outside
    except ET.ParseError as error:
        raise SchedulerError(f"qstat answered with something else than its jobs: {error}") from error
    for job in tree.iter("Job"):
        yield {one.tag: one.text or "" for one in job}


def _state(facts: Mapping[str, str]) -> State:
    phase = _PHASES.get(facts.get("job_state", ""), Phase.UNKNOWN)
    if not phase.ended:
        return State(phase, None, facts.get("comment", "") if phase is Phase.WAITING else "")
    status = facts.get("exit_status", "")
    return pbs.ended(int(status), "") if re.fullmatch(r"-?\d+", status) else State(Phase.CANCELLED)
