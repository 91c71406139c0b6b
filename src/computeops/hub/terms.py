"""The terms by which a search finds a release, and the expressions that ask for them, for SQLite and PostgreSQL alike.

A release is a set of terms: its words, the words of its name once more behind an `@`, and its facts (architecture,
licence, passed tests ...), each one term that begins with `=`. So a search with any filters is one question to one
index, however many releases have each of the terms. Words are compared without case and accents, by their first
`LETTERS` characters: each of their beginnings is in the index. SQLite keeps an index of beginnings itself, PostgreSQL
would look up every word that begins so: there the beginnings are terms too.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from computeops.hub.tables import words as words_table

LETTERS = 16
FACTS = {
    "arch": "for this OCI architecture",
    "collection": "of this collection",
    "cpu": "built for this CPU level, by its archspec name",
    "domain": "of this domain of science",
    "gpu": "that need a GPU of this kind: nvidia, amd or intel",
    "license": "with this licence, by its SPDX identifier, alone or among others",
    "variant": "of this variant",
    "verdict": "whose known vulnerabilities amount to this: clean, vulnerable, stale, unscannable or waiting",
    "verified": "with evidence of this kind (test, provenance, cyclonedx, spdx, vulns ...), none of which failed",
}
"""What can be asked for exactly, and what it means."""
_WORD = re.compile(r"[^\W_]+")
_MAX_TERMS = 512
_MAX_WANTED = 12


class _TsQuery(sa.types.UserDefinedType[str]):
    """PostgreSQL's `tsquery`; SQLAlchemy's own is in a module that takes 50 ms to import."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "TSQUERY"


@dataclass(frozen=True, slots=True)
class Expression:
    """What a release must have: all beginnings of words, all facts, one of `named`, none of `other`."""

    words: Sequence[str] = ()
    facts: Sequence[str] = ()
    named: Sequence[str] = ()
    other: Sequence[str] = ()

    def fts5(self) -> str:
        """Return it for SQLite (https://sqlite.org/fts5.html, 3). Terms are quoted: nothing in them is syntax."""
        every = [f'"{word}"*' for word in self.words] + [f'"{fact}"' for fact in self.facts]
        if self.named:
            every.append(f"({' OR '.join(_fts5(self.named))})")
        text = " AND ".join(every)
        return f"({text}) NOT ({' OR '.join(_fts5(self.other))})" if self.other else text

    def tsquery(self) -> str:
        """Return it for PostgreSQL (https://www.postgresql.org/docs/current/datatype-textsearch.html)."""
        every = [f"'{term}'" for term in (*self.words, *self.facts)]
        if self.named:
            every.append("({})".format(" | ".join(f"'{one}'" for one in self.named)))
        return " & ".join([*every, *(f"!'{one}'" for one in self.other)])


def _fts5(found: Iterable[str]) -> list[str]:
    return [f'"{one}"' if one.startswith("=") else f'"{one}"*' for one in found]


def words(text: str) -> list[str]:
    """Return the words of `text`, as they are compared."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return [word[:LETTERS] for word in _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))]


def fact(key: str, value: str) -> str:
    """Return the term of a fact."""
    return "=" + hashlib.blake2b(f"{key}:{value.casefold()}".encode(), digest_size=8).hexdigest()


def of_release(name: str, texts: Iterable[str], facts: Mapping[str, Iterable[str]]) -> str:
    """Return the terms of a release called `name`, with a space between each two."""
    found = dict.fromkeys([f"@{word}" for word in words(name)] + [_whole(words(name))])
    found |= dict.fromkeys(fact(key, value) for key, values in facts.items() for value in values if value)
    for text in (name, *texts):
        found |= dict.fromkeys(words(text))
    return " ".join(list(found)[:_MAX_TERMS])


def beginnings(found: str) -> set[str]:
    """Return the terms `found` and the beginnings of those that are words."""
    return {
        term[:end]
        for term in found.split(" ")
        for end in range(len(term) if term.startswith("=") else 1 + term.startswith("@"), len(term) + 1)
    }


def _whole(name: Sequence[str]) -> str:
    return fact("name", " ".join(name))


def tiers(text: str, facts: Mapping[str, str]) -> Sequence[Expression | None]:
    """Return the expressions of a search, best matches first, no release in two; empty: it can find nothing.

    First what is called so, then what has a word of `text` in its name, then the others. None: everything is wanted.
    """
    wanted, exact = words(text)[:_MAX_WANTED], [fact(key, value) for key, value in facts.items()]
    if not wanted:
        return () if text.strip() else (Expression(facts=exact) if exact else None,)
    names, whole = [f"@{word}" for word in wanted], _whole(wanted)
    return (
        Expression(wanted, [*exact, whole]),
        Expression(wanted, exact, named=names, other=[whole]),
        Expression(wanted, exact, other=names),
    )


def match(expression: Expression) -> sa.ColumnElement[bool]:
    """Return the condition on the table `words` in the SQL of SQLite."""
    return sa.literal_column("words").op("MATCH")(sa.bindparam(None, expression.fts5(), sa.String))


def match_in(terms: sa.ColumnElement[Any], expression: Expression) -> sa.ColumnElement[bool]:
    """Return the condition on a column `terms` in the SQL of PostgreSQL."""
    return terms.op("@@")(sa.cast(expression.tsquery(), _TsQuery))


def store(connection: sa.Connection, identity: int, found: str) -> None:
    """Let the release with this id be found by the terms `found`, and by no others."""
    connection.execute(sa.delete(words_table).where(words_table.c.rowid == identity))
    value: object = found
    if connection.dialect.name == "postgresql":
        value = sa.func.array_to_tsvector(sa.func.string_to_array(" ".join(beginnings(found)), " "))
    connection.execute(sa.insert(words_table).values(rowid=identity, terms=value))


def exchange(connection: sa.Connection, identities: Sequence[int], key: str, old: str, new: str) -> None:
    """Let the releases with these ids be found by another value of a fact."""
    before, after = fact(key, old), fact(key, new)
    here = words_table.c.rowid == sa.bindparam("_id")
    value: sa.ColumnElement[Any] = sa.func.replace(words_table.c.terms, before, after)
    if connection.dialect.name == "postgresql":
        kept = sa.func.ts_delete(words_table.c.terms, before)
        value = kept.op("||")(sa.func.array_to_tsvector(sa.func.string_to_array(after, " ")))
    if identities:
        change = sa.update(words_table).where(here).values(terms=value)
        connection.execute(change, [{"_id": one} for one in identities])


def licenses(expression: str) -> Iterator[str]:
    """Yield an SPDX expression and each licence in it."""
    yield expression
    yield from (one for one in re.split(r"[\s()]+", expression) if one and one not in {"AND", "OR", "WITH"})
