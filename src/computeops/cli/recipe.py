"""The verbs of a recipe: new, lint, lock, schema, build."""

import json
from pathlib import Path

import click

from computeops import build as builders
from computeops import recipe as recipes
from computeops.cli.output import Progress, emit, json_option
from computeops.config import Settings
from computeops.errors import CHECK_FAILED

_FOLDER = click.argument("folder", type=click.Path(path_type=Path, readable=False), default=".")


@click.command()
@click.argument("name")
@click.option(
    "--builder",
    default="",
    metavar="NAME",
    help="debian, dockerfile, apptainer, python, conda, guix or spack; default: by --from.",
)
@click.option(
    "--from",
    "existing",
    type=click.Path(path_type=Path),
    help="Apptainer.def, Dockerfile, requirements.txt, pyproject.toml, environment.yml, spack.yaml, manifest.scm or "
    "build.sh; with it come the files beside it that it copies.",
)
def new_command(name: str, builder: str, existing: Path | None) -> None:
    """Write the first files of a recipe into the new folder NAME.

    Example: computeops new samtools --from samtools.def
    """
    from computeops.build import scaffold

    folder = Path(name)
    builder = builder or (scaffold.builder_of(existing) if existing else "debian")
    scaffold.write(folder, scaffold.files(folder.name, builder, existing))
    click.echo(f"{folder / recipes.FILE_NAME}: edit it, then: computeops lint {name}; computeops build {name}")


@click.command()
@_FOLDER
@click.option("--reproducible", is_flag=True, help="Exit with 13 if something is not pinned.")
@json_option
def lint_command(folder: Path, *, reproducible: bool, as_json: bool) -> int:
    """Check the recipe in FOLDER: list every problem with its line, or else what is not pinned or not tested.

    Example: computeops lint examples/samtools
    """
    recipe = recipes.load(folder)
    package = recipe.package
    notes = builders.lint(folder, recipe)
    text = "\n".join([f"{package.name} {package.version}: good", *(f"note: {note}" for note in notes)])
    emit({"name": package.name, "version": package.version, "notes": notes}, text, as_json=as_json)
    return CHECK_FAILED if reproducible and builders.unpinned(folder, recipe) else 0


@click.command()
@_FOLDER
@json_option
@click.pass_obj
def lock_command(settings: Settings, folder: Path, *, as_json: bool) -> None:
    """Pin every input of the recipe in FOLDER by digest, in computeops.lock.

    Example: computeops lock examples/samtools
    """
    from computeops import pipeline

    recipe = recipes.load(folder)
    progress = Progress()
    pinned = pipeline.lock(folder, recipe, settings, progress)
    progress.done()
    file = builders.write_lock(folder, pinned)
    emit(pinned.as_json(), f"{file}: {len(pinned.materials)} inputs pinned", as_json=as_json)


@click.command()
def schema_command() -> None:
    """Print the JSON schema of computeops.toml, for editors.

    Example: computeops schema > computeops.schema.json
    """
    click.echo(json.dumps(recipes.schema(), indent=2))


@click.command()
@_FOLDER
@click.option("--variant", default="", help="The variant to build; none: the generic one.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder of what is built.")
@click.option(
    "--key", default=None, metavar="NAME", help="Sign with this key; default: the setting `key`, else nobody."
)
@click.option("--no-test", is_flag=True, help="Do not run the recipe's tests.")
@json_option
@click.pass_obj
def build_command(
    settings: Settings, folder: Path, variant: str, out: Path, key: str | None, *, no_test: bool, as_json: bool
) -> int:
    """Build the recipe in FOLDER into a release: image, recipe, sources and evidence, signed with a key.

    NAME-VERSION.sif is for Apptainer, NAME-VERSION.oci the same image as an OCI layout; NAME-VERSION.release holds the
    rest. Exits with 13 if a test failed: the image is there, and so is the evidence against it.

    Example: computeops build examples/samtools --out built --key ada
    """
    from computeops import pipeline
    from computeops.check.kinds import short
    from computeops.sign.keyring import Keyring

    signer = settings.key if key is None else key
    if signer:
        Keyring(settings.keys).own(signer)  # a missing key is better said before a long build than after it
    progress = Progress()
    product = pipeline.build(folder, variant, out, settings, progress)
    tests = () if no_test else recipes.load(folder).tests
    evidence = (*product.evidence, *pipeline.check(product.image, tests, settings, progress))
    pipeline.attest(product.release, evidence, settings)
    if signer:
        pipeline.sign(product.release.sif, signer, settings)
    progress.done()
    digests = {name: str(digest) for name, digest in product.image.subjects.items()}
    verdicts = {short(one.kind): {True: "passed", False: "FAILED", None: "made"}[one.passed] for one in evidence}
    files = {"sif": product.release.sif, "oci": product.release.layout, "release": product.release.folder}
    lines = [
        *(str(path) for path in files.values()),
        *(f"  {name:12}{digest}" for name, digest in digests.items()),
        *(f"  {name:12}{verdict}{f', signed by {signer}' if signer else ''}" for name, verdict in verdicts.items()),
    ]
    data = {name: str(path) for name, path in files.items()} | {"digests": digests, "evidence": verdicts}
    emit(data, "\n".join(lines), as_json=as_json)
    return CHECK_FAILED if any(one.passed is False for one in evidence) else 0
