"""Red Hat's VEX files (https://security.access.redhat.com/data/csaf/v2/vex): a CSAF document for each vulnerability.

Each says which packages of which products are affected, repaired by which update, or not affected. Kept is what is said
of Red Hat Enterprise Linux; its extended releases (`rhel_eus:9.2`) repair the same under lower versions, each by an
update of its own. So a document becomes one advisory for the vulnerability, and one for each update.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote

import msgspec

from computeops.check.advisories.bounded import bounded, typed, unpacked
from computeops.check.advisories.cvss import score
from computeops.check.advisories.model import Advisory, Affected, Span, State, plain
from computeops.check.versions import rpm
from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS

_CVE = re.compile(r"CVE-\d{4}-\d{4,19}")
_ERRATUM = re.compile(r"https://access\.redhat\.com/errata/(RH[SBE]A-\d{4}:\d{4,6})")
_PRODUCT = re.compile(r"cpe:/[ao]:redhat:(?:enterprise_linux|rhel_(?:eus|aus|tus|e4s|els)):(\d+)(?:\.\d+)?(?::.*)?")
_PACKAGE = re.compile(r"pkg:rpm(?:mod)?/redhat/([^@?]+)(?:@([^?]+))?(?:\?(.*))?")
_STATES = {
    "Will not fix": State.WILL_NOT_FIX,
    "Out of support scope": State.END_OF_LIFE,
    "Fix deferred": State.DEFERRED,
}
_SEVERITIES = {"critical": "critical", "important": "high", "moderate": "medium", "low": "low"}


class _Helper(msgspec.Struct):
    cpe: str = ""
    purl: str = ""


class _Product(msgspec.Struct):
    product_id: str
    product_identification_helper: _Helper | None = None


class _Branch(msgspec.Struct):
    branches: list["_Branch"] | None = None
    product: _Product | None = None


class _Relationship(msgspec.Struct):
    full_product_name: _Product
    product_reference: str
    relates_to_product_reference: str


class _Tree(msgspec.Struct):
    branches: list[_Branch] | None = None
    relationships: list[_Relationship] | None = None


class _Remediation(msgspec.Struct):
    category: str
    details: str = ""
    url: str = ""
    product_ids: list[str] | None = None


class _Threat(msgspec.Struct):
    category: str
    details: str = ""


class _Cvss(msgspec.Struct, rename="camel"):
    vector_string: str = ""


class _Score(msgspec.Struct):
    cvss_v3: _Cvss | None = None
    cvss_v2: _Cvss | None = None


class _Vulnerability(msgspec.Struct):
    cve: str
    title: str = ""
    product_status: dict[str, list[str]] | None = None
    remediations: list[_Remediation] | None = None
    threats: list[_Threat] | None = None
    scores: list[_Score] | None = None


class _Tracking(msgspec.Struct):
    current_release_date: str = ""


class _Head(msgspec.Struct):
    tracking: _Tracking


class _Document(msgspec.Struct):
    document: _Head
    vulnerabilities: list[_Vulnerability]
    product_tree: _Tree | None = None


class _Part(msgspec.Struct, frozen=True):
    """A package as a part of a release of Red Hat Enterprise Linux."""

    ecosystem: str
    name: str
    version: str
    """Empty: whichever that release has."""
    module: str


def members(file: Path) -> Iterator[bytes]:
    """Yield the documents of the archive that Red Hat publishes, a tar in zstd, or packed otherwise.

    Raises:
        FormatError: it is no such archive; LimitError: it is larger than is read.
    """
    left = LIMITS.feed_unpacked_bytes
    try:
        with unpacked(file) as plain_file, tarfile.open(fileobj=plain_file, mode="r|") as tar:
            for member in tar:
                if not member.isfile() or not member.name.endswith(".json"):
                    continue
                left -= member.size
                if left < 0:
                    raise LimitError(f"{file.name} is larger than {LIMITS.feed_unpacked_bytes} bytes unpacked")
                opened = tar.extractfile(member)
                yield bounded(opened or io.BytesIO(), LIMITS.advisory_bytes, member.name)
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{file.name} is no whole archive of documents: {error}") from error


def read(data: bytes) -> Sequence[Advisory]:
    """Return what a document says of Red Hat Enterprise Linux; often nothing.

    Raises:
        FormatError: it is none of Red Hat's VEX documents.
    """
    document: _Document = typed(data, _Document, "a VEX document")
    parts = _parts(document.product_tree or _Tree())
    modified = document.document.tracking.current_release_date.replace("+00:00", "Z")
    return [found for one in document.vulnerabilities for found in _advisories(one, parts, modified)]


def _parts(tree: _Tree) -> Mapping[str, _Part]:
    helpers: dict[str, _Helper] = {}
    pending = list(tree.branches or ())
    while pending:
        branch = pending.pop()
        pending += branch.branches or ()
        if (product := branch.product) is not None and product.product_identification_helper is not None:
            helpers[product.product_id] = product.product_identification_helper
    found: dict[str, _Part] = {}
    nothing = _Helper()
    for one in tree.relationships or ():
        # A package of a module is a part of the module, which is a part of the product.
        whole = one.relates_to_product_reference
        ecosystem = found[whole].ecosystem if whole in found else _release(helpers.get(whole, nothing).cpe)
        part = _part(ecosystem, helpers.get(one.product_reference, nothing).purl, one.product_reference)
        if ecosystem and part is not None:
            found[one.full_product_name.product_id] = part
    return found


def _release(cpe: str) -> str:
    match = _PRODUCT.fullmatch(cpe)
    return f"Red Hat:{match[1]}" if match else ""


def _part(ecosystem: str, purl: str, reference: str) -> _Part | None:
    match = _PACKAGE.fullmatch(purl)
    if match is None:
        # What has no fix yet is named, and nothing more.
        name = plain(reference)
        return _Part(ecosystem, name, "", "") if name and ":" not in name and "/" not in name else None
    name, version, said = match.groups()
    facts = parse_qs(said or "")
    if facts.get("arch") == ["src"]:
        return None
    epoch = facts.get("epoch", ["0"])[0]
    module = ":".join(facts.get("rpmmod", [""])[0].split(":")[:2])
    return _Part(ecosystem, unquote(name), f"{epoch}:{unquote(version)}" if version else "", plain(module))


def _advisories(one: _Vulnerability, parts: Mapping[str, _Part], modified: str) -> Iterator[Advisory]:
    if not _CVE.fullmatch(one.cve):
        raise FormatError(f"not a CVE: {one.cve[:40]!r}")
    said = (each.details.lower() for each in one.threats or () if each.category == "impact")
    severity = next((_SEVERITIES[word] for word in said if word in _SEVERITIES), "unknown")
    vectors = [cvss.vector_string for each in one.scores or () if (cvss := each.cvss_v3 or each.cvss_v2)]
    vector = max(vectors, key=lambda text: score(text) or 0, default="")[:300]
    title = "".join(char for char in one.title[:300] if char.isprintable())

    def advisory(name: str, affected: Iterator[Affected]) -> Iterator[Advisory]:
        if found := tuple(dict.fromkeys(affected)):
            yield Advisory(name, modified, title, (one.cve,), (), severity, score(vector), vector, found)

    yield from advisory(one.cve, _unfixed(one, parts))
    fixed = set((one.product_status or {}).get("fixed", ()))
    for erratum, ids in _errata(one.remediations or ()).items():
        yield from advisory(erratum, _fixed(fixed.intersection(ids), parts))


def _errata(remediations: Sequence[_Remediation]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in remediations:
        if one.category == "vendor_fix" and (match := _ERRATUM.fullmatch(one.url)):
            found.setdefault(match[1], []).extend(one.product_ids or ())
    return found


def _fixed(ids: set[str], parts: Mapping[str, _Part]) -> Iterator[Affected]:
    for id_ in sorted(ids):
        part = parts.get(id_)
        if part is not None and part.version:
            text = part.version.removeprefix("0:")
            span = Span(high=rpm.key(part.version), fixed=plain(text))
            yield Affected(part.ecosystem, part.name, (span,), module=part.module)


def _unfixed(one: _Vulnerability, parts: Mapping[str, _Part]) -> Iterator[Affected]:
    thought = {
        id_: _STATES.get(each.details, State.AFFECTED)
        for each in one.remediations or ()
        if each.category in {"no_fix_planned", "none_available"}
        for id_ in each.product_ids or ()
    }
    states = {"under_investigation": State.UNDER_INVESTIGATION, "known_not_affected": State.NOT_AFFECTED}
    for status, ids in (one.product_status or {}).items():
        for id_ in ids if status in {*states, "known_affected"} else ():
            part = parts.get(id_)
            # With a version it is a package that came with an update of others: that says nothing of older ones.
            if part is not None and not part.version:
                state = states.get(status) or thought.get(id_, State.AFFECTED)
                yield Affected(part.ecosystem, part.name, (Span(),), state, module=part.module)
