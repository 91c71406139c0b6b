"""The verbs of a hub about known vulnerabilities: advisories, inventory."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from computeops.cli.output import Progress, emit, json_option, table
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, TrustError
from computeops.limits import LIMITS

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the hub.",
)


def _open(data: Path) -> Any:
    from computeops.hub.state import Hub

    return Hub.open(data)


@click.group("advisories")
def advisories_command() -> None:
    """The advisories by which a hub judges what it has; a hub that runs sees new ones within seconds."""


@advisories_command.command("import")
@_DATA
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--untrusted", is_flag=True, help="Take it though nobody you know signed it.")
@click.option("--older", is_flag=True, help="Take it though the index that is here is newer.")
@json_option
@click.pass_obj
def import_command(settings: Settings, data: Path, file: Path, *, untrusted: bool, older: bool, as_json: bool) -> None:
    """Replace the hub's index of advisories by the one in FILE, if a key of your keyring signed it.

    FILE is what `computeops advisories export` writes.

    Example: computeops hub advisories import advisories.tar --data /srv/hub
    """
    from computeops.check.advisories import bundle
    from computeops.hub import audit
    from computeops.hub.vulnerabilities import index
    from computeops.sign import dsse
    from computeops.sign.keyring import Keyring

    hub = _open(data)
    signed, keys = bundle.envelope(file), Keyring(settings.keys).public()
    names = sorted(keys[keyid].name for keyid in dsse.signers(signed, keys))
    if not names and not untrusted:
        raise TrustError(
            f"{file} is signed by nobody that is known here",
            hint="`computeops key import NAME KEY` trusts a key; or take the file as it is with --untrusted",
        )
    made = bundle.install(file, signed, index.place(hub), older=older)
    audit.by_operator(hub.database, "import advisories", str(made.digest))
    by = f"signed by {', '.join(names)}" if names else "signed by nobody known"
    said = {"file": str(file), "index": str(made.digest), "signers": names}
    emit(said, f"{index.place(hub)}: {made.size} bytes, {by}", as_json=as_json)


@advisories_command.command("update")
@_DATA
@click.argument("feeds", nargs=-1)
@click.option("--from", "mirror", default=None, metavar="WHERE", help="Folder or address of a mirror of the feeds.")
@json_option
def update_command(data: Path, feeds: Sequence[str], mirror: str | None, *, as_json: bool) -> int:
    """Load FEEDS, or all that are usual, into the hub's index; of a feed that is broken the old content stays.

    Example: computeops hub advisories update --data /srv/hub
    """
    from computeops.check.advisories.update import update
    from computeops.hub import audit
    from computeops.hub.vulnerabilities import index

    hub, progress = _open(data), Progress()
    where = hub.settings.advisories_from if mirror is None else mirror
    outcomes = update(index.place(hub), feeds, mirror=where, now=int(time.time()), progress=progress)
    progress.done()
    audit.by_operator(hub.database, "update advisories", where or "public feeds")
    rows = [(one.feed, one.done, str(one.records), one.why) for one in outcomes]
    emit([asdict(one) for one in outcomes], table(("feed", "", "records", ""), rows), as_json=as_json)
    return CHECK_FAILED if any(one.done == "refused" for one in outcomes) else 0


@advisories_command.command("status")
@_DATA
@json_option
def status_command(data: Path, *, as_json: bool) -> None:
    """Show how much of the hub is inventoried and judged, and by advisories of when.

    Example: computeops hub advisories status --data /srv/hub
    """
    from computeops.hub.vulnerabilities import questions

    said = questions.overview(_open(data))
    feeds = [(one["name"], str(one["records"]), f"{one['days_old']:.1f}") for one in said["feeds"]]
    counts = "\n".join(f"{name:12} {count}" for name, count in said["verdicts"].items())
    text = (
        f"{table(('feed', 'records', 'days old'), feeds)}\n\n{counts}"
        if feeds
        else f"{said['fault'] or 'no advisories'}\n\n{counts}"
    )
    emit(said, text, as_json=as_json)


@click.command("inventory")
@click.argument("image", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--memory", default=LIMITS.inventory_memory_bytes, show_default=True, help="Bytes it may have.")
@click.option("--seconds", default=LIMITS.inventory_seconds, show_default=True, help="Of processor time.")
def inventory_command(image: Path, output: Path, memory: int, seconds: int) -> None:
    """Write the packages of IMAGE to OUTPUT as JSON, within bounds: what a hub does with each image.

    Example: computeops hub inventory samtools-1.21.sif packages.json
    """
    from computeops.hub.vulnerabilities.inventory import read

    read(image, output, memory_bytes=memory, seconds=seconds)


COMMANDS = (advisories_command, inventory_command)
