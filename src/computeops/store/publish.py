"""A release on disk becomes a release in a registry; whoever looks meanwhile sees all of it or nothing.

First the blobs, then the image manifest by its digest, then what refers to it (SIF, recipe, sources, evidence), and the
tag last. Every step may be repeated: what is there already is not sent again, and equal releases give equal manifests.
"""

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeops.errors import ConflictError, FormatError, NetworkError, NotFoundError, UsageError
from computeops.image import convert, oci
from computeops.limits import LIMITS
from computeops.model import Digest, Reference
from computeops.store.oci import Descriptor, Registry, files, tag
from computeops.store.parallel import Task, together
from computeops.store.release import Release
from computeops.store.upload import push_blob

_EMPTY = b"{}"
_EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
_SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
"""What Apptainer's `oras://` writes and looks for."""
_FILE = "application/octet-stream"
PARTS = {"recipe": oci.RECIPE_ARTIFACT, "sources": oci.SOURCES_ARTIFACT, "inputs": oci.INPUTS_ARTIFACT}
"""Parts of a release that are files, each an artifact of this type."""
_TITLE = "org.opencontainers.image.title"
_MIB = 1024 * 1024
_ROUNDS = 5

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Artifact:
    """A manifest that refers to the image, and the blobs that it consists of."""

    body: bytes
    blobs: Mapping[Digest, Path | bytes]


@dataclass(frozen=True, slots=True)
class _Image:
    """The image manifest and its blobs."""

    body: bytes
    digest: Digest
    media_type: str
    blobs: Mapping[Digest, Path | bytes]


def push(
    release: Release,
    reference: Reference,
    registry: Registry,
    *,
    progress: Progress = lambda _: None,
    epoch: int = 0,
    named: bool = True,
) -> Digest:
    """Publish `release` as `reference`, and return the digest of its image manifest.

    `epoch`: the time of files where a SIF without an OCI layout beside it has to be converted. `named`: whether it gets
    its tag; without one, only who knows its digest finds it.

    Raises:
        ConflictError: that version is another image already.
        UsageError: `reference` names no version; NotFoundError: the release has no image.
        FormatError: its parts are not of one image, or a file was changed.
    """
    if not reference.version:
        raise UsageError(f"{reference} names no version", hint=f"write for example {reference.repository}:1.0")
    with contextlib.ExitStack() as stack:
        image = _image(_layout(release, stack, epoch))
        if reference.digest not in {None, image.digest}:
            raise UsageError(f"the image is {image.digest}, not {reference.digest}")
        _check_free(reference, image.digest, registry)
        progress("reading what to publish")
        artifacts = list(_artifacts(release, image))
        blobs = dict(image.blobs)
        for artifact in artifacts:
            blobs |= artifact.blobs
        _push_blobs(registry, reference.repository, blobs, progress)
    repository = reference.repository
    registry.push_manifest(repository, image.body, image.media_type)
    _refer(registry, repository, image.digest, artifacts)
    if named:
        registry.push_manifest(repository, image.body, image.media_type, tag(reference))
        _name_sif(registry, reference, artifacts)
    return image.digest


def attach(release: Release, reference: Reference, registry: Registry) -> None:
    """Add the evidence beside `release` to its image in the registry, which `reference` names by its digest.

    Raises:
        NotFoundError: it is not there.
        UsageError: `reference` has no digest.
    """
    if reference.digest is None:
        raise UsageError(f"{reference} has no digest", hint="write collection/name@sha256:...")
    there = registry.resolve(reference.repository, str(reference.digest))
    subject = {"mediaType": there.media_type, "digest": str(there.digest), "size": len(there.body)}
    artifacts = list(_evidence(release, subject))
    blobs = {digest: data for one in artifacts for digest, data in one.blobs.items()}
    _push_blobs(registry, reference.repository, blobs, lambda _: None)
    _refer(registry, reference.repository, there.digest, artifacts)


def _layout(release: Release, stack: contextlib.ExitStack, epoch: int) -> Path:
    """Return the release's OCI layout, made for the time of the push from its SIF where there is only that."""
    if release.layout.is_dir():
        return release.layout
    if not release.sif.is_file():
        raise NotFoundError(f"there is neither {release.sif} nor {release.layout}", hint="build the image first")
    folder = stack.enter_context(tempfile.TemporaryDirectory(dir=release.sif.parent, prefix=".push-"))
    layout = Path(folder) / "image.oci"
    convert.convert(release.sif, layout, writer=convert.Writer(), epoch=epoch)
    return layout


def _image(path: Path) -> _Image:
    layout = oci.Layout(path)
    body = layout.choose()
    document = oci.document(body)
    parts = [Descriptor.read(document.get("config")), *files(document)]
    blobs: dict[Digest, Path | bytes] = {
        one.digest: path / "blobs" / one.digest.algorithm / one.digest.hex for one in parts
    }
    for digest, file in blobs.items():
        if not isinstance(file, bytes) and not file.is_file():
            raise FormatError(f"{path} lacks the blob {digest}")
    return _Image(body, Digest.of(body), str(document.get("mediaType") or oci.MANIFEST), blobs)


def _check_free(reference: Reference, digest: Digest, registry: Registry) -> None:
    """Say before gigabytes are sent that they would be for nothing."""
    there = registry.digest_of(reference.repository, tag(reference))
    if there not in {None, digest}:
        raise ConflictError(
            f"{reference} is another image already: {there}",
            hint="a released version never changes; release a new version",
        )


def _artifacts(release: Release, image: _Image) -> Iterator[_Artifact]:
    subject = {"mediaType": image.media_type, "digest": str(image.digest), "size": len(image.body)}
    if release.sif.is_file():
        _check_sif(release.sif, image)
        layer = [(release.sif.name, release.sif)]
        yield _artifact(subject, oci.SIF_ARTIFACT, layer, config=_SIF_CONFIG, media_type=oci.SIF_ARTIFACT)
    for part, artifact_type in PARTS.items():
        found = list(release.files(part).items())
        # readers take so many layers of one manifest; the inputs of a build may be more
        for start in range(0, len(found), LIMITS.layers):
            yield _artifact(subject, artifact_type, found[start : start + LIMITS.layers])
    yield from _evidence(release, subject)


def _evidence(release: Release, subject: Mapping[str, Any]) -> Iterator[_Artifact]:
    for (name, path), signed in zip(release.files("evidence").items(), release.evidence(), strict=True):
        statement = oci.document(signed.payload)
        kind = {oci.PREDICATE_TYPE: str(statement.get("predicateType", ""))}
        yield _artifact(subject, oci.EVIDENCE_ARTIFACT, [(name, path)], media_type=oci.ENVELOPE, annotations=kind)


def _check_sif(path: Path, image: _Image) -> None:
    """Refuse a SIF that is another image than the one it is published with."""
    there = convert.open_image(path)
    config = Digest.parse(str(oci.document(image.body)["config"]["digest"]))
    # A SIF that was converted from an image of others carries no manifest: then its config tells.
    if there.id != config or there.manifest not in {None, image.digest}:
        raise FormatError(
            f"{path.name} is the image {there.id}, and the OCI layout beside it {config}",
            hint="build both again, or remove the one that is out of date",
        )


def _artifact(
    subject: Mapping[str, Any],
    artifact_type: str,
    named: Iterable[tuple[str, Path]],
    *,
    config: str = _EMPTY_CONFIG,
    media_type: str = _FILE,
    annotations: Mapping[str, str] | None = None,
) -> _Artifact:
    blobs: dict[Digest, Path | bytes] = {Digest.of(_EMPTY): _EMPTY}
    layers = []
    for name, path in named:
        with path.open("rb") as file:
            digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
        blobs[digest] = path
        layers.append(
            {
                "mediaType": media_type,
                "digest": str(digest),
                "size": path.stat().st_size,
                "annotations": {_TITLE: name, **(annotations or {})},
            }
        )
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": artifact_type,
        "config": oci.descriptor(config, _EMPTY),
        "layers": layers,
        "subject": subject,
        **({"annotations": annotations} if annotations else {}),
    }
    return _Artifact(oci.canonical(document), blobs)


def _push_blobs(registry: Registry, repository: str, blobs: Mapping[Digest, Path | bytes], progress: Progress) -> None:
    """Send what the registry lacks, several at once; the first failure ends it."""
    lock, done = threading.Lock(), 0

    def task(digest: Digest, source: Path | bytes) -> Task[bool]:
        def send(go_on: Callable[[], None]) -> bool:
            def sent(count: int) -> None:
                nonlocal done
                go_on()
                with lock:
                    done += count
                    progress(f"sent {done / _MIB:.0f} MiB")

            return push_blob(registry, repository, digest, source, sent=sent)

        return send

    together([task(digest, source) for digest, source in blobs.items()])


def _refer(registry: Registry, repository: str, subject: Digest, artifacts: Sequence[_Artifact]) -> None:
    """Push what refers to the image, until the registry lists all of it: older ones can forget some under load."""
    for attempt in range(1, _ROUNDS + 1):
        listed = {one.digest for one in registry.referrers(repository, subject)}
        missing = [one for one in artifacts if Digest.of(one.body) not in listed]
        if not missing:
            return
        if attempt > 1:
            registry.session.wait(attempt - 1)
        for one in missing:
            registry.push_manifest(repository, one.body, oci.MANIFEST)
    raise NetworkError(f"{registry.base} does not list all that was pushed to {repository}", hint="run it again")


def _name_sif(registry: Registry, reference: Reference, artifacts: Iterable[_Artifact]) -> None:
    """Give the SIF the tag VERSION.sif for `apptainer pull oras://`, unless the registry does that itself."""
    name = f"{tag(reference)}.sif"
    for artifact in artifacts:
        found = oci.document(artifact.body)
        if found["artifactType"] == oci.SIF_ARTIFACT and registry.digest_of(reference.repository, name) is None:
            registry.push_manifest(reference.repository, artifact.body, oci.MANIFEST, name)
