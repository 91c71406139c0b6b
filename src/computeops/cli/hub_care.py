"""The verbs of who looks after a hub: check, gc, scrub, backup, restore."""

import re
from dataclasses import asdict
from pathlib import Path

import click

from computeops.cli.output import dry_run_option, emit, json_option
from computeops.errors import CHECK_FAILED, UsageError

_SIZE = re.compile(r"([0-9]{1,9})([KMGTP]?)(?:I?B)?")
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the hub.",
)


def size(text: str) -> int | None:
    """Return the bytes that `500G` means; None for `none`.

    Raises:
        UsageError: it is no size.
    """
    if text == "none":
        return None
    match = _SIZE.fullmatch(text.upper())
    if match is None:
        raise UsageError(f"not a size: {text!r}", hint="write for example 500G, 2T or none")
    scale: int = 1024 ** " KMGTP".index(match[2] or " ")
    return int(match[1]) * scale


@click.command("check")
@_DATA
@click.option("--external-url", default="", help="The address that the world knows: asked as the world asks.")
@click.option(
    "--tls-cert", type=click.Path(path_type=Path, exists=True), help="The certificate that the hub serves with."
)
@json_option
def check_command(data: Path, external_url: str, tls_cert: Path | None, *, as_json: bool) -> None:
    """Look for what is wrong with a hub: folder, disk, clock, settings, database, storage, certificate, address.

    Each finding says how to mend it. The exit code is 13 if there is one.

    Example: computeops hub check --data /srv/hub --external-url https://hub.example.org
    """
    from computeops.hub.checks import check

    found = list(check(data, external=external_url, certificate=tls_cert))
    lines = [
        f"BAD  {one.name}: {one.fault}\n     {one.mend}" if one.fault else f"ok   {one.name}: {one.facts}"
        for one in found
    ]
    emit([asdict(one) for one in found], "\n".join(lines), as_json=as_json)
    raise click.exceptions.Exit(CHECK_FAILED if any(one.fault for one in found) else 0)


@click.command("gc")
@_DATA
@dry_run_option
@json_option
def gc_command(data: Path, *, dry_run: bool, as_json: bool) -> None:
    """Remove what nobody needs: tags and manifests by the rules in hub.toml, blobs that no manifest consists of.

    The hub serves meanwhile, and what was stopped goes on where it was. Releases are never removed. What was pushed
    within the last day (`grace_hours`) stays.

    Example: computeops hub gc --data /srv/hub --dry-run
    """
    from computeops.hub.gc import collect
    from computeops.hub.state import Hub

    done = collect(Hub.open(data), dry_run=dry_run)
    text = (
        f"{'would remove' if dry_run else 'removed'} {done.tags} tags, {done.manifests} manifests, {done.links} links,"
        f" {done.blobs} blobs of {done.blob_bytes} bytes, {done.uploads} uploads in {done.seconds:.1f} s"
    )
    emit(asdict(done), text, as_json=as_json)


@click.command("scrub")
@_DATA
@dry_run_option
@json_option
def scrub_command(data: Path, *, dry_run: bool, as_json: bool) -> None:
    """Read every blob and hash it again; move damaged ones into quarantine and name who served them.

    A damaged blob is healed by pushing it again. The exit code is 13 if there is one.

    Example: computeops hub scrub --data /srv/hub
    """
    from computeops.hub.scrub import scrub
    from computeops.hub.state import Hub

    done = scrub(Hub.open(data), dry_run=dry_run)
    lines = [f"BAD  {one.digest}: {one.fault}; in {', '.join(one.repositories) or 'no repository'}" for one in done.bad]
    lines.append(f"{done.blobs} blobs of {done.bytes} bytes in {done.seconds:.1f} s, {len(done.bad)} bad")
    emit(asdict(done), "\n".join(lines), as_json=as_json)
    raise click.exceptions.Exit(CHECK_FAILED if done.bad else 0)


@click.command("backup")
@_DATA
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--no-blobs", is_flag=True, help="Leave out the content, if its storage is kept safe in another way.")
def backup_command(data: Path, target: Path, *, no_blobs: bool) -> None:
    """Copy the hub into the folder TARGET while it serves; content that is there already is not copied again.

    If TARGET ends in .tar.zst, it becomes one file, which replaces an older one when it is whole.

    Example: computeops hub backup --data /srv/hub /backup/hub
    """
    from computeops.hub.backup import backup
    from computeops.hub.state import Hub

    done = backup(Hub.open(data), target, blobs=not no_blobs)
    click.echo(
        f"{done.rows} rows, {done.records} records, {done.blobs} blobs of {done.blob_bytes} bytes;"
        f" {done.already} blobs were there"
    )


@click.command("restore")
@_DATA
@click.argument("source", type=click.Path(path_type=Path, exists=True))
def restore_command(data: Path, source: Path) -> None:
    """Make a hub in the folder --data from the backup SOURCE; also on another database or storage.

    Every byte of it is checked first. What is broken anywhere is refused whole.

    A hub.toml that is in --data already says which database and storage to use.

    Example: computeops hub restore --data /srv/new /backup/hub
    """
    from computeops.hub.backup import restore

    done = restore(source, data, progress=lambda step: click.echo(step, err=True))
    click.echo(f"{done.repositories} repositories, {done.manifests} manifests, {done.tags} tags")
    for fault in done.faults:
        click.echo(f"not used: {fault}", err=True)
    raise click.exceptions.Exit(CHECK_FAILED if done.faults else 0)


COMMANDS = (check_command, gc_command, scrub_command, backup_command, restore_command)
