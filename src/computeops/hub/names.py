"""What repositories can be called (distribution-spec 1.1, "Pulling manifests", and what the hub keeps for itself)."""

import re

from computeops.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})+")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
LENGTH = 255
RESERVED = frozenset({"api", "assets", "auth", "hooks", "imagefile", "pks", "static", "tags", "v1", "v2", "version"})
"""First components that repositories cannot have, because the hub's own paths begin with them."""


def require(name: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        UsageError: it is one.
    """
    if not REPOSITORY.fullmatch(name) or len(name) > LENGTH:
        raise UsageError(f"not a repository: {name[:LENGTH]!r}", hint="it is called collection/name, in lower case")
    if name.partition("/")[0] in RESERVED:
        raise UsageError(f"the hub keeps the name {name.partition('/')[0]!r} for itself")
