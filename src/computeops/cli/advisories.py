"""The verb `advisories`: bring them here, carry them elsewhere, and see how old they are."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from computeops.cli.output import Progress, emit, json_option, table
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, TrustError, UsageError
from computeops.model import Signed

if TYPE_CHECKING:
    from computeops.check.advisories.bundle import Manifest


@click.group()
def advisories_command() -> None:
    """Bring advisories here, carry them elsewhere, and see how old they are.

    Example: computeops advisories update
    """


@advisories_command.command("update")
@click.argument("feeds", nargs=-1)
@click.option("--from", "mirror", default=None, metavar="WHERE", help="Folder or address of a mirror of the feeds.")
@click.option("--full", is_flag=True, help="Load what did not change too, and accept a feed that lost most records.")
@json_option
@click.pass_obj
def _update(settings: Settings, feeds: Sequence[str], mirror: str | None, *, full: bool, as_json: bool) -> int:
    """Load FEEDS (osv/PyPI, debian, redhat, kev, epss ...), or all that are usual, into the index.

    Of a feed that is broken the old content stays, and the exit code is 13.

    Example: computeops advisories update osv/Debian osv/PyPI kev
    """
    from computeops.check.advisories.update import update

    progress = Progress()
    where = settings.feeds if mirror is None else mirror
    outcomes = update(settings.advisories, feeds, mirror=where, now=int(time.time()), full=full, progress=progress)
    progress.done()
    rows = [(one.feed, one.done, str(one.records), one.why) for one in outcomes]
    emit([asdict(one) for one in outcomes], table(("feed", "", "records", ""), rows), as_json=as_json)
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
    now = time.time()
    rows = []
    for one in feeds:
        days = f"{(now - (one.published or one.checked)) / 86400:.1f}"
        rows.append((one.name, str(one.records), str(one.faulty or ""), days, moment(one.checked) or "", one.newest))
    times = [asdict(one) | {"published": moment(one.published), "checked": moment(one.checked)} for one in feeds]
    data = {"index": str(settings.advisories), "feeds": times, "ecosystems": ecosystems}
    head = ("feed", "records", "faulty", "days old", "last asked", "last record")
    emit(data, f"{table(head, rows)}\n\n{settings.advisories}", as_json=as_json)


@advisories_command.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", default=None, metavar="NAME", help="Sign with this key; default: the setting `key`.")
@json_option
@click.pass_obj
def _export(settings: Settings, file: Path, key: str | None, *, as_json: bool) -> None:
    """Write the index to FILE, signed, for a site without Internet: `computeops advisories import FILE` reads it there.

    Example: computeops advisories export advisories.tar --key ada
    """
    name = settings.key if key is None else key
    made = _exported(settings, file, name)
    by = f"signed by {name}" if name else "not signed"
    data = {"file": str(file), "size": file.stat().st_size, "index": str(made.digest), "signer": name}
    emit(data, f"{file}: {file.stat().st_size} bytes, {by}", as_json=as_json)


def _exported(settings: Settings, file: Path, key: str) -> "Manifest":
    """Write the index to `file`, signed by the key of this name, if there is one."""
    from computeops.check.advisories import bundle
    from computeops.sign import dsse
    from computeops.sign.keyring import Keyring

    signer = Keyring(settings.keys).own(key) if key else None

    def sign(signed: Signed) -> Signed:
        return dsse.add_signature(signed, signer) if signer else signed

    return bundle.export(settings.advisories, file, sign, now=int(time.time()))


@advisories_command.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--untrusted", is_flag=True, help="Take it though nobody you know signed it.")
@click.option("--older", is_flag=True, help="Take it though the index that is here is newer.")
@json_option
@click.pass_obj
def _import(settings: Settings, file: Path, *, untrusted: bool, older: bool, as_json: bool) -> None:
    """Replace the index by the one in FILE, if a key of the keyring signed it.

    Example: computeops advisories import advisories.tar
    """
    _take(settings, file, str(file), untrusted=untrusted, older=older, as_json=as_json)


def _take(settings: Settings, file: Path, origin: str, *, untrusted: bool, older: bool, as_json: bool) -> None:
    """Replace the index by the one in `file`, if it may be trusted."""
    from computeops.check.advisories import bundle
    from computeops.sign import dsse
    from computeops.sign.keyring import Keyring

    signed, keys = bundle.envelope(file), Keyring(settings.keys).public()
    names = sorted(keys[keyid].name for keyid in dsse.signers(signed, keys))
    if not names and not untrusted:
        raise TrustError(
            f"{origin} is signed by nobody that is known here",
            hint="`computeops key import NAME KEY` trusts a key; or take the file as it is with --untrusted",
        )
    made = bundle.install(file, signed, settings.advisories, older=older)
    by = f"signed by {', '.join(names)}" if names else "signed by nobody known"
    data = {"file": origin, "index": str(made.digest), "signers": names}
    emit(data, f"{settings.advisories}: {made.size} bytes, {by}", as_json=as_json)


@advisories_command.command("push")
@click.argument("reference")
@click.option("--key", default=None, metavar="NAME", help="Sign with this key; default: the setting `key`.")
@json_option
@click.pass_obj
def _push(settings: Settings, reference: str, key: str | None, *, as_json: bool) -> None:
    """Publish the index, signed, as REFERENCE; without a version, under the moment when it was updated.

    Example: computeops advisories push hub.example.org/site/advisories --key ada
    """
    from computeops.check.advisories import bundle
    from computeops.cli.store import named, registry
    from computeops.store.single import push_file

    wanted, name = named(settings, reference), settings.key if key is None else key
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="computeops-advisories-") as work:
        file = Path(work) / "advisories.tar"
        progress("packing")
        made = _exported(settings, file, name)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made.checked))
        wanted = wanted if wanted.version else replace(wanted, version=moment)
        progress(f"sending {file.stat().st_size} bytes")
        with registry(settings, wanted.hub) as there:
            digest = push_file(there, wanted, file, bundle.ARTIFACT)
    progress.done()
    by = f"signed by {name}" if name else "not signed"
    data = {"reference": str(wanted), "digest": str(digest), "index": str(made.digest), "signer": name}
    emit(data, f"{wanted} {digest}, {by}", as_json=as_json)


@advisories_command.command("pull")
@click.argument("reference")
@click.option("--untrusted", is_flag=True, help="Take it though nobody you know signed it.")
@click.option("--older", is_flag=True, help="Take it though the index that is here is newer.")
@json_option
@click.pass_obj
def _pull(settings: Settings, reference: str, *, untrusted: bool, older: bool, as_json: bool) -> None:
    """Replace the index by that of REFERENCE, without a version the last, if a key of the keyring signed it.

    Example: computeops advisories pull hub.example.org/site/advisories
    """
    from computeops.check.advisories import bundle
    from computeops.cli.store import named, registry
    from computeops.limits import LIMITS
    from computeops.store.single import newest, pull_file

    wanted, progress = named(settings, reference), Progress()
    with tempfile.TemporaryDirectory(prefix="computeops-advisories-") as work:
        file = Path(work) / "advisories.tar"
        with registry(settings, wanted.hub) as there:
            wanted = newest(there, wanted)
            progress(f"fetching {wanted}")
            pull_file(there, wanted, bundle.ARTIFACT, file, limit_bytes=LIMITS.index_bytes)
        progress.done()
        _take(settings, file, str(wanted), untrusted=untrusted, older=older, as_json=as_json)


@advisories_command.command("changelogs")
@click.argument("image", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def _changelogs(image: Path, folder: Path, *, as_json: bool) -> None:
    """Write what the Debian packages of IMAGE say that they repaired as a feed to FOLDER, for `update --from`.

    Where nothing but a Debian mirror can be reached: an image of today tells what is wrong with one of yesterday.

    Example: computeops advisories changelogs samtools-1.16.1.sif feeds
    """
    from computeops.check import inventory
    from computeops.check.advisories import changelog, ecosystem
    from computeops.image import convert

    tree = convert.open_tree(image)
    system = inventory.packages(tree).system
    if system.id != "debian":
        raise UsageError(f"{image} is not of Debian but of {system.title or system.id}")
    count = changelog.write(tree, ecosystem.of_system(system)[0], folder)
    emit(
        {"folder": str(folder), "records": count},
        f"{folder}: {count} versions that repaired something",
        as_json=as_json,
    )
