"""Packages against advisories: which record speaks about which version of what.

A package of a distribution is judged by that distribution alone, by the name and version of its source package where
the advisories name those. A package of a language is judged by its language, unless a package of the distribution owns
its files: then the distribution has repaired it under a version of its own.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from computeops.check.advisories import cvss
from computeops.check.advisories.ecosystem import by_binary_name, name_of, of_kind, of_system, scheme, version_of
from computeops.check.advisories.lookup import Facts, Hit, Index, Notice, Said, merged
from computeops.check.advisories.model import State
from computeops.check.advisories.names import BORROWED, Elsewhere, by_rule, by_upstream
from computeops.check.advisories.osv import key_function
from computeops.check.findings import Confidence, Finding, rank
from computeops.check.inventory import Inventory, Package, dialect
from computeops.check.versions import deb, rpm

_DISTRIBUTION_KINDS = frozenset({"deb", "rpm", "apk"})
_REBUILDS = frozenset({"centos", "scientific"})
"""Of Red Hat's releases, by whose advisories they are judged."""
_KERNEL = re.compile(
    r"linux|kernel|kernel-rt|linux-(?:lts|edge|rt|virt|headers|signed|hwe|aws|azure|gcp|kvm|oracle|\d).*"
)
_KERNEL_REASON = "headers of a kernel: a container runs the kernel of its host"
_QUIET_STATES = {
    State.NOT_AFFECTED: "not affected, says the distribution",
    State.UNDER_INVESTIGATION: "under investigation",
}
_NOTHING = Facts()
_MIXED_CASE = frozenset({"CRAN", "Bioconductor", "Julia"})
_LAST_BUILD = 10**9
_VENDOR_PREFIXES = ("CVE-", "DEBIAN-CVE-", "UBUNTU-CVE-", "ALPINE-CVE-", "TEMP-")


@dataclass(frozen=True, slots=True)
class Question:
    """Under which name and version advisories of an ecosystem are asked for a package."""

    ecosystem: str
    name: str
    version: str
    confidence: Confidence = Confidence.CONFIRMED


def _with_base(ecosystems: Sequence[str], index: Index) -> Sequence[str]:
    """Add `Debian` to `Debian:12` if there are records that name no release: they are about every one."""
    bases = dict.fromkeys(base for one in ecosystems if (base := one.partition(":")[0]) not in ecosystems)
    return [*ecosystems, *(base for base in bases if index.covers(base))]


class Matcher:
    """Finds what advisories say about the packages of an inventory; remembers what packages of one source share."""

    def __init__(self, index: Index, inventory: Inventory) -> None:
        self._index = index
        self._system = _with_base(of_system(inventory.system), index)
        self._probable = inventory.system.id in _REBUILDS
        self._covered: dict[str, bool] = {}
        self._notices: dict[int, Notice] = {}
        self._facts: dict[str, Facts] = {}
        self._hits: dict[tuple[int, bytes], Sequence[Hit]] = {}
        self._answers: dict[tuple[Question, bool, str], Sequence[Finding]] = {}
        self._numbers: dict[tuple[str, str], int | None] = {}
        self._questions: dict[Package, Sequence[Question]] = {}
        self._cves: dict[str, str] = {}
        self._in_pypi: dict[str, Sequence[str]] = {}
        self._lower: dict[str, Mapping[str, str]] = {}

    def prepare(self, packages: Sequence[Package]) -> None:
        """Ask the index about many packages at once; what is not prepared is asked when it is needed."""
        conda = [one.name for one in packages if one.kind == "conda"]
        self._in_pypi = dict.fromkeys(conda, ()) | dict(self._index.in_pypi(conda))
        possible = {package: list(self._possible(package)) for package in packages}
        names: dict[str, set[str]] = {}
        for question in (one for several in possible.values() for one in several):
            names.setdefault(question.ecosystem, set()).add(question.name)
        for ecosystem, wanted in names.items():
            known = self._index.packages(ecosystem, wanted)
            self._numbers.update({(ecosystem, name): known.get(name) for name in wanted})
        self._questions = {package: list(self._chosen(several)) for package, several in possible.items()}
        asked = {place for several in self._questions.values() for one in several if (place := self._place(one))}
        self._hits = dict(self._index.hits_of(asked))
        self._notices = dict(self._index.notices({one.advisory for hits in self._hits.values() for one in hits}))
        told = {name for one in self._notices.values() for name in (*one.vulnerabilities, *one.aliases)}
        known_facts = self._index.facts_of(told)
        self._facts = {name: known_facts.get(name, _NOTHING) for name in told}
        unnamed = [name for name in told if not name.startswith("CVE-")]
        self._cves = dict.fromkeys(unnamed, "") | dict(self._index.cves(unnamed))

    def _place(self, question: Question) -> tuple[int, bytes] | None:
        """Return where in the index the answer to a question is; None: nothing was ever said."""
        number = self._number(question.ecosystem, question.name)
        return None if number is None else (number, key_function(question.ecosystem)(question.version))

    @property
    def ecosystems(self) -> frozenset[str]:
        """Whose advisories the prepared packages are asked in."""
        return frozenset(one.ecosystem for several in self._questions.values() for one in several)

    def covered(self, package: Package) -> str:
        """Return "" if somebody publishes advisories about packages like this and we have them, else what lacks."""
        wanted = self._ecosystems(package)
        if not wanted:
            return "nobody publishes advisories for it that are read here"
        if not any(self._covers(one) for one in wanted):
            return f"the index has no advisories for {wanted[0]}"
        return ""

    def _ecosystems(self, package: Package) -> Sequence[str]:
        """Return who judges packages like this: of a distribution only those in its own format."""
        if package.kind in BORROWED:
            return [one.ecosystem for one in self._names_elsewhere(package)]
        if package.kind in _DISTRIBUTION_KINDS:
            return [one for one in self._system if scheme(one).startswith(package.kind)]
        return [one for one in (of_kind(package.kind),) if one]

    def _elsewhere(self, package: Package) -> Iterator[Elsewhere]:
        """Yield what a package, about which nobody publishes advisories, is called by those who do.

        What it only carries, a package with a record of its own, is asked for by that.
        """
        carried = set(_carried(package))
        for one in self._names_elsewhere(package):
            if (one.ecosystem, name_of(one.ecosystem, one.name)) not in carried:
                yield one

    def _names_elsewhere(self, package: Package) -> Iterator[Elsewhere]:
        if package.kind == "conda":
            if package.name not in self._in_pypi:
                self._in_pypi[package.name] = self._index.in_pypi((package.name,)).get(package.name, ())
            yield from (Elsewhere("PyPI", name) for name in self._in_pypi[package.name])
        for one in by_rule(package.kind, package.name):
            # Those who package a name of R or of Julia write it in lower case.
            folded = one.ecosystem in _MIXED_CASE
            yield replace(one, name=self._folded(one.ecosystem).get(one.name.lower(), one.name)) if folded else one
        if library := self._folded("Julia").get(by_upstream(package.name)):
            yield Elsewhere("Julia", library, upstream=True)

    def _folded(self, ecosystem: str) -> Mapping[str, str]:
        if ecosystem not in self._lower:
            self._lower[ecosystem] = self._index.folded(ecosystem)
        return self._lower[ecosystem]

    def _covers(self, ecosystem: str) -> bool:
        if ecosystem not in self._covered:
            self._covered[ecosystem] = self._index.covers(ecosystem)
        return self._covered[ecosystem]

    def questions(self, package: Package) -> Iterator[Question]:
        """Yield what is to be asked about a package."""
        if package in self._questions:
            yield from self._questions[package]
        else:
            yield from self._chosen(self._possible(package))

    def _chosen(self, possible: Iterable[Question]) -> Iterator[Question]:
        by_ecosystem: dict[str, list[Question]] = {}
        for one in possible:
            by_ecosystem.setdefault(one.ecosystem, []).append(one)
        for several in by_ecosystem.values():
            # The second name is only for data that spells the ecosystem's names the other way.
            named = (one for one in several if self._number(one.ecosystem, one.name) is not None)
            yield next(named, several[0]) if len(several) > 1 else several[0]

    def _possible(self, package: Package) -> Iterator[Question]:
        """Yield the questions about a package; of several in one ecosystem the first that it knows is asked."""
        if package.kind in BORROWED:
            yield from map(partial(_borrowed, version=package.version), self._elsewhere(package))
            return
        if package.kind not in _DISTRIBUTION_KINDS:
            for ecosystem in self._ecosystems(package):
                yield _question(ecosystem, package.name, package.version, Confidence.CONFIRMED)
            return
        confidence = Confidence.PROBABLE if self._probable else Confidence.CONFIRMED
        source = (package.source or package.name, package.source_version or package.version)
        if package.kind == "deb":
            source = (source[0], deb.source_version(source[1]))
        for ecosystem in self._ecosystems(package):
            named = [(package.name, package.version), source]
            if not by_binary_name(ecosystem):
                named = [source] if package.kind != "rpm" else [source, (package.name, package.version)]
            yield from (Question(ecosystem, *one, confidence) for one in named)

    def _number(self, ecosystem: str, name: str) -> int | None:
        if (ecosystem, name) not in self._numbers:
            self._numbers[ecosystem, name] = self._index.package(ecosystem, name)
        return self._numbers[ecosystem, name]

    def findings(self, package: Package) -> Iterator[Finding]:
        """Yield what is wrong with a package; also what is said not to be wrong with it, as suppressed."""
        found: dict[str, Finding] = {}
        for question in self.questions(package):
            for one in self._answer(question, package):
                known = found.setdefault(one.id, one)
                if known is not one and one.fixed and not known.fixed:
                    found[one.id] = replace(known, fixed=one.fixed, state=one.state, note=one.note)
        yield from (one if one.package is package else replace(one, package=package) for one in found.values())

    def _answer(self, question: Question, package: Package) -> Sequence[Finding]:
        """Return what a question finds; packages of one source share the answer."""
        asked = (question, rpm.modular(package.version), package.module)
        if asked not in self._answers:
            self._answers[asked] = list(self._asked(question, package))
        return self._answers[asked]

    def _asked(self, question: Question, package: Package) -> Iterator[Finding]:
        if (place := self._place(question)) is None:
            return
        number, key = place
        if place not in self._hits:
            self._hits[place] = list(self._index.hits(number, key))
        fits = _fitting(package)
        hits = [(hit, self._notice(hit.advisory)) for hit in self._hits[place] if fits(hit)]
        for vulnerability, said in _grouped(hits).items():
            # Only distributions say the same twice, of a vulnerability and of an update.
            decisive = said
            if package.kind in _DISTRIBUTION_KINDS:
                known = _Known(self._index, number, vulnerability)
                decisive = () if _repaired_in_stream(question, key, known) else _decisive(said, known)
            if decisive:
                yield self._finding(package, question, vulnerability, decisive)

    def _notice(self, advisory: int) -> Notice:
        if advisory not in self._notices:
            self._notices[advisory] = self._index.notice(advisory)
        return self._notices[advisory]

    def _finding(
        self, package: Package, question: Question, vulnerability: str, said: Sequence[tuple[Hit, Notice]]
    ) -> Finding:
        names = dict.fromkeys([vulnerability, *(name for _, notice in said for name in notice.aliases)])
        if not vulnerability.startswith("CVE-") and (better := self._cve(names)):
            names = dict.fromkeys([better, *names])
        id_, *aliases = names
        facts, key = self._known(list(names)), key_function(question.ecosystem)
        severity, score, vector, source = _severity(said, facts)
        fixes = [hit.fixed for hit, _ in said if hit.fixed]
        states = [hit.state for hit, _ in said]
        pro = question.ecosystem.startswith("Ubuntu:Pro") and fixes
        finding = Finding(
            id=id_,
            package=package,
            ecosystem=question.ecosystem,
            asked_name=question.name,
            asked_version=question.version,
            advisories=tuple(sorted({notice.id for _, notice in said})),
            aliases=tuple(aliases),
            severity=severity,
            severity_source=source,
            score=score,
            vector=vector,
            # Of several updates about one vulnerability only the last repaired all of it.
            fixed=max(fixes, key=key) if fixes else "",
            state=State.AFFECTED if fixes else max(states),
            exploited=facts.exploited,
            likely=facts.likely,
            confidence=question.confidence,
            summary=_summary([notice for _, notice in said]),
            note="the fix is in Ubuntu Pro" if pro else "",
        )
        return _judged(finding, states)

    def _cve(self, names: Iterable[str]) -> str:
        """Return the CVE that other records give as a name of the vulnerability with these `names`, or ""."""
        for name in names:
            if name not in self._cves:
                self._cves[name] = self._index.cves((name,)).get(name, "")
        return next((self._cves[name] for name in names if self._cves[name]), "")

    def _known(self, names: Sequence[str]) -> Facts:
        unknown = [name for name in names if name not in self._facts]
        if unknown:
            found = self._index.facts_of(unknown)
            self._facts.update({name: found.get(name, _NOTHING) for name in unknown})
        return merged(facts for name in names if (facts := self._facts[name]) is not _NOTHING)


def _carried(package: Package) -> Iterator[tuple[str, str]]:
    """Yield ecosystem and name of the packages of languages that a package installs."""
    for one in package.holds:
        if (inner := dialect.parse(one)) is not None:
            yield of_kind(inner.kind), inner.name


def _borrowed(what: Elsewhere, version: str) -> Question:
    """Return the question about a package that is known elsewhere by another name."""
    if what.upstream:
        # Julia counts its own builds of a version behind a `+`: of the same version, any is what was packaged here.
        return Question(what.ecosystem, what.name, f"{version}+{_LAST_BUILD}", Confidence.UPSTREAM)
    return _question(what.ecosystem, what.name, version, Confidence.PROBABLE)


def _question(ecosystem: str, name: str, version: str, confidence: Confidence) -> Question:
    return Question(ecosystem, name_of(ecosystem, name), version_of(ecosystem, version), confidence)


class _Known:
    """What every advisory says of a vulnerability of a package; asked only where it decides something."""

    def __init__(self, index: Index, package: int, vulnerability: str) -> None:
        self._asked = index, package, vulnerability

    def __iter__(self) -> Iterator[Said]:
        index, package, vulnerability = self._asked
        yield from index.about(package, vulnerability)


def _decisive(said: Sequence[tuple[Hit, Notice]], known: Iterable[Said]) -> Sequence[tuple[Hit, Notice]]:
    """Return the records that decide: what the vendor says of this very vulnerability, before its notices.

    A notice about several vulnerabilities may name one that does not concern this release. But where the vendor
    knows no fix, and a notice brings one, the notice is newer.
    """
    direct = [one for one in said if _is_direct(one[1].id)]
    if denied := [one for one in direct if one[0].state is State.NOT_AFFECTED]:
        return denied
    if any(hit.high is not None for hit, _ in direct):
        return said
    # What is known of other versions of this package: a fix there means that this version has it already.
    settling = (one.high is not None for one in known if _is_direct(one.record) is not bool(direct))
    return () if len(direct) in {0, len(said)} and any(settling) else said


def _repaired_in_stream(question: Question, key: bytes, known: Iterable[Said]) -> bool:
    """Return whether the minor release that an rpm was built for (`el9_2`) has a fix, and this version has it.

    Red Hat looks after minor releases for years, and the next one repaired the same under a higher version; that one
    is no measure for this. Those who rebuild its releases look after the last one alone.
    """
    stream = rpm.minor_release(question.version)
    if not stream or not question.ecosystem.startswith("Red Hat:"):
        return False
    fixes = [one.high for one in known if one.high is not None and rpm.minor_release(one.fixed) == stream]
    return bool(fixes) and max(fixes) <= key


def _grouped(hits: Sequence[tuple[Hit, Notice]]) -> Mapping[str, Sequence[tuple[Hit, Notice]]]:
    """Return the hits by vulnerability; records whose names of it overlap are about one, directly or by others."""
    same: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := same.setdefault(name, name)) != name:
            name = above
        return name

    for _, notice in hits:
        for name in notice.aliases if len(notice.vulnerabilities) == 1 else ():
            # The CVE that comes first is what a group is called.
            one, other = sorted((root(notice.vulnerabilities[0]), root(name)), key=_called)
            same[other] = one
    groups: dict[str, list[tuple[Hit, Notice]]] = {}
    for hit, notice in sorted(hits, key=lambda one: one[1].vulnerabilities):
        for vulnerability in dict.fromkeys(map(root, notice.vulnerabilities)):
            groups.setdefault(vulnerability, []).append((hit, notice))
    return groups


def _called(name: str) -> tuple[bool, str]:
    return not name.startswith("CVE-"), name


def _summary(said: Sequence[Notice]) -> str:
    """Return what one of the records says in a line, best one that is about this vulnerability alone."""
    written = [one for one in said if one.summary]
    return min(written, key=lambda one: len(one.vulnerabilities)).summary if written else ""


def _is_direct(name: str) -> bool:
    """Return whether a record of this name is what a vendor says of one vulnerability, not a notice of an update."""
    return name.startswith(_VENDOR_PREFIXES)


def _fitting(package: Package) -> Callable[[Hit], bool]:
    """Return whether a record can be about a package: those of a module only about others of it, and of its stream."""
    if package.kind != "rpm":
        return lambda _: True
    modular, stream = rpm.modular(package.version), f"{package.module}:"

    def fits(hit: Hit) -> bool:
        if (rpm.modular(hit.fixed) if hit.fixed else bool(hit.module)) != modular:
            return False
        return not (hit.module and package.module) or stream.startswith(f"{hit.module}:")

    return fits


def _severity(said: Sequence[tuple[Hit, Notice]], facts: Facts) -> tuple[str, float | None, str, str]:
    """Return severity, score, vector and who says so: the vendor's own word first, then CVSS, of anybody.

    A notice about several vulnerabilities is rated as the worst of them, and so is asked last.
    """
    scored = max((notice for _, notice in said), key=lambda one: -1.0 if one.score is None else one.score)
    own = scored.score is not None and len(scored.vulnerabilities) == 1
    score, vector, by = (
        (scored.score, scored.vector, scored.id) if own else (facts.score, facts.vector, facts.scored_by)
    )
    rated = [(hit.severity, notice.feed) for hit, notice in said if hit.severity]
    rated = rated or [(one.severity, one.feed) for _, one in said if len(one.vulnerabilities) == 1]
    word, source = max(rated, key=lambda one: rank(one[0]), default=("unknown", ""))
    if word == "unknown" and score is not None:
        word, source = cvss.severity(score), by
    if word == "unknown":
        word, source = max(((one.severity, one.feed) for _, one in said), key=lambda one: rank(one[0]))
    return word, score, vector or scored.vector, source if word != "unknown" else ""


def _judged(finding: Finding, states: Sequence[State]) -> Finding:
    if finding.state in _QUIET_STATES and all(one in _QUIET_STATES for one in states):
        return finding.without(_QUIET_STATES[finding.state], "advisory")
    source = finding.package.source or finding.asked_name
    if finding.package.kind in _DISTRIBUTION_KINDS and _KERNEL.fullmatch(source):
        return finding.without(_KERNEL_REASON, "rule", "vulnerable_code_not_present")
    return finding
