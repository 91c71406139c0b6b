"""The verbs of a hub: serve, token."""

from collections.abc import Sequence
from pathlib import Path

import click

from computeops.cli import hub_accounts
from computeops.errors import CHECK_FAILED

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
):
    hub_command.add_command(_command)


@hub_command.command("serve")
@_DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--external-url", default="", help="https:// address of the proxy in front, as users type it.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="Certificate chain in PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its private key in PEM.")
def serve_command(
    data: Path, host: str, port: int, external_url: str, tls_cert: Path | None, tls_key: Path | None
) -> None:
    """Serve the hub in the folder --data until it is told to stop.

    Example: computeops hub serve --data /srv/hub --port 8080
    """
    from computeops.config import environment
    from computeops.hub import settings
    from computeops.hub.serve import Place, serve

    chosen, secrets = settings.load(data / settings.FILE_NAME, environment())
    place = Place(host=host, port=port, external=external_url, certificate=tls_cert, key=tls_key)
    serve(data, place, settings=chosen, secrets=secrets, ready=click.echo)


@hub_command.command("collection")
@_DATA
@click.argument("name")
@click.option("--private/--public", required=True, help="Who may see it: those with a token for it, or everybody.")
def collection_command(data: Path, name: str, *, private: bool) -> None:
    """Make the collection NAME private or public, also before anything is in it; it holds at once.

    Example: computeops hub collection --data /srv/hub --private embargo
    """
    from computeops.hub.state import Hub

    Hub.open(data).set_public(name, public=not private)


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
    raise SystemExit(CHECK_FAILED if done.faults else 0)
