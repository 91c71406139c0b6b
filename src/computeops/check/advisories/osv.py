"""Records of the OSV schema (https://ossf.github.io/osv-schema, 1.7) as advisories.

A version is affected if it is listed, or in one of the ranges. A range is its events in the order of versions, whatever
their order in the record. GIT ranges speak of commits and say nothing about an installed package.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from computeops.check import versions
from computeops.check.advisories import cvss
from computeops.check.advisories.ecosystem import is_distribution, name_of, normal, scheme
from computeops.check.advisories.model import SEVERITIES, Advisory, Affected, Span, State, plain
from computeops.errors import FormatError

_CVE = re.compile(r"(?:[A-Za-z]+-)?(CVE-\d{4}-\d{4,19})")
_NO_FAULT = re.compile(r"(?:ALBA|ALEA|RHBA|RHEA|RLBA|RLEA)-")
"""Updates that repair or add something: no vulnerability unless one is named."""
_STREAM = re.compile(r"(?:^|: |\s)([A-Za-z][\w.+-]*:[\w.+-]+) (?:[a-z, ]+)?(?:update|enhancement)")
_WORDS: Mapping[str, str] = {
    "critical": "critical",
    "important": "high",
    "high": "high",
    "moderate": "medium",
    "medium": "medium",
    "low": "low",
    "negligible": "negligible",
    "unimportant": "negligible",
    "none": "negligible",
}
_SLIP = re.compile(r"(?:\.-?r|-)([0-9]+)$")
"""How the revision of a package of Alpine is written now and then by those who write its advisories."""
_SUMMARY_CHARS = 300
_LONGEST_NAME = 512
_LONGEST_VERSION = 1024
_CLOSES, _OPENS = 0, 1


class _Event(msgspec.Struct):
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None


class _Range(msgspec.Struct):
    type: str = ""
    events: list[_Event] | None = None


class _Package(msgspec.Struct):
    ecosystem: str = ""
    name: str = ""


class _Severity(msgspec.Struct):
    type: str = ""
    score: str = ""


class _Affected(msgspec.Struct):
    package: _Package | None = None
    ranges: list[_Range] | None = None
    versions: list[str] | None = None
    severity: list[_Severity] | None = None
    ecosystem_specific: msgspec.Raw = msgspec.Raw(b"null")
    database_specific: msgspec.Raw = msgspec.Raw(b"null")


class _Record(msgspec.Struct):
    id: str
    modified: str
    withdrawn: str | None = None
    summary: str | None = ""
    details: str | None = ""
    aliases: list[str] | None = None
    upstream: list[str] | None = None
    related: list[str] | None = None
    severity: list[_Severity] | None = None
    affected: list[_Affected] | None = None
    database_specific: msgspec.Raw = msgspec.Raw(b"null")


_DECODER = msgspec.json.Decoder(_Record)


def read(data: bytes) -> tuple[str, Advisory | None]:
    """Return the id of a record, and what it says; None if it is withdrawn or says nothing about any package.

    Raises:
        FormatError: it is no record of the OSV schema.
    """
    try:
        record = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a record of the OSV schema: {error}") from error
    if not 0 < len(record.id) <= _LONGEST_NAME or not record.id.isprintable():
        raise FormatError(f"a record without an id: {record.id[:80]!r}")
    return record.id, None if record.withdrawn else _advisory(record)


def _advisory(record: _Record) -> Advisory | None:
    affected = tuple(one for entry in record.affected or () if (one := _affected(entry, record)) is not None)
    distribution = any(is_distribution(one.ecosystem) for one in affected)
    vulnerabilities, aliases = _names(record, distribution=distribution)
    if not affected or (_NO_FAULT.match(record.id) and vulnerabilities == (record.id,)):
        return None
    rated = [*(record.severity or ()), *(one for entry in record.affected or () for one in entry.severity or ())]
    vector, score = _vector(rated)
    word = _word(rated, record)
    text = " ".join((record.summary or record.details or "")[: 2 * _SUMMARY_CHARS].split())[:_SUMMARY_CHARS]
    return Advisory(
        record.id,
        record.modified,
        text if text.isprintable() else "".join(one for one in text if one.isprintable()),
        vulnerabilities,
        aliases,
        word or cvss.severity(score),
        score,
        vector,
        affected,
    )


def _names(record: _Record, *, distribution: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the vulnerabilities that a record is about, and other names of it where it is about one.

    Distributions publish what they repaired together: each CVE is a vulnerability of its own, wherever the record names
    it (`upstream`; older ones in `aliases`, AlmaLinux in `related`). Elsewhere `aliases` are names of one bug, and
    several in `upstream` are several.
    """
    own = _cve(record.id)
    listed = [name for one in (record.aliases, record.upstream) for name in one or () if plain(name)]
    if own:
        return (own,), tuple(dict.fromkeys(one for one in (record.id, *listed) if one != own))
    if distribution:
        found = [cve for one in listed if (cve := _cve(one))]
        found = found or [cve for one in record.related or () if (cve := _cve(one))]
        return tuple(dict.fromkeys(found)) or (record.id,), ()
    cves = sorted({cve for one in listed if (cve := _cve(one))})
    if len(cves) > 1 and not any(map(_cve, record.aliases or ())):
        return tuple(cves), ()  # of a library that this package brings along
    name = cves[0] if cves else record.id
    return (name,), tuple(dict.fromkeys(one for one in (record.id, *cves, *listed) if one != name))


def _cve(name: str) -> str:
    """Return the CVE that `CVE-...`, `DEBIAN-CVE-...` or `UBUNTU-CVE-...` names, or ""."""
    match = _CVE.fullmatch(name)
    return match[1] if match else ""


def _affected(entry: _Affected, record: _Record) -> Affected | None:
    package = entry.package
    if package is None or not package.ecosystem or not 0 < len(package.name) <= _LONGEST_NAME:
        return None
    ecosystem = normal(package.ecosystem)
    key = key_function(ecosystem)
    spans = [span for one in entry.ranges or () if one.type != "GIT" for span in _spans(one.events or (), key)]
    spans += _listed(entry.versions, spans, key) if entry.versions else ()
    if not spans:
        return None
    specific = _rating(entry.ecosystem_specific) or _rating(entry.database_specific)
    state = State.END_OF_LIFE if specific == "end-of-life" else State.AFFECTED
    module = _stream(record) if any(".module" in span.fixed for span in spans) else ""
    name = name_of(ecosystem, package.name)
    return Affected(ecosystem, name, tuple(spans), state, _WORDS.get(specific.rstrip("*"), ""), module)


def _listed(listed: Sequence[str], spans: Sequence[Span], key: Callable[[str], bytes]) -> Sequence[Span]:
    """Return the listed versions that are in no range, each as a span of its own; most are in the first."""
    keys = {key(version) for version in listed}
    for span in spans:
        keys = {one for one in keys if not span.holds(one)}
    return [Span(one, one, closed=True) for one in sorted(keys)]


@lru_cache(maxsize=4096)
def _key_cache(ecosystem: str) -> Callable[[str], bytes]:
    name = scheme(ecosystem)
    make = versions.SCHEMES[name]

    # The same versions come in one advisory after the other: bounded, so that no feed fills the memory.
    @lru_cache(maxsize=16384)
    def key(version: str) -> bytes:
        version = version[:_LONGEST_VERSION]
        # No package has such a version: 0.8.21-r2 is meant.
        return make(_SLIP.sub(r"-r\1", version) if name == "apk" else version)

    return key


def key_function(ecosystem: str) -> Callable[[str], bytes]:
    """Return the function that makes the keys of an ecosystem's versions, and remembers the last ones."""
    return _key_cache(ecosystem.partition(":")[0])


def _spans(events: Iterable[_Event], key: Callable[[str], bytes]) -> list[Span]:
    """Return what is affected by a range: its events sorted by version, opened and closed in turn."""
    points: list[tuple[bytes, int, bool, str]] = []
    for event in events:
        if event.introduced is not None:
            points.append((b"" if event.introduced == "0" else key(event.introduced), _OPENS, False, ""))
        if event.fixed is not None:
            points.append((b"" if event.fixed == "0" else key(event.fixed), _CLOSES, False, plain(event.fixed)))
        if event.last_affected is not None:
            points.append((key(event.last_affected), _CLOSES, True, ""))
    points.sort(key=_place)
    return list(_walk(points))


def _place(point: tuple[bytes, int, bool, str]) -> tuple[bytes, bool, int]:
    """At one version: what is fixed, what is introduced, and what is affected last."""
    return point[0], point[2], point[1]


def _walk(points: Sequence[tuple[bytes, int, bool, str]]) -> Iterable[Span]:
    if len(points) == 2 and points[0][1] == _OPENS and points[1][1] == _CLOSES:  # nearly all
        (low, *_), (high, _, closed, text) = points
        yield Span(low, high, closed, text)
        return
    opened: bytes | None = None
    ended: bytes | None = None
    empty: bytes | None = None
    for number, (at, kind, closed, text) in enumerate(points):
        if kind == _OPENS:
            # Introduced where another range ends: affected from there on only if a later event ends that, too.
            again = at != ended or [one for _, one, *_ in points[number + 1 : number + 2]] == [_CLOSES]
            if opened is None and at != empty and again:
                opened = at
        elif opened is None:
            empty = at  # 1.0 introduces and 1.0 fixes: nothing is affected
        else:
            if at > opened or closed:
                yield Span(opened, at, closed, text)
            opened, ended = None, at
    if opened is not None:
        yield Span(opened)


def _vector(rated: Sequence[_Severity]) -> tuple[str, float | None]:
    """Return the vector of the newest version of CVSS that has a score, and that score."""
    vectors = sorted((one for one in rated if one.type.startswith("CVSS_")), key=lambda one: one.type, reverse=True)
    for one in vectors:
        if (score := cvss.score(one.score)) is not None:
            return one.score, score
    return (vectors[0].score[:300], None) if vectors else ("", None)


def _word(rated: Sequence[_Severity], record: _Record) -> str:
    """Return the vendor's own rating: Ubuntu's, or a word that the database keeps."""
    said = next((one.score.lower() for one in rated if not one.type.startswith("CVSS_")), "")
    word = _WORDS.get(said or _rating(record.database_specific), "")
    if not word:
        # Red Hat and those that rebuild it write it before the colon: "Important: sudo security update".
        word = _WORDS.get((record.summary or "").partition(":")[0].lower(), "")
    assert not word or word in SEVERITIES
    return word


class _Specific(msgspec.Struct):
    severity: msgspec.Raw = msgspec.Raw(b"null")
    urgency: msgspec.Raw = msgspec.Raw(b"null")


def _rating(raw: msgspec.Raw) -> str:
    """Return the `severity` or `urgency` of an object whose form every database chooses for itself."""
    data = bytes(raw)
    if b'"severity"' not in data and b'"urgency"' not in data:
        return ""
    try:
        specific = msgspec.json.decode(data, type=_Specific)
        for one in (specific.urgency, specific.severity):
            if bytes(one)[:1] == b'"':
                return str(msgspec.json.decode(one)).lower()[:40]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return ""


def _stream(record: _Record) -> str:
    """Return the stream of the module that a record is about: `nodejs:12` in "nodejs:12 security update"."""
    match = _STREAM.search(record.summary or "")
    return match[1] if match else ""
