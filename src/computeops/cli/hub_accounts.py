"""The verbs of a hub's operator about people: user, member, token, publisher, webhook, audit."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from computeops.cli.output import emit, json_option, table
from computeops.errors import UsageError

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder with everything that the hub keeps; made if it is missing.",
)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_DAYS = click.option("--days", default=365, show_default=True, type=int, help="How long the token is valid.")


def _open(data: Path) -> Any:
    from computeops.hub.state import Hub

    return Hub.open(data)


def _log(hub: Any, action: str, target: str) -> None:
    from computeops.hub import audit

    audit.by_operator(hub.database, action, target)


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


@click.group("user")
def user_command() -> None:
    """People with an account: those who signed in at a provider, and those made here."""


@user_command.command("add")
@DATA
@click.argument("name")
@click.option("--admin", is_flag=True, help="Make an administrator of the hub.")
@click.option("--title", default="", help="As the person is called.")
@_DAYS
def user_add_command(data: Path, name: str, title: str, days: int, *, admin: bool) -> None:
    """Make an account and print a token with which the person signs in at /auth/tokens; it is shown this once.

    Example: computeops hub user add ada --admin --data /srv/hub
    """
    from computeops.hub import accounts

    hub = _open(data)
    accounts.add(hub.database, name, administrator=admin, title=title)
    _log(hub, "add user" + (" as administrator" if admin else ""), name)
    click.echo(_personal(hub, name, days))


@user_command.command("token")
@DATA
@click.argument("name")
@_DAYS
def user_token_command(data: Path, name: str, days: int) -> None:
    """Print a new token of the person NAME, who lost theirs; it is shown this once.

    Example: computeops hub user token ada --data /srv/hub
    """
    hub = _open(data)
    token = _personal(hub, name, days)
    _log(hub, "new token for a user", name)
    click.echo(token)


def _personal(hub: Any, name: str, days: int) -> str:
    from computeops.hub import accounts
    from computeops.hub.auth import EVERYTHING, Scope

    person = accounts.find(hub.database, name)
    scopes = [Scope.parse(EVERYTHING)]
    return accounts.personal_token(hub.database, hub.auth, person.id, "by the operator", scopes, days)


@user_command.command("list")
@DATA
@json_option
def user_list_command(data: Path, *, as_json: bool) -> None:
    """List all who have an account.

    Example: computeops hub user list --data /srv/hub
    """
    from computeops.hub import accounts

    found = accounts.everybody(_open(data).database)
    rows = [
        (one.name, _state(one.administrator, active=one.active), _experts(one.experts), _day(one.created), one.title)
        for one in found
    ]
    text = table(("NAME", "IS", "EXPERT", "SINCE", "TITLE"), rows) if rows else "nobody"
    emit([asdict(one) for one in found], text, as_json=as_json)


def _state(administrator: bool, *, active: bool) -> str:
    if not active:
        return "closed"
    return "administrator" if administrator else "user"


def _experts(found: Any) -> str:
    return ", ".join(f"{kind}:{domain}" for kind, domains in found.items() for domain in domains)


@user_command.command("set")
@DATA
@click.argument("name")
@click.option("--admin/--no-admin", default=None, help="Make an administrator, or no longer.")
@click.option("--active/--closed", default=None, help="Let the person in, or no longer: all their tokens stop at once.")
@click.option("--expert", multiple=True, help="scientific:DOMAIN or technical:DOMAIN; the domain * is every one.")
@click.option("--no-expert", multiple=True, help="An expert in that no longer.")
def user_set_command(
    data: Path,
    name: str,
    expert: Sequence[str],
    no_expert: Sequence[str],
    *,
    admin: bool | None,
    active: bool | None,
) -> None:
    """Change what the person NAME is in this hub; it holds at once.

    Example: computeops hub user set ada --expert scientific:genomics --data /srv/hub
    """
    from computeops.hub import accounts

    hub = _open(data)
    accounts.change(hub.database, name, administrator=admin, active=active)
    for given, is_one in ((expert, True), (no_expert, False)):
        for one in given:
            kind, _, domain = one.partition(":")
            accounts.set_expert(hub.database, name, kind, domain, is_one=is_one)
    new = {"administrator": admin, "active": active, "expert": list(expert), "no longer expert": list(no_expert)}
    said = ", ".join(f"{key} {value}" for key, value in new.items() if value not in (None, []))
    _log(hub, f"set user: {said}", name)


@click.group("member")
def member_command() -> None:
    """Roles in a collection: reader, contributor, maintainer, owner."""


@member_command.command("set")
@DATA
@click.argument("collection")
@click.argument("name")
@click.argument("role")
def member_set_command(data: Path, collection: str, name: str, role: str) -> None:
    """Give the person NAME the ROLE in COLLECTION.

    Example: computeops hub member set bio ada owner --data /srv/hub
    """
    from computeops.hub import roles

    hub = _open(data)
    roles.set_member(hub.database, collection, name, role)
    _log(hub, f"set member {name} {role}", collection)


@member_command.command("remove")
@DATA
@click.argument("collection")
@click.argument("name")
def member_remove_command(data: Path, collection: str, name: str) -> None:
    """Take the role of the person NAME in COLLECTION away.

    Example: computeops hub member remove bio ada --data /srv/hub
    """
    from computeops.hub import roles

    hub = _open(data)
    roles.remove_member(hub.database, collection, name)
    _log(hub, f"remove member {name}", collection)


@member_command.command("list")
@DATA
@click.argument("collection")
@json_option
def member_list_command(data: Path, collection: str, *, as_json: bool) -> None:
    """List the members of COLLECTION.

    Example: computeops hub member list bio --data /srv/hub
    """
    from computeops.hub import roles

    found = roles.list_members(_open(data).database, collection)
    rows = [(one.name, one.role, _day(one.created), one.title) for one in found]
    emit([asdict(one) for one in found], table(("NAME", "ROLE", "SINCE", "TITLE"), rows), as_json=as_json)


@click.group("token", invoke_without_command=True)
@click.option("--data", type=_FOLDER, help="Folder with everything that the hub keeps; made if it is missing.")
@click.option("--name", default="", help="Who will use it.")
@click.option("--scope", "scopes", multiple=True, help="pull:, push:, delete: or manage: and *, bio/* or bio/x.")
@_DAYS
@click.pass_context
def token_command(ctx: click.Context, data: Path | None, name: str, scopes: Sequence[str], days: int) -> None:
    """Print a new token, which may what its scopes say; it is shown this once. Or list and revoke tokens.

    Example: computeops hub token --data /srv/hub --name ada --scope push:bio/samtools
    """
    if ctx.invoked_subcommand:
        return
    from computeops.hub.auth import Scope

    if data is None or not name or not scopes:
        raise UsageError("a new token needs --data, --name and --scope", hint="computeops hub token --help")
    hub = _open(data)
    token = hub.auth.issue(name, [Scope.parse(text) for text in scopes], days=days)
    _log(hub, f"new token {' '.join(scopes)}", name)
    click.echo(token)


@token_command.command("list")
@DATA
@json_option
def token_list_command(data: Path, *, as_json: bool) -> None:
    """List all tokens that have not ended; no token itself can be read again.

    Example: computeops hub token list --data /srv/hub
    """
    from computeops.hub import accounts

    found = accounts.list_tokens(_open(data).database)
    rows = [
        (str(one.id), one.kind, one.owner or "-", one.name, " ".join(one.scopes), _day(one.expires)) for one in found
    ]
    text = table(("ID", "KIND", "OF", "NAME", "SCOPES", "ENDS"), rows) if rows else "none"
    emit([asdict(one) for one in found], text, as_json=as_json)


@token_command.command("revoke")
@DATA
@click.argument("token", type=int)
def token_revoke_command(data: Path, token: int) -> None:
    """End the token with the id TOKEN, at once.

    Example: computeops hub token revoke 7 --data /srv/hub
    """
    from computeops.hub import accounts

    hub = _open(data)
    accounts.revoke(hub.database, token)
    _log(hub, f"revoke token {token}", "")


@click.group("publisher")
def publisher_command() -> None:
    """CI projects that may publish without a secret."""


@publisher_command.command("add")
@DATA
@click.argument("collection")
@click.option("--issuer", required=True, help="The CI service, for example https://gitlab.com.")
@click.option("--project", required=True, help="group/project")
@click.option("--ref", default="", help="Branch, or refs/tags/v*; default: every branch and tag.")
@click.option("--repository", default="", help="The only repository; default: all of the collection.")
def publisher_add_command(data: Path, collection: str, issuer: str, project: str, ref: str, repository: str) -> None:
    """Let the CI of a project push to COLLECTION.

    Example: computeops hub publisher add bio --issuer https://gitlab.com --project lab/samtools --data /srv/hub
    """
    from computeops.hub import publishing

    hub = _open(data)
    made = publishing.add(
        hub, collection, issuer=issuer, project=project, ref=ref, repository=repository, added_by="the operator"
    )
    _log(hub, f"add publisher {made.id} {issuer} {project} {ref} {repository}", collection)
    click.echo(made.id)


@publisher_command.command("list")
@DATA
@click.argument("collection")
@json_option
def publisher_list_command(data: Path, collection: str, *, as_json: bool) -> None:
    """List what CI may publish in COLLECTION.

    Example: computeops hub publisher list bio --data /srv/hub
    """
    from computeops.hub import publishing

    found = publishing.list_publishers(_open(data).database, collection)
    rows = [(str(o.id), o.issuer, o.project, o.ref or "any", o.repository or "all", o.added_by) for o in found]
    text = table(("ID", "ISSUER", "PROJECT", "REF", "REPOSITORY", "BY"), rows) if rows else "none"
    emit([asdict(one) for one in found], text, as_json=as_json)


@publisher_command.command("remove")
@DATA
@click.argument("collection")
@click.argument("publisher", type=int)
def publisher_remove_command(data: Path, collection: str, publisher: int) -> None:
    """Let CI publish no longer; PUBLISHER is the id in the list.

    Example: computeops hub publisher remove bio 3 --data /srv/hub
    """
    from computeops.hub import publishing

    hub = _open(data)
    publishing.remove(hub.database, collection, publisher)
    _log(hub, f"remove publisher {publisher}", collection)


@click.group("webhook")
def webhook_command() -> None:
    """Addresses that are told what is pushed to a collection."""


@webhook_command.command("add")
@DATA
@click.argument("collection")
@click.argument("url")
@click.option("--event", "events", multiple=True, help="push or evidence; default: both.")
def webhook_add_command(data: Path, collection: str, url: str, events: Sequence[str]) -> None:
    """Tell URL what is pushed to COLLECTION; prints the secret of its signatures, once.

    Example: computeops hub webhook add bio https://ci.example.org/hook --data /srv/hub
    """
    from computeops.http.addresses import shown
    from computeops.hub import webhooks

    hub = _open(data)
    made, secret = webhooks.add(hub, collection, url, events, added_by="the operator")
    _log(hub, f"add webhook {made.id} {shown(url)}", collection)
    click.echo(secret)


@webhook_command.command("list")
@DATA
@click.argument("collection")
@json_option
def webhook_list_command(data: Path, collection: str, *, as_json: bool) -> None:
    """List the webhooks of COLLECTION and what became of the last things that they told.

    Example: computeops hub webhook list bio --data /srv/hub
    """
    from computeops.hub import webhooks

    database = _open(data).database
    found = webhooks.list_webhooks(database, collection)
    last = {one.id: webhooks.list_deliveries(database, collection, one.id, limit=1) for one in found}
    rows = [
        (str(o.id), o.url, ",".join(o.events), last[o.id][0].outcome if last[o.id] else "nothing told") for o in found
    ]
    text = table(("ID", "URL", "EVENTS", "LAST"), rows) if rows else "none"
    emit([asdict(one) for one in found], text, as_json=as_json)


@webhook_command.command("remove")
@DATA
@click.argument("collection")
@click.argument("webhook", type=int)
def webhook_remove_command(data: Path, collection: str, webhook: int) -> None:
    """Remove a webhook; WEBHOOK is the id in the list.

    Example: computeops hub webhook remove bio 3 --data /srv/hub
    """
    from computeops.hub import webhooks

    hub = _open(data)
    webhooks.remove(hub.database, collection, webhook)
    _log(hub, f"remove webhook {webhook}", collection)


@click.command("audit")
@DATA
@click.option("--who", default="", help="Only what this person or token did.")
@click.option("--target", default="", help="Only what has this in its path.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000_000), help="How many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def audit_command(data: Path, who: str, target: str, limit: int, *, as_json: bool) -> None:
    """Print who changed what, newest first.

    Example: computeops hub audit --data /srv/hub --who ada
    """
    from computeops.hub import audit

    found = audit.lines(_open(data).database, limit=limit, who=who, target=target)
    if as_json:
        for one in found:
            click.echo(json.dumps(asdict(one)))
        return
    at = "%Y-%m-%dT%H:%M:%SZ"
    rows = [
        (time.strftime(at, time.gmtime(o.at)), o.who or "-", o.address or "-", str(o.status), o.action, o.target)
        for o in found
    ]
    click.echo(table(("WHEN", "WHO", "FROM", "RESULT", "DID", "TO"), rows) if rows else "nothing")
