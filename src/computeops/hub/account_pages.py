"""Pages with forms: one's tokens, a collection with its members and what acts for it, and the audit log."""

from asyncio import to_thread
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import DeniedError, UsageError
from computeops.hub import accounts, audit, browser, pages, publishing, roles, webhooks
from computeops.hub.auth import ACTIONS, ROLES, Caller, Scope
from computeops.hub.pipelines import forms as pipeline_forms
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import forms

_LINES = 100
Fields = Mapping[str, str]


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def tokens(request: Request) -> Response:
        if request.method == "POST":
            return await _change_tokens(hub, request)
        return await to_thread(_tokens, hub, request)

    async def collection(request: Request) -> Response:
        if request.method == "POST":
            return await _change_collection(hub, request)
        return await to_thread(_collection, hub, request)

    async def log(request: Request) -> Response:
        return await to_thread(_audit, hub, request)

    return [
        Route("/auth/tokens", tokens, methods=["GET", "POST"]),
        Route("/auth/collections/{collection:path}", collection, methods=["GET", "POST"]),
        Route("/auth/audit", log, methods=["GET"]),
    ]


# tokens


def _tokens(hub: Hub, request: Request, new: str = "") -> Response:
    caller = browser.caller(hub, request)
    mine = accounts.list_tokens(hub.database, person=caller.person) if caller.person else []
    shown = {
        "title": "Account and tokens" if caller.person else "Tokens",
        "base": hub.url(request.scope),
        "providers": hub.settings.providers,
        "tokens": [one for one in mine if one.kind == "personal"],
        "roles": roles.of_person(hub.database, caller.person) if caller.person else {},
        "actions": ACTIONS,
        "new": new,
    }
    return pages.own_page(hub, request, "tokens.html", shown)


async def _change_tokens(hub: Hub, request: Request) -> Response:
    fields = await browser.form(hub, request)
    caller = browser.person(await to_thread(browser.caller, hub, request))
    if fields.get("do") == "revoke":
        number = _number(fields, "token")
        audit.note(request.scope, f"revoke token {number}")
        await to_thread(lambda: accounts.revoke(hub.database, number, person=caller.person))
        return pages.see_other("/auth/tokens")
    scope = Scope.parse(f"{fields.get('action', '')}:{fields.get('pattern', '').strip() or '*'}")
    require_covered(caller, [scope])
    audit.note(request.scope, f"new token {scope.action}:{scope.pattern}")
    name, days = fields.get("name", "").strip(), _number(fields, "days")
    new = await to_thread(accounts.personal_token, hub.database, hub.auth, caller.person, name, [scope], days)
    return await to_thread(_tokens, hub, request, new)


def require_covered(caller: Caller, scopes: list[Scope]) -> None:
    """Refuse to give a token more than the one that asks for it has.

    Raises:
        DeniedError: a scope is greater than those of the caller.
    """
    for wanted in scopes:
        if not any(_within(wanted, own) for own in caller.scopes):
            raise DeniedError(f"your own token may not {wanted.action}:{wanted.pattern}", hint="sign in to make tokens")


def _within(wanted: Scope, own: Scope) -> bool:
    if wanted.pattern == "*" or own.pattern == "*":
        return own.pattern == "*" and ACTIONS.index(wanted.action) <= ACTIONS.index(own.action)
    return own.allows(wanted.action, wanted.pattern)


# a collection


def _collection(hub: Hub, request: Request, new: str = "", what: str = "") -> Response:
    caller, name = browser.caller(hub, request), request.path_params["collection"].strip("/")
    roles.require(hub.database, caller, name, "reader")
    maintains, owns = caller.manages(name, "maintainer"), caller.manages(name, "owner")
    shown = {
        "title": name,
        "name": name,
        "public": roles.is_public(hub.database, name),
        "members": roles.list_members(hub.database, name),
        "maintains": maintains,
        "owns": owns,
        "roles": ROLES,
        "issuers": [one.issuer for one in hub.settings.ci],
        "publishers": publishing.list_publishers(hub.database, name) if maintains else [],
        "webhooks": webhooks.list_webhooks(hub.database, name) if maintains else [],
        "robots": accounts.list_tokens(hub.database, collection=name) if maintains else [],
        "new": new,
        "what": what,
        **forms.shown(hub, caller, name),
        **pipeline_forms.shown(hub, caller, name),
    }
    return pages.own_page(hub, request, "collection.html", shown)


Change = Callable[[Hub, Caller, str, Fields], str]
"""Does what a form asks; returns what is shown once, or nothing."""


def _set_member(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    roles.set_member(hub.database, name, fields.get("person", "").strip(), fields.get("role", ""))
    return ""


def _remove_member(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    roles.remove_member(hub.database, name, fields.get("person", ""))
    return ""


def _visibility(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    hub.set_public(name, public=fields.get("public") == "yes")
    return ""


def _add_publisher(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    asked = {key: fields.get(key, "").strip() for key in ("issuer", "project", "ref", "repository")}
    publishing.add(hub, name, **asked, added_by=caller.name)
    return ""


def _remove_publisher(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    publishing.remove(hub.database, name, _number(fields, "publisher"))
    return ""


def _add_webhook(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    return webhooks.add(hub, name, fields.get("url", "").strip(), (), added_by=caller.name)[1]


def _remove_webhook(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    webhooks.remove(hub.database, name, _number(fields, "webhook"))
    return ""


def _add_robot(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    asked = fields.get("name", "").strip(), [fields.get("action", "")], _number(fields, "days")
    return accounts.robot_token(hub.database, hub.auth, name, *asked)


def _revoke_robot(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    accounts.revoke(hub.database, _number(fields, "token"), collection=name)
    return ""


_CHANGES: Mapping[str, tuple[str, Change]] = {
    "set member": ("owner", _set_member),
    "remove member": ("owner", _remove_member),
    "visibility": ("owner", _visibility),
    "add publisher": ("maintainer", _add_publisher),
    "remove publisher": ("maintainer", _remove_publisher),
    "add webhook": ("maintainer", _add_webhook),
    "remove webhook": ("maintainer", _remove_webhook),
    "add robot": ("maintainer", _add_robot),
    "revoke robot": ("maintainer", _revoke_robot),
    **forms.CHANGES,
    **pipeline_forms.CHANGES,
}
"""What the forms of the page do, and the role that it takes."""
_NOTED = ("person", "role", "public", "project", "ref", "repository", "publisher", "webhook", "name", "token")
_ALL_NOTED = (*_NOTED, *forms.NOTED, *pipeline_forms.NOTED)


async def _change_collection(hub: Hub, request: Request) -> Response:
    fields = await browser.form(hub, request)
    name, do = request.path_params["collection"].strip("/"), fields.get("do", "")
    if do not in _CHANGES:
        raise UsageError("unknown form", hint="open the page again")
    role, change = _CHANGES[do]
    caller = await to_thread(browser.caller, hub, request)
    await to_thread(roles.require, hub.database, caller, name, role)
    audit.note(request.scope, " ".join([do, *(fields[key] for key in _ALL_NOTED if fields.get(key))]))
    new = await to_thread(change, hub, caller, name, fields)
    if new:
        return await to_thread(_collection, hub, request, new, do)
    return pages.see_other(f"/auth/collections/{name}")


# the audit log


def _audit(hub: Hub, request: Request) -> Response:
    caller, asked = browser.caller(hub, request), request.query_params
    require_ruler(caller)
    before = int(asked["before"]) if asked.get("before", "").isdecimal() and len(asked["before"]) < 18 else 0
    found = audit.lines(
        hub.database, limit=_LINES + 1, before=before, who=asked.get("who", ""), target=asked.get("target", "")
    )
    shown = {"title": "Audit log", "lines": found[:_LINES], "more": found[_LINES - 1].id if len(found) > _LINES else 0}
    shown |= {"who": asked.get("who", ""), "target": asked.get("target", "")}
    return pages.own_page(hub, request, "audit.html", shown)


def require_ruler(caller: Caller) -> None:
    """Let only administrators go on.

    Raises:
        LoginError, DeniedError: it is none.
    """
    if not caller.rules:
        raise roles.refused(caller, "do what only administrators of this hub may")


def _number(fields: Fields, name: str) -> int:
    text = fields.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{name} is a number, not {text[:40]!r}")
    return int(text)
