"""Base images: a tag is pinned to the digest of a manifest, and the image kept in the cache by that digest.

A base is named as containers-image names it: `docker://debian:12`, or `oci:`, `oci-archive:` and `docker-archive:` with
a path beside the recipe. In the cache it is a folder in Skopeo's `dir:` form, which keeps every byte of a registry.
"""

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from computeops import proc
from computeops.build.model import Material, Place
from computeops.build.sources import digest_of
from computeops.errors import FormatError, LimitError, NetworkError, RecipeError
from computeops.image import folders
from computeops.limits import LIMITS
from computeops.model import Digest

LOCAL = ("oci", "oci-archive", "docker-archive")
"""Transports of images beside the recipe."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}
_MANIFEST = "manifest.json"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


def pin(reference: str, folder: Path, place: Place) -> Material:
    """Return the base image `reference` pinned to the manifest for this machine.

    Raises:
        RecipeError: it is not an image beside the recipe, or does not fit this machine.
        NetworkError: the registry did not answer, or has no such image.
        MissingProgramError: Skopeo is not installed.
    """
    place.progress(f"pinning {reference}")
    raw = proc.run(["skopeo", "inspect", "--raw", _address(reference, folder)], error=NetworkError).encode()
    if len(raw) > LIMITS.manifest_bytes:
        raise LimitError(f"the manifest of {reference} has {len(raw)} bytes; at most {LIMITS.manifest_bytes} are read")
    manifest = _document(raw, reference)
    digest = Digest.of(raw)
    if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
        digest = _for_this_machine(manifest, reference)
    name = quote(reference.partition(":")[2].lstrip("/."), safe="")
    if len(name) > 255:
        raise RecipeError(f"the name of a base image is too long: {reference}")
    return Material(name, reference, digest, role="base")


def fetch(material: Material, folder: Path, place: Place) -> Path:
    """Return the folder in the cache that has the base image, fetching it if it is missing; every digest is checked.

    Raises:
        NetworkError: the registry did not answer.
        FormatError: what came has another digest.
    """
    store = place.cache / "bases"
    target = store / material.digest.hex
    if target.is_dir() and _faults(target, material.digest) == "":
        return target
    store.mkdir(parents=True, exist_ok=True)
    store.chmod(0o755)
    place.progress(f"fetching {material.uri}")
    with tempfile.TemporaryDirectory(dir=store, prefix=".new-") as scratch:
        new = Path(scratch) / "image"
        if not _assembled(new, material.digest, place.cache / "sources"):
            address = _pinned(_address(material.uri, folder), material.digest)
            proc.run(["skopeo", "copy", "--quiet", "--preserve-digests", address, f"dir:{new}"], error=NetworkError)
        if fault := _faults(new, material.digest):
            hint = "if the new image is right, run `computeops lock` again"
            raise FormatError(f"{material.uri} is not what was pinned: {fault}", hint=hint)
        _readable(new)
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    return target


def kept(material: Material, cache: Path) -> Mapping[str, Path]:
    """Return the parts of a base image in the cache, each by its SHA-256; none if it is not there."""
    image = cache / "bases" / material.digest.hex
    if _faults(image, material.digest):
        return {}
    blobs = {one.hex: image / one.hex for one in _blobs(image / _MANIFEST)}
    return {material.digest.hex: image / _MANIFEST, **blobs}


def _assembled(into: Path, digest: Digest, files: Path) -> bool:
    """Make an image of the parts that a release was archived with; return whether all of them are there."""
    manifest = files / digest.hex
    if not manifest.is_file() or digest_of(manifest) != digest:
        return False
    names = {digest.hex: _MANIFEST, **{one.hex: one.hex for one in _blobs(manifest)}}
    if not all((files / name).is_file() for name in names):
        return False
    for name, here in names.items():
        folders.share(files / name, into / here)
    return True


def moves(uri: str) -> bool:
    """Whether an image is named by a tag, which may be another one tomorrow."""
    return uri.partition(":")[0] == "docker" and "@" not in uri


def local(path: str, folder: Path) -> Path:
    """Return the file or folder of an image beside the recipe.

    Raises:
        RecipeError: it is not there, or not inside the recipe's folder.
    """
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise RecipeError(f"the base image {path} is outside of the recipe's folder", hint="copy it beside the recipe")
    if not target.exists():
        raise RecipeError(f"there is no base image {path} beside the recipe")
    return target


def _address(reference: str, folder: Path) -> str:
    """Return `reference` as Skopeo takes it, local paths made absolute."""
    transport, _, rest = reference.partition(":")
    if transport == "docker" and rest.startswith("//") and len(rest) > 2:
        return reference
    if transport not in LOCAL:
        known = ", ".join(f"{one}:" for one in LOCAL)
        raise RecipeError(f"cannot take a base image from {reference}", hint=f"known are registries, {known}")
    path, colon, tag = rest.partition(":")
    return f"{transport}:{local(path, folder)}{colon}{tag}"


def _pinned(address: str, digest: Digest) -> str:
    """Return the address of a registry with the digest in place of the tag."""
    if not address.startswith("docker://"):
        return address
    name = address.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}@{digest}"


def _for_this_machine(index: dict[str, Any], reference: str) -> Digest:
    arch = ARCHITECTURES.get(platform.machine(), platform.machine())
    known = []
    for one in index.get("manifests", []):
        made_for = one.get("platform", {}) if isinstance(one, dict) else {}
        known.append(str(made_for.get("architecture", "unknown")))
        if made_for.get("architecture") == arch and made_for.get("os", "linux") == "linux":
            return Digest.parse(str(one.get("digest")))
    raise RecipeError(f"{reference} is not made for {arch}", hint=f"it has: {', '.join(sorted(set(known)))}")


def _faults(image: Path, digest: Digest) -> str:
    """Return why the folder `image` is not the image whose manifest has `digest`, or ""."""
    manifest = image / _MANIFEST
    if not manifest.is_file() or digest_of(manifest) != digest:
        return f"its manifest does not have {digest}"
    for wanted in _blobs(manifest):
        blob = image / wanted.hex
        if not blob.is_file() or digest_of(blob) != wanted:
            return f"the blob {wanted} is missing or broken"
    return ""


def _blobs(manifest: Path) -> list[Digest]:
    """Return the digests of config and layers."""
    document = _document(manifest.read_bytes(), manifest.name)
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > LIMITS.layers:
        raise FormatError(f"not the manifest of an image with at most {LIMITS.layers} layers: {manifest}")
    parts = [document.get("config"), *layers]
    return [Digest.parse(str(one.get("digest")) if isinstance(one, dict) else "") for one in parts]


def _document(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the manifest of {name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"the manifest of {name} is not a JSON object")
    return found


def _readable(folder: Path) -> None:
    """Let the box of a build, where everyone is somebody else, read what is in `folder`."""
    folder.chmod(0o755)
    for one in folder.rglob("*"):
        one.chmod(0o755 if one.is_dir() else 0o644)
