"""The part of a collection's page that is about vulnerabilities: gate, passes, trusted keys, and what its forms do."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from computeops.check.advisories.model import SEVERITIES
from computeops.errors import UsageError
from computeops.hub import roles
from computeops.hub.auth import Caller
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import gates, signatures, told
from computeops.hub.vulnerabilities.gates import Gate

Fields = Mapping[str, str]
NOTED = ("action", "severity", "vulnerability", "until", "key")


def shown(hub: Hub, caller: Caller, collection: str) -> dict[str, Any]:
    """Return what the page shows."""
    with hub.database.read() as connection:
        told_of = told.subscriptions_of(connection, caller.person) if caller.person else []
        rebuilds = told.rebuild_wanted(connection, collection=collection)
    return {
        "gate": gates.of(hub.database, collection),
        "passes": gates.list_passes(hub.database, collection),
        "trusted": signatures.list_keys(hub.database, collection),
        "gate_actions": gates.ACTIONS,
        "severities": tuple(reversed(SEVERITIES)),
        "subscribed": collection in told_of,
        "rebuilds": rebuilds,
    }


def set_gate(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    """Set the gate."""
    gate = Gate(
        action=fields.get("action", ""),
        severity=fields.get("severity", ""),
        only_fixed=fields.get("only_fixed") == "yes",
        strict=fields.get("strict") == "yes",
        until=_end_of(fields.get("until", "")),
        changed_by=caller.name,
    )
    gates.put(hub.database, name, gate)
    return ""


def add_pass(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    """Let a vulnerability pass until a day."""
    asked = {key: fields.get(key, "").strip() for key in ("vulnerability", "repository", "reason")}
    gates.add_pass(hub.database, name, **asked, until=_end_of(fields.get("until", "")) or 0, added_by=caller.name)
    return ""


def remove_pass(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    """Let it pass no longer."""
    number = fields.get("pass", "")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UsageError(f"not a pass: {number[:40]!r}")
    gates.remove_pass(hub.database, name, int(number))
    return ""


def add_key(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    """Trust a key."""
    key, public = fields.get("key", "").strip(), fields.get("public", "")
    signatures.add_key(hub.database, name, key, public, added_by=caller.name)
    return ""


def remove_key(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    """Trust it no longer."""
    signatures.remove_key(hub.database, name, fields.get("key", ""))
    return ""


def subscribe(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    """Be told of what becomes known, or not any more."""
    if not caller.person:
        raise UsageError("only a person with an account can subscribe")
    roles.check_name(name)
    with hub.database.write() as connection:
        told.subscribe(connection, caller.person, name, wanted=fields.get("wanted") == "yes")
    return ""


def _end_of(text: str) -> int | None:
    """Return the end of a day, seconds since 1970; None: no day is given."""
    if not text.strip():
        return None
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
        return int((day + timedelta(days=1)).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"not a day: {text[:40]!r}", hint="write it as 2027-03-31") from None


CHANGES = {
    "set gate": ("maintainer", set_gate),
    "add pass": ("maintainer", add_pass),
    "remove pass": ("maintainer", remove_pass),
    "add key": ("maintainer", add_key),
    "remove key": ("maintainer", remove_key),
    "subscribe": ("reader", subscribe),
}
"""What the forms do, and the role that it takes."""
