"""The part of a collection's page that is about pipelines: pushes that start them, rebuilds before a release."""

from collections.abc import Callable, Mapping
from typing import Any

from computeops.errors import UsageError
from computeops.hub.auth import Caller
from computeops.hub.pipelines import hooks, rules
from computeops.hub.state import Hub

Fields = Mapping[str, str]
NOTED = ("hook", "kind", "git", "rebuilds")
"""Fields that the audit log keeps."""


def shown(hub: Hub, caller: Caller, name: str) -> dict[str, Any]:
    """Return what the template needs to show the pipelines' part of a collection."""
    maintains = caller.manages(name, "maintainer")
    return {
        "hooks": hooks.entries(hub.database, name) if maintains else [],
        "hook_kinds": hooks.KINDS,
        "rebuilds_wanted": rules.rebuilds(hub.database, name),
    }


def _add_hook(hub: Hub, caller: Caller, name: str, fields: Fields) -> str:
    repository, kind, git, ref, folder = (
        fields.get(key, "").strip() for key in ("repository", "kind", "git", "ref", "folder")
    )
    made = hooks.add(hub, name, repository, kind, git, ref or hooks.ANY_TAG, folder, added_by=caller.name)
    return f"{hub.base}/hooks/{made.id}\n{made.secret}"


def _remove_hook(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    hooks.remove(hub.database, name, _number(fields, "hook", 1 << 31))
    return ""


def _set_rebuilds(hub: Hub, _: Caller, name: str, fields: Fields) -> str:
    rules.set_rebuilds(hub.database, name, _number(fields, "rebuilds", rules.MOST))
    return ""


def _number(fields: Fields, name: str, most: int) -> int:
    text = fields.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise UsageError(f"{name} is a number up to {most}, not {text[:40]!r}")
    return int(text)


CHANGES: Mapping[str, tuple[str, Callable[[Hub, Caller, str, Fields], str]]] = {
    "add hook": ("maintainer", _add_hook),
    "remove hook": ("maintainer", _remove_hook),
    "set rebuilds": ("owner", _set_rebuilds),
}
"""What the forms do, and the role that it takes."""
