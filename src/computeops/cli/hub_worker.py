"""The verbs of workers: `hub worker` is one, `hub workers` lets them in."""

import os
import pwd
import signal
from pathlib import Path

import click
import msgspec

from computeops.cli.hub_accounts import DATA
from computeops.cli.output import emit, json_option, table
from computeops.config import Settings, environment
from computeops.errors import NotFoundError, UsageError

_VARIABLE = "COMPUTEOPS_WORKER_TOKEN"


@click.command("worker")
@click.argument("hub")
@click.option(
    "--token-env", default=_VARIABLE, show_default=True, help="Variable with the worker's token, or its file."
)
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="Folder of all that it keeps.")
@click.option("--on", default="local", show_default=True, help="Scheduler that builds: local, slurm, htcondor ...")
@click.option(
    "--at-once", type=click.IntRange(1, 256), default=1, show_default=True, help="Pipelines at the same time."
)
@click.option("--cpus", type=click.IntRange(1, 4096), default=1, show_default=True, help="CPUs of a job.")
@click.option("--memory", default="", help="Memory that a job asks for, as 8G; default: what the scheduler gives.")
@click.option("--time", "longest", default="", help="Time that a job asks for, as 6h; default: none is asked for.")
@click.option("--user", default="", help="User that it becomes, when root starts it.")
@click.pass_obj
def worker_command(
    settings: Settings,
    hub: str,
    token_env: str,
    state: Path | None,
    on: str,
    at_once: int,
    cpus: int,
    memory: str,
    longest: str,
    user: str,
) -> None:
    """Build what HUB gives, until it is told to stop: a process of an ordinary user, never that of the hub.

    What it builds runs as jobs of a scheduler, in boxes that see neither token nor key. It may be killed at any time:
    started again with the same --state, it goes on where it was.

    Example: computeops hub worker https://hub.example.org --on slurm --at-once 20
    """
    from computeops.cli.ci import secret
    from computeops.hub.worker.agent import Agent, Post
    from computeops.run.model import memory as mebibytes
    from computeops.run.model import seconds as span

    environ = environment()
    token = secret(environ, token_env)
    if user:
        environ |= _become(user)
        settings = Settings.load(environ)
    place = state or settings.job_records.parent / "worker"
    post = Post(
        hub=hub,
        token=token,
        state=place.resolve(),
        on=on,
        at_once=at_once,
        settings=settings,
        environ=environ,
        seconds=span(longest) if longest else 0,
        memory=mebibytes(memory) if memory else 0,
        cpus=cpus,
    )
    agent = Agent(post, click.echo)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()


def _become(name: str) -> dict[str, str]:
    """Become the user `name` for good; return what its environment says of it.

    Raises:
        UsageError: this is not root, or the user is; NotFoundError: there is none.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise NotFoundError(f"there is no user {name!r}", hint=f"useradd --system --create-home {name}") from None
    if os.geteuid() != 0 or user.pw_uid == 0:
        raise UsageError("--user is for root, who becomes somebody else")
    os.initgroups(name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.chdir("/")
    return {"HOME": user.pw_dir, "USER": name, "LOGNAME": name}


@click.group("workers")
def workers_command() -> None:
    """Workers of a hub: who may take its pipelines."""


@workers_command.command("add")
@DATA
@click.argument("name")
@click.option("--days", default=365, show_default=True, type=int, help="How long its token is valid.")
def _add(data: Path, name: str, days: int) -> None:
    """Let a new worker take pipelines, and print its token, which is shown this once.

    Example: computeops hub workers add builder-1 --data /srv/hub
    """
    from computeops.hub import audit
    from computeops.hub.pipelines import work
    from computeops.hub.state import Hub

    hub = Hub.open(data)
    token = work.add(hub, name, days=days)
    audit.by_operator(hub.database, "add worker", name)
    click.echo(token)


@workers_command.command("list")
@DATA
@json_option
def _list(data: Path, *, as_json: bool) -> None:
    """List the workers, with the key that signs what each builds.

    Example: computeops hub workers list --data /srv/hub
    """
    from computeops.hub.pipelines import view
    from computeops.hub.state import Hub

    found = view.worker_entries(Hub.open(data).database)
    rows = [(one.name, one.keyid or "has not come yet", str(one.running)) for one in found]
    text = table(("NAME", "KEY", "RUNNING"), rows) if rows else "no workers"
    emit([msgspec.structs.asdict(one) for one in found], text, as_json=as_json)


@workers_command.command("remove")
@DATA
@click.argument("name")
def _remove(data: Path, name: str) -> None:
    """End the token of a worker; what it works on is given to another one.

    Example: computeops hub workers remove builder-1 --data /srv/hub
    """
    from computeops.hub import audit
    from computeops.hub.pipelines import work
    from computeops.hub.state import Hub

    hub = Hub.open(data)
    work.remove(hub, name)
    audit.by_operator(hub.database, "remove worker", name)
