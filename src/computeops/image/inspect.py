"""What an image says about itself and what its file holds, without reading its content or believing a signature."""

import struct
from dataclasses import dataclass
from pathlib import Path

from computeops.errors import FormatError
from computeops.image import oci
from computeops.image.sif import PARTITION, TYPES, Object, Sif, unsigned_digest
from computeops.image.source import Source, open_source
from computeops.model import Digest

_ENTITY = 4  # byte of a signature's extra at which the signer's fingerprint begins


@dataclass(frozen=True, slots=True)
class Part:
    """An object of a SIF, or a layer of an OCI image."""

    id: str
    """Number in the SIF's table, or digest of the layer."""
    kind: str
    """Type as `apptainer sif list` names it, or media type."""
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that `computeops inspect` shows."""

    path: Path
    form: str
    size: int
    """Bytes on disk."""
    description: oci.Description
    id: Digest | None
    """The image ID; None for a SIF that carries none and for a bare root filesystem."""
    manifest: Digest | None
    sif: Digest | None
    """Digest of the SIF without signatures that were appended."""
    ours: bool
    """Whether it says that it was packed by us and so converts without loss."""
    recipe: bool
    parts: tuple[Part, ...] = ()
    signatures: tuple[str, ...] = ()
    """Who signed, as the file says: PGP fingerprints, or `DSSE`. Nothing of it was verified."""
    problem: str = ""
    """Why the root filesystem cannot be read, if so."""


def inspect(path: Path, arch: str = "") -> Facts:
    """Look into the image or root filesystem at `path`.

    Raises:
        FormatError, LimitError: it is broken; NotFoundError: there is none, or none for `arch`.
    """
    source = open_source(path, arch)
    described, problem = _described(source, arch)
    known = source.config if source.form in {"oci", "oci-archive"} or source.ours else b""
    return Facts(
        path,
        source.form,
        _bytes(path),
        described,
        Digest.of(known) if known else None,
        Digest.of(source.manifest) if source.manifest else None,
        unsigned_digest(path) if source.sif else None,
        source.ours,
        bool(source.recipe),
        _objects(source.sif) if source.sif else _layers(source),
        _signers(source.sif) if source.sif else (),
        problem,
    )


def _described(source: Source, arch: str) -> tuple[oci.Description, str]:
    try:
        return source.description(arch), ""
    except FormatError as error:
        if source.sif is None:
            raise
        return oci.Description(source.sif.arch), error.message


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    return sum(one.lstat().st_size for one in files)


def _objects(sif: Sif) -> tuple[Part, ...]:
    return tuple(Part(str(one.id), _kind(one), one.name, one.size) for one in sif.objects)


def _kind(one: Object) -> str:
    return f"{TYPES[one.type]} ({one.filesystem})" if one.type == PARTITION else TYPES[one.type]


def _layers(source: Source) -> tuple[Part, ...]:
    listed = oci.items(oci.document(source.manifest), "layers") if source.manifest else []
    return tuple(
        Part(str(one.get("digest")), str(one.get("mediaType")), "", size if isinstance(size, int) else 0)
        for one in listed
        for size in [one.get("size")]
    )


def _signers(sif: Sif) -> tuple[str, ...]:
    found = []
    for one in sif.signatures:
        fingerprint = struct.unpack_from("<20s", one.extra, _ENTITY)[0]
        found.append(fingerprint.hex().upper() if any(fingerprint) else "DSSE")
    return tuple(found)
