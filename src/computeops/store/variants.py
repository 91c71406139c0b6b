"""The variants of one version of a release: in a registry the tags `VERSION` and `VERSION-VARIANT`, on disk the files.

A tag or a file is a variant only if its image says so itself, by its label: `1.0-rc1` is a version and no variant.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from computeops.errors import NotFoundError, UsageError
from computeops.image import convert, oci
from computeops.limits import LIMITS
from computeops.model import Digest, Reference
from computeops.store import fetch, listing
from computeops.store.oci import Registry, tag
from computeops.store.parallel import Task, together

LABEL = "org.computeops.variant"
"""Label of an image: which variant of its recipe it is."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of them; its image was not fetched."""

    name: str
    """Empty: the generic one."""
    reference: Reference
    description: oci.Description


def variants(reference: Reference, registry: Registry, *, arch: str) -> tuple[Variant, ...]:
    """Return the variants of the version that `reference` names, by the descriptions of their images alone.

    Raises:
        NotFoundError: there is no such version.
    """
    if reference.digest or not reference.version:
        return (_read(reference, "", registry, arch),)
    version = tag(reference)
    found = [one for one in listing.tags(registry, reference.repository) if one == version or _suffix(one, version)]

    def task(name: str) -> Task[Variant | None]:
        def read(go_on: Callable[[], None]) -> Variant | None:
            go_on()
            try:
                return _read(replace(reference, version=name), _suffix(name, version), registry, arch)
            except NotFoundError:  # made for another architecture
                return None

        return read

    read = [one for one in together([task(name) for name in sorted(found)[: LIMITS.variants]]) if one]
    named = tuple(one for one in read if not one.name or one.description.labels.get(LABEL) == one.name)
    if not named:
        raise NotFoundError(f"there is no release {reference} for {arch}", hint="computeops show lists its versions")
    return named


def _suffix(name: str, version: str) -> str:
    return name.removeprefix(f"{version}-") if name.startswith(f"{version}-") else ""


def _read(reference: Reference, name: str, registry: Registry, arch: str) -> Variant:
    document = fetch.manifest(reference, registry, arch=arch).document
    digest = Digest.parse(str((document.get("config") or {}).get("digest")))
    config = oci.document(registry.read(reference.repository, digest, LIMITS.config_bytes))
    return Variant(name, reference, oci.describe(config))


def on_disk(place: Path) -> dict[str, Path]:
    """Return the variants at `place`: NAME-VERSION without `.sif`, or a folder that has the SIFs of one release.

    {} where `place` is something else.

    Raises:
        UsageError: the folder has several releases; FormatError: an image is broken.
    """
    if place.is_dir():
        found = [(_label(one), one) for one in sorted(place.glob("*.sif"))[: LIMITS.variants]]
        stems = {file.stem.removesuffix(f"-{name}") for name, file in found}
        if len(stems) > 1:
            raise UsageError(f"{place} has several releases: {', '.join(sorted(stems)[:5])}", hint="name one of them")
        return dict(found)
    if place.exists() or not place.name:
        return {}
    near = [one for one in sorted(place.parent.glob("*.sif")) if one.stem.startswith(place.name)]
    named = ((_label(one), one) for one in near[: LIMITS.variants])
    return {name: one for name, one in named if one.stem == "-".join(filter(None, (place.name, name)))}


def _label(file: Path) -> str:
    name = convert.description(file).labels.get(LABEL, "")
    return name if name and file.stem.endswith(f"-{name}") else ""
