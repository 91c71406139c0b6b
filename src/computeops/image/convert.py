"""The way between the forms: a tree is packed into SIF and OCI in one pass, and each form becomes each other.

What we packed stays what it is: its layer is written again from the content, and when it has the diff_id that the
config names, config and manifest are kept byte for byte. Everything else becomes a new image: the content normalised,
the files that Apptainer needs laid over it, environment, command and labels as the source says them.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from computeops.errors import ConflictError, FormatError, UsageError
from computeops.image import layer, merge, oci, sif, singularity, squashfs
from computeops.image.layer import Layer
from computeops.image.source import OCI_CONFIG, OCI_MANIFEST, RECIPE, Source, open_source
from computeops.image.stored import diff_ids
from computeops.image.tar import write_tar
from computeops.image.tree import Item, Tree, normalised
from computeops.model import Digest, Image

__all__ = [
    "OCI_CONFIG",
    "OCI_MANIFEST",
    "RECIPE",
    "Writer",
    "carried_recipe",
    "convert",
    "description",
    "open_image",
    "open_tree",
    "pack",
    "prove",
]
_BASE = "org.opencontainers.image.base.digest"
_Seal = Callable[[Layer], tuple[bytes, bytes]]
"""Gives config and manifest of the image whose only layer was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """What decides the bytes of an encoding of an image."""

    compression: str = "zstd"
    level: int = 6
    """Of the squashfs in a SIF."""
    threads: int = 0
    """0: one per CPU; does not change the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """Where an image is written; each form appears whole or not at all."""

    sif: Path | None = None
    layout: Path | None = None
    archive: Path | None = None
    arch: str = ""
    recipe: bytes = b""
    name: str = "latest"
    compression: str | None = None
    """Of the layer; None: as the writer's."""


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
        BuildError: the squashfs cannot be compressed so; StorageError: the disk is full.
    """
    if to_sif is None and to_layout is None:
        raise UsageError("nothing to pack into: give a SIF file or an OCI layout")
    targets = _Targets(sif=to_sif, layout=to_layout, arch=description.arch, recipe=recipe, name=name)
    items = normalised(tree, epoch, _runtime(description))
    return _write(items, targets, writer, epoch, _new(description, singularity.RUNSCRIPT, writer, epoch))


def _runtime(description: oci.Description) -> list[Item]:
    return singularity.runtime_files(
        description.command, description.programs, description.env, description.labels, description.arguments
    )


def _new(description: oci.Description, entrypoint: str, writer: Writer, epoch: int) -> _Seal:
    """Return what makes config and manifest of an image that is new."""

    def seal(one: Layer) -> tuple[bytes, bytes]:
        config = oci.config_json(description, [entrypoint], [one.diff_id], epoch)
        return config, oci.manifest_json(config, [one], {oci.WRITER: layer.writer(writer.compression)})

    return seal


def _write(items: Iterable[Item], targets: _Targets, writer: Writer, epoch: int, seal: _Seal) -> Image:
    """Write the tar of `items` once, into every target at the same time."""
    compression = writer.compression if targets.compression is None else targets.compression
    with contextlib.ExitStack() as stack:
        folder = targets.layout or targets.archive
        layout = stack.enter_context(oci.LayoutWriter(folder, archive=bool(targets.archive))) if folder else None
        blob = stack.enter_context(layout.new_blob().open("wb")) if layout else None
        packed = layer.LayerWriter(blob, compression=compression, threads=writer.threads)
        new_sif = stack.enter_context(_beside(targets.sif)) if targets.sif else None
        filesystem = stack.enter_context(_squashfs(new_sif, writer, epoch)) if new_sif else None

        write_tar(filesystem.through(items) if filesystem else items, packed.write)
        one = packed.close()
        config, manifest = seal(one)
        if filesystem and new_sif and targets.sif:
            filesystem.close()
            _finish_sif(new_sif, targets, config, manifest, epoch)
        if layout and blob:
            blob.close()
            layout.name_blob(one.digest)
            layout.add(config)
            layout.close(manifest, targets.name)
        if new_sif and targets.sif:
            new_sif.replace(targets.sif)
    return _image(targets, config, manifest)


def _image(targets: _Targets, config: bytes, manifest: bytes) -> Image:
    digest = sif.unsigned_digest(targets.sif) if targets.sif else None
    path, form = next(
        (path, form)
        for path, form in ((targets.sif, "sif"), (targets.layout, "oci"), (targets.archive, "oci-archive"))
        if path is not None
    )
    labels = oci.describe(oci.document(config)).labels
    known = Digest.of(manifest) if manifest else None
    return Image(path, form, Digest.of(config), known, digest, targets.arch, labels, proven=True)


def _squashfs(path: Path, writer: Writer, epoch: int) -> squashfs.SquashfsWriter:
    return squashfs.SquashfsWriter(
        path,
        offset=sif.PARTITION_OFFSET,
        compression=writer.compression,
        level=writer.level,
        epoch=epoch,
        threads=writer.threads,
    )


def _finish_sif(new: Path, targets: _Targets, config: bytes, manifest: bytes, epoch: int) -> None:
    objects = [sif.New(sif.JSON, OCI_CONFIG, config)]
    objects += [sif.New(sif.JSON, OCI_MANIFEST, manifest)] if manifest else []
    objects += [sif.New(sif.GENERIC, RECIPE, targets.recipe)] if targets.recipe else []
    sif.finish(new, arch=targets.arch, identity=str(Digest.of(config)), epoch=epoch, objects=objects)
    new.chmod(0o755)  # a SIF is a program: its first line names what runs it


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `target`; what is left there at the end is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.parent / f".{target.name}-{secrets.token_hex(8)}"
    try:
        new.touch(0o600, exist_ok=False)  # in here: an interrupt may come at any time
        yield new
    finally:
        new.unlink(missing_ok=True)


def convert(
    source: Path, target: Path, *, writer: Writer, epoch: int, arch: str = "", tmp: Path | None = None
) -> Image:
    """Write the image at `source` into the form that the name of `target` says: .sif, .tar (OCI archive), else layout.

    `source` may also be a bare squashfs, a folder or a tar with a root filesystem. `epoch`: time of the files, where
    the image is not one of ours. `arch`: which of several images, and of what does not say it itself. `tmp`: folder
    for a spool, where several layers are merged.

    Raises:
        FormatError, LimitError: the source is broken, or not what it says.
        NotFoundError: there is none, or none for `arch`; ConflictError: the target is a folder and no layout.
        BuildError, StorageError: it could not be written.
    """
    opened = open_source(source, arch)
    if target.exists() and target.samefile(source):
        raise ConflictError(f"{target} is the image that is to be converted", hint="give the copy another name")
    targets = _targets(target, opened)
    if opened.ours:
        with contextlib.suppress(_NotOursError):
            return _again(opened, targets, writer, tmp)
    described = _need_arch(opened.description(arch), opened)
    return _foreign(opened, described, replace(targets, arch=described.arch), writer, epoch, tmp)


def _targets(target: Path, source: Source) -> _Targets:
    if target.name.endswith(".sif"):
        return _Targets(sif=target, recipe=source.recipe)
    if target.name.endswith(".tar"):
        return _Targets(archive=target)
    return _Targets(layout=target)


def _need_arch(described: oci.Description, source: Source) -> oci.Description:
    if not described.arch:
        raise UsageError(f"{source.path} does not say for which architecture it is", hint="say it: --arch amd64")
    return described


class _NotOursError(Exception):
    """The content is not the one layer that the config names."""


def _again(source: Source, targets: _Targets, writer: Writer, tmp: Path | None) -> Image:
    """Write an image of ours in another form: same content, same config, and the same manifest by the same writer."""
    (expected,) = diff_ids(source.config)
    arch = oci.describe(oci.document(source.config)).arch

    def seal(one: Layer) -> tuple[bytes, bytes]:
        if one.diff_id != expected:
            if source.sif is None:
                raise _NotOursError
            raise FormatError(f"{source.path} says that its content is {expected}, but it is {one.diff_id}")
        if targets.sif or str(one.digest) in _layer_digests(source.manifest):
            return source.config, source.manifest
        return source.config, oci.manifest_json(source.config, [one], {oci.WRITER: layer.writer(writer.compression)})

    # A SIF holds no layer: what the source's manifest says about it stays true and need not be computed.
    without = "" if targets.sif and source.manifest else None
    items = normalised(source.tree(tmp), source.created)
    return _write(items, replace(targets, arch=arch, compression=without), writer, source.created, seal)


def _layer_digests(manifest: bytes) -> set[str]:
    return {str(one.get("digest")) for one in oci.items(oci.document(manifest), "layers")} if manifest else set()


def _foreign(
    source: Source, described: oci.Description, targets: _Targets, writer: Writer, epoch: int, tmp: Path | None
) -> Image:
    """Write something else as a new image of ours."""
    if source.manifest:
        described = replace(described, labels={**described.labels, _BASE: str(Digest.of(source.manifest))})
    tree = source.tree(tmp)
    kept = source.has_runtime(tree)
    entrypoint = described.command[0] if kept and described.command else singularity.RUNSCRIPT
    runtime = _runtime(replace(described, command=() if kept else described.command))
    items = normalised(tree, epoch, runtime, fill=kept)
    if targets.sif is None:
        return _write(items, targets, writer, epoch, _new(described, entrypoint, writer, epoch))

    def seal(one: Layer) -> tuple[bytes, bytes]:
        return oci.config_json(described, [entrypoint], [one.diff_id], epoch), b""

    # Nobody has asked for the OCI form yet: compressing its layer would take as long as all the rest.
    return _write(items, replace(targets, compression=""), writer, epoch, seal)


def open_image(path: Path, arch: str = "") -> Image:
    """Return the image at `path` (SIF, OCI layout or archive) with the digests that it carries.

    A SIF that was not made by us carries none: its id is computed from its content, which is read for that.

    Raises:
        FormatError, LimitError: it is broken; NotFoundError: there is none, or none for `arch`; UsageError: it is a
            folder or a tar with a root filesystem, which has no identity.
    """
    source = open_source(path, arch)
    if source.form in {"tree", "tar", "squashfs"}:
        raise UsageError(f"{path} is a root filesystem, not an image", hint="make one: computeops convert IN OUT.sif")
    described = source.description(arch)
    digest = sif.unsigned_digest(path) if source.sif else None
    known = Digest.of(source.manifest) if source.manifest else None
    computed = source.sif is not None and not source.ours
    config = _config_of(source, described) if computed else source.config
    return Image(path, source.form, Digest.of(config), known, digest, described.arch, described.labels, proven=computed)


def _config_of(source: Source, described: oci.Description) -> bytes:
    """Return a config for a SIF that carries none; it depends on its content and on what it says of itself."""
    assert source.sif is not None
    return oci.config_json(described, described.command, [_diff_id(source)], max(source.sif.created, 0))


def _diff_id(source: Source) -> Digest:
    written = layer.LayerWriter(None, compression="")
    write_tar(source.tree().items(), written.write)
    return written.close().diff_id


def prove(image: Image) -> Image:
    """Read the whole image and return it with its identity computed, not believed.

    Raises:
        FormatError: the content is not what the image says.
    """
    source = open_source(image.path, image.arch)
    found = replace(open_image(image.path, image.arch), proven=True)
    if found.id != image.id:
        raise FormatError(f"{image.path} is {found.id}, not {image.id}")
    if source.sif is None:
        for one in source.layers:
            merge.prove(one)
    elif source.ours:
        (expected,), content = diff_ids(source.config), _diff_id(source)
        if content != expected:
            raise FormatError(f"{image.path} says that its content is {expected}, but it is {content}")
    return found


def open_tree(path: Path, arch: str = "", tmp: Path | None = None) -> Tree:
    """Return the root filesystem in a SIF, a squashfs, an OCI layout or archive, a folder or a tar, in order.

    Raises:
        FormatError, LimitError: it is broken; NotFoundError: there is none, or none for `arch`.
    """
    return open_source(path, arch).tree(tmp)


def description(path: Path, arch: str = "") -> oci.Description:
    """Return environment, command, labels and so on of the image at `path`.

    Raises:
        FormatError, LimitError: it is broken; NotFoundError: there is none, or none for `arch`.
    """
    return open_source(path, arch).description(arch)


def carried_recipe(path: Path) -> bytes:
    """Return the computeops.toml inside a SIF, or nothing.

    Raises:
        FormatError: it is broken; NotFoundError: there is nothing at `path`.
    """
    return open_source(path).recipe
