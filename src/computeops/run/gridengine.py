"""Grid Engine (SGE 8, Son of Grid Engine, Univa): qsub, qstat, qacct, qdel.

https://manpages.debian.org/bookworm/gridengine-client/qsub.1.en.html
"""

import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence

from computeops.errors import SchedulerError, UsageError
from computeops.run import body, handover
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State

SHOWS_ENV = True
STARTS_CONTAINERS = False
_PASSES = ("SGE_",)
_ENVIRONMENT = "smp"
"""Parallel environment that gives several slots on one machine: by this name at most sites."""
_NATIVE = re.compile(r"(\d+)(?:\.\S+)?")
_JOB_LINE = re.compile(
    r"\s*(\d+)\s+\d+\.\d+\s+\S+\s+\S+\s+([a-zA-Z]+)\s+\S+\s+\S+\s+(?:\S+@\S+\s+)?\d+(?:\s+(\S+))?\s*"
)
_NAME_LINE = re.compile(r"\s+Full jobname:\s+(\S+)\s*")
_RANGE = re.compile(r"(\d+)(?:-(\d+):(\d+))?")
_FAILURES = {
    "37": State(Phase.TIMEOUT, None, "its time was over"),
    "100": State(Phase.FAILED, None, "ended by a signal"),
}
"""What `failed` of qacct means where something else than the program was the end."""


def available() -> str:
    """Return "" if Grid Engine's commands are here."""
    return handover.missing("qsub", "qstat", "qacct", "qdel")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a job script, which itself looks whether the jobs before it succeeded.

    Raises:
        UsageError: it wants several nodes, and no parallel environment was named; or records of jobs lie in a folder
            whose name grid engine would cut.
    """
    job = record.job
    if "\n" in str(record.folder):
        raise UsageError(f"grid engine cannot work in {str(record.folder)!r}", hint="name another in XDG_STATE_HOME")
    if job.nodes > 1 and "-pe" not in job.options:
        raise UsageError(
            "grid engine spreads a job over nodes only by a parallel environment",
            hint="name your site's, for example --option=-pe --option=mpi --option=8",
        )
    launcher = ["mpirun", "-n", str(job.tasks)] if job.tasks > 1 else []
    text = body.text(record, number="$SGE_TASK_ID", launcher=launcher, guard=after)
    words = ["qsub", "-terse", "-N", record.label, "-wd", str(record.folder), "-S", "/bin/sh", "-V"]
    words += ["-j", "y", "-o", "logs/scheduler.log", *_resources(record)]
    words += ["-hold_jid", ",".join(one.native for one in after)] if after else []
    return Plan((*words, *job.options, body.NAME), {body.NAME: text}, passes=_PASSES)


def _resources(record: Record) -> list[str]:
    job, words = record.job, []
    if job.cpus * job.tasks > 1 and "-pe" not in job.options:
        words += ["-pe", _ENVIRONMENT, str(job.cpus * job.tasks)]
    # Not h_vmem: it bounds the address space, and container engines reserve gigabytes that they never use.
    words += ["-l", f"mem_free={job.memory}M"] if job.memory else []
    words += ["-l", f"gpu={job.gpus}"] if job.gpus else []
    words += ["-l", f"h_rt={job.seconds}"] if job.seconds else []
    if job.array:
        words += ["-t", f"{job.array.first}-{job.array.last}"]
        words += ["-tc", str(job.array.at_once)] if job.array.at_once else []
    words += ["-q", job.queue] if job.queue else []
    words += ["-P", job.account] if job.account else []
    return words


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to qsub and return the number of the job.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    answer = handover.submit(record, plan, env).splitlines()
    match = _NATIVE.fullmatch(answer[-1].strip()) if answer else None  # 12 or 12.1-4:1
    if match is None:
        raise SchedulerError(f"qsub did not answer with the number of a job but {answer!r}")
    return match[1]


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what qstat knows of `records`, and of those of which it does not know all, qacct.

    Raises:
        SchedulerError: it does not answer.
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    found = _queue(records, handover.ask(["qstat", "-u", user, "-r"]))
    for one in records:
        known = found.get(one.id, Seen(one.native))
        if len(known.tasks) == len(one.job.numbers):
            continue
        ends = dict(_accounts(one, handover.ask(["qacct", "-j", one.native or one.label], fine=(0, 1))))
        if ends or known.native:
            found[one.id] = Seen(known.native or one.native, {**ends, **known.tasks})
    return found


def cancel(record: Record) -> None:
    """Delete it.

    Raises:
        SchedulerError: it does not answer, or there is nothing to end.
    """
    handover.ask(["qdel", record.native])


def _queue(records: Sequence[Record], answer: str) -> dict[str, Seen]:
    """Return by id what qstat lists: for each job lines of its tasks, each with a line of its full name behind."""
    by_native = {one.native: one for one in records if one.native}
    by_label = {one.label: one for one in records if not one.native}
    found: dict[str, Seen] = {}
    native, state, numbers = "", State(Phase.UNKNOWN), ""
    for line in answer.splitlines():
        if (match := _JOB_LINE.fullmatch(line)) is not None:
            native, state, numbers = match[1], _state(match[2]), match[3] or str(SINGLE)
        elif (named := _NAME_LINE.fullmatch(line)) is not None and native:
            record = by_native.get(native) or by_label.get(named[1])
            if record is not None:
                tasks = found.get(record.id, Seen(native, {})).tasks
                found[record.id] = Seen(native, {**tasks, **dict.fromkeys(_numbers(numbers), state)})
    return found


def _state(letters: str) -> State:
    """Return the state of the combined `letters` of sge_status(5)."""
    if "E" in letters:
        return State(Phase.HELD, None, f"in error state {letters}: qstat -j tells why")
    if "d" in letters or not set(letters) & set("wh"):
        return State(Phase.RUNNING)
    return State(Phase.WAITING)


def _numbers(text: str) -> Iterator[int]:
    """Yield the tasks of `4`, `4-10:2` and lists of them."""
    for part in text.split(","):
        if (match := _RANGE.fullmatch(part)) is not None:
            yield from range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))


def _accounts(record: Record, answer: str) -> Iterator[tuple[int, State]]:
    """Yield the ends that qacct tells, one block for each task and each time that it ran."""
    for block in answer.split("=" * 62):
        fields = dict(line.split(None, 1) for line in block.splitlines() if len(line.split(None, 1)) == 2)
        if "exit_status" not in fields:
            continue
        task, failed = fields.get("taskid", "").strip(), fields.get("failed", "0").split()
        number = int(task) if task.isdigit() else SINGLE
        status = fields["exit_status"].split()[0]
        if number not in record.job.numbers or not status.isdigit():
            continue
        reason = " ".join(failed[2:])
        other = _FAILURES.get(failed[0], State(Phase.FAILED, None, reason))
        yield number, State.of_code(int(status)) if failed[0] == "0" else other
