"""Questions to the catalogue: lists and searches in pages, versions of a repository, one release with all it has.

Every question is asked by a `Caller`, and answers as if what that caller may not see did not exist.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from computeops.errors import NotFoundError, UsageError
from computeops.hub import contents
from computeops.hub.auth import Caller
from computeops.hub.contents import File
from computeops.hub.db import (
    Database,
    Repository,
    collections,
    evidence,
    manifests,
    recipes,
    releases,
    repositories,
    tags,
    words,
)
from computeops.image.oci import SIF_ARTIFACT, SOURCES_ARTIFACT
from computeops.limits import LIMITS
from computeops.recipe import FILE_NAME

_MAX_TERMS = 12
_MAX_EVIDENCE = 500
_MAX_IMAGES = 200
_CURSOR = re.compile(r"([12])\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of evidence, as it says of itself; its signatures are checked where the image is used."""

    kind: str
    passed: bool | None
    signers: tuple[str, ...]
    digest: str
    """Of the manifest that carries it."""
    blob: str
    """Digest of the DSSE envelope."""
    size: int
    created: int
    words: str
    """What it says, for people."""
    packages: int | None
    """Of an SBOM."""
    fault: str
    """Why it counts for nothing; empty: it is about this image and can be read."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of a release, as lists show it."""

    id: int
    repository: Repository
    tag: str
    target: str
    digest: str
    version: str
    variant: str
    arch: str
    image: str
    size: int
    summary: str
    license: str
    domains: tuple[str, ...]
    created: int
    evidence: tuple[Item, ...] = ()
    """In the order of publication."""
    siblings: tuple["Listed", ...] = ()
    """The other images of the same version, in lists of releases."""

    @property
    def collection(self) -> str:
        """The namespace."""
        return self.repository.name.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The name in its collection."""
        return self.repository.name.rpartition("/")[2]

    @property
    def reference(self) -> str:
        """What people type to get it from this hub."""
        return f"{self.repository.name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    entries: tuple[Listed, ...]
    after: str = ""
    """Ask again with it for the next page; empty: this is the last."""


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


def search(
    database: Database, caller: Caller, query: str = "", *, limit: int = 20, after: str = "", by_version: bool = False
) -> Page:
    """Return what has all words of `query` in its name, collection, version, domains or summary.

    First those with a word in the name, then the others, newest first. `by_version`: one entry for all images of a
    version instead of one for each.

    Raises:
        UsageError: `query`, `limit` or `after` is not what it must be.
    """
    if len(query) > LIMITS.search_chars:
        raise UsageError(f"a search may have {LIMITS.search_chars} characters, not {len(query)}")
    if not 1 <= limit <= LIMITS.page_rows:
        raise UsageError(f"a page has 1 to {LIMITS.page_rows} entries, not {limit}")
    tier, before = _cursor(after)
    matches = expressions(query)
    if matches is None and query.strip():
        return Page(())
    found: list[tuple[int, sa.Row[Any]]] = []
    with database.read() as connection:
        for at in range(tier, 3 if matches else 2):
            select = _select(caller, by_version=by_version).limit(limit + 1 - len(found))
            if matches:
                select = select.join(words, words.c.rowid == releases.c.id).where(_match(matches[at - 1]))
            key = words.c.rowid if matches else releases.c.id
            select = select.where(key < before) if before and at == tier else select
            found += [(at, row) for row in connection.execute(select.order_by(key.desc()))]
            if len(found) > limit:
                break
        entries = _complete(connection, [_listed(row) for _, row in found[:limit]], siblings=by_version)
    last = found[limit - 1] if len(found) > limit else None
    return Page(entries, f"{last[0]}.{last[1].id}" if last else "")


def expressions(query: str) -> tuple[str, str] | None:
    """Return FTS5 expressions of a search: with a word in the name, and the others; None if it has no word.

    A word is given to FTS5 as a quoted string, so nothing in it is syntax; it may be the beginning of a longer one.
    """
    found = [word for word in query.replace("\0", " ").split() if any(char.isalnum() for char in word)][:_MAX_TERMS]
    if not found:
        return None
    quoted = ['"' + word.replace('"', '""') + '"*' for word in found]
    every, named = f"({' AND '.join(quoted)})", f"({{name}} : ({' OR '.join(quoted)}))"
    return f"{every} AND {named}", f"{every} NOT {named}"


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
    _, before = _cursor(after)
    select = _base(by_version=True).where(releases.c.repository == of.id).order_by(releases.c.id.desc())
    select = select.where(releases.c.id < before) if before else select
    with database.read() as connection:
        rows = connection.execute(select.limit(limit + 1)).all()
        entries = _complete(connection, [_listed(row) for row in rows[:limit]], siblings=True)
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
        images = _complete(connection, sorted(_images(connection, of, chosen.version), key=_order))
        return _details(connection, next(one for one in images if one.id == chosen.id), images)


def _images(connection: sa.Connection, of: Repository, wanted: str) -> list[Listed]:
    """Return the images that a version, its tag or another name of it means."""
    alias = (
        sa.select(tags.c.digest)
        .where(tags.c.repository == of.id, tags.c.name == wanted, sa.not_(tags.c.retired))
        .scalar_subquery()
    )
    select = _base().where(releases.c.repository == of.id).order_by(releases.c.id.desc()).limit(_MAX_IMAGES)
    for condition in (sa.or_(releases.c.version == wanted, releases.c.tag == wanted), releases.c.target == alias):
        if rows := connection.execute(select.where(condition)).all():
            return [_listed(row) for row in rows]
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
        tags=tuple(connection.execute(names.order_by(tags.c.name).limit(_MAX_IMAGES)).scalars()),
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


def _cursor(after: str) -> tuple[int, int]:
    if not after:
        return 1, 0
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise UsageError(f"not a place in a list: {after[:40]!r}", hint="take `next` of the page before")
    return int(match[1]), int(match[2])


def _match(expression: str) -> sa.ColumnElement[bool]:
    return sa.literal_column("words").op("MATCH")(sa.bindparam(None, expression, sa.String))


def _select(caller: Caller, *, by_version: bool) -> sa.Select[Any]:
    return _base(by_version=by_version).where(visible(caller))


def _base(*, by_version: bool = False) -> sa.Select[Any]:
    select = (
        sa.select(releases, repositories.c.name.label("repository_name"), collections.c.public)
        .join_from(releases, repositories)
        .join(collections)
    )
    if not by_version:
        return select
    newer = releases.alias("newer")
    same = (newer.c.repository == releases.c.repository) & (newer.c.version == releases.c.version)
    return select.where(~sa.exists().where(same & (newer.c.id > releases.c.id)))


def repositories_of(database: Database, caller: Caller, *, after: str = "", limit: int) -> list[str]:
    """Return the names of the repositories that `caller` may read, at most `limit` of those behind `after`."""
    query = sa.select(repositories.c.name).join_from(repositories, collections).where(visible(caller))
    with database.read() as connection:
        return list(
            connection.scalars(query.where(repositories.c.name > after).order_by(repositories.c.name).limit(limit))
        )


def visible(caller: Caller) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that is `caller.sees`."""
    allowed: list[sa.ColumnElement[bool]] = [collections.c.public]
    for scope in caller.scopes:
        prefix = scope.pattern.removesuffix("*")
        begins = sa.func.substr(repositories.c.name, 1, len(prefix)) == prefix
        allowed.append(begins if scope.pattern.endswith("*") else repositories.c.name == prefix)
    return sa.or_(*allowed)


def _listed(row: sa.Row[Any]) -> Listed:
    return Listed(
        id=row.id,
        repository=Repository(row.repository, row.repository_name, row.public),
        tag=row.tag,
        target=row.target,
        digest=row.digest,
        version=row.version,
        variant=row.variant,
        arch=row.arch,
        image=row.image,
        size=row.size,
        summary=row.summary,
        license=row.license,
        domains=tuple(row.domains),
        created=row.created,
    )


def _complete(connection: sa.Connection, entries: Sequence[Listed], *, siblings: bool = False) -> tuple[Listed, ...]:
    """Return the entries with their evidence, and with the other images of their versions."""
    others: dict[tuple[int, str], list[Listed]] = {}
    if siblings and entries:
        wanted = {(one.repository.id, one.version) for one in entries}
        select = _base().where(_pairs(releases.c.repository, releases.c.version, wanted))
        select = select.order_by(releases.c.id).limit(_MAX_IMAGES * len(wanted))
        for row in connection.execute(select):
            others.setdefault((row.repository, row.version), []).append(_listed(row))
    known = _evidence(connection, entries)
    return tuple(
        replace(
            one,
            evidence=tuple(_items(one, known.get(one.digest, []) + _of_index(one, known))),
            siblings=tuple(other for other in others.get((one.repository.id, one.version), ()) if other.id != one.id),
        )
        for one in entries
    )


def _of_index(one: Listed, known: Mapping[str, list[sa.Row[Any]]]) -> list[sa.Row[Any]]:
    return known.get(one.target, []) if one.target != one.digest else []


def _evidence(connection: sa.Connection, entries: Sequence[Listed]) -> dict[str, list[sa.Row[Any]]]:
    found: dict[str, list[sa.Row[Any]]] = {}
    wanted = {(one.repository.id, digest) for one in entries for digest in (one.digest, one.target)}
    if not wanted:
        return found
    mine = _pairs(evidence.c.repository, evidence.c.subject, wanted)
    # where there is too much to show, what failed is shown: nobody hides it behind hundreds of others
    select = sa.select(evidence).where(mine).order_by(evidence.c.passed.is_not(False), evidence.c.created)
    rows = connection.execute(select.limit(_MAX_EVIDENCE)).all()
    for row in sorted(rows, key=lambda row: (row.created, row.digest)):
        found.setdefault(row.subject, []).append(row)
    return found


def _pairs(first: sa.Column[Any], second: sa.Column[Any], wanted: Iterable[tuple[int, str]]) -> sa.ColumnElement[bool]:
    # not `(first, second) IN ...`, for which SQLite uses no index
    return sa.or_(*((first == one) & (second == other) for one, other in sorted(wanted)))


def _items(release: Listed, rows: Iterable[sa.Row[Any]]) -> Iterable[Item]:
    own = {release.digest, release.target, release.image}
    for row in rows:
        if row.repository != release.repository.id:
            continue
        fault = row.facts.get("fault", "")
        if not fault and own.isdisjoint(row.facts.get("subjects", ())):
            fault = "is about another image"
        yield Item(
            kind=row.kind,
            passed=None if fault else row.passed,
            signers=tuple(row.signers),
            digest=row.digest,
            blob=row.blob,
            size=row.size,
            created=row.created,
            words=row.facts.get("words", ""),
            packages=None if fault else row.facts.get("packages"),
            fault=fault,
        )
