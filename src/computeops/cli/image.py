"""The verbs of an image file: convert, inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from computeops.cli.output import dry_run_option, emit, json_option, table
from computeops.config import Settings
from computeops.errors import ConflictError, NotFoundError

if TYPE_CHECKING:  # inspect and convert load what they need themselves
    from computeops.image.inspect import Facts
    from computeops.model import Image

_ARCH = click.option("--arch", default="", metavar="ARCH", help="amd64, arm64, arm/v7 ...: which of several images.")
_FORMS = {".sif": "sif", ".tar": "oci-archive"}


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, readable=False))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path, readable=False))
@_ARCH
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@dry_run_option
@json_option
@click.pass_obj
def convert_command(
    settings: Settings, source: Path, target: Path, arch: str, *, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Convert the image IN into OUT: NAME.sif, NAME.tar (an OCI archive), or a folder (an OCI layout).

    IN may be a SIF, an OCI layout or archive, what `docker save` wrote, a squashfs, or a folder or tar with a root
    filesystem. An image made by computeops keeps its image ID and, with the same compressor, its manifest digest.

    Example: computeops convert samtools.sif samtools.tar && podman load -i samtools.tar
    """
    from computeops.image import convert
    from computeops.pipeline import architecture

    described = convert.description(source, arch or architecture())
    if arch and described.arch != arch.partition("/")[0]:
        raise NotFoundError(f"{source} is for {described.arch}, not for {arch}")
    if target.exists() and not force:
        raise ConflictError(f"{target} exists", hint="replace it with --force, or choose another name")
    form = _FORMS.get(target.suffix, "oci")
    if dry_run:
        plan = {"from": str(source), "to": str(target), "form": form, "arch": described.arch}
        emit(plan, f"would write {target} ({form}, {described.arch}) from {source}", as_json=as_json)
        return
    settings.tmp.mkdir(parents=True, exist_ok=True)
    image = convert.convert(
        source,
        target,
        writer=convert.Writer(compression=settings.compression, level=settings.level, threads=settings.jobs),
        epoch=settings.epoch,
        arch=arch or architecture(),
        tmp=settings.tmp,
    )
    emit(_written(image), "\n".join([str(target), *_digests(image)]), as_json=as_json)


def _written(image: "Image") -> dict[str, Any]:
    digests = {name: str(digest) for name, digest in image.subjects.items()}
    return {"path": str(image.path), "form": image.form, "arch": image.arch, "digests": digests}


def _digests(image: "Image") -> list[str]:
    return [f"  {name:<10}{digest}" for name, digest in image.subjects.items()]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@_ARCH
@json_option
def inspect_command(file: Path, arch: str, *, as_json: bool) -> None:
    """Show what the image FILE is and holds: digests, labels, command, objects, signatures (not verified).

    Example: computeops inspect samtools.sif
    """
    from computeops.image.inspect import inspect
    from computeops.pipeline import architecture

    facts = inspect(file, arch or architecture())
    emit(_as_json(facts), _as_text(facts), as_json=as_json)


def _as_json(facts: "Facts") -> dict[str, Any]:
    said = facts.description
    return {
        "path": str(facts.path),
        "form": facts.form,
        "size": facts.size,
        "arch": said.arch,
        "digests": {name: str(digest) for name, digest in _known(facts).items()},
        "lossless": facts.ours,
        "command": [*said.command],
        "arguments": [*said.arguments],
        "env": dict(said.env),
        "working_dir": said.working_dir,
        "labels": dict(said.labels),
        "recipe": facts.recipe,
        "parts": [{"id": one.id, "kind": one.kind, "name": one.name, "size": one.size} for one in facts.parts],
        "signatures": [*facts.signatures],
        "verified": False,
        "problem": facts.problem,
    }


def _known(facts: "Facts") -> dict[str, Any]:
    named = {"image": facts.id, "manifest": facts.manifest, "sif": facts.sif}
    return {name: digest for name, digest in named.items() if digest is not None}


def _as_text(facts: "Facts") -> str:
    said = facts.description
    rows = [("form", facts.form), ("size", f"{facts.size:,} bytes"), ("arch", said.arch or "unknown")]
    rows += [(name, str(digest)) for name, digest in _known(facts).items()]
    rows += [("made by", "computeops: converts without loss")] if facts.ours else []
    rows += [("command", " ".join((*said.command, *said.arguments)))] if said.command or said.arguments else []
    rows += [("folder", said.working_dir)] if said.working_dir else []
    rows += [("env", f"{name}={value}") for name, value in sorted(said.env.items())]
    rows += [("label", f"{name}: {value}") for name, value in sorted(said.labels.items())]
    rows += [("recipe", "yes")] if facts.recipe else []
    rows += [("signature", f"{signer} (not verified)") for signer in facts.signatures]
    rows += [("problem", facts.problem)] if facts.problem else []
    lines = [str(facts.path), *(f"  {name:<11}{_printable(value)}" for name, value in rows)]
    parts = [[one.id, _printable(one.kind), f"{one.size:,}", _printable(one.name)] for one in facts.parts]
    return "\n".join([*lines, "", table(("part", "kind", "bytes", "name"), parts)] if parts else lines)


def _printable(text: str) -> str:
    """Return `text` without what could steer a terminal: it comes from the image."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
