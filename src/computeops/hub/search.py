"""Searches in the catalogue, in pages: best matches first, newest first among them.

Every question is asked by a `Caller`, and answers as if what that caller may not see did not exist.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from computeops.errors import UsageError, did_you_mean
from computeops.hub import terms
from computeops.hub.auth import Caller
from computeops.hub.db import Database
from computeops.hub.listed import Page, complete, listed, rows_of_releases
from computeops.hub.tables import collections, releases, repositories, words
from computeops.limits import LIMITS

PLACE = re.compile(r"([123])\.([0-9]{1,18})")
"""What `after` looks like."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


def search(
    database: Database,
    caller: Caller,
    query: str = "",
    *,
    facts: Mapping[str, str] = _NOTHING,
    limit: int = 20,
    after: str = "",
    by_version: bool = False,
) -> Page:
    """Return what has all words of `query` in its name, collection, version, domains or summary, and all `facts`.

    First what is called so, then those with a word in the name, then the others; newest first in each. `facts`: of
    `terms.FACTS`. `by_version`: one entry for all images of a version instead of one for each.

    Raises:
        UsageError: `query`, `facts`, `limit` or `after` is not what it must be.
    """
    _check(query, facts, limit)
    tier, before = cursor(after)
    found: list[tuple[int, sa.Row[Any]]] = []
    with database.read() as connection:
        for at, expression in list(enumerate(terms.tiers(query, facts), 1))[tier - 1 :]:
            select = rows_of_releases(by_version=by_version).where(visible(caller))
            key: sa.ColumnElement[int] = releases.c.id
            if expression:
                key = words.c.rowid
                select = select.join(words, words.c.rowid == releases.c.id)
                select = select.where(terms.match(connection.dialect.name, expression))
            select = select.where(key < before) if before and at == tier else select
            select = select.order_by(key.desc()).limit(limit + 1 - len(found))
            found += [(at, row) for row in connection.execute(select)]
            if len(found) > limit:
                break
        entries = complete(connection, [listed(row) for _, row in found[:limit]], siblings=by_version)
    last = found[limit - 1] if len(found) > limit else None
    return Page(entries, f"{last[0]}.{last[1].id}" if last else "")


def _check(query: str, facts: Mapping[str, str], limit: int) -> None:
    for text in (query, *facts.values()):
        if len(text) > LIMITS.search_chars:
            raise UsageError(f"a search may have {LIMITS.search_chars} characters, not {len(text)}")
    for key in facts:
        if key not in terms.FACTS:
            raise UsageError(f"no release is found by {key[:40]!r}{did_you_mean(key[:40], terms.FACTS)}")
    if not 1 <= limit <= LIMITS.page_rows:
        raise UsageError(f"a page has 1 to {LIMITS.page_rows} entries, not {limit}")


def cursor(after: str) -> tuple[int, int]:
    """Return the tier and the id behind which a page begins.

    Raises:
        UsageError: `after` is no place in a list.
    """
    if not after:
        return 1, 0
    match = PLACE.fullmatch(after)
    if match is None:
        raise UsageError(f"not a place in a list: {after[:40]!r}", hint="take `next` of the page before")
    return int(match[1]), int(match[2])


def repositories_of(database: Database, caller: Caller, *, after: str = "", limit: int) -> list[str]:
    """Return the names of the repositories that `caller` may read, at most `limit` of those behind `after`."""
    query = sa.select(repositories.c.name).join_from(repositories, collections).where(visible(caller))
    with database.read() as connection:
        return list(
            connection.scalars(query.where(repositories.c.name > after).order_by(repositories.c.name).limit(limit))
        )


def visible(caller: Caller) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that is `caller.sees`."""
    covered = []
    for scope in caller.scopes:
        prefix = scope.pattern.removesuffix("*")
        begins = sa.func.substr(repositories.c.name, 1, len(prefix)) == prefix
        covered.append(begins if scope.pattern.endswith("*") else repositories.c.name == prefix)
    seen = sa.or_(sa.false(), *covered)
    if caller.roles is not None and not caller.administrator:  # any role may at least pull
        seen &= collections.c.name.in_(list(caller.roles))
    return sa.or_(collections.c.public, seen)
