"""The pages of known vulnerabilities: of a release with their history, of one vulnerability, what one subscribes to.

/-/findings/COLLECTION/NAME?version=...   a release
/-/vulnerabilities/CVE-2024-0001          one vulnerability everywhere
/-/feed/COLLECTION[/NAME]                 what became known, as Atom (RFC 4287)
/auth/subscriptions                       what one wants to be told of, and what there is to tell
"""

import time
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.check.advisories.model import SEVERITIES
from computeops.check.findings import Finding
from computeops.errors import NotFoundError
from computeops.hub import audit, browser, details, pages, present, search
from computeops.hub.auth import Caller
from computeops.hub.etag import tagged
from computeops.hub.facts import clean
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import questions, told
from computeops.hub.vulnerabilities.scans import Dated
from computeops.hub.vulnerabilities.told import Event

_SHOWN = 500
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 150, 40, 14, 26
_ATOM = "application/atom+xml"


@dataclass(frozen=True, slots=True)
class Chart:
    """How many vulnerabilities were known from when to when, as coordinates of a picture."""

    width: int
    height: int
    line: str
    area: str
    top: int
    """The greatest count, which is the upper end of the scale."""
    begin: int
    end: int
    base: int
    left: int
    peak: int
    """Where the upper end of the scale is."""


@dataclass(frozen=True, slots=True)
class Row:
    """Findings of one source package by one advisory, together."""

    finding: Finding
    packages: tuple[str, ...]
    """Names and versions."""
    since: int
    fix_since: int | None
    until: int | None


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def findings(request: Request) -> Response:
        return await to_thread(_findings, hub, request)

    async def vulnerability(request: Request) -> Response:
        return await to_thread(_vulnerability, hub, request)

    async def feed(request: Request) -> Response:
        return await to_thread(_feed, hub, request)

    async def subscriptions(request: Request) -> Response:
        if request.method == "POST":
            return await _subscribe(hub, request)
        return await to_thread(_subscriptions, hub, request)

    return [
        Route("/-/findings/{repository:path}", findings),
        Route("/-/vulnerabilities/{name}", vulnerability),
        Route("/-/feed/{target:path}", feed),
        Route("/auth/subscriptions", subscriptions, methods=["GET", "POST"]),
    ]


def _findings(hub: Hub, request: Request) -> Response:
    asked = request.query_params
    repository = details.repository(hub.database, browser.caller(hub, request), request.path_params["repository"])
    found = details.details(hub.database, repository, asked.get("version", ""), arch=asked.get("arch", "")).release
    known = questions.release(hub, repository, found.digest)
    judged = {} if known.scan is None else {(one.id, one.package.purl): one for one in known.scan.findings}
    rows = grouped(known.dated, judged)
    counting = [one for one in rows if one.until is None and not one.finding.suppressed]
    chart = draw(questions.history(known.dated, found.created, int(time.time())))
    shown = {
        "release": found,
        "known": known,
        "counting": counting[:_SHOWN],
        "more": max(0, len(counting) - _SHOWN),
        "quiet": [one for one in rows if one.until is None and one.finding.suppressed][:_SHOWN],
        "withdrawn": [one for one in rows if one.until is not None][:_SHOWN],
        "counts": [(name, known.scan.counts[name]) for name in reversed(SEVERITIES)] if known.scan else [],
        "chart": chart,
        "title": f"Vulnerabilities of {found.reference}",
    }
    return pages.page(hub, request, "findings.html", shown)


def grouped(dated: Sequence[Dated], judged: Mapping[tuple[str, str], Finding]) -> list[Row]:
    """Return findings as people read them: one row for all packages of one source; `judged`: with what VEX says."""
    rows: dict[tuple[object, ...], list[tuple[Dated, Finding]]] = {}
    for one in dated:
        found = judged.get((one.finding.id, one.finding.package.purl), one.finding)
        source = found.package.source or found.package.name
        key = (found.id, found.package.kind, source, found.suppressed, one.until is None)
        rows.setdefault(key, []).append((one, found))
    made = [
        Row(
            mine[0][1],
            tuple(sorted({f"{found.package.name} {found.package.version}" for _, found in mine})),
            min(one.since for one, _ in mine),
            min((one.fix_since for one, _ in mine if one.fix_since is not None), default=None),
            max((one.until for one, _ in mine if one.until is not None), default=None),
        )
        for mine in rows.values()
    ]
    return sorted(made, key=lambda one: one.finding.order)


def draw(history: Sequence[tuple[int, int]]) -> Chart:
    """Return the steps of a history as a picture."""
    begin, end = history[0][0], max(history[-1][0], history[0][0] + 1)
    top = max(1, *(count for _, count in history))
    base, right = _HEIGHT - _BOTTOM, _WIDTH - 8

    def place(at: int, count: int) -> str:
        x = _LEFT + (right - _LEFT) * (at - begin) / (end - begin)
        return f"{x:.1f},{base - (base - _TOP) * count / top:.1f}"

    points: list[str] = []
    for number, (at, count) in enumerate(history):
        if number:
            points.append(place(at, history[number - 1][1]))
        points.append(place(at, count))
    area = " ".join([place(begin, 0), *points, place(end, 0)])
    return Chart(_WIDTH, _HEIGHT, " ".join(points), area, top, begin, end, base, _LEFT, _TOP)


def _vulnerability(hub: Hub, request: Request) -> Response:
    name = clean(request.path_params["name"], 80)
    patched = questions.vulnerability(hub, browser.caller(hub, request), name)
    worst = questions.described(patched)
    if worst is None:
        raise NotFoundError(f"nothing here that you may see has {name}", hint="search for a release")
    open_ones = [one for one in patched if one.at is None and any(each.holds for each in one.affected)]
    days = sorted(one.days for one in patched if one.days is not None)
    shown = {
        "name": name,
        "finding": worst,
        "patched": patched[:_SHOWN],
        "open": len(open_ones),
        "median": days[len(days) // 2] if days else None,
        "moments": moments(patched),
        "title": name,
    }
    return pages.page(hub, request, "vulnerability.html", shown)


def moments(patched: Sequence[questions.Patched]) -> list[tuple[int, str]]:
    """Return what was known when, oldest first."""
    each = [one for repository in patched for release in repository.affected for one in release.findings]
    found = [(min(one.since for one in each), "first known here")]
    fixes = [one.fix_since for one in each if one.fix_since is not None]
    if fixes:
        versions = sorted({one.finding.fixed for one in each if one.finding.fixed})
        found.append((min(fixes), f"a fix is known: {', '.join(versions[:3])}"))
    found += [(one.at, f"{one.repository}:{one.by} is published without it") for one in patched if one.at is not None]
    if all(one.until is not None for one in each):
        found.append((max(one.until or 0 for one in each), "withdrawn, or found not to concern these packages"))
    return sorted(found)[:_SHOWN]


def _feed(hub: Hub, request: Request) -> Response:
    """Answer with what became known; a private collection's needs a token, as every other page of it."""
    caller, target = browser.caller(hub, request), request.path_params["target"].strip("/")
    told.require_target(hub.database, caller, target)
    with hub.database.read() as connection:
        found = told.happened(connection, search.visible(caller), [target])
    return tagged(request, atom(hub.url(request.scope), target, found).encode(), _ATOM)


def atom(base: str, target: str, happened: Sequence[Event]) -> str:
    """Return events as an Atom feed (RFC 4287)."""
    address = f"{base}/-/feed/{target}"
    newest = max((one.at for one in happened), default=0)
    entries = [
        f"<entry><id>{escape(address)}#{one.id}</id><title>{escape(told.title(one))}</title>"
        f"<updated>{present.moment(one.at)}</updated>"
        f"<link rel={quoteattr('alternate')} href={quoteattr(_page_of(base, one))}/>"
        f"<content type={quoteattr('text')}>{escape(told.text(one))}</content></entry>"
        for one in happened
    ]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
        f"<id>{escape(address)}</id><title>{escape(target)}: known vulnerabilities</title>"
        f"<updated>{present.moment(newest)}</updated><author><name>ComputeOps hub</name></author>"
        f"<link rel={quoteattr('self')} href={quoteattr(address)}/>{''.join(entries)}</feed>\n"
    )


def _page_of(base: str, event: Event) -> str:
    tags = event.body.get("releases") or [event.body]
    return f"{base}/-/findings/{event.repository}?version={tags[0].get('tag', '')}"


def _subscriptions(hub: Hub, request: Request) -> Response:
    caller = browser.person(browser.caller(hub, request))
    with hub.database.read() as connection:
        targets = told.subscriptions_of(connection, caller.person)
        happened = told.happened(connection, search.visible(caller), targets) if targets else []
    shown = {
        "targets": targets,
        "happened": [(one, told.title(one), told.text(one), _page_of("", one)) for one in happened],
        "title": "Subscriptions",
    }
    return pages.own_page(hub, request, "subscriptions.html", shown)


async def _subscribe(hub: Hub, request: Request) -> Response:
    fields = await browser.form(hub, request)
    caller = browser.person(await to_thread(browser.caller, hub, request))
    target, wanted = fields.get("target", "").strip("/ "), fields.get("do") == "subscribe"
    audit.note(request.scope, f"{'subscribe to' if wanted else 'unsubscribe from'} {target[:200]}")
    await to_thread(_change, hub, caller, target, wanted=wanted)
    return pages.see_other("/auth/subscriptions")


def _change(hub: Hub, caller: Caller, target: str, *, wanted: bool) -> None:
    if wanted:
        told.require_target(hub.database, caller, target)
    with hub.database.write() as connection:
        told.subscribe(connection, caller.person, target, wanted=wanted)
