"""submit: an image and its arguments become a job of a scheduler."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from computeops import config, engine, run
from computeops.cli import jobs as jobs_verbs
from computeops.cli.output import Progress, dry_run_option, emit, json_option
from computeops.cli.staging import Staged, stage
from computeops.config import Settings, Site, environment
from computeops.errors import UsageError
from computeops.run import model
from computeops.run.model import Array, Job, Phase, Record, State

_FIRST_PAUSE, _LONGEST_PAUSE, _GLANCE = 1.0, 30.0, 0.3
"""Seconds between two questions to a scheduler, at first and at most; and between two glances at our own files."""
_Options = Mapping[str, Any]


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--on", default=None, metavar="SCHEDULER", help="Scheduler that runs it; default: the setting `scheduler`."
)
@click.option("--site", default="", help="Site whose profile holds, a table [sites.NAME] in the settings.")
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
@click.option(
    "--volume", "volumes", multiple=True, metavar="NAME:PATH[:ro]", help="Storage that the scheduler itself has."
)
@click.option("--engine", default="", help="Engine that runs the container.")
@click.option(
    "--mpi",
    type=click.Choice(["auto", "host", "none"]),
    default="auto",
    help="Join a parallel MPI program; host: with the machine's own MPI in place of the image's.",
)
@click.option("--cwd", type=click.Path(path_type=Path), help="Folder to start in; default: this one.")
@click.option("--input", "stdin", type=click.Path(path_type=Path), help="File that it reads as standard input.")
@click.option(
    "--output", "stdout", type=click.Path(path_type=Path), help="File for its output; {task}: the task's number."
)
@click.option("--error", "stderr", type=click.Path(path_type=Path), help="File for its errors.")
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="How often it is started again when it fails.")
@click.option("--queue", default="", help="Queue or partition; default: the setting `queue`.")
@click.option("--account", default="", help="Account or project that pays; default: the setting `account`.")
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
    environ = environment()
    site = config.site(name, environ) if (name := options["site"] or settings.site) else Site()
    on = options["on"] or site.scheduler or settings.scheduler
    if not on:
        raise UsageError("no scheduler was named", hint=f"write --on NAME; there are: {', '.join(run.names())}")
    jobs = run.Records(settings.job_records)
    staged = stage(image, site, settings, environ, on=on)
    path = staged.path
    if settings.policy:
        from computeops import pipeline

        pipeline.admit(path, settings)
    if on == "local":  # elsewhere the job's own `computeops run` asks: nodes have other CPUs than this machine
        engine.admit(path, settings.cache)
    values = _values(options["env"], environ)
    job = _job(staged, args, options, values, site, settings)
    scheduler = run.load(on)
    if getattr(scheduler, "TAKES_FILES", False):
        job = replace(job, inside=_inside(path, args))
    elif scheduler.STARTS_CONTAINERS and not Path(image).exists():
        job = _in_registry(job, image, path, args, settings)
    if options["dry_run"]:
        click.echo("".join(f"{line}\n" for line in staged.told), err=True, nl=False)
        _show(*run.prepare(job, on=on, jobs=jobs), as_json=options["as_json"])
        return 0
    record = run.submit(job, on=on, jobs=jobs, environ=environ, values=values)
    if not options["wait"]:
        emit({"id": record.id, "on": on, "native": record.native}, record.id, as_json=options["as_json"])
        return 0
    click.echo(record.id, err=True)
    state = _wait(record, jobs)
    emit(jobs_verbs.facts(record, state), f"{record.id} {jobs_verbs.words(state)}", as_json=options["as_json"])
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


def _job(
    staged: Staged, args: Sequence[str], options: _Options, values: Mapping[str, str], site: Site, settings: Settings
) -> Job:
    def file(name: str) -> str:
        return str(options[name].absolute()) if options[name] else ""

    words = [f"--env={name}" for name in values]
    words += [f"--bind={one}" for one in options["bind"]]
    words += [f"--engine={options['engine']}"] if options["engine"] else []
    words += ["--gpu=auto"] if options["gpus"] else []
    words += [f"--mpi={options['mpi']}"] if options["mpi"] != "auto" else []
    return Job(
        name=options["name"] or staged.path.name,
        command=(sys.executable, "-m", "computeops", "run", *words, staged.there, "--", *args),
        image=str(staged.path),
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
        volumes=tuple(options["volumes"]),
        retries=options["retries"],
        queue=options["queue"] or site.queue or settings.queue,
        account=options["account"] or site.account or settings.account,
        options=(*site.options, *options["options"]),
        modules=site.modules,
    )


def _in_registry(job: Job, image: str, path: Path, args: Sequence[str], settings: Settings) -> Job:
    """Return `job` as a scheduler starts it that fetches the image itself: the manifest of the one that we trust."""
    from computeops.cli import store
    from computeops.image import convert

    reference, digest = store.named(settings, image), convert.open_image(path).manifest
    if digest is None:
        raise UsageError(f"{path} does not say which OCI image it is", hint="build and push it with computeops")
    host = reference.hub.rpartition("://")[2].rstrip("/")
    return replace(job, image=f"{host}/{reference.repository}@{digest}", inside=_inside(path, args))


def _inside(path: Path, args: Sequence[str]) -> tuple[str, ...]:
    """Return what is started in the image at `path` where no engine of ours does it."""
    from computeops.image import convert

    return (*convert.description(path).command, *args)


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
                jobs_verbs.bring(record)  # while it is there: machines of a cloud go, and take it with them
                return state
            progress(f"{record.id} {jobs_verbs.words(state)}")
            until = time.monotonic() + pause
            while time.monotonic() < until and not run.finished(record):
                time.sleep(_GLANCE)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    except KeyboardInterrupt:
        click.echo(f"\nthe job goes on: computeops jobs {record.id}, or computeops cancel {record.id}", err=True)
        raise
    finally:
        progress.done()
