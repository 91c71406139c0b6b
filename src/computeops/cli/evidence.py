"""The verbs of evidence: test, rebuild, sbom, sign, verify."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from computeops import pipeline
from computeops.check.kinds import short
from computeops.cli.output import Progress, emit, json_option, table
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, UsageError
from computeops.model import Evidence
from computeops.sign.policy import Verified, narrowed

_FILE = click.argument("file", type=click.Path(path_type=Path, readable=False))
_KEY = click.option("--key", default=None, metavar="NAME", help="Sign with this key; default: the setting `key`.")


@click.command()
@_FILE
@click.option("--recipe", type=click.Path(path_type=Path), help="Take the tests from this recipe, not from the image.")
@_KEY
@json_option
@click.pass_obj
def test_command(settings: Settings, file: Path, recipe: Path | None, key: str | None, *, as_json: bool) -> int:
    """Run the recipe's tests inside the image FILE; the result is written beside it as evidence.

    Exits with 13 if a test failed.

    Example: computeops test samtools-1.16.1.sif
    """
    from computeops import recipe as recipes
    from computeops.image import convert
    from computeops.store.release import Release

    carried = b"" if recipe else convert.carried_recipe(file)
    if not recipe and not carried:
        raise UsageError(f"{file} carries no recipe", hint="name the folder of its recipe with --recipe")
    tests = recipes.load(recipe).tests if recipe else recipes.parse(carried, file=f"{file}: computeops.toml").tests
    progress = Progress()
    progress("reading the image")
    image = convert.prove(convert.open_image(file))  # what is signed must be computed, not believed
    evidence = narrowed(image, pipeline.test(image, tests, settings, progress))
    progress.done()
    pipeline.attest(Release.beside(file), [evidence], settings, settings.key if key is None else key)
    emit(evidence.predicate, test_report(evidence), as_json=as_json)
    return 0 if evidence.passed else CHECK_FAILED


def test_report(evidence: Evidence) -> str:
    """Return what a test result says, for people."""
    passed, failed = (evidence.predicate.get(key, ()) for key in ("passedTests", "failedTests"))
    lines = [f"passed  {name}" for name in passed] + [f"FAILED  {name}" for name in failed]
    for name, tail in _tails(evidence):
        lines += ["", f"{name} printed at its end:", *(f"  {line}" for line in tail.splitlines())]
    return "\n".join(lines)


def _tails(evidence: Evidence) -> Sequence[tuple[str, str]]:
    failed = set(evidence.predicate.get("failedTests", ()))
    details: Sequence[dict[str, Any]] = evidence.predicate.get("computeops_tests", ())
    return [(one["name"], one.get("output", "")) for one in details if one.get("name") in failed]


@click.command()
@click.argument("image")
@_KEY
@click.option("--attach", is_flag=True, help="Send the verdict on a REFERENCE to its hub, for all to see.")
@json_option
@click.pass_obj
def rebuild_command(settings: Settings, image: str, key: str | None, *, attach: bool, as_json: bool) -> int:
    """Build IMAGE again from its own recipe, lock, sources and packages, and compare bit for bit.

    IMAGE is a file with its release beside it, where the verdict is written as evidence, or a reference: then all comes
    from the hub, and nothing from elsewhere. Exits with 13 if the images differ.

    Example: computeops rebuild hub.example.org/bio/samtools:1.21 --key ada --attach
    """
    from computeops import rebuild
    from computeops.cli import store
    from computeops.store.release import Release

    progress, file, signer = Progress(), Path(image), settings.key if key is None else key
    if attach and (file.exists() or not signer):
        raise UsageError(
            "--attach sends a signed verdict on a release of a hub", hint="name its reference, and a key with --key"
        )
    if file.exists():
        evidence = rebuild.release(file, settings, progress)
        pipeline.attest(Release.beside(file), [evidence], settings, signer)
    else:
        wanted = store.named(settings, image)
        with store.registry(settings, wanted.hub) as there:
            evidence = rebuild.published(wanted, there, settings, progress, key=signer, attach=attach)
    progress.done()
    listed: Sequence[dict[str, str]] = evidence.predicate["differences"]
    lines = [f"/{one['path']}: {one['what']}  {one['detail']}" for one in listed]
    lines += ["and more"] if evidence.predicate["more"] else []
    equal = [name for name, same in evidence.predicate["identical"].items() if same]
    lines.append(f"identical: {', '.join(equal)}" if evidence.passed else f"{image} is not what its recipe builds here")
    emit(evidence.predicate, "\n".join(lines), as_json=as_json)
    return 0 if evidence.passed else CHECK_FAILED


@click.command()
@_FILE
@click.option("--format", "form", type=click.Choice(["cyclonedx", "spdx"]), default="cyclonedx", show_default=True)
@click.pass_obj
def sbom_command(settings: Settings, file: Path, form: str) -> None:
    """Print what is inside the image FILE as a JSON document: CycloneDX 1.6 or SPDX 2.3.

    Example: computeops sbom samtools-1.16.1.sif --format spdx > samtools.spdx.json
    """
    from computeops.check import sbom
    from computeops.image import convert

    image = convert.open_image(file)
    found = pipeline.inventory(image)
    write = sbom.spdx if form == "spdx" else sbom.cyclonedx
    click.echo(json.dumps(write(image, found, settings.epoch).predicate, indent=2, ensure_ascii=False))


@click.command()
@_FILE
@_KEY
@click.pass_obj
def sign_command(settings: Settings, file: Path, key: str | None) -> None:
    """Sign the image FILE and the evidence beside it.

    A SIF gets an OpenPGP signature that `apptainer verify` understands; each piece of evidence one more signature in
    its envelope.

    Example: computeops sign samtools-1.16.1.sif --key ada
    """
    name = settings.key if key is None else key
    if not name:
        raise UsageError("no key is named", hint="name one with --key, or make one: computeops key new NAME")
    count = pipeline.sign(file, name, settings)
    click.echo(f"{file}: signed by {name}, with {count} pieces of evidence")


@click.command()
@_FILE
@click.option("--policy", type=click.Path(path_type=Path), help="File of the policy that must hold.")
@json_option
@click.pass_obj
def verify_command(settings: Settings, file: Path, policy: Path | None, *, as_json: bool) -> None:
    """Check the signatures of the image FILE and the evidence beside it, and whether they satisfy the policy.

    Exits with 9 if something does not hold, with 10 if all holds and is not enough.

    Example: computeops verify samtools-1.16.1.sif
    """
    chosen = replace(settings, policy=str(policy)) if policy else settings
    report = pipeline.verify(file, chosen)
    rows = [("signature of the SIF", one.name or "nobody known", one.signer.upper()) for one in report.signatures]
    rows += [(short(one.evidence.kind), _signers(one, report), _verdict(one.evidence)) for one in report.evidence]
    data = {
        "file": str(file),
        "digests": {name: str(digest) for name, digest in report.image.subjects.items()},
        "signatures": [{"name": one.name, "signer": one.signer} for one in report.signatures],
        "evidence": [
            {"kind": one.evidence.kind, "passed": one.evidence.passed, "signers": sorted(one.signers)}
            for one in report.evidence
        ],
    }
    emit(data, f"{table(('what', 'signed by', ''), rows)}\n\n{file} is trusted", as_json=as_json)


def _signers(one: Verified, report: pipeline.Report) -> str:
    names = sorted(report.keys[keyid].name for keyid in one.signers)
    return ", ".join(names) or "nobody known"


def _verdict(evidence: Evidence) -> str:
    return {True: "passed", False: "FAILED", None: ""}[evidence.passed]
