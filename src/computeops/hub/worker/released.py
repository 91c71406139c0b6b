"""A published release as a worker needs it to rebuild it: its image, its recipe and its sources, by their digests."""

from pathlib import Path

from computeops.config import Settings
from computeops.errors import FormatError
from computeops.image import oci
from computeops.image.convert import Writer
from computeops.limits import LIMITS
from computeops.model import Reference
from computeops.store import fetch as fetching
from computeops.store.oci import Descriptor, Registry
from computeops.store.release import Release

_PARTS = {oci.RECIPE_ARTIFACT: "recipe", oci.SOURCES_ARTIFACT: "sources"}


def fetch(reference: Reference, sif: Path, registry: Registry, settings: Settings) -> None:
    """Fetch the image that `reference` names by its digest to `sif`, and recipe and sources beside it.

    Raises:
        NotFoundError: it is not there; FormatError: what came is not what was asked for.
    """
    writer = Writer(compression=settings.compression, level=settings.level, threads=settings.jobs)
    fetching.fetch(reference, sif, registry, force=True, writer=writer, epoch=settings.epoch)
    release = Release.beside(sif)
    assert reference.digest is not None
    for one in registry.referrers(reference.repository, reference.digest):
        if one.artifact_type in _PARTS:
            body = registry.resolve(reference.repository, str(one.digest)).body
            for layer in oci.items(oci.document(body), "layers"):
                _part(release, _PARTS[one.artifact_type], Descriptor.read(layer), reference, registry)


def _part(release: Release, part: str, what: Descriptor, reference: Reference, registry: Registry) -> None:
    name = what.title
    if not name or "/" in name or name.startswith(".") or not name.isprintable() or len(name) > LIMITS.name_bytes:
        raise FormatError(f"{reference} has a file of the name {name[:80]!r}")
    folder = release.folder / part
    folder.mkdir(parents=True, exist_ok=True)
    registry.blob(reference.repository, what, folder / name)
