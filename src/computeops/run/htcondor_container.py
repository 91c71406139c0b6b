"""HTCondor's container universe: the pool itself starts the image, with its own Apptainer, and transfers files.

For pools whose machines share no file system with ours, or where only the pool may start containers. The image is a SIF
that HTCondor transfers, or finds by the same path where it is on CVMFS. Exit codes come from HTCondor's own accounting.

https://htcondor.readthedocs.io/en/latest/users-manual/env-of-job.html#container-universe-jobs
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from computeops.errors import UsageError
from computeops.run import htcondor
from computeops.run.model import Job, Plan, Record, Seen

SHOWS_ENV = True
STARTS_CONTAINERS = True
TAKES_FILES = True
"""The image is a file of ours, not a name in a registry."""
_FILE = "job.sub"
_SHELL, _JOB = "/bin/sh", "COMPUTEOPS_JOB_ID"
_SHARED = ("/cvmfs/",)
_MACRO = re.compile(r"\$\$?(?=[(A-Z])")
"""What condor_submit, or the schedd, would take for the beginning of a macro: $(NAME), $INT(NAME), $$(NAME)."""


def available() -> str:
    """Return "" if HTCondor's commands are here."""
    return htcondor.available()


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as a submit description.

    Raises:
        UsageError: it asks for what the container universe does not have, or a word of it has a line break.
    """
    job = record.job
    refused = {
        "start after another": bool(after),
        "have several nodes or tasks": job.nodes > 1 or job.tasks > 1,
        "have a queue": bool(job.queue),
        "have modules": bool(job.modules),
        "have volumes": bool(job.volumes),
    }
    for what, asked in refused.items():
        if asked:
            raise UsageError(f"a job in htcondor's container universe cannot {what}", hint="use --on htcondor")
    words = ("condor_submit", "-terse", *job.options, _FILE)
    return Plan(words, {_FILE: _description(record)}, passes=htcondor.PASSES)


def _description(record: Record) -> str:
    job = record.job
    out, err = htcondor.log_files(record)
    lines = [
        "universe = container",
        f"container_image = {_line(job.image)}",
        *([] if not job.image.startswith(_SHARED) else ["transfer_container = false"]),
        f"executable = {_SHELL if job.array else _line(job.inside[0])}",
        f'arguments = "{_arguments(job)}"',
        "transfer_executable = false",
        "should_transfer_files = YES",
        "when_to_transfer_output = ON_EXIT",
        f"task = $(Process) + {job.numbers[0]}",
        f"output = {_file(out)}",
        f"error = {_file(err)}",
        *([f"input = {_file(job.stdin)}"] if job.stdin else []),
        "log = events.log",
        # Not `environment`: beside it getenv drops, without a word, what has a semicolon.
        f"getenv = {', '.join(('TZ', _JOB, *job.env))}",
        f"batch_name = {record.label}",
        f'My.{htcondor.ID} = "{record.id}"',
        f"request_cpus = {job.cpus}",
        *([f"request_memory = {job.memory}"] if job.memory else []),
        *([f"request_gpus = {job.gpus}"] if job.gpus else []),
        *(
            [f"allowed_execute_duration = {job.seconds}", "periodic_remove = HoldReasonCode == 47"]
            if job.seconds
            else []
        ),
        *([f"max_retries = {job.retries}"] if job.retries else []),
        *([f"max_materialize = {job.array.at_once}"] if job.array and job.array.at_once else []),
        *([f"accounting_group = {htcondor.word(job.account)}"] if job.account else []),
        f"queue {len(job.numbers)}",
    ]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """Return a value of a submit description.

    Raises:
        UsageError: it has a line break.
    """
    if "\n" in text or "\r" in text:
        raise UsageError(
            f"{text!r}: htcondor cannot be told a line break", hint="put it in a file that the program reads"
        )
    return _MACRO.sub(lambda found: "$$(DOLLARDOLLAR)" if len(found[0]) > 1 else "$(DOLLAR)", text)


def _arguments(job: Job) -> str:
    if not job.array:
        return _words(job.inside[1:])
    shift = ("-c", 'export COMPUTEOPS_TASK_ID="$1"; shift; exec "$@"', "sh")
    return f"{_words(shift)} $INT(task) {_words(job.inside)}"


def _file(path: str) -> str:
    return "$INT(task)".join(_line(part) for part in path.split("{task}"))


def _words(words: Sequence[str]) -> str:
    """Return arguments in the new syntax: each in single quotes, quotes doubled, and no $( that would be a macro."""
    quoted = ["'" + word.replace("'", "''").replace('"', '""') + "'" for word in words]
    return _line(" ".join(quoted))


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Hand it to condor_submit and return the number of the cluster.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    if not Path(record.job.image).is_file():
        raise UsageError(f"there is no image {record.job.image}", hint="htcondor takes a SIF file")
    return htcondor.submit(record, plan, {**env, _JOB: record.id})


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what condor_q and condor_history know of `records`.

    Raises:
        SchedulerError: they do not answer.
    """
    return htcondor.states(records)


def cancel(record: Record) -> None:
    """Remove it from the queue.

    Raises:
        SchedulerError: it does not answer.
    """
    htcondor.cancel(record)
