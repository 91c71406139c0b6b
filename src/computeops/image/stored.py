"""An image as an OCI layout or a `docker save` archive stores it: its manifest, its config and its layers."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from computeops.errors import FormatError, LimitError, NotFoundError
from computeops.image.merge import Packed
from computeops.image.oci import Layout, document, items
from computeops.limits import LIMITS
from computeops.model import Digest

_Open = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, slots=True)
class Stored:
    """One image of a layout; its layers are checked against their digests while they are read."""

    manifest: bytes
    """As it is stored; empty for the older form of `docker save`, which has none."""
    config: bytes
    layers: tuple[Packed, ...]
    """Lowest first."""

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Digests of the layers' uncompressed tars, as the config lists them."""
        return diff_ids(self.config)


def read(path: Path, arch: str = "") -> Stored:
    """Return the image for `arch`, or the only one, of the layout or archive at `path`.

    Raises:
        FormatError: it is broken; NotFoundError: it has no such image, or several.
    """
    layout = Layout(path)
    if layout.saved_by_docker:
        return _saved(layout)
    manifest = layout.choose(arch)
    fields = document(manifest)
    config = layout.read(_digest(fields.get("config")), LIMITS.config_bytes)
    digests = [_digest(one) for one in items(fields, "layers")]
    return Stored(manifest, config, _layers(layout, config, [_blob(layout, one) for one in digests], hashed=True))


def _blob(layout: Layout, digest: Digest) -> _Open:
    return lambda: layout.blob(digest)


def _file(layout: Layout, name: str) -> _Open:
    return lambda: layout.stream(name)


def _layers(layout: Layout, config: bytes, opened: Sequence[_Open], *, hashed: bool) -> tuple[Packed, ...]:
    known = diff_ids(config)
    if len(known) != len(opened):
        raise FormatError(f"{layout.path}: {len(opened)} layers, but the config lists {len(known)} diff_ids")
    return tuple(Packed(one, diff_id, hashed) for one, diff_id in zip(opened, known, strict=True))


def _saved(layout: Layout) -> Stored:
    """Read the older `docker save` (moby: image/tarexport): manifest.json lists config and layers by file name."""
    try:
        images = json.loads(layout.small("manifest.json"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{layout.path}: manifest.json is not JSON: {error}") from error
    if not isinstance(images, list) or not all(isinstance(one, dict) for one in images):
        raise FormatError(f"{layout.path}: manifest.json is no list of images")
    if len(images) != 1:
        raise NotFoundError(f"{layout.path} holds {len(images)} images", hint="save one image per archive")
    names = images[0].get("Layers")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{layout.path}: manifest.json has no list of layers")
    if len(names) > LIMITS.layers:
        raise LimitError(f"{layout.path}: {len(names)} layers; at most {LIMITS.layers} are read")
    config = layout.small(str(images[0].get("Config")), LIMITS.config_bytes)
    return Stored(b"", config, _layers(layout, config, [_file(layout, name) for name in names], hashed=False))


def _digest(descriptor: Any) -> Digest:
    if not isinstance(descriptor, dict):
        raise FormatError("an image manifest without a descriptor of its config")
    return Digest.parse(str(descriptor.get("digest")))


def diff_ids(config: bytes) -> tuple[Digest, ...]:
    """Return the digests of the uncompressed layers that an image config lists.

    Raises:
        FormatError: it lists none.
    """
    rootfs = document(config).get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(listed, list) or len(listed) > LIMITS.layers:
        raise FormatError("an image config without a list of diff_ids")
    return tuple(Digest.parse(str(one)) for one in listed)
