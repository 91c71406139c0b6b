"""The JSON API of those who manage: tokens, collections with members, publishers, webhooks and robots; the audit log.

One table says for each operation who may do it, what is sent and what is answered; the routes and their part of the
OpenAPI document are made of it. A cookie of the portal opens nothing here: only `Authorization` does.
"""

from asyncio import to_thread
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import LoginError, UsageError
from computeops.http.addresses import shown
from computeops.hub import accounts, audit, publishing, receive, roles, webhooks
from computeops.hub.account_pages import require_covered, require_ruler
from computeops.hub.auth import Caller, Scope
from computeops.hub.state import Hub
from computeops.limits import LIMITS

_JSON = "application/json"
_BODY_BYTES = 64 * 1024
_MOST_LINES = 1000
_T = TypeVar("_T", bound=Struct)
Days = Annotated[int, Meta(ge=1, le=3650)]


class Myself(Struct, frozen=True, kw_only=True):
    """Who asks."""

    name: str
    person: bool
    """Whether it is somebody's token; else the operator's, a robot's or CI's."""
    administrator: bool
    scopes: Sequence[str]
    """What the token itself allows."""
    collections: dict[str, str]
    """Collection to role."""


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A personal token that is wanted."""

    name: str
    scopes: Annotated[Sequence[str], Meta(min_length=1, max_length=20)]
    days: Days = 90


class NewRobot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of a collection that is wanted."""

    name: str
    actions: Annotated[Sequence[str], Meta(min_length=1, max_length=3)]
    days: Days = 365


class Given(Struct, frozen=True, kw_only=True):
    """A secret that is shown this once."""

    secret: str


class TokenEntry(Struct, frozen=True, kw_only=True):
    """A token, without itself."""

    id: int
    name: str
    kind: str
    owner: str
    scopes: Sequence[str]
    created: int
    expires: int


class Visibility(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may see a collection."""

    public: bool


class Role(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role in a collection."""

    role: str


class MemberEntry(Struct, frozen=True, kw_only=True):
    """A person with a role in a collection."""

    name: str
    title: str
    role: str
    created: int


class NewPublisher(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A CI project that shall publish."""

    issuer: str
    project: str
    ref: str = ""
    repository: str = ""


class PublisherEntry(NewPublisher, frozen=True, kw_only=True):
    """A CI project that may publish."""

    id: int
    collection: str
    project_id: str
    added_by: str
    created: int


class NewWebhook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address that shall be told what is pushed."""

    url: str
    events: Annotated[Sequence[str], Meta(max_length=10)] = ()


class WebhookEntry(Struct, frozen=True, kw_only=True):
    """An address that is told what is pushed."""

    id: int
    url: str
    events: Sequence[str]
    added_by: str
    created: int


class DeliveryEntry(Struct, frozen=True, kw_only=True):
    """Something that a webhook told, or is to tell."""

    id: int
    event: str
    created: int
    attempts: int
    due: int | None
    """When it is tried next; null: it was told, or given up."""
    outcome: str


class Line(Struct, frozen=True, kw_only=True):
    """One line of the audit log."""

    id: int
    at: int
    who: str
    token: int
    address: str
    action: str
    target: str
    status: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who asks, about what."""

    hub: Hub
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any

    @property
    def collection(self) -> str:
        """Return the collection in the path."""
        return self.path["collection"].strip("/")

    def number(self, name: str, default: str = "") -> int:
        """Return a number in the path or the query.

        Raises:
            UsageError: it is none.
        """
        text = self.path.get(name) or self.query.get(name) or default
        if not (text.isascii() and text.isdigit() and len(text) < 18):
            raise UsageError(f"{name} is a number, not {text[:40]!r}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked of this door."""

    method: str
    path: str
    role: str
    """Who may: a role in the collection, `caller`, `person`, `administrator`, or `` where the operation decides."""
    summary: str
    do: Callable[[Asked], Any]
    answer: Any = None
    """Type of the answer; None: 204 without one."""
    body: type[Struct] | None = None


def _myself(asked: Asked) -> Myself:
    caller = asked.caller
    return Myself(
        name=caller.name,
        person=bool(caller.person),
        administrator=caller.administrator,
        scopes=[f"{one.action}:{one.pattern}" for one in caller.scopes],
        collections=dict(caller.roles or {}),
    )


def _my_tokens(asked: Asked) -> list[TokenEntry]:
    return _entries(TokenEntry, accounts.list_tokens(asked.hub.database, person=asked.caller.person))


def _new_token(asked: Asked) -> Given:
    scopes = [Scope.parse(one) for one in asked.body.scopes]
    require_covered(asked.caller, scopes)
    person, body = asked.caller.person, asked.body
    return Given(
        secret=accounts.personal_token(asked.hub.database, asked.hub.auth, person, body.name, scopes, body.days)
    )


def _revoke_token(asked: Asked) -> None:
    accounts.revoke(asked.hub.database, asked.number("token"), person=asked.caller.person)


def _set_collection(asked: Asked) -> None:
    name, public = asked.collection, asked.body.public
    if asked.caller.manages(name, "owner") and roles.exists(asked.hub.database, name):
        asked.hub.set_public(name, public=public)
        return
    roles.create(asked.hub.database, asked.caller, name, public=public)


def _members(asked: Asked) -> list[MemberEntry]:
    return _entries(MemberEntry, roles.list_members(asked.hub.database, asked.collection))


def _set_member(asked: Asked) -> None:
    roles.set_member(asked.hub.database, asked.collection, asked.path["person"], asked.body.role)


def _remove_member(asked: Asked) -> None:
    roles.remove_member(asked.hub.database, asked.collection, asked.path["person"])


def _publishers(asked: Asked) -> list[PublisherEntry]:
    return _entries(PublisherEntry, publishing.list_publishers(asked.hub.database, asked.collection))


def _add_publisher(asked: Asked) -> PublisherEntry:
    sent = msgspec.structs.asdict(asked.body)
    made = publishing.add(asked.hub, asked.collection, **sent, added_by=asked.caller.name)
    return _entries(PublisherEntry, [made])[0]


def _remove_publisher(asked: Asked) -> None:
    publishing.remove(asked.hub.database, asked.collection, asked.number("publisher"))


def _webhooks(asked: Asked) -> list[WebhookEntry]:
    return _entries(WebhookEntry, webhooks.list_webhooks(asked.hub.database, asked.collection))


def _add_webhook(asked: Asked) -> Given:
    url, events = asked.body.url, asked.body.events
    return Given(secret=webhooks.add(asked.hub, asked.collection, url, events, added_by=asked.caller.name)[1])


def _remove_webhook(asked: Asked) -> None:
    webhooks.remove(asked.hub.database, asked.collection, asked.number("webhook"))


def _deliveries(asked: Asked) -> list[DeliveryEntry]:
    found = webhooks.list_deliveries(asked.hub.database, asked.collection, asked.number("webhook"))
    return _entries(DeliveryEntry, found)


def _robots(asked: Asked) -> list[TokenEntry]:
    return _entries(TokenEntry, accounts.list_tokens(asked.hub.database, collection=asked.collection))


def _add_robot(asked: Asked) -> Given:
    body = asked.body
    made = accounts.robot_token(
        asked.hub.database, asked.hub.auth, asked.collection, body.name, body.actions, body.days
    )
    return Given(secret=made)


def _revoke_robot(asked: Asked) -> None:
    accounts.revoke(asked.hub.database, asked.number("token"), collection=asked.collection)


def _audit(asked: Asked) -> list[Line]:
    limit = min(max(asked.number("limit", "100"), 1), _MOST_LINES)
    wanted = {"who": asked.query.get("who", ""), "target": asked.query.get("target", "")}
    return _entries(Line, audit.lines(asked.hub.database, limit=limit, before=asked.number("before", "0"), **wanted))


def _entries(kind: type[_T], found: Sequence[Any]) -> list[_T]:
    names = {one.name for one in msgspec.structs.fields(kind)}
    return [kind(**{name: value for name, value in asdict(one).items() if name in names}) for one in found]


_C = "/api/v1/collections/{collection:path}"
OPERATIONS = (
    Operation("GET", "/api/v1/user", "caller", "Who you are to this hub.", _myself, Myself),
    Operation("GET", "/api/v1/tokens", "person", "Your personal tokens.", _my_tokens, list[TokenEntry]),
    Operation("POST", "/api/v1/tokens", "person", "Make a personal token.", _new_token, Given, NewToken),
    Operation("DELETE", "/api/v1/tokens/{token}", "person", "Revoke a personal token.", _revoke_token),
    Operation("GET", "/api/v1/audit", "administrator", "The audit log, newest first.", _audit, list[Line]),
    Operation("GET", f"{_C}/members", "reader", "Members of a collection.", _members, list[MemberEntry]),
    Operation("PUT", f"{_C}/members/{{person}}", "owner", "Give a person a role.", _set_member, None, Role),
    Operation("DELETE", f"{_C}/members/{{person}}", "owner", "Take a person's role away.", _remove_member),
    Operation("GET", f"{_C}/publishers", "maintainer", "CI that may publish.", _publishers, list[PublisherEntry]),
    Operation(
        "POST", f"{_C}/publishers", "maintainer", "Let CI publish.", _add_publisher, PublisherEntry, NewPublisher
    ),
    Operation("DELETE", f"{_C}/publishers/{{publisher}}", "maintainer", "Let CI publish no longer.", _remove_publisher),
    Operation("GET", f"{_C}/webhooks", "maintainer", "Webhooks of a collection.", _webhooks, list[WebhookEntry]),
    Operation("POST", f"{_C}/webhooks", "maintainer", "Add a webhook.", _add_webhook, Given, NewWebhook),
    Operation("DELETE", f"{_C}/webhooks/{{webhook}}", "maintainer", "Remove a webhook.", _remove_webhook),
    Operation(
        "GET", f"{_C}/webhooks/{{webhook}}/deliveries", "maintainer", "What it told.", _deliveries, list[DeliveryEntry]
    ),
    Operation("GET", f"{_C}/tokens", "maintainer", "Tokens of a collection's robots.", _robots, list[TokenEntry]),
    Operation("POST", f"{_C}/tokens", "maintainer", "Make a robot's token.", _add_robot, Given, NewRobot),
    Operation("DELETE", f"{_C}/tokens/{{token}}", "maintainer", "Revoke a robot's token.", _revoke_robot),
    Operation("PUT", _C, "", "Make a collection, or say who may see it.", _set_collection, None, Visibility),
)


def routes(hub: Hub, operations: Sequence[Operation] = OPERATIONS) -> list[Route]:
    """Return the routes of this door, or of another with `operations` of its own."""
    return [Route(one.path, _endpoint(hub, one), methods=[one.method]) for one in operations]


def _endpoint(hub: Hub, operation: Operation) -> Any:
    async def endpoint(request: Request) -> Response:
        body = None if operation.body is None else await _body(request, operation.body)
        caller = await to_thread(hub.caller, request.scope)
        asked = Asked(hub, caller, request.path_params, request.query_params, body)
        said = await to_thread(_do, operation, asked)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if operation.answer is None:
            return Response(status_code=204, headers=headers)
        status = 201 if operation.method == "POST" else 200
        return Response(msgspec.json.encode(said), status, headers, _JSON)

    return endpoint


async def _body(request: Request, kind: type[Struct]) -> Any:
    data = await receive.whole(request.receive, _BODY_BYTES)
    try:
        found = msgspec.json.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"not what this asks for: {error}", hint="see /api/v1/openapi.json") from None
    said = {name: value for name, value in msgspec.structs.asdict(found).items() if value not in ("", ())}
    said |= {"url": shown(found.url)} if isinstance(found, NewWebhook) else {}  # its query may be a secret
    audit.note(request.scope, " ".join(f"{name}={value}" for name, value in said.items())[: LIMITS.search_chars])
    return found


def _do(operation: Operation, asked: Asked) -> Any:
    caller = asked.caller
    if not caller.name:
        raise LoginError("a token is needed", hint="send it as Authorization: Bearer TOKEN")
    if operation.role == "person":
        if not caller.person:
            raise LoginError("only a person's token may do this", hint="sign in at /auth/tokens and make one")
    elif operation.role == "administrator":
        require_ruler(caller)
    elif operation.role not in {"", "caller"}:
        roles.require(asked.hub.database, caller, asked.collection, operation.role)
    return operation.do(asked)


def paths(components: dict[str, Any], operations: Sequence[Operation] = OPERATIONS) -> dict[str, dict[str, Any]]:
    """Return the OpenAPI paths of `operations`, and add their schemas to `components`."""
    kinds = [kind for one in operations for kind in (one.answer, one.body) if kind is not None]
    schemas, known = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    components.update(known)
    by_kind = {str(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    found: dict[str, dict[str, Any]] = {}
    for one in operations:
        path = one.path.replace(":path", "")
        found.setdefault(path, {})[one.method.lower()] = _described(one, path, by_kind)
    return found


def reading(name: str, summary: str, parameters: list[dict[str, Any]], struct: str) -> dict[str, Any]:
    """Return the OpenAPI operation of a GET that has an ETag and answers with the schema `struct`."""

    def answer(description: str, schema: str) -> dict[str, Any]:
        content = {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        return {"description": description, "content": content}

    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": answer("Found.", struct),
            "304": {"description": "Unchanged since the answer with the ETag in If-None-Match."},
            "default": answer("It did not work.", "Failure"),
        },
    }


def _described(operation: Operation, path: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
    def content(kind: Any) -> dict[str, Any]:
        return {"content": {_JSON: {"schema": schemas[str(kind)]}}}

    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    if operation.role == "administrator":
        parameters += [{"name": n, "in": "query", "schema": {"type": "string"}} for n in ("who", "target")]
        parameters += [{"name": n, "in": "query", "schema": {"type": "integer"}} for n in ("limit", "before")]
    made = "201" if operation.method == "POST" else "200"
    done = {made: {"description": "Done.", **content(operation.answer)}} if operation.answer else {}
    failure = {_JSON: {"schema": {"$ref": "#/components/schemas/Failure"}}}
    name = operation.do.__name__.strip("_")
    return {
        "operationId": "".join(part.title() if i else part for i, part in enumerate(name.split("_"))),
        "summary": operation.summary,
        "description": f"Needs: {operation.role or 'owner, or whoever may make collections'}.",
        "parameters": parameters,
        **({"requestBody": {"required": True, **content(operation.body)}} if operation.body else {}),
        "responses": {
            **(done or {"204": {"description": "Done."}}),
            "default": {"description": "It did not work.", "content": failure},
        },
        "security": [{"token": []}],
    }
