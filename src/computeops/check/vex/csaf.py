"""CSAF 2.0 documents that say which products are affected (https://docs.oasis-open.org/csaf/csaf/v2.0)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from computeops.check.vex.statement import Product, Statement, product, seconds, words

_QUIET = ("known_not_affected", "fixed", "first_fixed")
_LOUD = ("known_affected", "first_affected", "last_affected", "under_investigation", "recommended")


def statements(document: Mapping[str, Any], by: str) -> Sequence[Statement]:
    """Return the statements of a document, by vulnerability and status."""
    products = dict(_products(document.get("product_tree") or {}))
    said = seconds(((document.get("document") or {}).get("tracking") or {}).get("current_release_date"))
    return [found for one in document.get("vulnerabilities") or () for found in _statements(one, products, said, by)]


def _statements(one: Mapping[str, Any], products: Mapping[str, str], said: float, by: str) -> Iterator[Statement]:
    names = [one.get("cve"), *(each.get("text") for each in one.get("ids") or ())]
    flags = {id_: flag["label"] for flag in one.get("flags") or () for id_ in flag.get("product_ids") or ()}
    reasons = {
        id_: words(threat.get("details"))
        for threat in one.get("threats") or ()
        if threat.get("category") == "impact"
        for id_ in threat.get("product_ids") or ()
    }
    for status, ids in (one.get("product_status") or {}).items():
        if status not in _QUIET and status not in _LOUD:
            continue
        for id_ in ids:
            yield Statement(
                vulnerabilities=frozenset(str(name) for name in names if name),
                products=(_product(str(id_), products),),
                quiet=status in _QUIET,
                reason=reasons.get(id_, "") or ("the product is repaired" if "fixed" in status else ""),
                justification=words(flags.get(id_), 80),
                time=said,
                by=by,
            )


def _product(id_: str, products: Mapping[str, str]) -> Product:
    return product(products[id_]) if id_ in products else Product("", id_)


def _products(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the id of each product that has a purl, and the purl; of a part of another product that of the part.

    A part without a version means its version in that product, Red Hat Enterprise Linux 8 for example: to take it as
    any version would make the same package of another release quiet.
    """
    found = dict(_named(tree))
    yield from found.items()
    for one in tree.get("relationships") or ():
        whole, part = one["full_product_name"], one.get("product_reference")
        purl = (whole.get("product_identification_helper") or {}).get("purl") or found.get(part)
        if purl and "@" in purl:
            yield str(whole["product_id"]), str(purl)


def _named(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pending: list[Any] = list(tree.get("branches") or ())
    listed = list(tree.get("full_product_names") or ())
    while pending:
        branch = pending.pop()
        pending += branch.get("branches") or ()
        if branch.get("product"):
            listed.append(branch["product"])
    for one in listed:
        if purl := (one.get("product_identification_helper") or {}).get("purl"):
            yield str(one["product_id"]), str(purl)
