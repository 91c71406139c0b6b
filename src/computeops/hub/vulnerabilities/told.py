"""Who is told of findings: webhooks, feeds, subscribers; and who builds, of releases that another build would repair.

`told` of a verdict is the last finding that was known when its release was judged: what came later is new.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.check.findings import Finding
from computeops.errors import NotFoundError
from computeops.hub import roles, webhooks
from computeops.hub.auth import Caller
from computeops.hub.db import Database
from computeops.hub.tables import collections, recipes, repositories
from computeops.hub.tables import releases as release_rows
from computeops.hub.vulnerabilities.matching import finding
from computeops.hub.vulnerabilities.tables import (
    events,
    findings,
    inventories,
    packages,
    rebuild_requests,
    subscriptions,
    uses,
)

FOUND, REBUILD = "vulnerability.found", "rebuild.wanted"
_MOST_FINDINGS = 50
_MOST_TAGS = 50
_REPAIRED = frozenset({"deb", "rpm", "apk"})
_KEPT_SECONDS = 400 * 86400


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the releases of a repository."""

    id: int
    at: int
    collection: str
    repository: str
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """A release that another build would repair."""

    id: int
    collection: str
    repository: str
    tag: str
    digest: str
    reason: Mapping[str, Any]
    """`findings`: id, severity, package, version, fixed."""
    created: int
    taken: int | None


def releases(connection: sa.Connection, judged: Sequence[sa.Row[Any]], *, now: int) -> None:
    """Tell of what is new in the releases that were just judged."""
    by_repository: dict[int, list[sa.Row[Any]]] = {}
    for row in judged:
        by_repository.setdefault(row.repository, []).append(row)
    for number, rows in by_repository.items():
        _one(connection, number, rows, now)
        _wish(connection, rows, now)


def _one(connection: sa.Connection, repository: int, rows: Sequence[sa.Row[Any]], now: int) -> None:
    seen, first = [row for row in rows if row.told], [row for row in rows if not row.told]
    fresh = _fresh(connection, [row.id for row in seen], min((row.told for row in seen), default=0)) if seen else []
    # of releases that were never judged before, the newest stands for all
    fresh += _fresh(connection, [max(row.id for row in first)], 0) if first else []
    if not fresh:
        return
    images = {inventory for inventory, _ in fresh}
    tags = _tags(connection, repository, [row.digest for row in rows if row.id in images])
    if tags:
        new = {(one.id, one.package.name, one.package.version): one for _, one in fresh}
        said = [_short(one) for one in sorted(new.values(), key=lambda one: one.order)[:_MOST_FINDINGS]]
        body = {"repository": rows[0].repository_name, "releases": tags, "findings": said}
        _happened(connection, rows[0], FOUND, body, now)


def _happened(connection: sa.Connection, row: sa.Row[Any], kind: str, body: Mapping[str, Any], now: int) -> None:
    event = {"at": now, "collection": row.collection, "repository": row.repository_name, "kind": kind, "body": body}
    connection.execute(sa.insert(events).values(**event))
    webhooks.tell(connection, row.collection, kind, body, now)


def _fresh(connection: sa.Connection, images: Sequence[int], last: int) -> list[tuple[int, Finding]]:
    """Return the worst findings behind `last` of these inventories, with the inventory that each is in."""
    query = (
        sa.select(uses.c.inventory, findings.c.body, packages.c.body.label("about"))
        .join_from(uses, findings, findings.c.package == uses.c.package)
        .join(packages, packages.c.id == findings.c.package)
        .where(uses.c.inventory.in_(images), findings.c.id > last, findings.c.counts, findings.c.until.is_(None))
        .order_by(findings.c.rank.desc(), findings.c.id)
        .limit(_MOST_FINDINGS * _MOST_TAGS)
    )
    return [(row.inventory, finding(row.about, row.body)) for row in connection.execute(query)]


def _short(one: Finding) -> dict[str, Any]:
    return {
        "id": one.id,
        "severity": one.severity,
        "package": one.package.name,
        "version": one.package.version,
        "fixed": one.fixed,
        "exploited": bool(one.exploited),
    }


def _tags(connection: sa.Connection, repository: int, digests: Sequence[str]) -> list[dict[str, str]]:
    query = sa.select(release_rows.c.tag, release_rows.c.digest).where(
        release_rows.c.repository == repository, release_rows.c.digest.in_(digests)
    )
    rows = connection.execute(query.order_by(release_rows.c.id.desc()).limit(_MOST_TAGS))
    return [{"tag": row.tag, "digest": row.digest} for row in rows]


# rebuilds


def _wish(connection: sa.Connection, rows: Sequence[sa.Row[Any]], now: int) -> None:
    """Want a rebuild of the newest release of a repository if the archive of its system has repaired what it has."""
    newest = _newest(connection, rows[0].repository)
    if newest is None or newest.digest not in {row.digest for row in rows}:
        return
    row = rows[0]
    here = rebuild_requests.c.repository == row.repository_name
    connection.execute(
        sa.delete(rebuild_requests).where(
            here, rebuild_requests.c.digest != newest.digest, rebuild_requests.c.taken.is_(None)
        )
    )
    known = connection.execute(
        sa.select(rebuild_requests).where(here, rebuild_requests.c.digest == newest.digest)
    ).first()
    repaired = [one for one in _fixable(connection, newest.inventory) if one.package.kind in _REPAIRED]
    reason = {"findings": [_short(one) for one in repaired[:_MOST_FINDINGS]]}
    if known is None and repaired:
        row_of = {"collection": row.collection, "repository": row.repository_name, "tag": newest.tag}
        made = row_of | {"digest": newest.digest, "reason": reason, "created": now, "taken": None}
        connection.execute(sa.insert(rebuild_requests).values(**made))
        _happened(connection, row, REBUILD, {**row_of, "digest": newest.digest, **reason}, now)
    elif known is not None and known.taken is None and known.reason != reason:
        change = sa.update(rebuild_requests).where(rebuild_requests.c.id == known.id)
        connection.execute(change.values(reason=reason) if repaired else sa.delete(rebuild_requests).where(here))


def _newest(connection: sa.Connection, repository: int) -> sa.Row[Any] | None:
    """Return the newest release of a repository that has a recipe by which it can be built again."""
    has_recipe = sa.exists().where(
        recipes.c.repository == release_rows.c.repository,
        recipes.c.subject.in_([release_rows.c.digest, release_rows.c.target]),
        recipes.c.fault == "",
    )
    query = (
        sa.select(release_rows.c.digest, release_rows.c.tag, inventories.c.id.label("inventory"), has_recipe.label("r"))
        .join(inventories, inventories.c.digest == release_rows.c.digest)
        .where(release_rows.c.repository == repository)
        .order_by(release_rows.c.id.desc())
    )
    row = connection.execute(query.limit(1)).first()
    return row if row is not None and row.r else None


def _fixable(connection: sa.Connection, inventory: int) -> Iterator[Finding]:
    query = (
        sa.select(findings.c.body, packages.c.body.label("about"))
        .join_from(uses, findings, findings.c.package == uses.c.package)
        .join(packages, packages.c.id == findings.c.package)
        .where(uses.c.inventory == inventory, findings.c.counts, findings.c.until.is_(None))
        .where(findings.c.fix_since.is_not(None))
        .order_by(findings.c.rank.desc(), findings.c.id)
    )
    for row in connection.execute(query.limit(_MOST_FINDINGS * 10)):
        one = finding(row.about, row.body)
        if one.fixed:
            yield one


def rebuild_wanted(connection: sa.Connection, *, collection: str = "", limit: int = 50) -> list[RebuildRequest]:
    """Return the oldest requests to rebuild that nobody has taken, of one collection or of all."""
    query = sa.select(rebuild_requests).where(rebuild_requests.c.taken.is_(None)).order_by(rebuild_requests.c.id)
    query = query.where(rebuild_requests.c.collection == collection) if collection else query
    return [RebuildRequest(**row._mapping) for row in connection.execute(query.limit(limit))]  # noqa: SLF001  public name


def take_rebuild(connection: sa.Connection, number: int) -> bool:
    """Take a request to rebuild; return whether it was free."""
    here = (rebuild_requests.c.id == number) & rebuild_requests.c.taken.is_(None)
    return connection.execute(sa.update(rebuild_requests).where(here).values(taken=int(time.time()))).rowcount > 0


# those who subscribe


def subscribe(connection: sa.Connection, person: int, target: str, *, wanted: bool) -> None:
    """Let a person be told of a collection or repository, or not any more."""
    here = (subscriptions.c.person == person) & (subscriptions.c.target == target)
    connection.execute(sa.delete(subscriptions).where(here))
    if wanted:
        row = {"person": person, "target": target, "created": int(time.time())}
        connection.execute(sa.insert(subscriptions).values(**row))


def require_target(database: Database, caller: Caller, target: str) -> None:
    """Let only those subscribe who see the collection or repository `target`.

    Raises:
        NotFoundError: there is none, or none that the caller sees: the same words for both.
    """
    if (found := database.repository(target)) is not None and caller.sees(found):
        return
    public = roles.exists(database, target) and roles.is_public(database, target)
    if not (public or (roles.exists(database, target) and caller.may("pull", f"{target}/any"))):
        raise NotFoundError(f"no collection or release {target[:200]}")


def subscriptions_of(connection: sa.Connection, person: int) -> list[str]:
    """Return what a person wants to be told of."""
    query = sa.select(subscriptions.c.target).where(subscriptions.c.person == person)
    return list(connection.scalars(query.order_by(subscriptions.c.target)))


def happened(
    connection: sa.Connection, visible: sa.ColumnElement[bool], targets: Sequence[str], *, limit: int = 50
) -> list[Event]:
    """Return what happened to releases in the collections or repositories `targets`, newest first.

    `visible`: the condition about repositories and collections that is what the caller may see.
    """
    query = (
        sa.select(events)
        .join(repositories, repositories.c.name == events.c.repository)
        .join(collections, collections.c.name == repositories.c.collection)
        .where(visible, sa.or_(events.c.collection.in_(targets), events.c.repository.in_(targets)))
    )
    rows = connection.execute(query.order_by(events.c.id.desc()).limit(limit))
    return [Event(**row._mapping) for row in rows]  # noqa: SLF001  its public name


def forget(connection: sa.Connection) -> None:
    """Delete what happened long ago."""
    connection.execute(sa.delete(events).where(events.c.at < int(time.time()) - _KEPT_SECONDS))


def title(event: Event) -> str:
    """Return what happened in one line."""
    found = event.body.get("findings", ())
    worst = f"{found[0]['id']} ({found[0]['severity']})" if found else ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    if event.kind == REBUILD:
        return f"{event.repository}:{event.body.get('tag', '')}: another build would repair {worst}{more}"
    return f"{event.repository}: {worst}{more}"


def text(event: Event) -> str:
    """Return what happened in a few lines."""
    tags = ", ".join(one["tag"] for one in event.body.get("releases", ())[:10]) or event.body.get("tag", "")
    lines = [
        f"{one['id']}, {one['severity']}, in {one['package']} {one['version']}"
        + (f"; repaired in {one['fixed']}" if one["fixed"] else "; no fix is known")
        + ("; it is being exploited" if one["exploited"] else "")
        for one in event.body.get("findings", ())[:20]
    ]
    return "\n".join([f"In {tags}:", *lines])
