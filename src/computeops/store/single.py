"""One file in a registry, as an OCI artifact whose tags say when it was made: what is carried from site to site."""

import hashlib
from dataclasses import replace
from pathlib import Path

from computeops.errors import FormatError, LimitError, NotFoundError
from computeops.http.download import Progress
from computeops.image import oci
from computeops.model import Digest, Reference
from computeops.store import listing
from computeops.store.oci import Registry, files, tag, target
from computeops.store.upload import Sent, push_blob

_NOTHING = b"{}"
_NOTHING_TYPE = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"


def push_file(
    registry: Registry, reference: Reference, file: Path, artifact_type: str, *, sent: Sent = lambda _: None
) -> Digest:
    """Store `file` as an artifact of this type under `reference`, and return the digest of its manifest.

    Raises:
        ConflictError: the tag is taken; LoginError, DeniedError: we may not push there; NetworkError: it breaks off.
    """
    with file.open("rb") as opened:
        digest = Digest("sha256", hashlib.file_digest(opened, "sha256").hexdigest())
    layer = {"mediaType": artifact_type, "digest": str(digest), "size": file.stat().st_size}
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": artifact_type,
        "config": oci.descriptor(_NOTHING_TYPE, _NOTHING),
        "layers": [layer | {"annotations": {_TITLE: file.name}}],
    }
    push_blob(registry, reference.repository, Digest.of(_NOTHING), _NOTHING)
    push_blob(registry, reference.repository, digest, file, sent=sent)
    return registry.push_manifest(reference.repository, oci.canonical(document), oci.MANIFEST, tag(reference))


def newest(registry: Registry, reference: Reference) -> Reference:
    """Return `reference` with the last of its repository's tags, where it names none itself.

    Raises:
        NotFoundError: there is none.
    """
    if reference.version or reference.digest:
        return reference
    found = max(listing.tags(registry, reference.repository), default="")
    if not found:
        raise NotFoundError(f"{reference} has no tags", hint="push to it first")
    return replace(reference, version=found)


def pull_file(
    registry: Registry,
    reference: Reference,
    artifact_type: str,
    into: Path,
    *,
    limit_bytes: int,
    progress: Progress | None = None,
) -> Digest:
    """Fetch the one file of an artifact of this type to `into`, whole and checked, and return the manifest's digest.

    Raises:
        NotFoundError: it is not there; FormatError: it is something else; LimitError: it is larger.
    """
    found = registry.resolve(reference.repository, target(reference))
    layers = [one for one in files(found.document) if one.media_type == artifact_type]
    if found.document.get("artifactType") != artifact_type or len(layers) != 1:
        raise FormatError(f"{reference} is no artifact of the type {artifact_type}")
    if layers[0].size > limit_bytes:
        raise LimitError(f"{reference} has {layers[0].size} bytes; at most {limit_bytes} are read")
    registry.blob(reference.repository, layers[0], into, progress)
    return found.digest
