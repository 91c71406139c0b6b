"""One repository: its versions, and one release with all that is known of it.

Who may not see a repository gets the same answer as if it did not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.errors import NotFoundError
from computeops.hub import contents
from computeops.hub.auth import Caller
from computeops.hub.contents import File
from computeops.hub.db import Database, Repository
from computeops.hub.listed import MAX_IMAGES, Listed, Page, complete, listed, rows_of_releases
from computeops.hub.search import cursor
from computeops.hub.tables import manifests, recipes, releases, tags
from computeops.image.oci import SIF_ARTIFACT, SOURCES_ARTIFACT
from computeops.limits import LIMITS
from computeops.recipe import FILE_NAME


@dataclass(frozen=True, slots=True)
class Details:
    """All that is known of one image of a release."""

    release: Listed
    images: tuple[Listed, ...]
    """All images of this version, this one too."""
    about: Mapping[str, Any]
    """The tables of computeops.toml; empty without a recipe or with a broken one."""
    fault: str
    """What is wrong with the recipe."""
    recipe: tuple[File, ...]
    sources: tuple[File, ...]
    sif: File | None
    tags: tuple[str, ...]
    """All names of the manifest or index, `latest` too."""


def repository(database: Database, caller: Caller, name: str) -> Repository:
    """Return the repository `name`.

    Raises:
        NotFoundError: there is none, or the caller may not see it: the same words for both.
    """
    found = database.repository(name) if len(name) <= 255 else None
    if found is None or not caller.sees(found):
        raise NotFoundError(f"no release {name[:255]}", hint="search for it; a private one needs a token")
    return found


def versions(database: Database, of: Repository, *, limit: int = 50, after: str = "") -> Page:
    """Return the versions of a repository, newest first.

    Raises:
        UsageError: `after` is not what it must be.
    """
    _, before = cursor(after)
    select = rows_of_releases(by_version=True).where(releases.c.repository == of.id).order_by(releases.c.id.desc())
    select = select.where(releases.c.id < before) if before else select
    with database.read() as connection:
        rows = connection.execute(select.limit(limit + 1)).all()
        entries = complete(connection, [listed(row) for row in rows[:limit]], siblings=True)
    return Page(entries, f"1.{rows[limit - 1].id}" if len(rows) > limit else "")


def details(database: Database, of: Repository, wanted: str = "", *, arch: str = "") -> Details:
    """Return the image that `wanted`, a version or a tag, means: of `arch`, else amd64, else any; empty: the newest.

    Raises:
        NotFoundError: there is none.
    """
    with database.read() as connection:
        found = _images(connection, of, wanted or _newest(connection, of))
        if not found:
            raise NotFoundError(f"no release {of.name}:{wanted[:128]}", hint=f"/{of.name} lists its versions")
        chosen = min(found, key=lambda one: (one.tag != wanted, one.variant, one.arch != arch, _order(one)))
        images = complete(connection, sorted(_images(connection, of, chosen.version), key=_order))
        return _details(connection, next(one for one in images if one.id == chosen.id), images)


def _images(connection: sa.Connection, of: Repository, wanted: str) -> list[Listed]:
    """Return the images that a version, its tag or another name of it means."""
    alias = (
        sa.select(tags.c.digest)
        .where(tags.c.repository == of.id, tags.c.name == wanted, sa.not_(tags.c.retired))
        .scalar_subquery()
    )
    select = rows_of_releases().where(releases.c.repository == of.id).order_by(releases.c.id.desc()).limit(MAX_IMAGES)
    for condition in (sa.or_(releases.c.version == wanted, releases.c.tag == wanted), releases.c.target == alias):
        if rows := connection.execute(select.where(condition)).all():
            return [listed(row) for row in rows]
    return []


def _order(one: Listed) -> tuple[str, bool, str]:
    return one.variant, one.arch != "amd64", one.arch


def _newest(connection: sa.Connection, of: Repository) -> str:
    newest = sa.select(releases.c.version).where(releases.c.repository == of.id).order_by(releases.c.id.desc())
    return connection.execute(newest.limit(1)).scalar() or ""


def _details(connection: sa.Connection, release: Listed, images: tuple[Listed, ...]) -> Details:
    subjects = [release.digest, release.target]
    mine = recipes.c.repository == release.repository.id, recipes.c.subject.in_(subjects)
    found = {row.subject: row for row in connection.execute(sa.select(recipes).where(*mine))}
    recipe = found.get(release.digest) or found.get(release.target)
    names = sa.select(tags.c.name).where(
        tags.c.repository == release.repository.id, tags.c.digest == release.target, sa.not_(tags.c.retired)
    )
    sif = _files(connection, release, SIF_ARTIFACT, 1)
    return Details(
        release=release,
        images=images,
        about=recipe.about if recipe else {},
        fault=recipe.fault if recipe else "",
        recipe=tuple(sorted((File(**file) for file in recipe.files), key=_reading_order)) if recipe else (),
        sources=tuple(_files(connection, release, SOURCES_ARTIFACT, LIMITS.layers)),
        sif=sif[0] if sif else None,
        tags=tuple(connection.execute(names.order_by(tags.c.name).limit(MAX_IMAGES)).scalars()),
    )


def _reading_order(file: File) -> tuple[bool, bool, str]:
    return file.name != FILE_NAME, file.name.endswith(".lock"), file.name


def _files(connection: sa.Connection, release: Listed, artifact_type: str, limit: int) -> list[File]:
    """Return the files of the first artifact of this type that refers to the image."""
    query = (
        sa.select(manifests.c.body)
        .where(
            manifests.c.repository == release.repository.id,
            manifests.c.subject.in_([release.digest, release.target]),
            manifests.c.artifact_type == artifact_type,
        )
        .order_by(manifests.c.created, manifests.c.digest)
        .limit(1)
    )
    body = connection.execute(query).scalar()
    return contents.files(body, limit) if body else []
