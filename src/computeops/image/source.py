"""Whatever holds a root filesystem, opened: what it is, its tree, and what it says about itself.

Known are a SIF, a bare squashfs, an OCI layout (folder, archive, `docker save`), a folder and a tar with a root
filesystem. Nothing is unpacked; a `Source` is cheap until its tree is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from computeops.errors import FormatError, NotFoundError
from computeops.image import oci, stored
from computeops.image.archive import TarFile
from computeops.image.merge import Merged, Packed
from computeops.image.sif import MAGIC, Sif, named_for
from computeops.image.squashfs_format import MAGIC as SQUASHFS_MAGIC
from computeops.image.squashfs_tree import SquashfsTree
from computeops.image.tree import Directory, Tree, read_files
from computeops.limits import LIMITS
from computeops.model import Digest

OCI_CONFIG, OCI_MANIFEST, RECIPE = "oci-config.json", "oci-manifest.json", "computeops.toml"
"""Names of the objects in a SIF that make it convertible without loss."""
CREATED_BY = oci.CREATED_BY
_SINGULARITY = ".singularity.d"
_LABELS, _RUNSCRIPT, _RUN = f"{_SINGULARITY}/labels.json", f"{_SINGULARITY}/runscript", f"{_SINGULARITY}/actions/run"
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class Source:
    """Something to convert or to look into."""

    path: Path
    form: str
    """sif, squashfs, oci, oci-archive, tree (a folder) or tar."""
    config: bytes = b""
    """The OCI image config that it declares or carries."""
    manifest: bytes = b""
    """The OCI manifest that it declares or carries."""
    recipe: bytes = b""
    sif: Sif | None = None
    layers: tuple[Packed, ...] = field(default=(), repr=False)

    @property
    def ours(self) -> bool:
        """Whether it says that `convert.pack` made it: then its one layer is the normalised content.

        A SIF of ours has the UUID that belongs to its config; Apptainer copies configs, and changes the content.
        """
        if not self.config:
            return False
        if self.sif is not None:
            ours = self.sif.uuid == named_for(str(Digest.of(self.config)))
            return ours and len(stored.diff_ids(self.config)) == 1
        if len(stored.diff_ids(self.config)) != 1:
            return False
        history = oci.document(self.config).get("history")
        first = history[0] if isinstance(history, list) and history else None
        return isinstance(first, dict) and first.get("created_by") == CREATED_BY

    @property
    def created(self) -> int:
        """When the config says the image was made: seconds since 1970.

        Raises:
            FormatError: it does not say.
        """
        text = oci.document(self.config).get("created")
        try:
            seconds = int(datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError as error:
            raise FormatError(f"{self.path}: its config was created at {text!r}, which is no time") from error
        if not 0 <= seconds < 2**32:
            raise FormatError(f"{self.path}: its config was created at {text!r}, which no squashfs can hold")
        return seconds

    def tree(self, tmp: Path | None = None) -> Tree:
        """Return the root filesystem. `tmp`: folder for spooled files, where layers are merged.

        Raises:
            FormatError: it is a SIF whose filesystem cannot be read.
        """
        if self.form in {"oci", "oci-archive"}:
            return Merged(self.layers, tmp=tmp)
        if self.form == "tree":
            return Directory(self.path)
        if self.form == "tar":
            return TarFile(self.path)
        if self.sif is None:
            return SquashfsTree(self.path)
        one = self.sif.partition
        if over := next((part for part in self.sif.objects if part.overlay), None):
            raise FormatError(
                f"{self.path}: object {over.id} is an overlay, whose changes to the root filesystem are not read",
                hint="Apptainer runs it (--engine apptainer), makes a folder with them that can be converted "
                f"(apptainer build --sandbox DIR FILE), or takes them away (apptainer sif del {over.id} FILE)",
            )
        if one.filesystem != "squashfs":
            raise FormatError(
                f"{self.path}: its root filesystem is {one.filesystem}; only squashfs is read",
                hint="make a squashfs of it where it can be opened: apptainer build --sandbox DIR, then convert DIR",
            )
        return SquashfsTree(self.path, one.offset, one.size)

    def has_runtime(self, tree: Tree) -> bool:
        """Whether `tree` already runs under Apptainer as its author wants it."""
        if self.form in {"oci", "oci-archive"}:
            entrypoint = oci.describe(oci.document(self.config)).command
            return bool(entrypoint) and entrypoint[0].startswith(f"/{_SINGULARITY}/")
        return any(entry.path == _RUNSCRIPT for entry, _ in tree.items(_only_singularity))

    def description(self, arch: str = "") -> oci.Description:
        """Return environment, command, labels and so on: from its OCI config, else from `/.singularity.d`.

        `arch`: of what does not say it, as a folder or a tar.

        Raises:
            FormatError: the config is broken, or the filesystem cannot be read.
        """
        if self.form in {"oci", "oci-archive"} or self.ours:
            declared = oci.describe(oci.document(self.config))
            return replace(declared, arch=declared.arch or arch)
        tree = self.tree()
        files = read_files(tree, {_LABELS, _RUNSCRIPT, _RUN}.__contains__, LIMITS.config_bytes, _only_singularity)
        # Apptainer keeps of an image config only the object "config".
        carried = oci.describe({"config": oci.document(self.config)}) if self.config else oci.Description("")
        command = next((f"/{path}" for path in (_RUN, _RUNSCRIPT) if path in files), "")
        return replace(
            carried,
            arch=(self.sif.arch if self.sif else "") or carried.arch or arch,
            command=(command,) if command else (),
            arguments=(),
            labels={**carried.labels, **_labels(files.get(_LABELS, b"{}"))},
        )


def _only_singularity(path: str) -> bool:
    return not path or path == _SINGULARITY or path.startswith(f"{_SINGULARITY}/")


def _labels(data: bytes) -> Mapping[str, str]:
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}  # people edit this file by hand; nothing depends on it
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def open_source(path: Path, arch: str = "") -> Source:
    """Find out what `path` is.

    `arch`: which image of an OCI layout that has several.

    Raises:
        NotFoundError: there is nothing at `path`, or no image for `arch` in it.
        FormatError: it is nothing that we know, or broken.
    """
    if path.is_dir():
        return _layout(path, "oci", arch) if (path / "oci-layout").is_file() else Source(path, "tree")
    if not path.is_file():
        raise NotFoundError(f"there is no image at {path}")
    with path.open("rb") as file:
        head = file.read(512)
    if head[32:42] == MAGIC:
        return _sif(path)
    if head[:4] == SQUASHFS_MAGIC:
        return Source(path, "squashfs")
    if head.startswith(_COMPRESSED):
        raise FormatError(f"{path} is compressed", hint="unpack it first, with gunzip, unzstd, bunzip2 or unxz")
    if head[257:262] != b"ustar":
        raise FormatError(f"{path} is no SIF, no squashfs, no OCI archive and no tar")
    return _layout(path, "oci-archive", arch) if oci.is_archive(path) else Source(path, "tar")


def _layout(path: Path, form: str, arch: str) -> Source:
    found = stored.read(path, arch)
    return Source(path, form, found.config, found.manifest, layers=found.layers)


def _sif(path: Path) -> Source:
    sif = Sif.open(path)
    parts = {name: sif.named(name) for name in (OCI_CONFIG, OCI_MANIFEST, RECIPE)}
    config, manifest, recipe = (sif.read(one) if one else b"" for one in parts.values())
    source = Source(path, "sif", config, manifest, recipe, sif)
    return source if source.ours else replace(source, manifest=b"")
