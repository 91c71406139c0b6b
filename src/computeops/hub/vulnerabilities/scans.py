"""What is known of one image of a release, as a `Scan`: its findings with their times, and what could not be judged.

A VEX statement counts where it came as evidence about this image whose signature was verified by a key that the
collection trusts; any other would let whoever pushes decide what is seen.
"""

import tempfile
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from computeops.check import kinds, vex
from computeops.check import scan as scanning
from computeops.check.advisories.index import Feed
from computeops.check.advisories.lookup import Index
from computeops.check.findings import Finding, Gap, Scan, Verdict
from computeops.check.inventory import Inventory, Package, System
from computeops.errors import ComputeOpsError
from computeops.hub.state import Hub
from computeops.hub.tables import evidence
from computeops.hub.vulnerabilities.matching import finding
from computeops.hub.vulnerabilities.tables import evidence_checks, findings, inventories, packages, systems
from computeops.limits import LIMITS
from computeops.model import Digest, Signed

NO_INDEX = "this hub has no advisories"
WAITING = "waiting"
"""The verdict of an image that nobody has looked into yet; the others are those of a scan."""
VERDICTS = (WAITING, *(one.value for one in Verdict))
_VEX = ("https://openvex.dev/ns", "https://docs.oasis-open.org/csaf", kinds.CYCLONEDX)
_MOST_VEX = 100
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """What the advisories can say at all about images with these kinds of packages."""

    lacking: Mapping[str, str]
    """Kind of package to why nobody was asked about it."""
    stale: tuple[str, ...]
    warnings: tuple[str, ...]
    feeds: tuple[Feed, ...] = ()


@dataclass(frozen=True, slots=True)
class Dated:
    """A finding of an image, and since when it is known."""

    finding: Finding
    since: int
    """When the hub first knew it of this package."""
    fix_since: int | None
    until: int | None
    """When it was withdrawn; None: it holds."""


def standing(index: Index | None, system: System, present: Mapping[str, int], *, now: int, stale_days: int) -> Standing:
    """Return what `index` can say about packages of the kinds `present` on `system`."""
    if index is None:
        return Standing(dict.fromkeys(present or {"system": 0}, NO_INDEX), (), ())
    ones = tuple(Package(kind, "-", "0", f"pkg:{kind}/-", "") for kind in sorted(present))
    said = scanning.scan({}, Inventory(system, ones), index, now=now, stale_days=stale_days)
    lacking = {one.kind: one.why for one in said.gaps}
    return Standing(lacking, said.stale, said.warnings, said.feeds)


def gaps(row: sa.Row[Any], of: Standing) -> Iterator[Gap]:
    """Yield what could not be judged in the image with the inventory `row`."""
    if row.fault:
        yield Gap("image", "its packages", row.fault)
        return
    for kind, why in of.lacking.items():
        count = row.kinds.get(kind, 0)
        yield Gap(kind, f"{count} packages" if count else "the whole image", why)
    yield from (Gap(kind, f"/{place}", why) for kind, place, why in row.unread)


def inventory_of(connection: sa.Connection, digest: str) -> sa.Row[Any] | None:
    """Return the inventory of an image with the name of its system, if there is a row of it."""
    query = sa.select(inventories, systems.c.name, systems.c.version, systems.c.title)
    query = query.join(systems, systems.c.id == inventories.c.system, isouter=True)
    return connection.execute(query.where(inventories.c.digest == digest)).first()


def system_of(row: sa.Row[Any]) -> System:
    """Return the system that an inventory says."""
    return System(row.name or "linux", row.version or "", row.title or "")


def ids_of(row: sa.Row[Any]) -> Sequence[int]:
    """Return the ids of the packages of an inventory."""
    return array("I", row.packages)


def dated(connection: sa.Connection, ids: Sequence[int]) -> list[Dated]:
    """Return the findings of packages, those that were withdrawn too, the worst first."""
    found: list[Dated] = []
    for start in range(0, len(ids), _BATCH):
        query = sa.select(findings, packages.c.body.label("about")).join_from(findings, packages)
        rows = connection.execute(query.where(findings.c.package.in_(ids[start : start + _BATCH])))
        found += [Dated(finding(row.about, row.body), row.since, row.fix_since, row.until) for row in rows]
    return sorted(found, key=lambda one: (one.until is not None, one.finding.order))


def assemble(
    hub: Hub,
    connection: sa.Connection,
    row: sa.Row[Any],
    known: Sequence[Dated],
    of: Standing,
    *,
    repository: int,
    now: int,
) -> Scan:
    """Return the scan of an image in a repository, with what its VEX statements say."""
    subjects = {"manifest": Digest.parse(row.digest)}
    made = Scan(
        subjects=subjects,
        system=system_of(row),
        packages=sum(row.kinds.values()) - sum(row.kinds.get(kind, 0) for kind in of.lacking),
        owned=row.owned,
        findings=tuple(one.finding for one in known if one.until is None),
        gaps=tuple(gaps(row, of)),
        stale=of.stale,
        warnings=of.warnings,
        feeds=of.feeds,
        time=now,
    )
    said = list(_statements(hub, connection, repository, row.digest))
    return vex.apply(made, said, now=now) if said else made


def with_vex(
    connection: sa.Connection, repositories: Collection[int], subjects: Collection[str]
) -> set[tuple[int, str]]:
    """Return, of the images `subjects` in these repositories, those that have verified evidence that may be VEX."""
    query = sa.select(evidence.c.repository, evidence.c.subject).where(
        evidence.c.repository.in_(repositories), evidence.c.subject.in_(subjects), *_verified()
    )
    return {(row.repository, row.subject) for row in connection.execute(query)}


def is_vex(kind: str) -> bool:
    """Return whether evidence of this kind may say which findings do not count."""
    return kind.startswith(_VEX)


def _verified() -> Sequence[sa.ColumnElement[bool]]:
    holds = sa.exists().where(
        evidence_checks.c.repository == evidence.c.repository,
        evidence_checks.c.digest == evidence.c.digest,
        evidence_checks.c.state == "valid",
    )
    return sa.or_(*(evidence.c.kind.startswith(one) for one in _VEX)), holds


def _statements(hub: Hub, connection: sa.Connection, repository: int, digest: str) -> Iterator[vex.Statement]:
    here = evidence.c.repository == repository, evidence.c.subject == digest
    query = sa.select(evidence.c.blob, evidence.c.facts).where(*here, *_verified())
    for row in connection.execute(query.order_by(evidence.c.created.desc()).limit(_MOST_VEX)).all():
        if digest not in row.facts.get("subjects", ()):
            continue
        try:
            yield from _read(hub, row.blob)
        except (ComputeOpsError, ValueError, RecursionError):
            continue  # it says nothing that is understood, and so nothing is left out


def _read(hub: Hub, blob: str) -> Sequence[vex.Statement]:
    signed = Signed.from_json(msgspec.json.decode(hub.blobs.read(Digest.parse(blob), LIMITS.vex_bytes)))
    statement = msgspec.json.decode(signed.payload)
    with tempfile.TemporaryDirectory(dir=hub.blobs.work) as folder:
        file = Path(folder) / "evidence.json"
        file.write_bytes(msgspec.json.encode(statement["predicate"]))
        return vex.read(file)
