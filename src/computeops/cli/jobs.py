"""The verbs of jobs: submit, jobs, logs, cancel."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from computeops import run
from computeops.cli.launch import locate
from computeops.cli.output import Progress, dry_run_option, emit, json_option, table
from computeops.config import Settings, environment
from computeops.errors import NotFoundError, UsageError
from computeops.run import model
from computeops.run.model import Array, Job, Phase, Record, State

_BLOCK = 1 << 16
_FIRST_PAUSE, _LONGEST_PAUSE, _GLANCE = 1.0, 30.0, 0.3
"""Seconds between two questions to a scheduler, at first and at most; and between two glances at our own files."""

_WEEK = 7 * 86400.0
_Options = Mapping[str, Any]


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--on", default=None, metavar="SCHEDULER", help="Scheduler that runs it; default: the setting `scheduler`."
)
@click.option("--name", default="", help="Name for people; default: that of the image.")
@click.option("--nodes", type=click.IntRange(1), default=1, help="Machines.")
@click.option("--tasks", type=click.IntRange(1), default=1, help="Processes started together, as MPI programs want.")
@click.option("--cpus", type=click.IntRange(1), default=1, help="CPUs of each task.")
@click.option("--gpus", type=click.IntRange(0), default=0, help="GPUs on each node.")
@click.option("--memory", default="", help="Memory on each node: 512M, 4G ...")
@click.option("--time", "span", default="", help="Time that it may run: 30m, 1h30m, 02:00:00 ...")
@click.option("--array", default="", help="Run N tasks, or those numbered A-B; %K behind lets K run at once.")
@click.option("--after", multiple=True, metavar="ID", help="Start only when this job has succeeded; may be repeated.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable, or pass a private one by its name.")
@click.option("--bind", multiple=True, metavar="SRC[:DST[:ro]]", help="Show a file or folder in the container.")
@click.option("--engine", default="", help="Engine that runs the container.")
@click.option("--cwd", type=click.Path(path_type=Path), help="Folder to start in; default: this one.")
@click.option("--input", "stdin", type=click.Path(path_type=Path), help="File that it reads as standard input.")
@click.option(
    "--output", "stdout", type=click.Path(path_type=Path), help="File for its output; {task}: the task's number."
)
@click.option("--error", "stderr", type=click.Path(path_type=Path), help="File for its errors.")
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="How often it is started again when it fails.")
@click.option("--queue", default="", help="Queue or partition.")
@click.option("--account", default="", help="Account or project that pays.")
@click.option(
    "--option", "options", multiple=True, help="A word more for the scheduler's own command; may be repeated."
)
@click.option("--wait", is_flag=True, help="Wait for the end and exit with the job's exit code.")
@dry_run_option
@json_option
@click.pass_obj
def submit_command(settings: Settings, /, image: str, args: Sequence[str], **options: Any) -> int:
    """Run IMAGE with ARGS as a job of a scheduler: local, slurm ...

    The program starts in the current folder and sees nothing of this terminal's environment but what --env names.

    Example: computeops submit samtools.sif --on slurm --cpus 4 --memory 8G --time 1h -- sort in.bam -o out.bam
    """
    on = options["on"] or settings.scheduler
    if not on:
        raise UsageError("no scheduler was named", hint=f"write --on NAME; there are: {', '.join(run.names())}")
    environ, jobs = environment(), run.Records(settings.job_records)
    path = locate(image, settings).absolute()
    if settings.policy:
        from computeops import pipeline

        pipeline.admit(path, settings)
    values = _values(options["env"], environ)
    job = _job(path, args, options, values)
    if options["dry_run"]:
        _show(*run.prepare(job, on=on, jobs=jobs), as_json=options["as_json"])
        return 0
    record = run.submit(job, on=on, jobs=jobs, environ=environ, values=values)
    if not options["wait"]:
        emit({"id": record.id, "on": on, "native": record.native}, record.id, as_json=options["as_json"])
        return 0
    click.echo(record.id, err=True)
    state = _wait(record, jobs)
    emit(_facts(record, state), f"{record.id} {_words(state)}", as_json=options["as_json"])
    return run.exit_code(state)


def _values(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not model.is_variable(name):
            raise UsageError(f"--env {word!r}: not a name of a variable", hint="write --env NAME or --env NAME=VALUE")
        if not equals and name not in environ:
            raise UsageError(f"--env {name}: it is not set here")
        values[name] = value if equals else environ[name]
    return values


def _job(image: Path, args: Sequence[str], options: _Options, values: Mapping[str, str]) -> Job:
    def file(name: str) -> str:
        return str(options[name].absolute()) if options[name] else ""

    words = [f"--env={name}" for name in values]
    words += [f"--bind={one}" for one in options["bind"]]
    words += [f"--engine={options['engine']}"] if options["engine"] else []
    words += ["--gpu=auto"] if options["gpus"] else []
    return Job(
        name=options["name"] or image.name,
        command=(sys.executable, "-m", "computeops", "run", *words, str(image), "--", *args),
        image=str(image),
        cwd=str((options["cwd"] or Path.cwd()).absolute()),
        nodes=options["nodes"],
        tasks=options["tasks"],
        cpus=options["cpus"],
        gpus=options["gpus"],
        memory=model.memory(options["memory"]) if options["memory"] else 0,
        seconds=model.seconds(options["span"]) if options["span"] else 0,
        array=Array.parse(options["array"]) if options["array"] else None,
        after=tuple(options["after"]),
        env=tuple(values),
        private=tuple(word for word in options["env"] if "=" not in word),
        stdin=file("stdin"),
        stdout=file("stdout"),
        stderr=file("stderr"),
        retries=options["retries"],
        queue=options["queue"],
        account=options["account"],
        options=tuple(options["options"]),
    )


def _show(record: Record, plan: run.Plan, *, as_json: bool) -> None:
    data = {"argv": list(plan.argv), "files": dict(plan.files), "stdin": plan.stdin}
    files = "".join(f"\n--- {name}\n{text}" for name, text in plan.files.items())
    emit(data, f"cd {shlex.quote(str(record.folder))}\n{shlex.join(plan.argv)}{files}", as_json=as_json)


def _wait(record: Record, jobs: run.Records) -> State:
    """Return the state of a job that has ended; its own files are watched closely, the scheduler is asked gently."""
    progress, pause = Progress(), _FIRST_PAUSE
    try:
        while True:
            state = run.summary(run.look([jobs.get(record.id)])[record.id])
            if state.phase.ended or state.phase is Phase.HELD:
                return state
            progress(f"{record.id} {_words(state)}")
            until = time.monotonic() + pause
            while time.monotonic() < until and not run.finished(record):
                time.sleep(_GLANCE)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    except KeyboardInterrupt:
        click.echo(f"\nthe job goes on: computeops jobs {record.id}, or computeops cancel {record.id}", err=True)
        raise
    finally:
        progress.done()


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
    data = [_facts(one, run.summary(found[one.id]), found[one.id] if ids else {}) for one in chosen]
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


def _facts(record: Record, state: State, tasks: run.States | None = None) -> dict[str, Any]:
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


def _words(state: State) -> str:
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
        for key in files:
            positions[key] = _copy(*key, positions[key])
        if done:
            return
        time.sleep(_FIRST_PAUSE)


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
