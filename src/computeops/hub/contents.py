"""What pushed manifests say, read leniently: images, files, and what a tag means.

A manifest may be anything that a registry accepts. What has an unexpected shape counts as not there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from computeops.errors import ComputeOpsError
from computeops.hub.blobs import Blobs
from computeops.hub.facts import clean
from computeops.image.oci import CONFIG, INDEX, SIF_ARTIFACT
from computeops.limits import LIMITS
from computeops.model import Digest

_INDEXES = {INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"}
_CONFIGS = {CONFIG, "application/vnd.docker.container.image.v1+json"}
_TITLE = "org.opencontainers.image.title"
_DESCRIPTION = "org.opencontainers.image.description"
_LICENSES = "org.opencontainers.image.licenses"
_ARCHITECTURE = "org.opencontainers.image.architecture"
_MAX_CHILDREN = 64
_MAX_SIZE = 2**53
_WORD = 64


@dataclass(frozen=True, slots=True)
class File:
    """One layer of an artifact: a file."""

    name: str
    digest: str
    size: int
    """Bytes, as the manifest says."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a manifest and its config say about an image."""

    arch: str = ""
    image: str = ""
    """Digest of the config: the identity of the image."""
    size: int = 0
    """Bytes to download: config and layers."""
    summary: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a tag says about the image it points to."""

    tag: str
    version: str
    variant: str = ""


def parsed(body: bytes) -> dict[str, Any]:
    """Return a manifest as its JSON object; empty if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def files(body: bytes, limit: int = 256) -> list[File]:
    """Return the layers of an artifact, at most `limit`, named by their titles."""
    return [
        File(clean(text(table(part, "annotations"), _TITLE), 255), digest, _size(part))
        for part in tables(parsed(body), "layers")[:limit]
        if (digest := _digest(part))
    ]


def texts(blobs: Blobs, of: Sequence[File], limit_bytes: int) -> dict[str, str]:
    """Return name and content of the files that are UTF-8 text, as far as all together have `limit_bytes`."""
    found: dict[str, str] = {}
    for file in of:
        try:
            data = blobs.read(Digest.parse(file.digest), limit_bytes)
            found[file.name] = data.decode()
        except (ComputeOpsError, UnicodeDecodeError):
            continue
        limit_bytes -= len(data)
    return found


def children(body: bytes, media_type: str) -> list[str]:
    """Return the digests of the manifests of an index; of anything else none."""
    if media_type not in _INDEXES:
        return []
    listed = tables(parsed(body), "manifests")[:_MAX_CHILDREN]
    return list(dict.fromkeys(digest for part in listed if (digest := _digest(part))))


def is_image(body: bytes) -> bool:
    """Return whether a manifest is an image by itself: nothing that belongs to another, no chart, no attestation."""
    manifest = parsed(body)
    if manifest.get("subject") is not None:
        return False
    if text(table(manifest, "config"), "mediaType") in _CONFIGS:
        return text(manifest, "artifactType") in {"", *_CONFIGS} and not _is_attestation(manifest)
    return any(text(part, "mediaType") == SIF_ARTIFACT for part in tables(manifest, "layers"))


def _is_attestation(manifest: Mapping[str, Any]) -> bool:
    # BuildKit hides provenance in images of the platform unknown/unknown
    return any(text(part, "mediaType") == "application/vnd.in-toto+json" for part in tables(manifest, "layers"))


def describe(blobs: Blobs, body: bytes) -> Described:
    """Return what a manifest and its config say; a config that cannot be read says nothing."""
    manifest = parsed(body)
    config = table(manifest, "config")
    image = _digest(config)
    try:
        data = parsed(blobs.read(Digest.parse(image), LIMITS.config_bytes)) if image else {}
    except ComputeOpsError:
        data = {}
    labels = table(table(data, "config"), "Labels") | table(manifest, "annotations")
    arch = clean(text(data, "architecture"), _WORD) or clean(
        text(labels, "org.opencontainers.image.architecture"), _WORD
    )
    return Described(
        arch=arch,
        image=image,
        size=min(_MAX_SIZE, _size(config) + sum(_size(part) for part in tables(manifest, "layers"))),
        summary=clean(text(labels, _DESCRIPTION), 500),
        license=clean(text(labels, _LICENSES), 200),
    )


def meanings(tags: Sequence[str], version: str, variants: Sequence[str]) -> Iterator[Meaning]:
    """Yield what the tags on one image mean; further names of it, like `latest`, are left out.

    `version` and `variants`: what the recipe says, if there is one.
    """
    named = {version: "", **{f"{version}-{variant}": variant for variant in variants}} if version else {}
    own = [tag for tag in tags if tag in named]
    if own:
        yield from (Meaning(tag, version, named[tag]) for tag in own)
        return
    for tag in tags:
        if tag != "latest" or len(tags) == 1:
            yield Meaning(tag, tag)


def text(found: Mapping[str, Any], key: str) -> str:
    """Return the text under `key`; empty if there is none."""
    value = found.get(key)
    return value if isinstance(value, str) else ""


def table(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`; empty if there is none."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def tables(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects in the list under `key`; empty if there is none."""
    value = found.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _digest(part: Mapping[str, Any]) -> str:
    try:
        return str(Digest.parse(text(part, "digest")))
    except ComputeOpsError:
        return ""


def _size(part: Mapping[str, Any]) -> int:
    value = part.get("size")
    return min(value, _MAX_SIZE) if isinstance(value, int) and value > 0 else 0
