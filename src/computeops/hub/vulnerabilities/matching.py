"""The packages of a hub against advisories, and the history of what held from when to when.

Each package is asked about once for all images that have it. A finding that no longer holds is not deleted: it ends.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec
import sqlalchemy as sa

from computeops.check.advisories.ecosystem import name_of
from computeops.check.advisories.lookup import Index
from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Finding, rank
from computeops.check.inventory import Inventory, Package, System
from computeops.check.matching import Matcher
from computeops.hub.db import Database
from computeops.hub.vulnerabilities.index import Touched
from computeops.hub.vulnerabilities.tables import findings, names, systems
from computeops.hub.vulnerabilities.tables import packages as package_rows

_BATCH = 500
_AT_ONCE = 4000
_NAMES = tuple(one.name for one in fields(Finding) if one.name not in {"package", "likely"})
"""What is kept of a finding. How likely it is exploited changes every day, and is asked when it is shown."""
_encode = msgspec.json.Encoder(order="deterministic").encode
_package = msgspec.json.Decoder(Package).decode
_finding = msgspec.json.Decoder(Finding).decode


@dataclass(slots=True)
class Changes:
    """What a match found to be different."""

    packages: set[int] = field(default_factory=set)
    """Whose findings changed."""
    found: dict[int, list[str]] = field(default_factory=dict)
    """Package to the vulnerabilities that are new in it, and count."""
    ended: dict[int, list[str]] = field(default_factory=dict)
    """Package to the vulnerabilities that were withdrawn."""
    fixes: set[int] = field(default_factory=set)
    """Packages in which a version without a vulnerability became known."""


def finding(package: str, body: str) -> Finding:
    """Return a finding from the two texts that are stored of it."""
    return _finding(f'{{"package":{package},{body[1:]}')


def match_all(database: Database, index: Index, *, now: int, renew_names: bool) -> Changes:
    """Match every package of the hub. `renew_names`: also make the inverted index anew."""
    changes = Changes()
    with database.read() as connection:
        all_systems = connection.execute(sa.select(systems)).all()
    for system in all_systems:
        matcher, after = _matcher(index, system), 0
        while True:
            query = sa.select(package_rows).where(package_rows.c.system == system.id, package_rows.c.id > after)
            with database.read() as connection:
                rows = connection.execute(query.order_by(package_rows.c.id).limit(_AT_ONCE)).all()
                known = _open(connection, [row.id for row in rows])
            if not rows:
                break
            after = rows[-1].id
            asked = _answers(matcher, rows)
            with database.write() as connection:
                if renew_names:
                    _name(connection, matcher, rows)
                _compare(connection, asked, known, changes, now)
    return changes


def match_touched(database: Database, index: Index, touched: Touched, *, now: int) -> Changes:
    """Match only the packages that `touched` can be about."""
    changes = Changes()
    with database.read() as connection:
        ids = sorted(_touched(connection, touched))
    for start in range(0, len(ids), _AT_ONCE):
        with database.write() as connection:
            match(connection, index, ids[start : start + _AT_ONCE], changes, now=now, new=False)
    return changes


def match(
    connection: sa.Connection, index: Index, ids: Sequence[int], changes: Changes, *, now: int, new: bool
) -> None:
    """Match the packages `ids`, and add to `changes` what is different; `new`: they were never matched before."""
    rows = [
        row
        for start in range(0, len(ids), _BATCH)
        for row in connection.execute(sa.select(package_rows).where(package_rows.c.id.in_(ids[start : start + _BATCH])))
    ]
    by_system: dict[int, list[sa.Row[Any]]] = {}
    for row in rows:
        by_system.setdefault(row.system, []).append(row)
    for number, mine in by_system.items():
        system = connection.execute(sa.select(systems).where(systems.c.id == number)).one()
        matcher = _matcher(index, system)
        if new:
            _name(connection, matcher, mine)
        known = {} if new else _open(connection, [row.id for row in mine])
        asked = _answers(matcher, mine)
        _compare(connection, asked, known, changes, now)


def _matcher(index: Index, system: sa.Row[Any]) -> Matcher:
    return Matcher(index, Inventory(System(system.name, system.version, system.title), ()))


def _answers(matcher: Matcher, rows: Sequence[sa.Row[Any]]) -> dict[int, tuple[sa.Row[Any], Sequence[Finding]]]:
    known = [_package(row.body) for row in rows]
    matcher.prepare(known)
    return {row.id: (row, list(matcher.findings(one))) for row, one in zip(rows, known, strict=True)}


def _touched(connection: sa.Connection, touched: Touched) -> Iterator[int]:
    by_ecosystem: dict[str, list[str]] = {}
    for ecosystem, name in touched.packages:
        by_ecosystem.setdefault(ecosystem, []).append(name)
    for ecosystem, wanted in by_ecosystem.items():
        for start in range(0, len(wanted), _BATCH):
            here = names.c.ecosystem == ecosystem, names.c.name.in_(wanted[start : start + _BATCH])
            yield from connection.scalars(sa.select(names.c.package).where(*here))
    exploited = sorted(touched.exploited)
    for start in range(0, len(exploited), _BATCH):
        meant = findings.c.vulnerability.in_(exploited[start : start + _BATCH]), findings.c.until.is_(None)
        yield from connection.scalars(sa.select(findings.c.package).where(*meant))


def _name(connection: sa.Connection, matcher: Matcher, rows: Sequence[sa.Row[Any]]) -> None:
    """Write under which names advisories can speak about these packages."""
    ids = [row.id for row in rows]
    for start in range(0, len(ids), _BATCH):
        connection.execute(sa.delete(names).where(names.c.package.in_(ids[start : start + _BATCH])))
    told = [
        {"ecosystem": ecosystem, "name": name, "package": row.id}
        for row in rows
        for ecosystem, name in _asked(matcher, _package(row.body))
    ]
    if told:
        connection.execute(sa.insert(names), told)


def _asked(matcher: Matcher, package: Package) -> set[tuple[str, str]]:
    """Return every name that may be asked: which of two it is depends on what the index knows at that time."""
    found = set()
    for question in matcher.questions(package):
        listed = {question.name, name_of(question.ecosystem, package.name), package.source}
        found |= {(question.ecosystem, name) for name in listed if name}
    return found


def _open(connection: sa.Connection, ids: Sequence[int]) -> Mapping[int, dict[str, sa.Row[Any]]]:
    """Return the findings that hold, by package and vulnerability."""
    found: dict[int, dict[str, sa.Row[Any]]] = {}
    for start in range(0, len(ids), _BATCH):
        here = findings.c.package.in_(ids[start : start + _BATCH]), findings.c.until.is_(None)
        for row in connection.execute(sa.select(findings).where(*here)):
            found.setdefault(row.package, {})[row.vulnerability] = row
    return found


def _compare(
    connection: sa.Connection,
    asked: Mapping[int, tuple[sa.Row[Any], Sequence[Finding]]],
    known: Mapping[int, Mapping[str, sa.Row[Any]]],
    changes: Changes,
    now: int,
) -> None:
    """Write what is different from what is known."""
    new: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    for number, (_, said) in asked.items():
        before = known.get(number, {})
        for one in said:
            row, old = _row(number, one, now), before.get(one.id)
            if old is None:
                new.append(row)
            elif old.body != row["body"]:
                fix_since = old.fix_since if old.fix_since or not one.fixed else now
                changed.append({"_id": old.id, **{k: row[k] for k in ("rank", "counts", "body")}, "fix": fix_since})
                changes.fixes |= {number} if one.fixed and not old.fix_since else set()
            else:
                continue
            changes.packages.add(number)
            if row["counts"] and (old is None or not old.counts):
                changes.found.setdefault(number, []).append(one.id)
        there = {one.id for one in said}
        for id_, old in before.items():
            if id_ not in there:
                gone.append({"_id": old.id})
                changes.packages.add(number)
                if old.counts:
                    changes.ended.setdefault(number, []).append(id_)
    _write(connection, new, changed, gone, now)
    counted = {number: _counts(said) for number, (_, said) in asked.items()}
    updates = [{"_id": number, "c": text} for number, text in counted.items() if text != asked[number][0].counts]
    if updates:
        here = package_rows.c.id == sa.bindparam("_id")
        connection.execute(sa.update(package_rows).where(here).values(counts=sa.bindparam("c")), updates)


def _write(
    connection: sa.Connection,
    new: Sequence[Mapping[str, Any]],
    changed: Sequence[Mapping[str, Any]],
    gone: Sequence[Mapping[str, Any]],
    now: int,
) -> None:
    here = findings.c.id == sa.bindparam("_id")
    if new:
        connection.execute(sa.insert(findings), new)
    if changed:
        bound: dict[str, Any] = {name: sa.bindparam(name) for name in ("rank", "counts", "body")}
        connection.execute(sa.update(findings).where(here).values(**bound, fix_since=sa.bindparam("fix")), changed)
    if gone:
        connection.execute(sa.update(findings).where(here).values(until=now), gone)


def _row(package: int, one: Finding, now: int) -> dict[str, Any]:
    return {
        "package": package,
        "vulnerability": one.id,
        "rank": rank(one.severity),
        "counts": not one.suppressed,
        "body": _encode({name: getattr(one, name) for name in _NAMES}).decode(),
        "since": now,
        "fix_since": now if one.fixed else None,
        "until": None,
    }


def _counts(said: Iterable[Finding]) -> str:
    """Return how many findings count, by place of their severity; empty: none does."""
    found = Counter(one.severity for one in said if not one.suppressed)
    return ",".join(str(found[one]) for one in SEVERITIES) if found else ""
