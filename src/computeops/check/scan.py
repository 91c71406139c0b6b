"""The packages of an image against the advisories: what is known to be wrong with it, and what is not known.

    inventory -> Matcher -> findings -> VEX and ignore lists -> Scan with its verdict

A scan is never silent about what it could not judge: an unknown distribution, packages in a format that is not read,
an index without their advisories are gaps; an old index is stale. Neither is `clean`.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from computeops.check import endoflife
from computeops.check.advisories.ecosystem import of_kind, of_system
from computeops.check.advisories.index import Feed
from computeops.check.advisories.lookup import Index
from computeops.check.findings import Finding, Gap, Scan
from computeops.check.inventory import Inventory
from computeops.check.matching import Matcher
from computeops.model import Digest

_DAY = 86400
_BUSY = 1000
_SILENT_DAYS = 90
"""A feed of so many records in which nothing new appeared for so long is an old copy."""
_CLOCK_SECONDS = _DAY


def scan(subjects: Mapping[str, Digest], inventory: Inventory, index: Index, *, now: int, stale_days: int) -> Scan:
    """Return what the advisories in `index` say about the packages of `inventory`.

    Args:
        subjects: names and digests of the image.
        inventory: its packages.
        index: the advisories.
        now: seconds since 1970.
        stale_days: after how many days without an update advisories are too old to call an image clean.
    """
    matcher = Matcher(index, inventory)
    matcher.prepare([one for one in inventory.packages if not one.owner])
    judged, owned = 0, 0
    findings: list[Finding] = []
    lacking: Counter[tuple[str, str]] = Counter()
    for package in inventory.packages:
        if package.owner:
            owned += 1
        elif why := matcher.covered(package):
            lacking[package.kind, why] += 1
        else:
            judged += 1
            findings += matcher.findings(package)
    gaps = [Gap(kind, f"{count} packages", why) for (kind, why), count in sorted(lacking.items())]
    gaps += [Gap(one.kind, f"/{one.place}", one.why) for one in inventory.unread]
    if not inventory.packages:
        gaps.insert(0, Gap("system", inventory.system.title or inventory.system.id, "no packages were found"))
    asked = _asked(index, inventory, matcher.ecosystems)
    return Scan(
        subjects=subjects,
        system=inventory.system,
        packages=judged,
        owned=owned,
        findings=tuple(sorted(findings, key=lambda one: one.order)),
        gaps=tuple(gaps),
        stale=tuple(line for feed in asked for line in _too_old(feed, now, stale_days)),
        warnings=tuple(_warnings(inventory, now)),
        feeds=tuple(asked),
        time=now,
    )


def only_fixed(scan: Scan) -> Scan:
    """Return `scan` with what no update repairs as not counting."""
    reason = "there is no fix yet"
    findings = [one if one.suppressed or one.fixed else one.without(reason, "--only-fixed") for one in scan.findings]
    return replace(scan, findings=tuple(findings))


def _asked(index: Index, inventory: Inventory, asked: Collection[str]) -> Sequence[Feed]:
    """Return the feeds that speak about this image."""
    bases = {one.partition(":")[0] for one in of_system(inventory.system)}
    bases |= {of_kind(one.kind) for one in inventory.packages} | {one.partition(":")[0] for one in asked}
    wanted = {f"osv/{one}" for one in bases} | {one.lower().replace(" ", "") for one in bases}
    return [one for one in index.feeds() if one.name in wanted or one.name.partition("/")[0] in wanted]


def _too_old(feed: Feed, now: int, stale_days: int) -> Iterator[str]:
    published = feed.published or feed.checked
    if max(published, feed.checked) > now + _CLOCK_SECONDS:
        yield f"{feed.name} is from the future: is the clock of this machine right?"
    elif (age := (now - published) // _DAY) > stale_days:
        yield f"{feed.name} is {age} days old"
    elif feed.records >= _BUSY and feed.newest and (silent := (now - _seconds(feed.newest)) // _DAY) > _SILENT_DAYS:
        yield f"the last record of {feed.name} is {silent} days old: it is an old copy"


def _seconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return 0


def _warnings(inventory: Inventory, now: int) -> Iterator[str]:
    if day := endoflife.ended(inventory.system, now):
        title = inventory.system.title or inventory.system.distro
        yield f"{title} is repaired by nobody since {day}: what is found later will not be among the advisories"
