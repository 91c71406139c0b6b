"""How the image of a job comes to the machines of a site: trusted here, before any queue, then staged once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from computeops.cli import choice
from computeops.cli.launch import Located, locate
from computeops.config import Settings, Site
from computeops.errors import NotFoundError, TrustError, UsageError
from computeops.model import Reference

SHARED, PULL = "shared", "pull"


@dataclass(frozen=True, slots=True)
class Staged:
    """An image, and where the machines that compute find it."""

    path: Path
    """Here: what was trusted."""
    there: str
    """What their `computeops run` is told: a path, or a release with its digest."""
    told: tuple[str, ...] = ()
    """Which variant of a release it is, and why."""


def stage(image: str, site: Site, settings: Settings, environ: Mapping[str, str], *, on: str) -> Staged:
    """Return the image for jobs of scheduler `on` at `site`; a release is pulled, and trusted by that.

    Of a release with several variants the one is taken that fits the machine that the site describes; where it
    describes none, the one that runs everywhere, because nobody knows what the queue will give.

    Raises:
        NotFoundError: there is none, or the site does not have it; TrustError: nobody we know vouches for it.
        UsageError: the site's way of staging is none that is known.
    """
    placed = replace(settings, cache=Path(site.cache).expanduser()) if site.cache else settings
    located = _located(image, site, placed, environ, on)
    path = located.path.absolute()
    if located.release is None or site.image == SHARED:
        return Staged(path, str(path), located.told)
    if site.image == PULL:
        return Staged(path, str(_pinned(located.release, path)), located.told)
    if not site.image.startswith("/"):
        raise UsageError(f"image {site.image!r} of the site is not shared, pull or an absolute path")
    return Staged(path, str(_there(site.image, located.release, path)), located.told)


def _located(image: str, site: Site, settings: Settings, environ: Mapping[str, str], on: str) -> Located:
    if on == "local":
        return locate(image, settings, environ)
    path = Path(image)
    if path.is_file() or (path / "oci-layout").exists():
        return Located(path)
    if path.is_dir() and not any(path.glob("*.sif")):
        return Located(path)
    if site.machine:
        from computeops.host import site as sites

        return choice.locate(image, settings, environ, "auto", sites.load(Path(site.machine).expanduser()))
    return choice.locate(image, settings, environ, "none", choice.unknown_machine())


def _pinned(release: Reference, path: Path) -> Reference:
    from computeops.image import convert

    manifest = convert.open_image(path).manifest
    if manifest is None:
        raise UsageError(f"{path} does not say which OCI image it is", hint="build and push it with computeops")
    return release.at(manifest)


def _there(pattern: str, release: Reference, path: Path) -> Path:
    """Return the site's own copy, which must be the same image.

    Raises:
        NotFoundError: it is not there; TrustError: it is another image.
    """
    from computeops.image import convert

    mine = convert.open_image(path)
    variant = mine.labels.get("org.computeops.variant", "")
    words = {"collection": release.collection, "name": release.name, "version": release.version, "variant": variant}
    try:
        there = Path(pattern.format(**words))
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"image {pattern!r} of the site cannot be filled in: {error}", hint=f"known are {', '.join(words)}"
        ) from error
    if not there.exists():
        raise NotFoundError(f"the site does not have {release} at {there}", hint="ask it to publish the release there")
    if convert.open_image(there).id != mine.id:
        raise TrustError(f"{there} is not the image {release} that was trusted", hint="tell the site's administrators")
    return there
