"""The verbs of jobs that were submitted: jobs, logs, cancel."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from computeops import run
from computeops.cli.output import emit, json_option, table
from computeops.config import Settings
from computeops.errors import ComputeOpsError, NotFoundError
from computeops.run.model import Phase, Record, State

_BLOCK = 1 << 16
_PAUSE = 1.0

_WEEK = 7 * 86400.0


@click.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Show jobs that ended more than a week ago too.")
@json_option
@click.pass_obj
def jobs_command(settings: Settings, ids: Sequence[str], *, everything: bool, as_json: bool) -> None:
    """List your jobs, or show those with IDS and their tasks.

    Example: computeops jobs
    """
    jobs = run.Records(settings.job_records)
    chosen = [jobs.get(one) for one in ids] if ids else jobs.all(since=0 if everything else time.time() - _WEEK)
    found = run.look(chosen)
    chosen = [one if one.native else jobs.get(one.id) for one in chosen]  # their names may have been learnt just now
    data = [facts(one, run.summary(found[one.id]), found[one.id] if ids else {}) for one in chosen]
    rows = [_row(one, run.summary(found[one.id])) for one in chosen]
    text = table(["ID", "NAME", "ON", "STATE", "CODE", "TASKS", "SUBMITTED", ""], rows)
    emit(data, "\n".join([text, *_tasks(chosen, found)]) if ids else text, as_json=as_json)


def _row(record: Record, state: State) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
    code = "" if state.code is None else str(state.code)
    name = "".join(c if c.isprintable() else "?" for c in record.job.name)[:40]
    return [record.id, name, record.on, state.phase, code, str(len(record.job.numbers)), when, state.reason[:60]]


def _tasks(chosen: Sequence[Record], found: Mapping[str, run.States]) -> list[str]:
    """Return a line for each phase of the tasks of an array, and for each that did not succeed."""
    lines = []
    for one in chosen:
        if not one.job.array:
            continue
        for phase in Phase:
            numbers = [number for number, state in found[one.id].items() if state.phase is phase]
            shown = ", ".join(map(str, numbers[:20])) + (" ..." if len(numbers) > 20 else "")
            lines += [f"  {one.id} {phase}: {len(numbers)} ({shown})"] if numbers else []
    return lines


def facts(record: Record, state: State, tasks: run.States | None = None) -> dict[str, Any]:
    """Return what is told about a job as JSON."""
    job = record.job
    return {
        "id": record.id,
        "name": job.name,
        "on": record.on,
        "native": record.native,
        "state": state.phase,
        "code": state.code,
        "reason": state.reason,
        "created": record.created,
        "folder": str(record.folder),
        "command": list(job.command),
        **(
            {"tasks": {n: {"state": s.phase, "code": s.code, "reason": s.reason} for n, s in tasks.items()}}
            if tasks
            else {}
        ),
    }


def words(state: State) -> str:
    """Return a state as people say it."""
    code = f" with exit code {state.code}" if state.code else ""
    return f"{state.phase}{code}" + (f": {state.reason}" if state.reason else "")


@click.command()
@click.argument("identity", metavar="ID")
@click.option("--task", type=int, default=None, help="Number of the task of an array; default: all, in their order.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.pass_obj
def logs_command(settings: Settings, identity: str, task: int | None, *, follow: bool) -> None:
    """Print what the program of job ID printed: its output, and on standard error its errors.

    Example: computeops logs --follow k3f9a2qx
    """
    jobs = run.Records(settings.job_records)
    record = jobs.get(identity)
    if task is not None and task not in record.job.numbers:
        raise NotFoundError(f"job {record.id} has no task {task}", hint=f"its tasks are {_range(record.job.numbers)}")
    numbers = record.job.numbers if task is None else [task]
    files = [(Path(path), stream) for number in numbers for path, stream in _streams(record, number)]
    positions = dict.fromkeys(files, 0)
    while True:
        done = not follow or run.summary(run.look([jobs.get(record.id)])[record.id]).phase.ended
        bring(record)
        for key in files:
            positions[key] = _copy(*key, positions[key])
        if done:
            return
        time.sleep(_PAUSE)


def bring(record: Record) -> None:
    """Bring the output of a job here; where that cannot be, say so: what was brought before is shown."""
    try:
        run.fetch(record)
    except ComputeOpsError as error:
        click.echo(f"warning: no output from {record.on}: {error.message.splitlines()[-1].strip()}", err=True)


def _range(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _streams(record: Record, number: int) -> list[tuple[str, int]]:
    out, err = run.log_files(record, number)
    return [(out, 1), (err, 2)]


def _copy(path: Path, stream: int, start: int) -> int:
    """Copy what is in the file behind `start` to standard output (1) or error (2), and return where it ends."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return start
    with file:
        file.seek(start)
        while block := file.read(_BLOCK):
            (sys.stdout if stream == 1 else sys.stderr).buffer.write(block)
            start += len(block)
    sys.stdout.flush()
    sys.stderr.flush()
    return start


@click.command()
@click.argument("ids", nargs=-1, required=True)
@click.pass_obj
def cancel_command(settings: Settings, ids: Sequence[str]) -> None:
    """End the jobs with IDS.

    Example: computeops cancel k3f9a2qx
    """
    jobs = run.Records(settings.job_records)
    run.cancel([jobs.get(one) for one in ids], jobs)
