"""OpenVEX documents (https://github.com/openvex/spec, 0.2.0; also 0.0.1, whose products and names are texts)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from computeops.check.vex.statement import Product, Statement, product, seconds, words

_QUIET = frozenset({"not_affected", "fixed"})
_STATUSES = _QUIET | {"affected", "under_investigation"}


def statements(document: Mapping[str, Any], by: str) -> Sequence[Statement]:
    """Return the statements of a document."""
    said = seconds(document.get("last_updated") or document.get("timestamp"))
    return [_statement(one, said, by) for one in document["statements"]]


def _statement(one: Mapping[str, Any], said: float, by: str) -> Statement:
    status = one["status"]
    if status not in _STATUSES:
        raise ValueError(f"a statement with the status {status!r:.40}")
    fixed = "the product is repaired" if status == "fixed" else ""
    return Statement(
        vulnerabilities=frozenset(_names(one["vulnerability"])),
        products=tuple(found for each in one.get("products") or () for found in _products(each)),
        quiet=status in _QUIET,
        reason=words(one.get("impact_statement") or one.get("status_notes")) or fixed,
        justification=words(one.get("justification"), 80),
        time=seconds(one.get("last_updated") or one.get("timestamp")) or said,
        by=by,
    )


def _names(vulnerability: Any) -> Iterator[str]:
    if isinstance(vulnerability, str):
        yield vulnerability
        return
    for name in (vulnerability.get("name"), vulnerability.get("@id"), *(vulnerability.get("aliases") or ())):
        if name:
            yield str(name).rpartition("/")[2]  # "@id" may be the address of a page about it


def _products(each: Any) -> Iterator[Product]:
    names = list(_identifiers(each))
    parts = [part for sub in _list(each, "subcomponents") for part in _identifiers(sub)]
    for name in names:
        if parts:
            yield from (product(name, part) for part in parts)
        else:
            yield product(name)


def _identifiers(each: Any) -> Iterator[str]:
    if isinstance(each, str):
        yield each
        return
    named = [each.get("@id"), (each.get("identifiers") or {}).get("purl")]
    yield from dict.fromkeys(str(one) for one in named if one)
    for algorithm, value in (each.get("hashes") or {}).items():
        if algorithm in {"sha-256", "sha-512"}:
            yield f"{algorithm.replace('-', '')}:{value}"


def _list(each: Any, key: str) -> Sequence[Any]:
    return (each.get(key) or ()) if isinstance(each, dict) else ()
