"""Verdicts of releases: what their packages' findings amount to, what the gate says, and whom it concerns.

Images whose collection has a gate, or that have VEX, are judged finding by finding; all others by the counts of their
packages, of which ten thousand images take seconds.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from computeops.check.advisories.lookup import Index
from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Verdict, rank
from computeops.hub import terms
from computeops.hub.state import Hub
from computeops.hub.tables import releases, repositories
from computeops.hub.vulnerabilities import gates, scans, told
from computeops.hub.vulnerabilities.scans import Standing
from computeops.hub.vulnerabilities.tables import findings, inventories, packages, systems, uses, verdicts

BATCH = 500
_FEW = 50
_MANY = 5000
_NEGLIGIBLE = rank("negligible")
_NOTHING = (0,) * len(SEVERITIES)
Counts = tuple[int, ...]


@dataclass(slots=True)
class Judge:
    """Judges what is pending, with one index of advisories and at one time."""

    hub: Hub
    index: Index | None
    now: int
    _standings: dict[tuple[Any, ...], Standing] = field(default_factory=dict)
    _weights: dict[int, Counts] | None = None
    _gates: dict[str, tuple[gates.Gate, Sequence[gates.Pass]]] = field(default_factory=dict)

    def batch(self) -> int:
        """Judge some of what is pending, tell whom it concerns, and return how many there were."""
        with self.hub.database.read() as connection:
            rows = connection.execute(_pending().limit(BATCH)).all()
            if not rows:
                return 0
            judged = list(self._judged(connection, rows))
            last = int(connection.scalar(sa.select(sa.func.max(findings.c.id))) or 0)
        with self.hub.database.write() as connection:
            here = (verdicts.c.repository == sa.bindparam("_repository")) & (
                verdicts.c.digest == sa.bindparam("_digest")
            )
            changed: dict[str, Any] = {
                name: sa.bindparam(f"_{name}") for name in ("verdict", "counts", "changed", "blocked_from", "why")
            }
            made = [{f"_{key}": value for key, value in one.items()} for one in judged]
            connection.execute(sa.update(verdicts).where(here).values(**changed, pending=False, told=last), made)
            _retell(connection, rows, judged)
            told.releases(connection, [row for row in rows if row.due is None], now=self.now)
        return len(rows)

    def _judged(self, connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> Iterator[Mapping[str, Any]]:
        with_vex = scans.with_vex(connection, {row.repository for row in rows}, {row.digest for row in rows})
        for row in rows:
            gate, allowed = self._gate(connection, row.collection)
            if gate.action != "off" or (row.repository, row.digest) in with_vex:
                yield self._exactly(connection, row, gate, allowed)
            else:
                yield self._by_counts(connection, row, few=len(rows) <= _FEW)

    def _gate(self, connection: sa.Connection, collection: str) -> tuple[gates.Gate, Sequence[gates.Pass]]:
        if collection not in self._gates:
            self._gates[collection] = gates.find(connection, collection), gates.find_passes(connection, collection)
        return self._gates[collection]

    def standing(self, row: sa.Row[Any]) -> Standing:
        """Return what the advisories can say about images like that of the inventory `row`."""
        key = (row.system, *sorted(row.kinds))
        if key not in self._standings:
            days = self.hub.settings.advisories_stale_days
            self._standings[key] = scans.standing(
                self.index, scans.system_of(row), row.kinds, now=self.now, stale_days=days
            )
        return self._standings[key]

    def _exactly(
        self, connection: sa.Connection, row: sa.Row[Any], gate: gates.Gate, allowed: Sequence[gates.Pass]
    ) -> Mapping[str, Any]:
        known = scans.dated(connection, scans.ids_of(row))
        scan = scans.assemble(
            self.hub, connection, row, known, self.standing(row), repository=row.repository, now=self.now
        )
        decision = gates.decide(gate, allowed, row.repository_name, scan)
        counts = [scan.counts[one] for one in SEVERITIES]
        made = _verdict(row, scan.verdict.value, counts, self.now)
        return {**made, "blocked_from": decision.blocked_from, "why": decision.why}

    def _by_counts(self, connection: sa.Connection, row: sa.Row[Any], *, few: bool) -> Mapping[str, Any]:
        ids = scans.ids_of(row)
        if few and self._weights is None:
            weights = _weights(connection, ids)
        else:
            weights = self._weights = self._weights if self._weights is not None else _weights(connection)
        counted = [weights[one] for one in ids if one in weights]
        counts = [sum(column) for column in zip(_NOTHING, *counted, strict=True)]
        of = self.standing(row)
        verdict = Verdict.CLEAN
        if any(count for place, count in enumerate(counts) if place != _NEGLIGIBLE):
            verdict = Verdict.VULNERABLE
        elif row.fault or of.lacking or row.unread:
            verdict = Verdict.UNSCANNABLE
        elif of.stale:
            verdict = Verdict.STALE
        return _verdict(row, verdict.value, counts, self.now)


def _pending() -> sa.Select[Any]:
    return (
        sa.select(
            inventories,
            systems.c.name,
            systems.c.version,
            systems.c.title,
            verdicts.c.repository,
            verdicts.c.verdict,
            verdicts.c.counts,
            verdicts.c.changed,
            verdicts.c.told,
            repositories.c.name.label("repository_name"),
            repositories.c.collection,
        )
        .join_from(verdicts, inventories, inventories.c.digest == verdicts.c.digest)
        .join(repositories, repositories.c.id == verdicts.c.repository)
        .join(systems, systems.c.id == inventories.c.system, isouter=True)
        .where(verdicts.c.pending, sa.or_(inventories.c.due.is_(None), inventories.c.fault != ""))
    )


def _verdict(row: sa.Row[Any], verdict: str, counts: Sequence[int], now: int) -> Mapping[str, Any]:
    same = row.verdict == verdict
    return {
        "repository": row.repository,
        "digest": row.digest,
        "verdict": verdict,
        "counts": list(counts),
        "changed": row.changed if same else now,
        "blocked_from": None,
        "why": "",
    }


def _weights(connection: sa.Connection, ids: Sequence[int] | None = None) -> dict[int, Counts]:
    """Return the counts of packages that have findings: of `ids`, or of all in the hub."""
    query = sa.select(packages.c.id, packages.c.counts).where(packages.c.counts != "")
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)] if ids is not None else [None]
    known: dict[str, Counts] = {}  # few are different, many are the same
    found: dict[int, Counts] = {}
    for batch in batches:
        for number, text in connection.execute(query if batch is None else query.where(packages.c.id.in_(batch))):
            if text not in known:
                known[text] = tuple(map(int, text.split(",")))
            found[number] = known[text]
    return found


def _retell(connection: sa.Connection, rows: Sequence[sa.Row[Any]], judged: Sequence[Mapping[str, Any]]) -> None:
    """Let searches find the releases by their new verdicts."""
    turned = {
        (row.repository, row.digest): (row.verdict, one["verdict"])
        for row, one in zip(rows, judged, strict=True)
        if row.verdict != one["verdict"]
    }
    if not turned:
        return
    mine = (releases.c[name].in_({one[place] for one in turned}) for place, name in enumerate(("repository", "digest")))
    ids: dict[tuple[str, str], list[int]] = {}
    for row in connection.execute(sa.select(releases.c.id, releases.c.repository, releases.c.digest).where(*mine)):
        if (both := turned.get((row.repository, row.digest))) is not None:
            ids.setdefault(both, []).append(row.id)
    for (old, new), several in ids.items():
        terms.exchange(connection, several, "verdict", old, new)


def mark(connection: sa.Connection, changed: Sequence[int]) -> None:
    """Let every release with one of the packages `changed` be judged again."""
    if len(changed) > _MANY:
        connection.execute(sa.update(verdicts).values(pending=True))
        return
    for start in range(0, len(changed), BATCH):
        batch = changed[start : start + BATCH]
        meant = sa.select(inventories.c.digest).join_from(uses, inventories, inventories.c.id == uses.c.inventory)
        here = verdicts.c.digest.in_(meant.where(uses.c.package.in_(batch)))
        connection.execute(sa.update(verdicts).where(here).values(pending=True))


def age(hub: Hub, index: Index | None) -> int:
    """Let clean releases be judged again whose advisories became too old meanwhile, or new; return how many."""
    judge, count = Judge(hub, index, int(time.time())), 0
    query = sa.select(inventories, systems.c.name, systems.c.version, systems.c.title)
    query = query.join(systems, systems.c.id == inventories.c.system, isouter=True).where(inventories.c.due.is_(None))
    with hub.database.read() as connection:
        known: dict[str, str] = {
            row.digest: row.verdict
            for row in connection.execute(
                sa.select(verdicts.c.digest, verdicts.c.verdict).where(verdicts.c.verdict.in_(["clean", "stale"]))
            )
        }
        wrong = [
            row.digest
            for row in connection.execution_options(yield_per=BATCH).execute(query)
            if row.digest in known and (known[row.digest] == "stale") != bool(judge.standing(row).stale)
        ]
    for start in range(0, len(wrong), BATCH):
        with hub.database.write() as connection:
            here = verdicts.c.digest.in_(wrong[start : start + BATCH])
            count += connection.execute(sa.update(verdicts).where(here).values(pending=True)).rowcount
    return count
