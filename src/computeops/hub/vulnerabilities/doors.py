"""The JSON of known vulnerabilities: of a release, of the hub; gates, passes, keys, subscriptions, rebuilds."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import NotFoundError
from computeops.hub import details, manage, search
from computeops.hub.etag import tagged
from computeops.hub.manage import Asked, Operation
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import gates, questions, signatures, told
from computeops.hub.vulnerabilities.gates import Gate
from computeops.hub.vulnerabilities.questions import Known, Patched
from computeops.hub.vulnerabilities.scans import Dated

_JSON = "application/json"
_C = "/api/v1/collections/{collection:path}"
Seconds = Annotated[int, Meta(ge=0, le=2**40)]


class FindingEntry(Struct, frozen=True, kw_only=True):
    """One vulnerability of one package."""

    id: str
    aliases: Sequence[str]
    severity: str
    score: float | None
    package: str
    version: str
    purl: str
    fixed: str
    """The version that is free of it; empty: there is none."""
    state: str
    exploited: str
    """Day since which it is known to be exploited."""
    confidence: str
    summary: str
    advisories: Sequence[str]
    suppressed: str
    """Why it does not count; empty: it counts."""
    suppressed_by: str
    since: int
    """When the hub first knew it of this package."""
    fix_since: int | None
    """When a version without it became known."""
    until: int | None
    """When it was withdrawn; null: it holds."""


class GapEntry(Struct, frozen=True):
    """Something in an image that could not be judged."""

    kind: str
    what: str
    why: str


class Point(Struct, frozen=True):
    """How many vulnerabilities were known from a time on."""

    at: int
    count: int


class Findings(Struct, frozen=True, kw_only=True):
    """All that is known of the vulnerabilities of one image of a release."""

    reference: str
    manifest: str
    verdict: str
    """clean, vulnerable, stale (the advisories are too old), unscannable (not all could be judged) or waiting."""
    changed: int
    """Since when it is."""
    inventoried: int
    """When its packages were listed; 0: not yet."""
    system: str
    packages: int
    """Packages that were judged."""
    counts: dict[str, int]
    """Findings that count, by severity."""
    findings: Sequence[FindingEntry]
    gaps: Sequence[GapEntry]
    stale: Sequence[str]
    warnings: Sequence[str]
    blocked: bool
    """Whether readers cannot pull it now."""
    blocked_from: int | None
    why: str
    """What the gate of its collection says."""
    history: Sequence[Point]


class AffectedEntry(Struct, frozen=True, kw_only=True):
    """A release that has, or had, a vulnerability."""

    tag: str
    arch: str
    manifest: str
    published: int
    known: int
    ended: int | None
    """When its advisory was withdrawn."""
    packages: Sequence[str]


class PatchedEntry(Struct, frozen=True, kw_only=True):
    """How a repository dealt with a vulnerability."""

    repository: str
    releases: Sequence[AffectedEntry]
    known: int
    patched_by: str
    """The first later release without it; empty: there is none."""
    patched: int | None
    days: float | None
    """Time to patch."""


class Vulnerability(Struct, frozen=True, kw_only=True):
    """A vulnerability everywhere in the hub, as far as the caller sees it."""

    id: str
    severity: str
    summary: str
    aliases: Sequence[str]
    repositories: Sequence[PatchedEntry]


class NewGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a collection shall do about vulnerable releases."""

    action: str
    """off, warn or block."""
    severity: str = "critical"
    only_fixed: bool = False
    strict: bool = False
    """Whether what could not be judged is kept back too."""
    until: Seconds | None = None
    """Until then everything passes."""


class GateEntry(NewGate, frozen=True, kw_only=True):
    """What a collection does about vulnerable releases."""

    changed_by: str
    changed: int


class NewPass(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An exception to a gate that is wanted."""

    vulnerability: str
    reason: str
    until: Seconds
    repository: str = ""


class PassEntry(NewPass, frozen=True, kw_only=True):
    """An exception to a gate."""

    id: int
    added_by: str
    created: int


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key whose signatures of evidence shall count."""

    name: str
    public: str
    """As `computeops key export` writes it."""


class KeyEntry(Struct, frozen=True, kw_only=True):
    """A key whose signatures of evidence count."""

    name: str
    keyid: str
    added_by: str
    created: int


class EventEntry(Struct, frozen=True, kw_only=True):
    """Something that happened to releases."""

    id: int
    at: int
    repository: str
    kind: str
    body: dict[str, Any]


class RebuildEntry(Struct, frozen=True, kw_only=True):
    """A release that another build would mend."""

    id: int
    repository: str
    tag: str
    digest: str
    reason: dict[str, Any]
    created: int


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether one wants to be told."""

    wanted: bool = True


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def findings(request: Request) -> Response:
        return await run_in_threadpool(_findings, hub, request)

    async def everywhere(request: Request) -> Response:
        return await run_in_threadpool(_everywhere, hub, request)

    return [
        Route("/api/v1/findings/{repository:path}", findings),
        Route("/api/v1/vulnerabilities/{name}", everywhere),
        *manage.routes(hub, OPERATIONS),
    ]


def _findings(hub: Hub, request: Request) -> Response:
    asked = request.query_params
    repository = details.repository(hub.database, hub.caller(request.scope), request.path_params["repository"])
    found = details.details(hub.database, repository, asked.get("version", ""), arch=asked.get("arch", "")).release
    known = questions.release(hub, repository, found.digest)
    said = _said(known, found.reference, found.digest, found.created)
    return tagged(request, msgspec.json.encode(said), _JSON)


def _said(known: Known, reference: str, digest: str, published: int) -> Findings:
    scan = known.scan
    judged = {} if scan is None else {(one.id, one.package.purl): one for one in scan.findings}
    return Findings(
        reference=reference,
        manifest=digest,
        verdict=scan.verdict.value if scan else known.verdict,
        changed=known.changed,
        inventoried=known.inventoried,
        system=(scan.system.title or scan.system.distro) if scan else "",
        packages=scan.packages if scan else 0,
        counts=dict(scan.counts) if scan else {},
        findings=[_finding(one, judged.get((one.finding.id, one.finding.package.purl))) for one in known.dated],
        gaps=[GapEntry(one.kind, one.what, one.why) for one in scan.gaps] if scan else [],
        stale=scan.stale if scan else (),
        warnings=scan.warnings if scan else (),
        blocked=known.blocked,
        blocked_from=known.blocked_from,
        why=known.why,
        history=[Point(*one) for one in questions.history(known.dated, published, int(time.time()))],
    )


def _finding(one: Dated, judged: Any) -> FindingEntry:
    found = judged if judged is not None and one.until is None else one.finding
    return FindingEntry(
        id=found.id,
        aliases=found.aliases,
        severity=found.severity,
        score=found.score,
        package=found.package.name,
        version=found.package.version,
        purl=found.package.purl,
        fixed=found.fixed,
        state=found.state.word,
        exploited=found.exploited,
        confidence=found.confidence.value,
        summary=found.summary,
        advisories=found.advisories,
        suppressed=found.suppressed,
        suppressed_by=found.suppressed_by,
        since=one.since,
        fix_since=one.fix_since,
        until=one.until,
    )


def _everywhere(hub: Hub, request: Request) -> Response:
    name = request.path_params["name"][:80]
    patched = questions.vulnerability(hub, hub.caller(request.scope), name)
    worst = questions.described(patched)
    if worst is None:
        raise NotFoundError(f"nothing here that you see has {name}", hint="search for a release")
    said = Vulnerability(
        id=worst.id,
        severity=worst.severity,
        summary=worst.summary,
        aliases=worst.aliases,
        repositories=[_patched(one) for one in patched],
    )
    return tagged(request, msgspec.json.encode(said), _JSON)


def _patched(one: Patched) -> PatchedEntry:
    return PatchedEntry(
        repository=one.repository,
        releases=[
            AffectedEntry(
                tag=each.tag,
                arch=each.arch,
                manifest=each.digest,
                published=each.published,
                known=each.known,
                ended=each.ended,
                packages=sorted({f"{f.finding.package.name} {f.finding.package.version}" for f in each.findings}),
            )
            for each in one.affected
        ],
        known=one.known,
        patched_by=one.by,
        patched=one.at,
        days=one.days,
    )


# what members set


def _gate(asked: Asked) -> GateEntry:
    return GateEntry(**asdict(gates.of(asked.hub.database, asked.collection)))


def _set_gate(asked: Asked) -> None:
    sent = msgspec.structs.asdict(asked.body)
    gates.put(asked.hub.database, asked.collection, Gate(**sent, changed_by=asked.caller.name))


def _passes(asked: Asked) -> list[PassEntry]:
    return [PassEntry(**asdict(one)) for one in gates.list_passes(asked.hub.database, asked.collection)]


def _add_pass(asked: Asked) -> PassEntry:
    sent = msgspec.structs.asdict(asked.body)
    return PassEntry(**asdict(gates.add_pass(asked.hub.database, asked.collection, **sent, added_by=asked.caller.name)))


def _remove_pass(asked: Asked) -> None:
    gates.remove_pass(asked.hub.database, asked.collection, asked.number("pass"))


def _keys(asked: Asked) -> list[KeyEntry]:
    return [KeyEntry(**asdict(one)) for one in signatures.list_keys(asked.hub.database, asked.collection)]


def _add_key(asked: Asked) -> KeyEntry:
    name, public = asked.body.name, asked.body.public
    made = signatures.add_key(asked.hub.database, asked.collection, name, public, added_by=asked.caller.name)
    return KeyEntry(**asdict(made))


def _remove_key(asked: Asked) -> None:
    signatures.remove_key(asked.hub.database, asked.collection, asked.path["key"])


def _events(asked: Asked) -> list[EventEntry]:
    with asked.hub.database.read() as connection:
        found = told.happened(connection, search.visible(asked.caller), [asked.collection])
    return [
        EventEntry(id=one.id, at=one.at, repository=one.repository, kind=one.kind, body=dict(one.body)) for one in found
    ]


def _rebuilds(asked: Asked) -> list[RebuildEntry]:
    with asked.hub.database.read() as connection:
        found = told.rebuild_wanted(connection, collection=asked.collection)
    names = RebuildEntry.__struct_fields__
    return [RebuildEntry(**{name: value for name, value in asdict(one).items() if name in names}) for one in found]


def _subscriptions(asked: Asked) -> list[str]:
    with asked.hub.database.read() as connection:
        return told.subscriptions_of(connection, asked.caller.person)


def _subscribe(asked: Asked) -> None:
    told.require_target(asked.hub.database, asked.caller, asked.path["target"])
    with asked.hub.database.write() as connection:
        told.subscribe(connection, asked.caller.person, asked.path["target"], wanted=asked.body.wanted)


_S = "/api/v1/subscriptions"
OPERATIONS = (
    Operation("GET", f"{_C}/gate", "reader", "What a collection does about vulnerabilities.", _gate, GateEntry),
    Operation("PUT", f"{_C}/gate", "maintainer", "Set what it does.", _set_gate, None, NewGate),
    Operation("GET", f"{_C}/passes", "reader", "Exceptions to the gate.", _passes, list[PassEntry]),
    Operation("POST", f"{_C}/passes", "maintainer", "Let a vulnerability pass.", _add_pass, PassEntry, NewPass),
    Operation("DELETE", f"{_C}/passes/{{pass}}", "maintainer", "Let it pass no longer.", _remove_pass),
    Operation("GET", f"{_C}/keys", "reader", "Keys whose signatures of evidence count.", _keys, list[KeyEntry]),
    Operation("POST", f"{_C}/keys", "maintainer", "Trust a key.", _add_key, KeyEntry, NewKey),
    Operation("DELETE", f"{_C}/keys/{{key}}", "maintainer", "Trust the key of this name no longer.", _remove_key),
    Operation("GET", f"{_C}/events", "reader", "What became known of its releases.", _events, list[EventEntry]),
    Operation("GET", f"{_C}/rebuild-requests", "maintainer", "What to build again.", _rebuilds, list[RebuildEntry]),
    Operation("GET", _S, "person", "What you want to be told of.", _subscriptions, list[str]),
    Operation(
        "PUT", f"{_S}/{{target:path}}", "person", "Be told of a collection or release.", _subscribe, None, Wanted
    ),
)


def paths(components: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the OpenAPI paths of this door, and add their schemas to `components`."""
    _, known = msgspec.json.schema_components([Findings, Vulnerability], ref_template="#/components/schemas/{name}")
    components.update(known)
    repository = {"name": "repository", "in": "path", "required": True, "schema": {"type": "string"}}
    name = repository | {"name": "name", "description": "CVE-2024-0001, or what else an advisory calls it."}
    query = [{"name": one, "in": "query", "schema": {"type": "string"}} for one in ("version", "arch")]
    return {
        "/api/v1/findings/{repository}": {
            "get": manage.reading("findings", "Known vulnerabilities of a release.", [repository, *query], "Findings")
        },
        "/api/v1/vulnerabilities/{name}": {
            "get": manage.reading("vulnerability", "One vulnerability everywhere in the hub.", [name], "Vulnerability")
        },
        **manage.paths(components, OPERATIONS),
    }
