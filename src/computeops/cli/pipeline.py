"""The verb `pipeline`: a hub's workers build a release from a recipe; start, watch, stop and repeat it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from computeops.cli.output import Progress, emit, json_option, table
from computeops.cli.store import address, named, plain, registry
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, UsageError

if TYPE_CHECKING:
    from computeops.store.pipelines import Pipeline

_PAUSE = 0.5
_HUB = click.option("--hub", default=None, help="The hub to ask; default: the setting `hub`.")
_ID = click.argument("number", metavar="ID", type=click.IntRange(1))


@click.group()
def pipeline_command() -> None:
    """Let a hub build, test, sign and publish a release on its own workers.

    Example: computeops pipeline start examples/samtools --for hub.example.org/bio/samtools --follow
    """


@pipeline_command.command("start")
@click.argument("source")
@click.option("--for", "release", metavar="REF", required=True, help="HUB/COLLECTION/NAME to publish as.")
@click.option("--commit", default="", help="SOURCE is a git repository: the 40 hex digits of the commit to build.")
@click.option("--folder", default="", help="Folder of the recipe inside a git repository.")
@click.option("--follow", "-f", is_flag=True, help="Print its log until it has ended.")
@json_option
@click.pass_obj
def _start(
    settings: Settings, source: str, release: str, commit: str, folder: str, *, follow: bool, as_json: bool
) -> int:
    """Start a pipeline of the recipe in the folder SOURCE, or of a commit of the git repository SOURCE.

    What has not changed since it was built is not built again. With --follow, exits with 13 if it fails.

    Example: computeops pipeline start https://github.com/ada/tool --commit 8d1c... --for hub.example.org/bio/tool
    """
    from computeops.store import pipelines

    reference = named(settings, release)
    if reference.version or reference.digest:
        raise UsageError(f"{release}: the version is the recipe's", hint="write HUB/COLLECTION/NAME")
    with registry(settings, reference.hub) as there:
        if commit:
            made = pipelines.start(there, reference.repository, git=source, commit=commit, folder=folder)
        else:
            progress = Progress()
            progress("sending the recipe")
            archive = pipelines.send(there, reference.repository, Path(source))
            progress.done()
            made = pipelines.start(there, reference.repository, archive=str(archive))
        if not follow:
            emit(msgspec.to_builtins(made), f"pipeline {made.id}: {made.state}", as_json=as_json)
            return 0
        found = followed(settings, reference.hub, made.id, quiet=as_json)
    return outcome(found, as_json=as_json)


@pipeline_command.command("list")
@click.argument("repository", default="")
@click.option("--state", default="", help="Only those that are waiting, running, proving, succeeded, failed ...")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="How many.")
@_HUB
@json_option
@click.pass_obj
def _list(settings: Settings, repository: str, state: str, limit: int, hub: str | None, *, as_json: bool) -> None:
    """List the newest pipelines, or those of the REPOSITORY or collection.

    Example: computeops pipeline list bio/samtools --state failed
    """
    from computeops.store import pipelines

    with registry(settings, address(settings, hub)) as there:
        found = pipelines.entries(there, repository=repository, state=state, limit=limit)
    rows = [
        (str(one.id), one.kind, plain(_named(one)), one.state, plain(one.asked_by), plain(one.error)[:60])
        for one in found
    ]
    text = table(("ID", "KIND", "OF", "STATE", "BY", ""), rows) if rows else "no pipelines"
    emit([msgspec.to_builtins(one) for one in found], text, as_json=as_json)


@pipeline_command.command("show")
@_ID
@_HUB
@json_option
@click.pass_obj
def _show(settings: Settings, number: int, hub: str | None, *, as_json: bool) -> None:
    """Show the steps of pipeline ID and how far they are.

    Example: computeops pipeline show 17
    """
    from computeops.store import pipelines

    with registry(settings, address(settings, hub)) as there:
        _emit(pipelines.show(there, number), as_json=as_json)


@pipeline_command.command("logs")
@_ID
@click.option("--follow", "-f", is_flag=True, help="Go on until it has ended.")
@_HUB
@click.pass_obj
def _logs(settings: Settings, number: int, hub: str | None, *, follow: bool) -> None:
    """Print the log of pipeline ID.

    Example: computeops pipeline logs --follow 17
    """
    _print_log(settings, address(settings, hub), number, follow=follow)


@pipeline_command.command("retry")
@_ID
@_HUB
@click.pass_obj
def _retry(settings: Settings, number: int, hub: str | None) -> None:
    """Let pipeline ID, which failed or was cancelled, go on with the step that did not end well.

    Example: computeops pipeline retry 17
    """
    _change(settings, hub, number, "retry")


@pipeline_command.command("cancel")
@_ID
@_HUB
@click.pass_obj
def _cancel(settings: Settings, number: int, hub: str | None) -> None:
    """Let pipeline ID end.

    Example: computeops pipeline cancel 17
    """
    _change(settings, hub, number, "cancel")


@pipeline_command.command("rebuild")
@click.argument("reference")
@click.option("--follow", "-f", is_flag=True, help="Print its log until it has ended.")
@json_option
@click.pass_obj
def _rebuild(settings: Settings, reference: str, *, follow: bool, as_json: bool) -> int:
    """Let a worker of the hub rebuild the release REFERENCE and sign whether it came out the same.

    Example: computeops pipeline rebuild hub.example.org/bio/samtools:1.21 --follow
    """
    from computeops.pipeline import architecture
    from computeops.store import fetch, pipelines

    wanted = named(settings, reference)
    with registry(settings, wanted.hub) as there:
        digest = wanted.digest or fetch.manifest(wanted, there, arch=architecture()).digest
        made = pipelines.rebuild(there, wanted.repository, digest)
        if not follow:
            emit(msgspec.to_builtins(made), f"pipeline {made.id}: {made.state}", as_json=as_json)
            return 0
        found = followed(settings, wanted.hub, made.id, quiet=as_json)
    _emit(found, as_json=as_json)
    facts = next((one.facts for one in found.steps if one.name == "rebuild"), {})
    return 0 if found.state == "succeeded" and facts.get("identical") is True else CHECK_FAILED


def _change(settings: Settings, hub: str | None, number: int, what: str) -> None:
    from computeops.store import pipelines

    with registry(settings, address(settings, hub)) as there:
        made = pipelines.change(there, number, what)
    click.echo(f"pipeline {made.id}: {made.state}")


def followed(settings: Settings, hub: str, number: int, *, quiet: bool) -> "Pipeline":
    """Print the log of a pipeline until it has ended, and return it."""
    from computeops.store import pipelines

    _print_log(settings, hub, number, follow=True, quiet=quiet)
    with registry(settings, hub) as there:
        return pipelines.show(there, number)


def outcome(found: "Pipeline", *, as_json: bool) -> int:
    """Print a pipeline that has ended, and return the exit code that says how."""
    _emit(found, as_json=as_json)
    return 0 if found.state == "succeeded" else CHECK_FAILED


def _print_log(settings: Settings, hub: str, number: int, *, follow: bool, quiet: bool = False) -> None:
    """Print a log, and go on with it as it grows."""
    from computeops.store import pipelines

    at = 0
    with registry(settings, hub) as there:
        while True:
            part = pipelines.log(there, number, at)
            if part.text and not quiet:
                click.echo(_harmless(part.text), nl=False)
            if not part.text and (part.ended or not follow):
                return
            if not part.text:
                time.sleep(_PAUSE)
            at = part.next


def _harmless(text: str) -> str:
    """Return text of a stranger's build without what steers a terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _emit(found: "Pipeline", *, as_json: bool) -> None:
    rows = [(one.state, f"{one.seconds:8.2f} s", plain(one.name)) for one in found.steps]
    lines = [f"pipeline {found.id}: {found.kind} of {plain(_named(found))}: {found.state}"]
    lines += [f"  {state:8} {seconds}  {name}" for state, seconds, name in rows]
    lines += [f"  nothing has changed since pipeline {found.answered_by}"] if found.answered_by else []
    lines += [f"  {one.get('version', '')}@{one.get('manifest', '')}" for one in found.images]
    lines += [f"error: {plain(found.error)}"] if found.error else []
    lines += [f"hint: {plain(found.hint)}"] if found.hint else []
    emit(msgspec.to_builtins(found), "\n".join(lines), as_json=as_json)


def _named(found: "Pipeline") -> str:
    joint = "@" if ":" in found.version else ":"  # of a rebuild it is the digest
    return f"{found.repository}{joint}{found.version}" if found.version else found.repository
