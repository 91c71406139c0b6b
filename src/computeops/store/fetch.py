"""A release in a registry becomes an image on disk, with its evidence beside it.

Nothing appears under the name that was asked for before it is whole, has the digests by which it was asked for, and has
passed the caller's gate. Until then it lies in a folder beside the target, which the next fetch removes if this one is
killed.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError, UsageError
from computeops.image import convert, oci
from computeops.limits import LIMITS
from computeops.model import Digest, Image, Reference, Signed
from computeops.store.oci import INDEXES, MANIFESTS, Descriptor, Manifest, Registry, files, target
from computeops.store.parallel import Task, together
from computeops.store.publish import PARTS
from computeops.store.release import Release

_SIF_LAYERS = frozenset(
    {oci.SIF_ARTIFACT, "appliciation/vnd.sylabs.sif.layer.tar"}
)  # the second: old ORAS, misspelt so
_INDEX_DEPTH = 4
_MIB = 1024 * 1024
_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]{0,199}")
_PREFIX = ".computeops-pull-"
_STALE_SECONDS = 24 * 3600

Gate = Callable[[Image, Sequence[Signed]], None]
"""Called with the image, not yet under its name, and all evidence about it; raises to refuse it."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference names in a registry, before its content is fetched."""

    manifest: Manifest
    """Of the image, for one architecture."""
    evidence: tuple[Signed, ...]
    sif: Descriptor | None
    """The SIF of this image, if the registry has one."""
    bare: bool = False
    """The manifest is that of the SIF itself, as `apptainer push oras://` makes it."""


def fetch(
    reference: Reference,
    into: Path,
    registry: Registry,
    *,
    gate: Gate = lambda _image, _evidence: None,
    arch: str = "",
    force: bool = False,
    writer: convert.Writer | None = None,
    epoch: int = 0,
    word: Callable[[str], str] = lambda _kind: "evidence",
    progress: Progress = lambda _: None,
) -> Image:
    """Fetch the image that `reference` names to `into`: a .sif file, an .oci layout or a .tar of one.

    A registry's SIF is taken as it is; where there is none, `writer` and `epoch` decide the bytes of one that is made
    from the layers. The evidence is written beside the image as `Release` has it, in files called by the `word` for
    their kind.

    Raises:
        ConflictError: `into` exists and `force` is false.
        NotFoundError: there is no such image, or none for `arch`.
        FormatError, LimitError: the registry sent something else than it promised.
        ComputeOpsError: whatever `gate` raises; nothing has appeared then.
    """
    form = _form(into)
    _require_free(into, force=force)
    found = find(reference, registry, arch=arch, sif=form == ".sif")
    with _folder_beside(into) as folder:
        fetched = made = folder / into.name
        if form != ".sif" or not _fetch_sif(reference.repository, found, made, registry, progress):
            fetched = folder / "layers.oci" if form == ".sif" else made
            _fetch_layout(reference, found.manifest, fetched, registry, progress)
        progress("verifying")
        image = convert.open_image(fetched)
        if image.manifest != Digest.of(found.manifest.body) and not found.bare:
            raise FormatError(f"{reference} is the manifest {found.manifest.digest}, and its image {image.manifest}")
        gate(image, found.evidence)
        about = found.evidence
        if fetched != made:
            progress("converting")
            source, writer = image.id, writer or convert.Writer()
            image = convert.convert(fetched, made, writer=writer, epoch=epoch, tmp=folder)
            about = about if image.id == source else ()  # somebody else's image: ours is a new one, made of it
        _publish(folder, made, into, about, word, force=force)
    return replace(image, path=into)


def find(reference: Reference, registry: Registry, *, arch: str = "", sif: bool = True) -> Found:
    """Return what `reference` names, with all evidence about it, and its SIF if `sif` asks for that.

    Raises:
        NotFoundError: there is no such image, or none for `arch`.
    """
    named = registry.resolve(reference.repository, target(reference))
    manifest = _choose(named, reference, registry, arch, 0)
    if one := _sif_layer(manifest.document):
        return Found(manifest, (), one, bare=True)
    referrers = registry.referrers(reference.repository, manifest.digest)
    sifs = [one for one in referrers if one.artifact_type == oci.SIF_ARTIFACT] if sif else []
    layer = _sif_layer(_referring(reference.repository, sifs[-1], manifest.digest, registry)) if sifs else None
    return Found(manifest, _evidence(reference.repository, referrers, manifest.digest, registry), layer)


def manifest(reference: Reference, registry: Registry, *, arch: str = "") -> Manifest:
    """Return the manifest of the image that `reference` names, and nothing about it.

    Raises:
        NotFoundError: there is no such image, or none for `arch`.
    """
    return _choose(registry.resolve(reference.repository, target(reference)), reference, registry, arch, 0)


def evidence(reference: Reference, registry: Registry, *, arch: str = "") -> list[Signed]:
    """Return all evidence about the image that `reference` names, unverified.

    Raises:
        NotFoundError: there is no such image; FormatError, LimitError: a piece is broken or too large.
    """
    return list(find(reference, registry, arch=arch, sif=False).evidence)


def fetch_release(
    reference: Reference, sif: Path, registry: Registry, *, writer: convert.Writer, epoch: int, arch: str = ""
) -> Reference:
    """Fetch an image to `sif`, and beside it all that it can be built again from; return it by its digest.

    Raises:
        NotFoundError: it is not there, or has no recipe; FormatError: what came is not what was promised.
    """
    found = manifest(reference, registry, arch=arch)
    named = replace(reference, digest=found.digest)
    fetch(named, sif, registry, force=True, writer=writer, epoch=epoch)
    release, wanted = Release.beside(sif), {kind: part for part, kind in PARTS.items()}
    for one in registry.referrers(reference.repository, found.digest):
        if part := wanted.get(one.artifact_type):
            for layer in files(_referring(reference.repository, one, found.digest, registry)):
                if not _FILE_NAME.fullmatch(layer.title):
                    raise FormatError(f"the {part} of {reference} has a file called {layer.title[:200]!r}")
                registry.blob(reference.repository, layer, release.folder / part / layer.title)
    if not release.files("recipe"):
        raise NotFoundError(f"{reference} has no recipe in {registry.base}", hint="it can be run, and not built again")
    return named


def _require_free(into: Path, *, force: bool) -> None:
    if os.path.lexists(into) and not force:
        raise ConflictError(f"{into} exists already", hint="choose another name, or pull again with --force")


def _form(path: Path) -> str:
    """Return the suffix of `path` that says what it shall be."""
    for suffix in (".sif", ".oci", ".tar"):
        if path.name.endswith(suffix) and path.name != suffix:
            return suffix
    raise UsageError(f"cannot tell what {path.name} shall be", hint="end the name with .sif, .oci or .tar")


def _choose(found: Manifest, reference: Reference, registry: Registry, arch: str, depth: int) -> Manifest:
    """Return the image manifest itself, or of an index the one for `arch`."""
    if found.media_type in MANIFESTS:
        return found
    if found.media_type not in INDEXES or depth >= _INDEX_DEPTH:
        raise FormatError(f"{reference} is no image but {found.media_type[:100]!r}, or an index too deep")
    entries = oci.items(found.document, "manifests")
    images = [one for one in entries if one.get("mediaType") in MANIFESTS | INDEXES and _runs(one)]
    fitting = [one for one in images if not arch or _platform(one) in {"", arch}] if len(images) > 1 else images
    exact = [one for one in fitting if arch and _platform(one) == arch] or fitting
    if not exact or (len(exact) > 1 and not arch):
        known = ", ".join(sorted({_platform(one) for one in images} - {"", "unknown"}))
        raise NotFoundError(
            f"{reference} has no one image for architecture {arch or 'any'}; it has: {known or 'none'}",
            hint="choose one with --arch",
        )
    chosen = Digest.parse(str(exact[0].get("digest")))  # the first that fits, as the image-spec says
    return _choose(registry.resolve(reference.repository, str(chosen)), reference, registry, arch, depth + 1)


def _platform(entry: Mapping[str, Any], key: str = "architecture") -> str:
    platform = entry.get("platform")
    return str(platform.get(key, "")) if isinstance(platform, dict) else ""


def _runs(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of an index is an image for Linux; Docker writes `unknown` for what is none."""
    return "artifactType" not in entry and _platform(entry, "os") in {"", "linux"} and _platform(entry) != "unknown"


def _sif_layer(manifest: Mapping[str, Any]) -> Descriptor | None:
    """Return the layer of a manifest that is nothing but one SIF."""
    layers = files(manifest)
    return layers[0] if len(layers) == 1 and layers[0].media_type in _SIF_LAYERS else None


def _referring(repository: str, what: Descriptor, subject: Digest, registry: Registry) -> dict[str, Any]:
    """Return the manifest of a referrer; what a registry lists is believed only if the manifest says the same."""
    document = registry.resolve(repository, str(what.digest)).document
    about = document.get("subject")
    if not isinstance(about, dict) or about.get("digest") != str(subject):
        raise FormatError(f"{registry.base} lists {what.digest} as about {subject}, and it is not")
    return document


def _evidence(
    repository: str, referrers: Sequence[Descriptor], subject: Digest, registry: Registry
) -> tuple[Signed, ...]:
    """Return all evidence about the manifest `subject`."""
    listed = [one for one in referrers if one.artifact_type == oci.EVIDENCE_ARTIFACT]

    lock, total = threading.Lock(), 0

    def task(what: Descriptor) -> Task[Signed]:
        def read(go_on: Callable[[], None]) -> Signed:
            nonlocal total
            go_on()
            layers = files(_referring(repository, what, subject, registry))
            if len(layers) != 1 or layers[0].media_type != oci.ENVELOPE:
                raise FormatError(f"the evidence {what.digest} in {registry.base} is not one envelope")
            (layer,) = layers
            with lock:
                total += layer.size
                if layer.size > LIMITS.evidence_bytes or total > LIMITS.evidence_total_bytes:
                    raise LimitError(f"the evidence about {subject} has more than {total} bytes, which is too much")
            return _signed(registry.read(repository, layer.digest, layer.size), what.digest)

        return read

    return _joined(together([task(what) for what in listed]))


def _joined(envelopes: Sequence[Signed]) -> tuple[Signed, ...]:
    """Return one envelope for each payload, with the signatures of all."""
    found: dict[tuple[str, bytes], Signed] = {}
    for one in envelopes:
        key = one.payload_type, one.payload
        before = found[key].signatures if key in found else ()
        found[key] = replace(one, signatures=tuple(dict.fromkeys((*before, *one.signatures))))
    return tuple(found.values())


def _signed(data: bytes, digest: Digest) -> Signed:
    try:
        return Signed.from_json(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the evidence {digest} is no envelope: {error}") from error


def _fetch_sif(repository: str, found: Found, made: Path, registry: Registry, progress: Progress) -> bool:
    """Fetch the registry's SIF to `made`; return whether there is one that says whose encoding it is.

    One that a hub made of somebody's layers is a new image, about which no evidence says anything: it is better made
    here, of layers that are proven.
    """
    if not found.sif:
        return False
    registry.blob(repository, found.sif, made, _Meter(progress, found.sif.size).part())
    if not found.bare and convert.open_image(made).manifest is None:
        made.unlink()
        return False
    made.chmod(0o755)  # a SIF is a program: its first line names what runs it
    return True


def _fetch_layout(
    reference: Reference, manifest: Manifest, layout: Path, registry: Registry, progress: Progress
) -> None:
    """Fetch config and layers, several at once, into a layout."""
    document = manifest.document
    parts = [Descriptor.read(document.get("config")), *files(document)]
    unique = {part.digest: part for part in parts}
    total = sum(part.size for part in unique.values())
    if total > LIMITS.image_bytes:
        raise LimitError(f"{reference} has {total} bytes; at most {LIMITS.image_bytes} are fetched")
    meter = _Meter(progress, total)
    archive = layout.name.endswith(".tar")
    with oci.LayoutWriter(layout, archive=archive) as writer:

        def task(part: Descriptor) -> Task[None]:
            place = writer.place(part.digest)
            return lambda go_on: registry.blob(reference.repository, part, place, meter.part(go_on))

        together([task(part) for part in unique.values()])
        writer.close(manifest.body, target(reference))


class _Meter:
    """Progress of several downloads at once, as one number."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._lock = threading.Lock()
        self._parts: list[int] = []

    def part(self, go_on: Callable[[], None] = lambda: None) -> Callable[[int, int | None], None]:
        """Return what one of the downloads calls; `go_on` is called every time."""
        with self._lock:
            number = len(self._parts)
            self._parts.append(0)

        def report(done: int, _total: int | None) -> None:
            go_on()
            with self._lock:
                self._parts[number] = done
                self._progress(f"{sum(self._parts) / _MIB:.0f} of {self._total / _MIB:.0f} MiB")

        return report


@contextlib.contextmanager
def _folder_beside(into: Path) -> Iterator[Path]:
    """Give an empty folder beside `into`, gone at the end; what a killed fetch left there is removed first."""
    into.parent.mkdir(parents=True, exist_ok=True)
    own = f"{_PREFIX}{platform.node()}-"
    for left in into.parent.glob(f"{_PREFIX}*"):
        if left.name.startswith(own) or _is_old(left):  # another machine does not see our locks on a shared disk
            _remove_stale(left)
    folder, lock = _locked_folder(into.parent, own)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _is_old(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _STALE_SECONDS
    return False


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # nobody took it for a stale one before it was locked
            return folder, lock
        os.close(lock)


def _remove_stale(folder: Path) -> None:
    """Remove the folder unless a living process holds it."""
    with contextlib.suppress(OSError):  # gone, or another user's
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _publish(
    folder: Path, made: Path, into: Path, found: Sequence[Signed], word: Callable[[str], str], *, force: bool
) -> None:
    """Put evidence and image in their places, the image last.

    What lies beside an image that is replaced goes with it; beside another form of the same release it stays.
    """
    _require_free(into, force=force)  # again: hours may have passed
    beside = Release.beside(into)
    if os.path.lexists(into) and beside.folder.exists():
        beside.folder.replace(folder / "old.release")
    kept = beside.evidence()
    here = {one.payload for one in found}
    for signed in (one for one in _joined([*kept, *found]) if one.payload in here):
        kind = str(oci.document(signed.payload).get("predicateType", ""))
        beside.add_evidence(word(kind), signed)
    if into.is_dir() and not into.is_symlink():
        into.replace(folder / "old")
    made.replace(into)
