"""The SIF of an image in the hub, for clients that know nothing else: Apptainer's library:// and oras://.

It is the manifest's own layer where a SIF was pushed as such, else the layer of the oldest SIF that refers to the
image: what was published first stays what is served. An index offers one image for each architecture.
"""

from asyncio import to_thread
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.errors import ComputeOpsError, NotFoundError
from computeops.hub.db import Repository
from computeops.hub.making import CONFIG, EMPTY
from computeops.hub.manifests import INDEXES
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.image.sif import Sif
from computeops.model import Digest

SUFFIX = ".sif"
"""Behind a tag: the manifest of the SIF artifact, so that `apptainer pull oras://` gets it."""
_LAYERS = frozenset(
    {oci.SIF_ARTIFACT, "appliciation/vnd.sylabs.sif.layer.tar"}
)  # the second, misspelt, is what old clients push
_DEPTH = 4
_DEFAULT_ARCH = "amd64"


@dataclass(frozen=True, slots=True)
class SifFile:
    """A SIF that the hub holds."""

    digest: Digest
    size: int
    arch: str
    """Empty for data that no machine executes."""
    signed: bool
    fingerprints: tuple[str, ...]
    """Of the keys that signed it, in upper case hex."""


class NoSifError(NotFoundError):
    """The image is there, but no SIF of it."""

    def __init__(self, repository: Repository, image: sa.Row[Any]) -> None:
        super().__init__(f"{repository.name} has no SIF of {image.digest}", hint="pull it with docker://")
        self.image = image


async def find(hub: Hub, repository: Repository, reference: str, arch: str = "") -> sa.Row[Any]:
    """Return the manifest of the SIF artifact behind a tag or digest; the SIF is made if there is none.

    Raises:
        NotFoundError: there is no such tag or digest, or none for `arch`, or a SIF cannot be made of it.
    """
    try:
        return await to_thread(manifest_of, hub, repository, reference, arch)
    except NoSifError as missing:
        return await hub.making.sif(repository, missing.image)


def manifest_of(hub: Hub, repository: Repository, reference: str, arch: str = "") -> sa.Row[Any]:
    """Return the manifest of the SIF artifact behind a tag or digest.

    Raises:
        NotFoundError: there is no such tag or digest, or none for `arch`; NoSifError: there is no SIF of it.
    """
    row = hub.database.manifest(repository, reference)
    if row is None:
        raise NotFoundError(f"no image {repository.name}:{reference}")
    return _resolved(hub, repository, row, arch, 0)


def _resolved(hub: Hub, repository: Repository, row: sa.Row[Any], arch: str, depth: int) -> sa.Row[Any]:
    if row.media_type in INDEXES:
        if depth == _DEPTH or (chosen := _chosen(hub, repository, row, arch or _DEFAULT_ARCH)) is None:
            raise NotFoundError(f"{repository.name} has no image for architecture {arch or _DEFAULT_ARCH} there")
        return _resolved(hub, repository, chosen, arch, depth + 1)
    if layer(row) is not None:
        return row
    for referrer in hub.database.referrers(repository, row.digest):
        if referrer.artifact_type == oci.SIF_ARTIFACT and layer(referrer) is not None:
            return referrer
    raise NoSifError(repository, row)


def _chosen(hub: Hub, repository: Repository, row: sa.Row[Any], arch: str) -> sa.Row[Any] | None:
    entries = [
        one for one in oci.items(oci.document(row.body), "manifests") if "artifactType" not in one or _is_sif(one)
    ]
    for entry in entries:
        platform = entry.get("platform")
        if isinstance(platform, dict) and platform.get("architecture") == arch:
            return hub.database.manifest(repository, str(entry.get("digest")))
    return hub.database.manifest(repository, str(entries[0].get("digest"))) if len(entries) == 1 else None


def _is_sif(entry: dict[str, Any]) -> bool:
    return entry["artifactType"] in {oci.SIF_ARTIFACT, CONFIG}


def layer(row: sa.Row[Any]) -> dict[str, Any] | None:
    """Return the descriptor of the SIF if the manifest `row` is one of a SIF, else None."""
    if row.media_type in INDEXES:
        return None
    listed = oci.items(oci.document(row.body), "layers")
    return listed[0] if len(listed) == 1 and listed[0].get("mediaType") in _LAYERS else None


def file_of(hub: Hub, repository: Repository, row: sa.Row[Any]) -> SifFile:
    """Return the SIF of the manifest that `manifest_of` found."""
    found = layer(row)
    assert found is not None
    return described(hub, repository, Digest.parse(str(found["digest"])))


def described(hub: Hub, repository: Repository, digest: Digest) -> SifFile:
    """Return what the SIF with this digest says of itself.

    Raises:
        NotFoundError: `repository` has no such blob, or it is no SIF.
    """
    size = hub.database.linked(repository, str(digest))
    if size is None:
        raise NotFoundError(f"{repository.name} has no image {digest}")
    try:
        with hub.blobs.head(digest) as path:
            sif = Sif.open(path)
    except ComputeOpsError as error:
        raise NotFoundError(f"{repository.name}: {digest} is no SIF that can be read") from error
    signers = (one.extra[4:24].hex().upper() for one in sif.signatures)
    return SifFile(digest, size, sif.arch, bool(sif.signatures), tuple(dict.fromkeys(signers)))


def manifest(file: SifFile, name: str) -> bytes:
    """Return a manifest for a SIF that was pushed without one, as `apptainer push oras://` would have made it."""
    described_layer = {
        "mediaType": oci.SIF_ARTIFACT,
        "digest": str(file.digest),
        "size": file.size,
        "annotations": {"org.opencontainers.image.title": name},
    }
    config = oci.descriptor(CONFIG, EMPTY)
    return oci.canonical({"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": [described_layer]})
