"""Searches in the catalogue, in pages: best matches first, newest first among them.

Every question is asked by a `Caller`, and answers as if what that caller may not see did not exist.
"""

import re
from collections.abc import Mapping, Sequence
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
_LOOKED_THROUGH = 2000
_WALKS = ("enable_seqscan", "enable_mergejoin", "enable_hashjoin")
"""Ways of the server through a whole table."""
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
            wanted, end = limit + 1 - len(found), before if at == tier else 0
            found += [(at, row) for row in _newest(connection, select, expression, end, wanted)]
            if len(found) > limit:
                break
        entries = complete(connection, [listed(row) for _, row in found[:limit]], siblings=by_version)
    last = found[limit - 1] if len(found) > limit else None
    return Page(entries, f"{last[0]}.{last[1].id}" if last else "")


def _newest(
    connection: sa.Connection, select: sa.Select[Any], expression: terms.Expression | None, end: int, limit: int
) -> Sequence[sa.Row[Any]]:
    """Return the first rows of `select` that `expression` finds, newest first; `end`: only those with smaller ids."""
    key: sa.ColumnElement[int] = words.c.rowid if expression else releases.c.id
    if expression and connection.dialect.name == "postgresql":
        return _newest_on_server(connection, select, sa.true() if not end else key < end, expression, limit)
    if expression:
        select = select.join(words, key == releases.c.id).where(terms.match(expression))
    select = select.where(key < end) if end else select
    return connection.execute(select.order_by(key.desc()).limit(limit)).all()


def _newest_on_server(
    connection: sa.Connection, select: sa.Select[Any], before: Any, expression: terms.Expression, limit: int
) -> Sequence[sa.Row[Any]]:
    """Look through the newest releases one by one, and only if that is not enough into the index.

    Its index has no order: what many releases have is found in the first look, what few have by the index. The server
    would choose between the two by how many it expects, and walk through all for words that never stand together.
    """
    newest = sa.select(words).where(before).order_by(words.c.rowid.desc()).limit(_LOOKED_THROUGH).subquery()
    few = select.join(newest, newest.c.rowid == releases.c.id).where(terms.match_in(newest.c.terms, expression))
    rows = connection.execute(few.order_by(newest.c.rowid.desc()).limit(limit)).all()
    if len(rows) == limit:
        return rows
    all_ = sa.select(words.c.rowid).where(before, terms.match_in(words.c.terms, expression)).cte("found")
    all_ = all_.prefix_with("MATERIALIZED", dialect="postgresql")
    sorted_ = (
        sa.select(all_).order_by(all_.c.rowid.desc()).offset(0).subquery()
    )  # before what else is wanted is fetched
    many = select.join(sorted_, sorted_.c.rowid == releases.c.id).order_by(sorted_.c.rowid.desc()).limit(limit)
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = off" for name in _WALKS))
    rows = connection.execute(many).all()
    connection.exec_driver_sql("; ".join(f"RESET {name}" for name in _WALKS))
    return rows


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
