"""What pages and the API ask: a release with its findings and their history, one vulnerability everywhere, an overview.

Every question is asked by a caller, and answers as if what that caller may not see did not exist.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.check.advisories.lookup import Index
from computeops.check.findings import Finding, Scan, rank
from computeops.hub import search
from computeops.hub.auth import Caller
from computeops.hub.db import Repository
from computeops.hub.state import Hub
from computeops.hub.tables import collections, releases, repositories
from computeops.hub.vulnerabilities import gates, scans
from computeops.hub.vulnerabilities import index as advisories
from computeops.hub.vulnerabilities.gates import Gate
from computeops.hub.vulnerabilities.judging import Judge
from computeops.hub.vulnerabilities.matching import finding
from computeops.hub.vulnerabilities.scans import Dated
from computeops.hub.vulnerabilities.tables import findings, inventories, packages, uses, verdicts

_MOST_RELEASES = 200
_MOST_ROWS = 5000
_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of the vulnerabilities of one image of a release."""

    verdict: str
    """As it stands in searches; of a scan that was made just now it may differ for a moment."""
    changed: int
    """Since when."""
    scan: Scan | None
    """None: it was not inventoried yet."""
    dated: tuple[Dated, ...]
    """Its findings with their times, those that were withdrawn too."""
    fault: str
    """Why there is no inventory."""
    blocked_from: int | None
    why: str
    """What the gate of the collection says."""
    gate: Gate
    inventoried: int
    """When its packages were listed."""

    @property
    def blocked(self) -> bool:
        """Whether readers are refused now."""
        return self.blocked_from is not None and self.blocked_from <= time.time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """A vulnerability in one image of a release."""

    repository: str
    tag: str
    version: str
    arch: str
    digest: str
    published: int
    findings: tuple[Dated, ...]

    @property
    def known(self) -> int:
        """When it was known of this release: not before it was published."""
        return max(self.published, min(one.since for one in self.findings))

    @property
    def holds(self) -> bool:
        """Whether it still does."""
        return any(one.until is None for one in self.findings)

    @property
    def ended(self) -> int | None:
        """When the last of its advisories was withdrawn; None: one holds."""
        return None if self.holds else max(one.until or 0 for one in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """How a repository dealt with a vulnerability."""

    repository: str
    affected: tuple[Affected, ...]
    """Its releases that have it, oldest first."""
    by: str
    """The tag of the first later release without it; empty: there is none."""
    at: int | None
    """When that was published."""

    @property
    def known(self) -> int:
        """When it was first known."""
        return min(one.known for one in self.affected)

    @property
    def days(self) -> float | None:
        """Time to patch in days; None: it is not patched."""
        return None if self.at is None else max(0, self.at - self.known) / _DAY


def release(hub: Hub, repository: Repository, digest: str) -> Known:
    """Return what is known of the image `digest` in a repository."""
    now = int(time.time())
    with advisories.opened(hub) as index, hub.database.read() as connection:
        collection = repository.name.rpartition("/")[0]
        here = (verdicts.c.repository == repository.id) & (verdicts.c.digest == digest)
        row = connection.execute(sa.select(verdicts).where(here)).first()
        found = scans.inventory_of(connection, digest)
        gate = gates.find(connection, collection)
        scan: Scan | None = None
        dated: tuple[Dated, ...] = ()
        if found is not None and (found.due is None or found.fault):
            dated = tuple(scans.dated(connection, scans.ids_of(found)))
            of = Judge(hub, index, now).standing(found)
            scan = scans.assemble(hub, connection, found, dated, of, repository=repository.id, now=now)
    return Known(
        verdict=row.verdict if row else scans.WAITING,
        changed=row.changed if row else 0,
        scan=scan,
        dated=dated,
        fault=found.fault if found else "",
        blocked_from=row.blocked_from if row else None,
        why=row.why if row else "",
        gate=gate,
        inventoried=found.made if found and found.due is None else 0,
    )


def vulnerability(hub: Hub, caller: Caller, name: str) -> list[Patched]:
    """Return what every repository that `caller` sees has to do with a vulnerability; most urgent first."""
    with hub.database.read() as connection:
        affected = list(_affected(connection, caller, name))
        by_repository: dict[str, list[Affected]] = {}
        for one in affected:
            by_repository.setdefault(one.repository, []).append(one)
        found = [_patched(connection, repository, mine) for repository, mine in by_repository.items()]
    return sorted(found, key=lambda one: (one.at is not None, -one.known, one.repository))


def _affected(connection: sa.Connection, caller: Caller, name: str) -> Iterator[Affected]:
    query = (
        sa.select(
            findings,
            packages.c.body.label("about"),
            releases.c.id.label("release"),
            releases.c.tag,
            releases.c.version.label("release_version"),
            releases.c.arch,
            releases.c.digest,
            releases.c.created,
            repositories.c.name.label("repository_name"),
        )
        .join_from(findings, packages)
        .join(uses, uses.c.package == findings.c.package)
        .join(inventories, inventories.c.id == uses.c.inventory)
        .join(releases, releases.c.digest == inventories.c.digest)
        .join(repositories, repositories.c.id == releases.c.repository)
        .join(collections, collections.c.name == repositories.c.collection)
        .where(findings.c.vulnerability == name, findings.c.counts, search.visible(caller))
        .order_by(releases.c.id)
    )
    rows: dict[int, list[sa.Row[Any]]] = {}
    for row in connection.execute(query.limit(_MOST_ROWS)):
        rows.setdefault(row.release, []).append(row)
    for mine in rows.values():
        first = mine[0]
        yield Affected(
            repository=first.repository_name,
            tag=first.tag,
            version=first.release_version,
            arch=first.arch,
            digest=first.digest,
            published=first.created,
            findings=tuple(Dated(finding(row.about, row.body), row.since, row.fix_since, row.until) for row in mine),
        )


def _patched(connection: sa.Connection, repository: str, affected: Sequence[Affected]) -> Patched:
    """Find the first release behind the last affected one that was inventoried and has it not."""
    digests = {one.digest for one in affected if one.holds}
    query = (
        sa.select(releases.c.digest, releases.c.tag, releases.c.created)
        .join(repositories)
        .join(inventories, inventories.c.digest == releases.c.digest)
        .where(repositories.c.name == repository, inventories.c.due.is_(None), inventories.c.fault == "")
        .order_by(releases.c.id.desc())
        .limit(_MOST_RELEASES)
    )
    later: list[Any] = []
    for row in connection.execute(query):
        if row.digest in digests:
            break
        later.append(row)
    first = later[-1] if later and digests else None
    return Patched(
        repository=repository,
        affected=tuple(affected),
        by=first.tag if first else "",
        at=first.created if first else None,
    )


def described(patched: Sequence[Patched]) -> Finding | None:
    """Return the finding that says most about a vulnerability: the worst."""
    said = [one.finding for each in patched for affected in each.affected for one in affected.findings]
    return max(said, key=lambda one: (rank(one.severity), bool(one.summary)), default=None)


def history(dated: Sequence[Dated], published: int, now: int) -> list[tuple[int, int]]:
    """Return how many vulnerabilities were known of a release at each time something changed, from its publication."""
    counting = [one for one in dated if not one.finding.suppressed]
    moments: Counter[int] = Counter()
    for one in counting:
        moments[max(one.since, published)] += 1
        if one.until is not None:
            moments[max(one.until, published)] -= 1
    steps, count = [(published, moments.pop(published, 0))], 0
    count = steps[0][1]
    for at in sorted(moments):
        count += moments[at]
        steps.append((at, count))
    return [*steps, (max(now, published), count)]


def overview(hub: Hub) -> dict[str, Any]:
    """Return how much of the hub is judged, and by advisories of when."""
    now = time.time()
    with hub.database.read() as connection:
        rows = connection.execute(sa.select(verdicts.c.verdict, sa.func.count()).group_by(verdicts.c.verdict)).all()
        waiting = connection.scalar(sa.select(sa.func.count()).where(inventories.c.due.is_not(None))) or 0
        counts = {
            name: int(connection.scalar(sa.select(sa.func.count()).select_from(one)) or 0)
            for name, one in (("images", inventories), ("packages", packages))
        }
        held = sa.select(sa.func.count()).where(findings.c.until.is_(None))
        counts["findings"] = int(connection.scalar(held) or 0)
    with advisories.opened(hub) as index:
        feeds = [] if index is None else list(_feeds(index, now))
    by_verdict = dict.fromkeys(scans.VERDICTS, 0) | {row[0]: int(row[1]) for row in rows}
    return {"verdicts": by_verdict, "waiting": int(waiting), **counts, "feeds": feeds, "fault": advisories.fault(hub)}


def _feeds(index: Index, now: float) -> Iterator[dict[str, Any]]:
    for one in index.feeds():
        days = (now - (one.published or one.checked)) / _DAY
        yield {"name": one.name, "records": one.records, "days_old": round(days, 2), "checked": one.checked}
