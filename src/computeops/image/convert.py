"""The way between the forms: a tree is packed into SIF and OCI in one pass, and each form is opened as a tree."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from computeops.errors import UsageError
from computeops.image import layer, oci, sif, singularity, squashfs
from computeops.image.tar import write_tar
from computeops.image.tree import Tree, normalised
from computeops.model import Digest, Image

OCI_CONFIG, OCI_MANIFEST, RECIPE = "oci-config.json", "oci-manifest.json", "computeops.toml"
"""Names of the objects in a SIF that make it convertible without loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """What decides the bytes of an encoding of an image."""

    compression: str = "zstd"
    level: int = 9
    """Of the squashfs in a SIF."""
    threads: int = 0
    """0: one per CPU; does not change the bytes."""


def pack(
    tree: Tree,
    description: oci.Description,
    *,
    to_sif: Path | None = None,
    to_layout: Path | None = None,
    writer: Writer,
    epoch: int,
    recipe: bytes = b"",
    name: str = "latest",
) -> Image:
    """Pack `tree` into a SIF, an OCI layout, or both in one pass; each appears whole or not at all.

    Raises:
        UsageError: neither form was asked for.
        BuildError, StorageError: sqfstar failed.
    """
    if to_sif is None and to_layout is None:
        raise UsageError("nothing to pack into: give a SIF file or an OCI layout")
    runtime = singularity.runtime_files(description.command, description.programs, description.env, description.labels)
    with contextlib.ExitStack() as stack:
        layout = stack.enter_context(oci.LayoutWriter(to_layout)) if to_layout else None
        blob = stack.enter_context(layout.new_blob().open("wb")) if layout else None
        packed = layer.LayerWriter(blob, compression=writer.compression, threads=writer.threads)
        new_sif = stack.enter_context(_beside(to_sif)) if to_sif else None
        filesystem = stack.enter_context(_sqfstar(new_sif, writer, epoch)) if new_sif else None

        def write(block: bytes) -> None:
            packed.write(block)
            if filesystem:
                filesystem.write(block)

        write_tar(normalised(tree, epoch, runtime), write)
        one = packed.close()
        config = oci.config_json(description, [singularity.RUNSCRIPT], [one.diff_id], epoch)
        manifest = oci.manifest_json(config, [one], {oci.WRITER: layer.writer(writer.compression)})
        if filesystem and new_sif and to_sif:
            filesystem.close()
            _finish_sif(new_sif, to_sif, description.arch, config, manifest, recipe, epoch)
        if layout and blob:
            blob.close()
            layout.name_blob(one.digest)
            layout.add(config)
            layout.close(manifest, name)
    digest = sif.unsigned_digest(to_sif) if to_sif else None
    path, form = (to_sif, "sif") if to_sif else (to_layout, "oci")
    assert path is not None
    labels = description.labels
    return Image(path, form, Digest.of(config), Digest.of(manifest), digest, description.arch, labels, proven=True)


def _sqfstar(path: Path, writer: Writer, epoch: int) -> squashfs.Packing:
    command = squashfs.argv(
        path,
        offset=sif.PARTITION_OFFSET,
        compression=writer.compression,
        level=writer.level,
        epoch=epoch,
        threads=writer.threads,
    )
    return squashfs.Packing(command)


def _finish_sif(new: Path, target: Path, arch: str, config: bytes, manifest: bytes, recipe: bytes, epoch: int) -> None:
    objects = [sif.New(sif.JSON, OCI_CONFIG, config), sif.New(sif.JSON, OCI_MANIFEST, manifest)]
    objects += [sif.New(sif.GENERIC, RECIPE, recipe)] if recipe else []
    sif.finish(new, arch=arch, identity=str(Digest.of(config)), epoch=epoch, objects=objects)
    new.chmod(0o755)  # a SIF is a program: its first line names what runs it
    new.replace(target)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `target`; what is left there at the end is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
