"""IBM Spectrum LSF: bsub, bjobs, bkill (https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=reference-command).

`bjobs -json` came with LSF 10.1; it also tells of jobs that ended within CLEAN_PERIOD, an hour by default.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from computeops.errors import SchedulerError
from computeops.run import body, handover
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State

SHOWS_ENV = False
STARTS_CONTAINERS = False
_PASSES = ("LSF_", "LSB_DEFAULT", "EGO_")
_ACCEPTED = re.compile(r"Job <(\d+)> is submitted")
_NUMBER = re.compile(r"(\d+)(?:\[(\d+)\])?")
_LABEL = re.compile(r"\[.*\]$")
# https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=bjobs-description, STAT
_PHASES = {
    "PEND": Phase.WAITING,
    "PROV": Phase.WAITING,
    "PSUSP": Phase.WAITING,
    "WAIT": Phase.WAITING,
    "RUN": Phase.RUNNING,
    "SSUSP": Phase.RUNNING,
    "USUSP": Phase.RUNNING,
    "DONE": Phase.SUCCEEDED,
    "EXIT": Phase.FAILED,
}
# https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=bhist-output, termination reasons
_REASONS = {
    "TERM_RUNLIMIT": Phase.TIMEOUT,
    "TERM_DEADLINE": Phase.TIMEOUT,
    "TERM_CPULIMIT": Phase.TIMEOUT,
    "TERM_OWNER": Phase.CANCELLED,
    "TERM_FORCE_OWNER": Phase.CANCELLED,
    "TERM_ADMIN": Phase.CANCELLED,
    "TERM_FORCE_ADMIN": Phase.CANCELLED,
    "TERM_REMOVE_HUNG_JOB": Phase.FAILED,
}


def available() -> str:
    """Return "" if LSF's commands are here."""
    return handover.missing("bsub", "bjobs", "bkill")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a script on the standard input of bsub; several tasks are started by mpirun."""
    job = record.job
    launcher = ["mpirun", "-n", str(job.tasks)] if job.tasks > 1 else []
    text = body.text(record, number="$LSB_JOBINDEX", launcher=launcher)
    name = record.label
    if job.array:
        limit = f"%{job.array.at_once}" if job.array.at_once else ""
        name += f"[{job.array.first}-{job.array.last}]{limit}"
    words = [
        "bsub",
        "-J",
        name,
        "-cwd",
        str(record.folder),
        "-o",
        "logs/scheduler.log",
        "-n",
        str(job.tasks * job.cpus),
    ]
    words += ["-R", f"span[ptile={-(-job.tasks * job.cpus // job.nodes)}]"]
    words += ["-gpu", f"num={job.gpus}"] if job.gpus else []
    words += ["-M", f"{job.memory}MB", "-R", f"rusage[mem={job.memory}MB]"] if job.memory else []
    words += ["-W", str(-(-job.seconds // 60))] if job.seconds else []
    words += ["-w", " && ".join(f"done({one.native})" for one in after), "-ti"] if after else []
    words += ["-q", job.queue] if job.queue else []
    words += ["-P", job.account] if job.account else []
    return Plan((*words, *job.options), {body.NAME: text}, stdin=body.NAME, passes=_PASSES)


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to bsub and return the number of the job.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    answer = handover.submit(record, plan, env)
    match = _ACCEPTED.search(answer)
    if match is None:
        raise SchedulerError(f"bsub did not answer with the number of a job but {answer!r}")
    return match[1]


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what bjobs knows of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    by_native = {one.native: one for one in records if one.native}
    by_label = {one.label: one for one in records if not one.native}
    fields = "jobid jobindex stat exit_code exit_reason pend_reason name"
    found: dict[str, tuple[str, dict[int, State]]] = {}
    try:
        for one in json.loads(handover.ask(["bjobs", "-a", "-json", "-o", fields], fine=(0, 255)))["RECORDS"]:
            match = _NUMBER.fullmatch(one["JOBID"])
            name = _LABEL.sub("", one.get("JOB_NAME", ""))
            record = match and (by_native.get(match[1]) or by_label.get(name))
            if match and record:
                number = int(match[2] or one.get("JOBINDEX") or SINGLE) if record.job.array else SINGLE
                found.setdefault(record.id, (match[1], {}))[1][number] = _state(one)
    except (ValueError, KeyError, TypeError) as error:
        raise SchedulerError(f"bjobs answered with something else than its jobs: {error!r}") from error
    return {key: Seen(native, tasks) for key, (native, tasks) in found.items()}


def cancel(record: Record) -> None:
    """Kill it.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    handover.ask(["bkill", record.native])


def _state(job: Mapping[str, Any]) -> State:
    """Return the state of one object of `bjobs -json`: every value is a string, an empty one where there is none."""
    phase = _PHASES.get(job["STAT"], Phase.UNKNOWN)
    if phase is Phase.SUCCEEDED:
        return State(phase, 0)
    if phase is Phase.FAILED:
        reason, code = str(job.get("EXIT_REASON", "")), str(job.get("EXIT_CODE", ""))
        ended = _REASONS.get(reason.partition(":")[0].strip(), Phase.FAILED)
        return State(ended, int(code) if code.isdigit() and ended is Phase.FAILED else None, reason)
    return State(phase, None, str(job.get("PEND_REASON", "")) if phase is Phase.WAITING else "")
