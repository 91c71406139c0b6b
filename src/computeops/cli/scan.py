"""The verb `scan`: the known vulnerabilities of an image, and whether it is up to date."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from computeops.check import freshness as comparing
from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Scan, Verdict, rank
from computeops.check.inventory import Inventory
from computeops.cli.output import Progress, emit, json_option
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, UsageError
from computeops.model import Digest, Image

if TYPE_CHECKING:
    from computeops.check.scanner import Report

_FORMATS = ("table", "json", "sarif", "cyclonedx", "gitlab", "html", "openvex")
_GATES = tuple(reversed(SEVERITIES))
_LISTED = "packages"
"""Form of what is no image."""
_FILES = click.Path(path_type=Path, exists=True, dir_okay=False)
_INDEX_BYTES = 256 * 1024 * 1024


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--format", "form", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file, and the table to the terminal.")
@click.option(
    "--fail-on", type=click.Choice(_GATES), help="Exit with 13 for a finding so severe, or worse; unknown: for any."
)
@click.option(
    "--accept",
    type=click.Choice([Verdict.STALE.value, Verdict.UNSCANNABLE.value]),
    multiple=True,
    help="Let this verdict pass --fail-on, too.",
)
@click.option(
    "--vex", "vex", type=_FILES, multiple=True, help="OpenVEX, CycloneDX or CSAF: what does not count, and why."
)
@click.option("--ignore", "ignored", type=_FILES, multiple=True, help="TOML file with [[ignore]] tables.")
@click.option("--only-fixed", is_flag=True, help="Do not count what no update repairs.")
@click.option("--all", "everything", is_flag=True, help="Show what is negligible or does not count, too.")
@click.option("--freshness", is_flag=True, help="Compare with the archive of the distribution instead.")
@click.option("--index", "indexes", type=_FILES, multiple=True, help="File Packages of the archive, for --freshness.")
@click.option("--with", "others", multiple=True, metavar="SCANNER", help="Ask grype or trivy too, and compare.")
@click.option(
    "--report", "reports", type=_FILES, multiple=True, help="Compare with this JSON of Grype, Trivy or Clair."
)
@click.option("--key", default="", metavar="NAME", help="Write the result beside FILE as evidence, signed by this key.")
@json_option
@click.pass_obj
def scan_command(
    settings: Settings,
    file: Path,
    form: str,
    output: Path | None,
    fail_on: str | None,
    accept: Sequence[str],
    vex: Sequence[Path],
    ignored: Sequence[Path],
    indexes: Sequence[Path],
    others: Sequence[str],
    reports: Sequence[Path],
    key: str,
    *,
    only_fixed: bool,
    everything: bool,
    freshness: bool,
    as_json: bool,
) -> int:
    """List the known vulnerabilities of the packages in FILE: an image, a root filesystem, or a bill of materials.

    The verdict is clean, vulnerable, stale (nothing found, but the advisories are old) or unscannable (nothing found,
    but not all could be judged). With --fail-on, the last two fail too, unless they are accepted.

    Example: computeops scan samtools-1.16.1.sif --fail-on high
    """
    if freshness:
        return _freshness(settings, file, indexes, as_json=as_json)
    if indexes:
        raise UsageError("--index is for --freshness")
    progress = Progress()
    progress("reading the packages")
    image, found = _examined(file)
    if (key or others) and image.form == _LISTED:
        raise UsageError(f"{file} is no image", hint="evidence is about an image, and other scanners look into one")
    progress("asking the advisories")
    scan = judge(settings, image, found, [*vex, *ignored], only_fixed=only_fixed)
    said = _others(file, others, reports, progress)
    if key:
        _attest(settings, file, image, scan, said, key, progress)
    progress.done()
    if said:
        _compare(scan, said, file, as_json=as_json)
        return CHECK_FAILED if fail_on and fails(scan, fail_on, accept) else 0
    _print(scan, file, image, found, "json" if as_json else form, output, everything=everything)
    return CHECK_FAILED if fail_on and fails(scan, fail_on, accept) else 0


def _examined(file: Path) -> tuple[Image, Inventory]:
    """Return what is at `file` and its packages. What is no image has no identity: the digest of its packages stands.

    Raises:
        FormatError, LimitError: it is broken, or larger than is read.
    """
    from computeops import pipeline
    from computeops.check import inventory
    from computeops.image import convert
    from computeops.image.source import open_source

    if inventory.is_document(file) or open_source(file).form in {"tree", "tar", "squashfs"}:
        found = inventory.of_image(file)
        arch = next((one.arch for one in found.packages if one.kind == "deb" and one.arch != "all"), "")
        return Image(file, _LISTED, Digest.of(repr(found).encode()), arch=arch), found
    image = convert.open_image(file)
    return image, pipeline.inventory(image)


def judge(
    settings: Settings, image: Image, found: Inventory, said: Sequence[Path] = (), *, only_fixed: bool = False
) -> Scan:
    """Return what the advisories of the settings know of the packages `found` in `image`.

    `said` are VEX documents and ignore files.

    Raises:
        NotFoundError: there is no index of advisories.
    """
    from computeops.check import scan as scanning
    from computeops.check import vex
    from computeops.check.advisories.lookup import Index

    statements = [statement for one in said for statement in vex.read(one)]
    now = int(time.time())
    with Index(settings.advisories) as index:
        scan = scanning.scan(image.subjects, found, index, now=now, stale_days=settings.stale_days)
    scan = vex.apply(scan, statements, now=now)
    return scanning.only_fixed(scan) if only_fixed else scan


def fails(scan: Scan, severity: str, accepted: Sequence[str] = ()) -> bool:
    """Return whether a gate that is closed for findings of `severity` and worse is closed for this scan.

    It is closed too where nothing was found because nobody looked: unless that verdict is `accepted`.
    """
    if any(rank(one.severity) >= rank(severity) for one in scan.counting):
        return True
    unknown = {Verdict.UNSCANNABLE: bool(scan.gaps), Verdict.STALE: bool(scan.stale)}
    return any(there and verdict not in accepted for verdict, there in unknown.items())


def _print(
    scan: Scan, file: Path, image: Image, found: Inventory, form: str, output: Path | None, *, everything: bool
) -> None:
    from computeops.check.report import bom, document, gitlab, openvex, page, sarif, table
    from computeops.files import whole_file

    people = table.write(scan, file.name, everything=everything)
    writers: Mapping[str, Callable[[], str]] = {
        "table": lambda: people,
        "json": lambda: document.write(scan, file.name),
        "sarif": lambda: sarif.write(scan, file.name),
        "cyclonedx": lambda: bom.write(scan, image, found),
        "gitlab": lambda: gitlab.write(scan, file.name),
        "html": lambda: page.write(scan, file.name),
        "openvex": lambda: openvex.write(scan, file.name),
    }
    text = writers[form]()
    if output is None:
        click.echo(text)
        return
    with whole_file(output) as target:
        target.write(text.encode(errors="replace") + b"\n")
    click.echo(people)


def _others(file: Path, names: Sequence[str], reports: Sequence[Path], progress: Progress) -> Sequence["Report"]:
    """Return what other scanners say of the image, or have said."""
    if not names and not reports:
        return []
    from computeops.check import scanner
    from computeops.image import convert

    found = [scanner.read(one) for one in reports]
    with tempfile.TemporaryDirectory(prefix="computeops-scan-") as work:
        layout = file
        if names and not (file / "oci-layout").is_file():  # the one form that all of them read
            progress("writing the image as others read it")
            layout = Path(work) / "image.oci"
            convert.convert(file, layout, writer=convert.Writer(compression="gzip", level=1), epoch=0)
        for name in names:
            progress(f"asking {name}")
            found.append(scanner.run(name, layout))
    return found


def _compare(scan: Scan, said: Sequence["Report"], file: Path, *, as_json: bool) -> None:
    from computeops.check.report import comparison

    found = comparison.compare(scan, said)
    emit(comparison.document(found), comparison.text(found, file.name), as_json=as_json)


def _attest(
    settings: Settings,
    file: Path,
    image: Image,
    scan: Scan,
    said: Sequence["Report"],
    key: str,
    progress: Progress,
) -> None:
    """Write the results beside the image, about what was computed from its content."""
    from computeops import pipeline
    from computeops.check.report.evidence import evidence, reported
    from computeops.image import convert
    from computeops.sign.policy import narrowed
    from computeops.store.release import Release

    progress("computing what is signed")
    proven = convert.prove(image)
    made = [evidence(replace(scan, subjects=proven.subjects))]
    made += [reported(one, proven.subjects, scan.time) for one in said]
    pipeline.attest(Release.beside(file), [narrowed(proven, one) for one in made], settings, key)


def _freshness(settings: Settings, file: Path, indexes: Sequence[Path], *, as_json: bool) -> int:
    """Say what an update from the archive would change; 13 if it would change anything."""
    from computeops.http.download import download

    progress = Progress()
    progress("reading the packages")
    image, found = _examined(file)
    with tempfile.TemporaryDirectory(prefix="computeops-index-") as work:
        files = list(indexes)
        for url in () if indexes else comparing.addresses(found.system, image.arch, settings.mirror):
            progress(f"fetching {url}")
            files.append(Path(work) / url.partition("/dists/")[2].replace("/", "-"))
            download(url, files[-1], limit_bytes=_INDEX_BYTES)
        progress("comparing")
        result = comparing.compare(found, files)
    progress.done()
    emit(comparing.document(result), comparing.text(result, file.name), as_json=as_json)
    return 0 if result.fresh else CHECK_FAILED
