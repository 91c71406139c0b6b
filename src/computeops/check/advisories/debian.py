"""Debian's security tracker (https://security-tracker.debian.org/tracker/data/json) as advisories.

It says of every source package, vulnerability and release whether it is fixed, and if not, what is thought of it. One
record per vulnerability and package comes out, and so it decides over a DSA that names several.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from computeops.check.advisories.bounded import table_of, typed
from computeops.check.advisories.ecosystem import debian
from computeops.check.advisories.model import Advisory, Affected, Span, State, plain
from computeops.check.versions import deb
from computeops.errors import FormatError
from computeops.limits import LIMITS

_ID = re.compile(r"(?:CVE-\d{4}-\d{4,19}|TEMP-[0-9A-F-]{1,40})")
_URGENCIES = {"high": "high", "medium": "medium", "low": "low", "unimportant": "negligible"}
_REASONS = {"ignored": State.WILL_NOT_FIX, "postponed": State.DEFERRED}
_STATES = {"resolved", "open", "undetermined"}


class _Release(msgspec.Struct):
    status: str
    repositories: dict[str, str] | None = None
    fixed_version: str = ""
    urgency: str = ""
    nodsa: str | None = None
    nodsa_reason: str | None = None


class _Issue(msgspec.Struct):
    releases: dict[str, _Release]
    description: str = ""


def read(data: bytes, name: str) -> Iterator[Advisory | None]:
    """Yield what the tracker says about one vulnerability of one package; None for an entry that cannot be read.

    Raises:
        FormatError: it is not the tracker's JSON; LimitError: there is too much of it.
    """
    for package, raw in table_of(data, name).items():
        if len(bytes(raw)) > LIMITS.advisory_bytes * 4:  # linux alone has 12 MiB
            yield None
            continue
        try:
            issues: Mapping[str, Any] = typed(raw, dict[str, msgspec.Raw], package)
        except FormatError:
            yield None
            continue
        for vulnerability, issue in issues.items():
            yield _advisory(package, vulnerability, issue)


def _advisory(package: str, vulnerability: str, raw: msgspec.Raw) -> Advisory | None:
    try:
        issue = typed(raw, _Issue, vulnerability)
    except FormatError:
        return None
    if not _ID.fullmatch(vulnerability) or any(one.status not in _STATES for one in issue.releases.values()):
        return None
    affected = (_affected(package, release, said) for release, said in issue.releases.items())
    text = "".join(one for one in " ".join(issue.description[:600].split())[:300] if one.isprintable())
    known = tuple(one for one in affected if one is not None)
    return Advisory(vulnerability, "", text, (vulnerability,), (), "unknown", None, "", known)


def _affected(package: str, release: str, said: _Release) -> Affected | None:
    ecosystem = debian(release)
    if not ecosystem:
        return None
    severity = _URGENCIES.get(said.urgency.rstrip("*"), "")
    if said.status == "resolved" and said.fixed_version == "0":
        return Affected(ecosystem, package, (Span(),), State.NOT_AFFECTED, severity)
    if said.status == "resolved" and said.fixed_version:
        high = deb.key(said.fixed_version)
        # A fix that is in no archive yet can be installed by nobody.
        there = any(deb.key(version) >= high for version in (said.repositories or {}).values())
        fixed = plain(said.fixed_version) if there or not said.repositories else ""
        return Affected(ecosystem, package, (Span(high=high, fixed=fixed),), State.AFFECTED, severity)
    return Affected(ecosystem, package, (Span(),), _state(said), severity)


def _state(said: _Release) -> State:
    if said.status == "undetermined":
        return State.UNDER_INVESTIGATION
    if said.urgency == "end-of-life":
        return State.END_OF_LIFE
    return _REASONS.get(said.nodsa_reason or "", State.DEFERRED if said.nodsa is not None else State.AFFECTED)
