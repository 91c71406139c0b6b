"""Find a plugin by family and name: a module of ours, or an entry point of another package.

A plugin is a module that satisfies the Protocol in its family's `__init__`. The families are the folders `build`,
`engine`, `check`, `sign`, `store`, `run`; other packages add to them by entry points in the group
`computeops.<family>`.
"""

import importlib
from typing import Any

from computeops.errors import UsageError, did_you_mean


def load(family: str, name: str, built_in: tuple[str, ...]) -> Any:
    """Return the module of plugin `name` in `family`; the caller assigns it to the family's Protocol.

    Raises:
        UsageError: there is no such plugin; the message names the nearest.
    """
    if name in built_in:
        return importlib.import_module(f"computeops.{family}.{name.replace('-', '_')}")
    others = _entry_points(family)
    if name in others:
        return others[name].load()
    known = names(family, built_in)
    raise UsageError(
        f"no {family} plugin is called {name!r}{did_you_mean(name, known)}", hint=f"there are: {', '.join(known)}"
    )


def names(family: str, built_in: tuple[str, ...]) -> list[str]:
    """Return the names of all plugins of `family`, ours first."""
    return [*built_in, *sorted(set(_entry_points(family)) - set(built_in))]


def _entry_points(family: str) -> dict[str, Any]:
    # importlib.metadata costs 30 ms: only asked when a name is not one of ours.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=f"computeops.{family}")}
