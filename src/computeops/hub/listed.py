"""Releases as lists show them: rows of the catalogue with their evidence and the other images of a version."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from computeops.hub.db import Repository
from computeops.hub.tables import collections, evidence, releases, repositories
from computeops.hub.vulnerabilities.tables import evidence_checks, verdicts

MAX_IMAGES = 200
"""Of one version, as far as they are shown."""
_MAX_EVIDENCE = 500


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
    signature: str = "waiting"
    """What its signatures are worth to the collection: a word of `vulnerabilities.signatures.STATES`."""
    verified: tuple[str, ...] = ()
    """Names of the keys of the collection whose signature holds."""


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
    verdict: str = ""
    """What its known vulnerabilities amount to; empty: nobody asks."""
    counts: tuple[int, ...] = ()
    """Findings that count, by place of the severity."""
    blocked_from: int | None = None
    """From when on its collection keeps it back from readers."""
    why: str = ""
    """What the gate of its collection says."""
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


def rows_of_releases(*, by_version: bool = False) -> sa.Select[Any]:
    """Return the question for rows that `listed` takes; `by_version`: the newest image of each version alone."""
    select = (
        sa.select(
            releases,
            repositories.c.name.label("repository_name"),
            collections.c.public,
            *(verdicts.c[name] for name in ("verdict", "counts", "blocked_from", "why")),
        )
        .join_from(releases, repositories)
        .join(collections)
        .join(
            verdicts,
            (verdicts.c.repository == releases.c.repository) & (verdicts.c.digest == releases.c.digest),
            isouter=True,
        )
    )
    if not by_version:
        return select
    newer = releases.alias("newer")
    same = (newer.c.repository == releases.c.repository) & (newer.c.version == releases.c.version)
    return select.where(~sa.exists().where(same & (newer.c.id > releases.c.id)))


def listed(row: sa.Row[Any]) -> Listed:
    """Return a row as lists show it, without what else is known of it."""
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
        verdict=row.verdict or "",
        counts=tuple(row.counts or ()),
        blocked_from=row.blocked_from,
        why=row.why or "",
    )


def complete(connection: sa.Connection, entries: Sequence[Listed], *, siblings: bool = False) -> tuple[Listed, ...]:
    """Return the entries with their evidence, and with the other images of their versions."""
    others: dict[tuple[int, str], list[Listed]] = {}
    if siblings and entries:
        wanted = {(one.repository.id, one.version) for one in entries}
        select = rows_of_releases().where(_pairs(releases.c.repository, releases.c.version, wanted))
        select = select.order_by(releases.c.id).limit(MAX_IMAGES * len(wanted))
        for row in connection.execute(select):
            others.setdefault((row.repository, row.version), []).append(listed(row))
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
    checked = (evidence_checks.c.repository == evidence.c.repository) & (evidence_checks.c.digest == evidence.c.digest)
    more = evidence_checks.c["state"], evidence_checks.c["keys"].label("names")
    select: sa.Select[Any] = sa.select(evidence, *more).join(evidence_checks, checked, isouter=True).where(mine)
    select = select.order_by(evidence.c.passed.is_not(False), evidence.c.created)
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
            signature=row.state or "waiting",
            verified=tuple(row.names or ()) if row.state == "valid" else (),
        )
