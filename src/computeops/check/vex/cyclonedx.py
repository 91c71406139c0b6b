"""Vulnerabilities of a CycloneDX document with their analysis (https://cyclonedx.org/capabilities/vex)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from computeops.check.vex.statement import Product, Statement, product, seconds, words

_QUIET = frozenset({"not_affected", "false_positive", "resolved", "resolved_with_pedigree"})
_JUSTIFICATIONS = {
    "code_not_present": "vulnerable_code_not_present",
    "code_not_reachable": "vulnerable_code_not_in_execute_path",
    "requires_configuration": "vulnerable_code_cannot_be_controlled_by_adversary",
    "requires_dependency": "component_not_present",
    "requires_environment": "vulnerable_code_cannot_be_controlled_by_adversary",
    "protected_by_compiler": "inline_mitigations_already_exist",
    "protected_at_runtime": "inline_mitigations_already_exist",
    "protected_at_perimeter": "inline_mitigations_already_exist",
    "protected_by_mitigating_control": "inline_mitigations_already_exist",
}
"""Words of CycloneDX to those of OpenVEX."""


def statements(document: Mapping[str, Any], by: str) -> Sequence[Statement]:
    """Return a statement for each vulnerability that was analysed."""
    purls = dict(_purls(document))
    said = seconds((document.get("metadata") or {}).get("timestamp"))
    return [_statement(one, purls, said, by) for one in document.get("vulnerabilities") or () if one.get("analysis")]


def _statement(one: Mapping[str, Any], purls: Mapping[str, str], said: float, by: str) -> Statement:
    analysis = one["analysis"]
    names = [one["id"], *(ref.get("id") for ref in one.get("references") or ())]
    return Statement(
        vulnerabilities=frozenset(str(name) for name in names if name),
        products=tuple(_product(str(each["ref"]), purls) for each in one.get("affects") or ()),
        quiet=analysis.get("state") in _QUIET,
        reason=words(analysis.get("detail")),
        justification=_JUSTIFICATIONS.get(analysis.get("justification"), ""),
        time=seconds(analysis.get("lastUpdated")) or seconds(one.get("updated")) or said,
        by=by,
    )


def _product(ref: str, purls: Mapping[str, str]) -> Product:
    # A BOM-Link names an element of another document: urn:cdx:SERIAL/VERSION#BOM-REF.
    name = unquote(ref.partition("#")[2]) if ref.startswith("urn:cdx:") else ref
    return product(purls.get(name, name))


def _purls(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bom-ref and purl of every component; a purl that is its own bom-ref needs no entry."""
    pending = [*(document.get("components") or ()), (document.get("metadata") or {}).get("component") or {}]
    while pending:
        one = pending.pop()
        pending += one.get("components") or ()
        if one.get("bom-ref") and one.get("purl"):
            yield str(one["bom-ref"]), str(one["purl"])
