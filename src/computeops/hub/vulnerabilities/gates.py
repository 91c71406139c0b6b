"""Gates: what a collection does about releases with known vulnerabilities: nothing, warn, or refuse them to readers.

Findings that a gate is about keep a release back unless a pass lets them through: for one vulnerability, everywhere or
in one repository, with a reason and until a day. Who maintains the collection can always pull, to look and to mend.
When a pass ends, the gate closes by itself at that second: the time from when on a release is refused is stored.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Finding, Scan, rank
from computeops.errors import ConflictError, DeniedError, NotFoundError, UsageError, did_you_mean
from computeops.hub.auth import Caller
from computeops.hub.db import Database, Repository, upsert
from computeops.hub.facts import clean
from computeops.hub.tables import collections, manifests, parts, repositories
from computeops.hub.vulnerabilities.tables import gates, passes, verdicts
from computeops.image.oci import SIF_ARTIFACT

ACTIONS = ("off", "warn", "block")
LEVELS = tuple(reversed(SEVERITIES))
UNJUDGED = "it is not judged yet"
_MOST = 500
_REASON = 500
_NAMED = 3
_DAY = 86400
_MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Gate:
    """What a collection does about vulnerable releases."""

    action: str = "off"
    """off, warn or block."""
    severity: str = "critical"
    """Findings so severe, or worse."""
    only_fixed: bool = False
    """Only findings that an update repairs."""
    strict: bool = False
    """Whether what could not be judged is kept back too."""
    until: int | None = None
    """Until then everything passes, seconds since 1970."""
    changed_by: str = ""
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """An exception to the gate of a collection."""

    id: int
    vulnerability: str
    repository: str
    """Empty: in every one of the collection."""
    reason: str
    until: int
    added_by: str
    created: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a gate says about a release."""

    blocked_from: int | None = None
    """From when on readers are refused, seconds since 1970; None: they are not."""
    why: str = ""
    """Empty: the gate has nothing to say."""


def decide(gate: Gate, allowed: Sequence[Pass], repository: str, scan: Scan) -> Decision:
    """Return what `gate` says of what `scan` found in a release of `repository`."""
    if gate.action == "off":
        return Decision()
    grave = [one for one in scan.counting if _meant(gate, one)]
    ends = {one: _free_until(one, allowed, repository) for one in grave}
    opaque = gate.strict and bool(scan.gaps or scan.stale)
    if not grave and not opaque:
        return Decision()
    first = min([*ends.values(), *([0] if opaque else [])])
    held = [one for one, end in ends.items() if end == first]
    said = _said(held) if held else "not everything in it could be judged"
    if gate.action == "warn":
        return Decision(None, said)
    return Decision(max(first, gate.until or 0), said)


def _meant(gate: Gate, one: Finding) -> bool:
    return rank(one.severity) >= rank(gate.severity) and (bool(one.fixed) or not gate.only_fixed)


def _free_until(one: Finding, allowed: Sequence[Pass], repository: str) -> int:
    names = {one.id, *one.aliases}
    fitting = [p.until for p in allowed if p.vulnerability in names and p.repository in {"", repository}]
    return max(fitting, default=0)


def _said(grave: Sequence[Finding]) -> str:
    listed = list(dict.fromkeys(f"{one.id} ({one.severity}) in {one.package.name}" for one in grave))
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"{', '.join(listed[:_NAMED])}{more}"


# what maintainers set


def of(database: Database, collection: str) -> Gate:
    """Return the gate of a collection."""
    with database.read() as connection:
        return find(connection, collection)


def find(connection: sa.Connection, collection: str) -> Gate:
    """Return the gate of a collection."""
    row = connection.execute(sa.select(gates).where(gates.c.collection == collection)).first()
    return Gate(**{name: getattr(row, name) for name in Gate.__slots__}) if row else Gate()


def strict(connection: sa.Connection, repository: int) -> bool:
    """Return whether the gate of a repository lets nothing pass that is not judged."""
    query = (
        sa.select(gates.c.until)
        .join_from(repositories, gates, gates.c.collection == repositories.c.collection)
        .where(repositories.c.id == repository, gates.c.action == "block", gates.c.strict)
    )
    row = connection.execute(query).first()
    return row is not None and (row.until or 0) <= time.time()


def put(database: Database, collection: str, gate: Gate) -> None:
    """Let a collection have this gate; its releases are judged again.

    Raises:
        UsageError: a word is wrong; NotFoundError: there is no such collection.
    """
    for word, known in ((gate.action, ACTIONS), (gate.severity, SEVERITIES)):
        if word not in known:
            raise UsageError(f"not {word[:40]!r}{did_you_mean(word, known)}; there are: {', '.join(known)}")
    row = {"collection": collection, **{name: getattr(gate, name) for name in Gate.__slots__}}
    with database.write() as connection:
        _require(connection, collection)
        if gate.action == "off":
            connection.execute(sa.delete(gates).where(gates.c.collection == collection))
        else:
            upsert(connection, gates, row | {"changed": int(time.time())})
        again(connection, collection)


def list_passes(database: Database, collection: str) -> list[Pass]:
    """Return the passes of a collection."""
    with database.read() as connection:
        return find_passes(connection, collection)


def find_passes(connection: sa.Connection, collection: str) -> list[Pass]:
    """Return the passes of a collection, those that have ended too."""
    query = sa.select(*(passes.c[name] for name in Pass.__slots__)).where(passes.c.collection == collection)
    return [Pass(*row) for row in connection.execute(query.order_by(passes.c.id))]


def add_pass(
    database: Database,
    collection: str,
    *,
    vulnerability: str,
    repository: str,
    reason: str,
    until: int,
    added_by: str,
) -> Pass:
    """Let a vulnerability pass until a time.

    Raises:
        UsageError: it has no reason, no end or no name; NotFoundError: there is no such collection.
        ConflictError: there are too many.
    """
    name, why = clean(vulnerability, 80), clean(reason, _REASON)
    now = int(time.time())
    if not name or not why:
        raise UsageError(
            "a pass needs a vulnerability and a reason", hint="for example CVE-2024-0001: it is not called"
        )
    if not now < until <= now + _MAX_DAYS * _DAY:
        raise UsageError("a pass ends on a day to come", hint=f"at most {_MAX_DAYS} days from now")
    if repository and repository.rpartition("/")[0] != collection:
        raise UsageError(f"{repository[:200]} is not in the collection {collection}")
    row = {"collection": collection, "vulnerability": name, "repository": repository, "reason": why, "until": until}
    with database.write() as connection:
        _require(connection, collection)
        count = sa.select(sa.func.count()).where(passes.c.collection == collection)
        if (connection.execute(count).scalar() or 0) >= _MOST:
            raise ConflictError(f"{collection} has {_MOST} passes already", hint="remove those that have ended")
        made = connection.execute(sa.insert(passes).values(**row, added_by=added_by, created=now)).inserted_primary_key
        again(connection, collection)
    assert made is not None
    return next(one for one in list_passes(database, collection) if one.id == made[0])


def remove_pass(database: Database, collection: str, number: int) -> None:
    """Let it pass no longer.

    Raises:
        NotFoundError: the collection has no such pass.
    """
    with database.write() as connection:
        here = (passes.c.id == number) & (passes.c.collection == collection)
        if not connection.execute(sa.delete(passes).where(here)).rowcount:
            raise NotFoundError(f"{collection} has no pass {number}")
        again(connection, collection)


def again(connection: sa.Connection, collection: str) -> None:
    """Let every release of a collection be judged again."""
    mine = sa.select(repositories.c.id).where(repositories.c.collection == collection)
    connection.execute(sa.update(verdicts).where(verdicts.c.repository.in_(mine)).values(pending=True))


def _require(connection: sa.Connection, collection: str) -> None:
    if connection.execute(sa.select(collections.c.name).where(collections.c.name == collection)).first() is None:
        raise NotFoundError(f"no collection {collection[:80]}")


# who pulls


def require_open(database: Database, caller: Caller, repository: Repository, digest: str) -> None:
    """Refuse a reader what the gate of the collection keeps back: manifests, SIF files and layers of such a release.

    Raises:
        DeniedError: so.
    """
    known: Mapping[str, tuple[int, str]] = database.remember(
        ("gate", repository.id), lambda: _kept_back(database, repository.id)
    )
    if digest not in known or known[digest][0] > time.time() or caller.may("delete", repository.name):
        return
    raise DeniedError(
        f"{repository.name} is kept back by its collection: {known[digest][1]}",
        hint="take another version, or ask a maintainer of the collection",
    )


def _kept_back(database: Database, repository: int) -> Mapping[str, tuple[int, str]]:
    """Return everything of releases that are kept back, and of no others: digest to from when, and why."""
    query = sa.select(verdicts.c.digest, verdicts.c.blocked_from, verdicts.c.why)
    with database.read() as connection:
        held = connection.execute(
            query.where(verdicts.c.repository == repository, verdicts.c.blocked_from.is_not(None))
        ).all()
        found = {row.digest: (int(row.blocked_from), str(row.why)) for row in held}
        if found:
            found |= dict(_encodings(connection, repository, found))
            found |= dict(_contents(connection, repository, found))
    return found


def _encodings(connection: sa.Connection, repository: int, held: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the SIF artifacts of images that are kept back."""
    query = sa.select(manifests.c.digest, manifests.c.subject).where(
        manifests.c.repository == repository,
        manifests.c.subject.in_(list(held)),
        manifests.c.artifact_type == SIF_ARTIFACT,
    )
    return [(row.digest, held[row.subject]) for row in connection.execute(query)]


def _contents(connection: sa.Connection, repository: int, held: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the blobs that only manifests which are kept back consist of."""
    mine = parts.c.repository == repository
    inside = connection.execute(sa.select(parts.c.manifest, parts.c.digest).where(mine, parts.c.manifest.in_(held)))
    belongs = {row.digest: row.manifest for row in inside}
    others = sa.select(parts.c.digest).where(mine, parts.c.digest.in_(belongs), parts.c.manifest.not_in(held))
    # an index that lists a manifest is another manifest that consists of it
    free = set(connection.scalars(others)) | set(held)
    return [(digest, held[manifest]) for digest, manifest in belongs.items() if digest not in free]
