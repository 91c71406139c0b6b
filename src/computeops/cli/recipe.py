"""The verbs of a recipe: lint, lock, schema, build."""

import json
from pathlib import Path

import click

from computeops import build as builders
from computeops import recipe as recipes
from computeops.cli.output import Progress, emit, json_option
from computeops.config import Settings

_FOLDER = click.argument("folder", type=click.Path(path_type=Path), default=".")


@click.command()
@_FOLDER
@json_option
def lint_command(folder: Path, *, as_json: bool) -> None:
    """Check the recipe in FOLDER and list every problem with its line.

    Example: computeops lint examples/samtools
    """
    recipe = recipes.load(folder / recipes.FILE_NAME)
    package = recipe.package
    emit({"name": package.name, "version": package.version}, f"{package.name} {package.version}: good", as_json=as_json)


@click.command()
@_FOLDER
@json_option
@click.pass_obj
def lock_command(settings: Settings, folder: Path, *, as_json: bool) -> None:
    """Pin every input of the recipe in FOLDER by digest, in computeops.lock.

    Example: computeops lock examples/samtools
    """
    recipe = recipes.load(folder / recipes.FILE_NAME)
    progress = Progress()
    pinned = builders.lock(
        folder,
        recipe,
        mirror=settings.mirror,
        pypi=settings.pypi,
        cache=settings.cache,
        tmp=settings.tmp,
        progress=progress,
    )
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
@json_option
@click.pass_obj
def build_command(settings: Settings, folder: Path, variant: str, out: Path, *, as_json: bool) -> None:
    """Build the recipe in FOLDER into NAME-VERSION.sif and NAME-VERSION.oci.

    Example: computeops build examples/samtools --out built
    """
    from computeops import pipeline

    progress = Progress()
    output = pipeline.build(folder, variant, out, settings, progress)
    progress.done()
    digests = {name: str(digest) for name, digest in output.image.subjects.items()}
    lines = [str(output.sif), str(output.layout), *(f"  {name:9}{digest}" for name, digest in digests.items())]
    emit({"sif": str(output.sif), "oci": str(output.layout), "digests": digests}, "\n".join(lines), as_json=as_json)
