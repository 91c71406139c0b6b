"""The verbs of a hub: serve, token, collection, reindex; those of who looks after it are in `hub_care`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from computeops.cli import hub_accounts, hub_advisories, hub_care, hub_worker
from computeops.cli.output import Progress, emit, json_option
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, UsageError

if TYPE_CHECKING:
    from computeops.hub.app import Role

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder with everything that the hub keeps; made if it is missing.",
)


@click.group()
def hub_command() -> None:
    """Serve releases to others: an OCI registry, a Library API for Apptainer and a portal in one process."""


for _command in (
    hub_accounts.audit_command,
    hub_accounts.member_command,
    hub_accounts.publisher_command,
    hub_accounts.token_command,
    hub_accounts.user_command,
    hub_accounts.webhook_command,
    hub_worker.worker_command,
    hub_worker.workers_command,
    *hub_advisories.COMMANDS,
    *hub_care.COMMANDS,
):
    hub_command.add_command(_command)


@hub_command.command("serve")
@_DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--external-url", default="", help="https:// address of the proxy in front, as users type it.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="Certificate chain in PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its private key in PEM.")
@click.option(
    "--role",
    type=click.Choice(["all", "web", "background"]),
    default="all",
    show_default=True,
    help="web answers requests; background does what can wait: webhooks, inventories, pipelines begun by the clock.",
)
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of standard error; json has a line for each request too.",
)
def serve_command(
    data: Path,
    host: str,
    port: int,
    external_url: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    role: "Role",
    form: str,
) -> None:
    """Serve the hub in the folder --data until it is told to stop.

    Example: computeops hub serve --data /srv/hub --port 8080
    """
    from computeops.config import environment
    from computeops.hub import logs, settings
    from computeops.hub.serve import Place, serve

    logs.begin(form)
    chosen, secrets = settings.load(data / settings.FILE_NAME, environment())
    place = Place(host=host, port=port, external=external_url, certificate=tls_cert, key=tls_key)
    serve(data, place, settings=chosen, secrets=secrets, role=role, ready=click.echo)


@hub_command.command("collection")
@_DATA
@click.argument("name")
@click.option("--private/--public", default=None, help="Who may see it: those with a token for it, or everybody.")
@click.option("--quota", default="", help="How much it may hold: 500G, 2T, or none.")
def collection_command(data: Path, name: str, quota: str, *, private: bool | None) -> None:
    """Make the collection NAME private or public, or bound it, also before anything is in it; it holds at once.

    Example: computeops hub collection --data /srv/hub --private embargo
    """
    from computeops.hub import audit
    from computeops.hub.state import Hub

    if private is None and not quota:
        raise UsageError("nothing to do", hint="give --private, --public or --quota")
    hub = Hub.open(data)
    if private is not None:
        hub.set_public(name, public=not private)
        audit.by_operator(hub.database, "make private" if private else "make public", name)
    if quota:
        hub.set_quota(name, hub_care.size(quota))
        audit.by_operator(hub.database, f"quota {quota}", name)


@hub_command.command("reindex")
@_DATA
def reindex_command(data: Path) -> None:
    """Make the index anew from the storage alone: repositories, tags, releases, recipes, evidence.

    Accounts and tokens are not in it: they come back from a backup. The hub may go on serving meanwhile.

    Example: computeops hub reindex --data /srv/hub
    """
    from computeops.hub.rebuild import rebuild
    from computeops.hub.state import Hub

    done = rebuild(Hub.open(data, rebuilding=True), lambda step: click.echo(step, err=True))
    click.echo(
        f"{done.repositories} repositories, {done.manifests} manifests, {done.tags} tags; {done.removed} rows taken out"
    )
    for fault in done.faults:
        click.echo(f"not used: {fault}", err=True)
    raise click.exceptions.Exit(CHECK_FAILED if done.faults else 0)


@hub_command.command("mirror")
@click.argument("source")
@_DATA
@click.option("--collection", "collections", multiple=True, help="Only this one and those below it; may be repeated.")
@click.option("--repository", "repositories", multiple=True, help="Only this one, though SOURCE may not list it.")
@click.option("--into", default="", help="Collection of this hub below which all is put.")
@json_option
@click.pass_obj
def mirror_command(
    settings: Settings,
    source: str,
    data: Path,
    collections: Sequence[str],
    repositories: Sequence[str],
    into: str,
    *,
    as_json: bool,
) -> None:
    """Copy what SOURCE, a hub or any OCI registry, has and this hub has not: images, recipes, sources, evidence.

    Nothing is deleted or overwritten here. The hub may go on serving meanwhile. Run it again to go on after an
    interruption, and to bring the copy up to date.

    Example: computeops hub mirror hub.example.org --collection bio --data /srv/hub
    """
    from computeops.cli.store import registry
    from computeops.hub.mirror import Wanted, mirror
    from computeops.hub.state import Hub

    wanted = Wanted(collections=collections, repositories=repositories, into=into)
    progress = Progress()
    with registry(settings, source) as there:
        done = mirror(Hub.open(data), there, wanted, told=progress)
    progress.done()
    said = asdict(done)
    copied = ", ".join(f"{count} {what}" for what, count in said["copied"].items())
    emit(said, f"{done.repositories} repositories looked at; copied {copied}", as_json=as_json)
    for fault in done.faults:
        click.echo(f"not copied: {fault}", err=True)
    raise click.exceptions.Exit(CHECK_FAILED if done.faults else 0)
