"""The verbs of vulnerabilities: scan, advisories."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Scan, Verdict, rank
from computeops.cli.output import Progress, emit, json_option, table
from computeops.config import Settings
from computeops.errors import CHECK_FAILED

_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True))
_GATES = tuple(reversed(SEVERITIES[1:]))


@click.command()
@_FILE
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--fail-on", type=click.Choice(_GATES), help="Exit with 13 for a finding so severe, or worse.")
@click.option("--all", "everything", is_flag=True, help="Show what is negligible or does not count, too.")
@json_option
@click.pass_obj
def scan_command(
    settings: Settings, file: Path, form: str, fail_on: str | None, *, everything: bool, as_json: bool
) -> int:
    """List the known vulnerabilities of the packages in the image FILE.

    Example: computeops scan samtools-1.16.1.sif --fail-on high
    """
    from computeops.check import inventory
    from computeops.check import scan as scanning
    from computeops.check.advisories.lookup import Index
    from computeops.check.report import document
    from computeops.check.report import table as text
    from computeops.image import convert

    progress = Progress()
    with Index(settings.advisories) as index:
        progress("reading the packages")
        image = convert.open_image(file)
        found = inventory.packages(convert.open_tree(file))
        progress("asking the advisories")
        scan = scanning.scan(image.subjects, found, index, now=int(time.time()), stale_days=settings.stale_days)
    progress.done()
    if as_json or form == "json":
        click.echo(document.write(scan, file.name))
    else:
        click.echo(text.write(scan, file.name, everything=everything))
    return CHECK_FAILED if fail_on and fails(scan, fail_on) else 0


def fails(scan: Scan, severity: str) -> bool:
    """Return whether a gate that is closed for findings of `severity` and worse is closed for this scan."""
    if any(rank(one.severity) >= rank(severity) for one in scan.counting):
        return True
    return scan.verdict in {Verdict.STALE, Verdict.UNSCANNABLE}


@click.group()
def advisories_command() -> None:
    """Bring advisories here, and look at how old they are.

    Example: computeops advisories update
    """


@advisories_command.command("update")
@click.argument("feeds", nargs=-1)
@click.option("--from", "mirror", default=None, metavar="WHERE", help="Folder or address of a mirror of the feeds.")
@click.option("--full", is_flag=True, help="Load what did not change too, and accept a feed that lost most records.")
@json_option
@click.pass_obj
def _update(settings: Settings, feeds: Sequence[str], mirror: str | None, *, full: bool, as_json: bool) -> int:
    """Load FEEDS (osv/PyPI, debian, alpine/v3.20/main, kev, epss ...), or all that are usual, into the index.

    Example: computeops advisories update osv/Debian osv/PyPI kev
    """
    from computeops.check.advisories.update import update

    progress = Progress()
    where = settings.feeds if mirror is None else mirror
    outcomes = update(settings.advisories, feeds, mirror=where, now=int(time.time()), full=full, progress=progress)
    progress.done()
    rows = [(one.feed, one.done, str(one.records), one.why) for one in outcomes]
    data = [{"feed": one.feed, "done": one.done, "records": one.records, "why": one.why} for one in outcomes]
    emit(data, table(("feed", "", "records", ""), rows), as_json=as_json)
    return CHECK_FAILED if any(one.done == "refused" for one in outcomes) else 0


@advisories_command.command("status")
@json_option
@click.pass_obj
def _status(settings: Settings, *, as_json: bool) -> None:
    """Show the feeds in the index: how old they are and what they hold.

    Example: computeops advisories status
    """
    from computeops.check.advisories.lookup import Index
    from computeops.check.report.document import moment

    with Index(settings.advisories) as index:
        feeds, ecosystems = index.feeds(), index.ecosystems()
    rows = [
        (
            one.name,
            str(one.records),
            str(one.faulty or ""),
            moment(one.published) or "",
            moment(one.checked) or "",
            one.newest,
        )
        for one in feeds
    ]
    data = {
        "index": str(settings.advisories),
        "feeds": [
            {
                "name": one.name,
                "origin": one.origin,
                "records": one.records,
                "faulty": one.faulty,
                "published": moment(one.published),
                "checked": moment(one.checked),
                "newest": one.newest,
            }
            for one in feeds
        ],
        "ecosystems": ecosystems,
    }
    head = ("feed", "records", "faulty", "published", "checked", "last record")
    emit(data, f"{table(head, rows)}\n\n{settings.advisories}", as_json=as_json)
