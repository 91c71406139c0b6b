"""Scans: which findings, which not and why, the four verdicts, the gate, and every format that is written."""

import base64
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import feeds
from computeops.check import freshness, inventory, kinds
from computeops.check import scan as scanning
from computeops.check.advisories.lookup import Index
from computeops.check.advisories.model import State
from computeops.check.advisories.update import update
from computeops.check.findings import Finding, Scan, Verdict
from computeops.check.inventory import Inventory, Package, System, Unread
from computeops.check.report import document, evidence, gitlab, openvex, page, sarif, table
from computeops.errors import FormatError, UsageError
from computeops.image import convert
from computeops.model import Digest, Evidence
from computeops.sign import dsse
from computeops.sign.key import Key
from computeops.store.release import Release
from feeds import DAY, NOW

BAD = Path(__file__).parent / "bad/scan"
DEBIAN = System("debian", "12", "Debian GNU/Linux 12 (bookworm)")
SUBJECTS = {"image": Digest("sha256", "a" * 64)}
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
FIXED = "1:1.2.13.dfsg-1+deb12u1"


def deb(name: str, version: str, source: str = "", source_version: str = "", **more: Any) -> Package:
    purl = f"pkg:deb/debian/{name}@{version}?arch=amd64&distro=debian-12"
    return Package(
        "deb", name, version, purl, "var/lib/dpkg/status", "amd64", source or name, source_version or version, **more
    )


def rpm(name: str, version: str, source: str = "", **more: Any) -> Package:
    purl = f"pkg:rpm/almalinux/{name}@{version}?arch=x86_64"
    return Package("rpm", name, version, purl, "var/lib/rpm/rpmdb.sqlite", "x86_64", source or name, version, **more)


def pypi(name: str, version: str, **more: Any) -> Package:
    place = f"usr/lib/python3/dist-packages/{name}.dist-info/METADATA"
    return Package("pypi", name, version, f"pkg:pypi/{name.lower()}@{version}", place, **more)


Scanned = Callable[..., Scan]
FILES = {"debian": "debian/tracker.json", "kev": "kev.json", "names/conda-forge": "names/conda-forge.json"}


@pytest.fixture
def scanned(tmp_path: Path) -> Scanned:
    """Scan packages with an index of the given records, by feed."""

    def scan(
        packages: list[Package],
        records: dict[str, Any],
        *,
        system: System = DEBIAN,
        unread: tuple[Unread, ...] = (),
        now: int = NOW,
    ) -> Scan:
        mirror = tmp_path / "mirror"
        for name, content in records.items():
            if file := FILES.get(name):
                feeds.write(mirror / file, content)
            else:
                feeds.write_zip(mirror / f"osv/{name}/all.zip", content)
        path = tmp_path / "index.sqlite"
        update(path, mirror=str(mirror), now=NOW)
        with Index(path) as index:
            return scanning.scan(SUBJECTS, Inventory(system, tuple(packages), unread), index, now=now, stale_days=7)

    return scan


def found(scan: Scan) -> list[tuple[str, str]]:
    return sorted((one.id, one.package.name) for one in scan.counting)


def only(scan: Scan) -> Finding:
    (one,) = scan.findings
    return one


def tracker(
    package: str = "zlib", cve: str = "CVE-2026-1001", release: str = "bookworm", **said: Any
) -> dict[str, Any]:
    return {package: {cve: {"releases": {release: {"status": "open", "repositories": {}, **said}}}}}


# ------------------------------------------------------------------ names and versions


def test_a_package_is_judged_by_its_source(scanned: Scanned) -> None:
    packages = [deb("zlib1g", "1:1.2.13.dfsg-1", "zlib"), deb("zlib", "9", "other")]
    scan = scanned(packages, {"Debian": [feeds.osv("DSA-1-1")]})
    assert found(scan) == [("DSA-1-1", "zlib1g")]
    assert only(scan).fixed == FIXED


def test_an_epoch_of_the_binary_is_not_that_of_its_source(scanned: Scanned) -> None:
    record = feeds.osv("DSA-1-1", name="util-linux", events=[{"introduced": "0"}, {"fixed": "2.34-0.1ubuntu9.2"}])
    package = deb("bsdutils", "1:2.34-0.1ubuntu9.1", "util-linux", "2.34-0.1ubuntu9.1")
    assert found(scanned([package], {"Debian": [record]})) == [("DSA-1-1", "bsdutils")]


def test_a_rebuild_of_the_fixed_version_is_fixed_and_one_of_the_old_is_not(scanned: Scanned) -> None:
    record = feeds.osv("DSA-1-1", events=[{"introduced": "0"}, {"fixed": "1.0-2"}])
    packages = [deb("a", "1.0-2+b1", "zlib"), deb("b", "1.0-1+b9", "zlib")]
    assert found(scanned(packages, {"Debian": [record]})) == [("DSA-1-1", "b")]


def test_another_release_is_another_distribution(scanned: Scanned) -> None:
    scan = scanned(
        [deb("zlib1g", "1", "zlib")], {"Debian": [feeds.osv("DSA-1-1", "Debian:11"), feeds.osv("DSA-2-1", name="x")]}
    )
    assert found(scan) == []


def test_ubuntu_is_found_whether_its_release_says_lts_or_not(scanned: Scanned) -> None:
    records = [feeds.osv("USN-1-1", "Ubuntu:22.04:LTS"), feeds.osv("USN-2-1", "Ubuntu:22.04")]
    scan = scanned([deb("zlib1g", "1", "zlib")], {"Ubuntu": records}, system=System("ubuntu", "22.04"))
    assert found(scan) == [("USN-1-1", "zlib1g"), ("USN-2-1", "zlib1g")]


def test_a_fix_of_ubuntu_pro_is_told_as_such(scanned: Scanned) -> None:
    fix = [{"introduced": "0"}, {"fixed": "2.0+esm1"}]
    records = [
        feeds.osv("UBUNTU-CVE-2026-1001", "Ubuntu:22.04:LTS", events=[{"introduced": "0"}]),
        feeds.osv("USN-2-1", "Ubuntu:Pro:22.04:LTS", events=fix, upstream=["CVE-2026-1001"]),
    ]
    one = only(scanned([deb("zlib1g", "1", "zlib")], {"Ubuntu": records}, system=System("ubuntu", "22.04")))
    assert (one.fixed, one.note) == ("2.0+esm1", "the fix is in Ubuntu Pro")


def test_almalinux_is_asked_by_binary_names(scanned: Scanned) -> None:
    alma = System("almalinux", "9.4")
    record = feeds.osv("ALSA-2026:1", "AlmaLinux:9", "openssl-libs", [{"introduced": "0"}, {"fixed": "1:3.0.7-2.el9"}])
    packages = [rpm("openssl-libs", "1:3.0.7-1.el9", "openssl"), rpm("openssl", "1:3.0.7-1.el9", "openssl")]
    assert found(scanned(packages, {"AlmaLinux": [record]}, system=alma)) == [("ALSA-2026:1", "openssl-libs")]


def test_an_absent_epoch_is_0(scanned: Scanned) -> None:
    record = feeds.osv("ALSA-2026:1", "AlmaLinux:9", "a", [{"introduced": "0"}, {"fixed": "1:1.0-1.el9"}])
    scan = scanned([rpm("a", "9.0-1.el9")], {"AlmaLinux": [record]}, system=System("almalinux", "9"))
    assert found(scan) == [("ALSA-2026:1", "a")]


def test_a_module_is_judged_within_its_stream(scanned: Scanned) -> None:
    fix = [{"introduced": "0"}, {"fixed": "1:16.20.2-1.module_el8.8.0+1+a"}]
    record = feeds.osv("ALSA-2026:1", "AlmaLinux:8", "nodejs", fix, summary="Important: nodejs:16 security update")
    release = "1.module_el8.8.0+1+a"
    packages = [
        rpm("nodejs", f"1:14.0.0-{release}", module="nodejs:14:8080020230101:x"),
        rpm("nodejs", f"1:16.0.0-{release}", module="nodejs:16:8080020230101:x"),
        rpm("nodejs", "1:10.0.0-1.el8"),
    ]
    scan = scanned(packages, {"AlmaLinux": [record]}, system=System("almalinux", "8.8"))
    assert [one.package.version for one in scan.counting] == [f"1:16.0.0-{release}"]


def test_a_minor_release_that_is_looked_after_is_the_measure(scanned: Scanned) -> None:
    fixes = ["7.76.1-23.el9_2.4", "7.76.1-23.el9_2.6", "7.76.1-26.el9_3.2"]
    versions = {
        "7.76.1-23.el9_2.3": 1,
        "7.76.1-23.el9_2.4": 1,
        "7.76.1-23.el9_2.6": 0,
        "7.76.1-26.el9": 1,
        "7.76.1-26.el9_3.1": 1,
        "7.76.1-26.el9_3.2": 0,
    }

    def count(version: str, feed: str, ecosystem: str, system: System) -> int:
        records = [
            feeds.osv(f"X-{fix}", ecosystem, "curl", [{"introduced": "0"}, {"fixed": fix}], upstream=["CVE-2026-1001"])
            for fix in fixes
        ]
        return len(scanned([rpm("curl", version)], {feed: records}, system=system).counting)

    red_hat = ("Red Hat", "Red Hat:enterprise_linux:9::baseos", System("rhel", "9.2"))
    assert {version: count(version, *red_hat) for version in versions} == versions
    # Those who rebuild it repair nothing but their last minor release.
    assert count("7.76.1-23.el9_2.6", "AlmaLinux", "AlmaLinux:9", System("almalinux", "9.2")) == 1


@pytest.mark.parametrize(
    ("ecosystem", "system"),
    [
        ("Debian", DEBIAN),
        ("SUSE:Linux Enterprise Module for Basesystem 15 SP5", System("sles", "15.5")),
        ("SUSE:Linux Enterprise Server 15 SP5-LTSS", System("sles", "15.5")),
        ("SUSE:Linux Enterprise Server 16.0", System("sles", "16.0")),
        ("SUSE:Linux Enterprise Micro 5.3", System("sle-micro", "5.3")),
        ("openSUSE:Leap 15.6", System("opensuse-leap", "15.6")),
        ("openEuler:22.03-LTS-SP1", System("openeuler", "22.03", "openEuler 22.03 (LTS-SP1)")),
        ("Rocky Linux:9", System("rocky", "9.3")),
        ("Azure Linux:2", System("mariner", "2.0")),
        ("Alpaquita:23", System("alpaquita", "23")),
        ("Chainguard", System("chainguard", "20230214")),
        ("Red Hat:enterprise_linux:9::appstream", System("centos", "9", "CentOS Linux 9")),
    ],
)
def test_every_name_of_a_release_means_the_system(scanned: Scanned, ecosystem: str, system: System) -> None:
    record = feeds.osv("X-1", ecosystem, "zlib", [{"introduced": "0"}, {"fixed": "2-1"}])
    make = {"debian": "deb", "alpaquita": "apk", "chainguard": "apk"}.get(system.id, "rpm")
    package = replace(rpm("zlib", "1-1"), kind=make)
    feed = ecosystem.partition(":")[0]
    assert found(scanned([package], {feed: [record]}, system=system)) == [("X-1", "zlib")]
    assert (
        found(scanned([replace(package, version="2-1", source_version="2-1")], {feed: [record]}, system=system)) == []
    )


@pytest.mark.parametrize(
    ("ecosystem", "purl", "events", "count"),
    [
        ("PyPI", "pkg:pypi/torch@1.13.1%2Bcu117", [{"introduced": "0"}, {"last_affected": "1.13.1"}], 1),
        ("PyPI", "pkg:pypi/torch@1.13.1%2Bcu117", [{"introduced": "0"}, {"fixed": "1.13.1"}], 0),
        ("Bitnami", "pkg:bitnami/nginx@1.25.3-1?arch=amd64&distro=debian-11", [{"introduced": "0"}, {"fixed": "1.25.3"}], 0),
        ("Bitnami", "pkg:bitnami/nginx@1.25.2-9", [{"introduced": "0"}, {"fixed": "1.25.3"}], 1),
        ("Bitnami", "pkg:bitnami/pgpool@4.6.0-0", [{"introduced": "0"}, {"fixed": "4.6.0-1"}], 1),
        ("Bitnami", "pkg:bitnami/golang@1.26.0-2", [{"introduced": "1.26.0-0"}, {"fixed": "1.26.1"}], 1),
        ("npm", "pkg:npm/%40babel/traverse@7.23.1", [{"introduced": "0"}, {"fixed": "7.23.2"}], 1),
        ("npm", "pkg:npm/%40babel/traverse@8.0.0-alpha.3", [{"introduced": "8.0.0-alpha.0"}, {"fixed": "8.0.0-alpha.4"}], 1),
        ("Go", "pkg:golang/github.com/docker/docker@v24.0.6%2Bincompatible", [{"introduced": "0"}, {"fixed": "24.0.7"}], 1),
        ("Go", "pkg:golang/golang.org/x/net@v0.0.0-20220101000000-0123456789ab", [{"introduced": "0"}, {"fixed": "0.17.0"}], 1),
        ("Go", "pkg:golang/stdlib@1.21.0-rc.2", [{"introduced": "1.21.0-0"}, {"fixed": "1.21.5"}], 1),
        ("Maven", "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", [{"introduced": "2.0-beta9"}, {"fixed": "2.15.0"}], 1),
        ("RubyGems", "pkg:gem/rack@3.0.0.rc1", [{"introduced": "0"}, {"fixed": "3.0.0"}], 1),
        ("NuGet", "pkg:nuget/newtonsoft.json@12.0.3", [{"introduced": "0"}, {"fixed": "13.0.1"}], 1),
        ("Hex", "pkg:hex/plug@1.3.0", [{"introduced": "0"}, {"fixed": "1.3.1"}], 1),
        ("crates.io", "pkg:cargo/time@0.2.22", [{"introduced": "0.1.0"}, {"fixed": "0.2.23"}], 1),
    ],
)  # fmt: skip
def test_languages_have_names_and_versions_of_their_own(
    scanned: Scanned, ecosystem: str, purl: str, events: list[dict[str, str]], count: int
) -> None:
    (package,) = inventory.of_document(feeds.cyclonedx({"type": "library", "name": "x", "purl": purl}), "x").packages
    name = "Newtonsoft.Json" if ecosystem == "NuGet" else package.name
    scan = scanned([package], {ecosystem: [feeds.osv("X-1", ecosystem, name, events)]})
    assert (len(scan.counting), scan.gaps) == (count, ())


def test_what_a_package_of_conda_carries_counts_once(scanned: Scanned) -> None:
    inner = pypi("Jinja2", "3.1.2")
    outer = Package("conda", "jinja2", "3.1.2", "pkg:conda/jinja2@3.1.2", "conda-meta/jinja2.json", holds=(inner.purl,))
    records = {"PyPI": [feeds.osv("PYSEC-1", "PyPI", "jinja2", [{"introduced": "0"}, {"fixed": "3.1.3"}])]}
    names = {"names/conda-forge": {"jinja2": ["jinja2"]}}
    both = scanned([outer, inner], records | names)
    assert [(one.package.kind, str(one.confidence)) for one in both.counting] == [("pypi", "confirmed")]
    assert both.gaps == ()
    alone = scanned([replace(outer, holds=())], records | names)
    assert [(one.package.kind, str(one.confidence)) for one in alone.counting] == [("conda", "probable")]


def test_a_package_in_the_format_of_another_distribution_is_a_gap(scanned: Scanned) -> None:
    scan = scanned([rpm("zlib", "1-1"), deb("zlib1g", FIXED, "zlib")], {"Debian": [feeds.osv("DSA-1-1")]})
    assert (scan.packages, [one.kind for one in scan.gaps]) == (1, ["rpm"])


def test_python_packages_are_found_in_any_spelling(scanned: Scanned) -> None:
    record = feeds.osv("PYSEC-1", "PyPI", "zope-interface", [{"introduced": "0"}, {"fixed": "2.0"}])
    scan = scanned([pypi("Zope.Interface", "1.0.post1"), pypi("zope_interface", "2.0.0")], {"PyPI": [record]})
    assert found(scan) == [("PYSEC-1", "Zope.Interface")]


def test_a_python_package_of_the_distribution_is_judged_by_the_distribution(scanned: Scanned) -> None:
    jinja = deb("python3-jinja2", "3.1.2-1+deb12u1", "jinja2")
    inside = pypi("Jinja2", "3.1.2", owner=jinja.purl)
    record = feeds.osv("PYSEC-1", "PyPI", "jinja2", [{"introduced": "0"}, {"fixed": "3.1.3"}])
    scan = scanned([jinja, inside], {"PyPI": [record], "Debian": [feeds.osv("DSA-1-1")]})
    assert scan.findings == ()
    assert (scan.packages, scan.owned) == (1, 1)


# ------------------------------------------------------------------ one finding of several records


def test_a_notice_about_several_cves_is_a_finding_for_each(scanned: Scanned) -> None:
    scan = scanned(
        [deb("zlib1g", "1", "zlib")], {"Debian": [feeds.osv("DSA-1-1", upstream=["CVE-2026-1001", "CVE-2026-1002"])]}
    )
    assert found(scan) == [("CVE-2026-1001", "zlib1g"), ("CVE-2026-1002", "zlib1g")]


def test_records_of_one_bug_are_one_finding(scanned: Scanned) -> None:
    everything = [{"introduced": "0"}, {"fixed": "2"}]
    records = [
        feeds.osv("GHSA-x", "PyPI", "p", everything, aliases=["CVE-2026-1001"]),
        feeds.osv("PYSEC-1", "PyPI", "p", [{"introduced": "0"}, {"fixed": "2.1"}], aliases=["GHSA-x"]),
        feeds.osv("PYSEC-2", "PyPI", "p", everything),
    ]
    scan = scanned([pypi("p", "1")], {"PyPI": records})
    assert found(scan) == [("CVE-2026-1001", "p"), ("PYSEC-2", "p")]
    merged = next(one for one in scan.counting if one.id != "PYSEC-2")
    assert merged.advisories == ("GHSA-x", "PYSEC-1")
    assert merged.fixed == "2.1"  # the last of them repaired all of it


def test_several_vulnerabilities_upstream_are_several_and_several_names_are_one(scanned: Scanned) -> None:
    everything, both = [{"introduced": "0"}], ["CVE-2018-20450", "CVE-2018-20452"]
    upstream = scanned([Package("cran", "readxl", "1.1", "pkg:cran/readxl@1.1", "x")],
        {"CRAN": [feeds.osv("RSEC-2023-1", "CRAN", "readxl", everything, upstream=both)]})  # fmt: skip
    assert [one.id for one in upstream.counting] == both
    names = scanned([Package("cargo", "smallvec", "0.6", "pkg:cargo/smallvec@0.6", "x")],
        {"crates.io": [feeds.osv("RUSTSEC-1", "crates.io", "smallvec", everything, aliases=both)]})  # fmt: skip
    assert [(one.id, one.aliases) for one in names.counting] == [(both[0], ("RUSTSEC-1", both[1]))]


def test_a_name_that_another_record_knows_is_the_cve(scanned: Scanned) -> None:
    records = [
        feeds.osv("GHSA-x", "PyPI", "p", [{"introduced": "5"}], aliases=["CVE-2026-1001"]),
        feeds.osv("PYSEC-1", "PyPI", "p", [{"introduced": "0"}, {"fixed": "2"}], aliases=["GHSA-x"]),
    ]
    assert found(scanned([pypi("p", "1")], {"PyPI": records})) == [("CVE-2026-1001", "p")]


def test_what_the_vendor_says_of_a_cve_decides_over_a_notice(scanned: Scanned) -> None:
    notice = feeds.osv("DSA-1-1", upstream=["CVE-2026-1001"])
    denied = scanned(
        [deb("zlib1g", "1", "zlib")], {"Debian": [notice], "debian": tracker(status="resolved", fixed_version="0")}
    )
    assert denied.counting == ()
    assert only(denied).suppressed == "not affected, says the distribution"


def test_what_the_vendor_calls_repaired_is_repaired(scanned: Scanned) -> None:
    notice = feeds.osv("DSA-1-2", upstream=["CVE-2026-1001"])
    said = tracker(status="resolved", fixed_version="1:1.2.13.dfsg-1", repositories={"bookworm": FIXED})
    assert scanned([deb("zlib1g", "1:1.2.13.dfsg-1", "zlib")], {"Debian": [notice], "debian": said}).findings == ()


def test_a_notice_with_a_fix_is_newer_than_a_vendor_who_knows_none(scanned: Scanned) -> None:
    records = {
        "Debian": [feeds.osv("DSA-1-1", upstream=["CVE-2026-1001"])],
        "debian": tracker(nodsa="x", nodsa_reason="ignored"),
    }
    one = only(scanned([deb("zlib1g", "1", "zlib")], records))
    assert (one.fixed, one.state) == (FIXED, State.AFFECTED)
    assert scanned([deb("zlib1g", FIXED, "zlib")], records).findings == ()


@pytest.mark.parametrize(
    ("said", "state", "severity"),
    [
        ({"nodsa": "x", "nodsa_reason": "ignored", "urgency": "low**"}, State.WILL_NOT_FIX, "low"),
        ({"nodsa": "x", "nodsa_reason": "postponed"}, State.DEFERRED, "unknown"),
        ({"urgency": "end-of-life"}, State.END_OF_LIFE, "unknown"),
        ({"urgency": "high"}, State.AFFECTED, "high"),
    ],
)
def test_what_is_not_repaired_is_found_with_its_state(
    scanned: Scanned, said: dict[str, Any], state: State, severity: str
) -> None:
    one = only(scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(**said)}))
    assert (one.state, one.severity, one.fixed) == (state, severity, "")


def test_what_is_still_looked_at_does_not_count(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(status="undetermined")})
    assert [one.suppressed for one in scan.findings] == ["under investigation"]


def test_headers_of_a_kernel_are_no_kernel(scanned: Scanned) -> None:
    scan = scanned([deb("linux-libc-dev", "6.1", "linux")], {"debian": tracker("linux", urgency="high")})
    assert scan.counting == ()
    assert "kernel of its host" in only(scan).suppressed


# ------------------------------------------------------------------ severity


def test_the_vendors_severity_comes_before_that_of_others(scanned: Scanned) -> None:
    scored = feeds.osv(
        "PYSEC-1", "PyPI", "p", aliases=["CVE-2026-1001"], severity=[{"type": "CVSS_V3", "score": CRITICAL}]
    )
    one = only(scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(urgency="low"), "PyPI": [scored]}))
    assert (one.severity, one.severity_source, one.score) == ("low", "debian", 9.8)


def test_without_a_word_of_the_vendor_the_score_of_others_counts(scanned: Scanned) -> None:
    scored = feeds.osv(
        "PYSEC-1", "PyPI", "p", aliases=["CVE-2026-1001"], severity=[{"type": "CVSS_V3", "score": CRITICAL}]
    )
    one = only(scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(urgency="not yet assigned"), "PyPI": [scored]}))
    assert (one.severity, one.severity_source, one.vector) == ("critical", "PYSEC-1", CRITICAL)


def test_what_is_exploited_is_marked(scanned: Scanned) -> None:
    kev = {"vulnerabilities": [{"cveID": "CVE-2026-1001", "dateAdded": "2026-10-01"}]}
    scan = scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(urgency="high"), "kev": kev})
    assert only(scan).exploited == "2026-10-01"
    assert "exploited" in table.write(scan, "x.sif")


# ------------------------------------------------------------------ verdicts: never a silent nothing

GOOD = {"Debian": [feeds.osv("DSA-1-1")]}


def test_clean_is_what_was_judged_by_advisories_of_today(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", FIXED, "zlib")], GOOD)
    assert (scan.verdict, scan.findings, scan.gaps, scan.stale) == (Verdict.CLEAN, (), (), ())


def test_old_advisories_make_nothing_clean(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", FIXED, "zlib")], GOOD, now=NOW + 10 * DAY)
    assert scan.verdict is Verdict.STALE
    assert scan.stale == ("osv/Debian is 11 days old",)


def test_advisories_from_the_future_make_nothing_clean(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", FIXED, "zlib")], GOOD, now=NOW - 30 * DAY)
    assert scan.verdict is Verdict.STALE
    assert "clock" in scan.stale[0]


def test_a_busy_feed_without_anything_new_is_an_old_copy(scanned: Scanned) -> None:
    records = [feeds.osv(f"DSA-{n}-1", name="x") | {"modified": "2023-04-01T00:00:00Z"} for n in range(1001)]
    scan = scanned([deb("zlib1g", FIXED, "zlib")], {"Debian": records})
    assert scan.verdict is Verdict.STALE
    assert "old copy" in scan.stale[0]


def test_findings_are_found_in_old_advisories_too(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", "1", "zlib")], GOOD, now=NOW + 10 * DAY)
    assert scan.verdict is Verdict.VULNERABLE
    assert scan.stale


@pytest.mark.parametrize(
    ("system", "package"),
    [
        (System("debian", "13"), deb("zlib1g", "1", "zlib")),
        (System("fedora", "40"), rpm("zlib", "1-1")),
        (System("linux", ""), deb("zlib1g", "1", "zlib")),
        (DEBIAN, pypi("p", "1")),
        (DEBIAN, Package("conda", "p", "1", "pkg:conda/p@1", "opt/conda-meta/p.json")),
    ],
)
def test_what_nobody_was_asked_about_is_unscannable(scanned: Scanned, system: System, package: Package) -> None:
    scan = scanned([package], GOOD, system=system)
    assert scan.verdict is Verdict.UNSCANNABLE
    assert scan.packages == 0
    assert "not judged" in table.write(scan, "x.sif")


def test_traces_of_packages_that_are_not_read_are_a_gap(scanned: Scanned) -> None:
    unread = (Unread("conda", "opt/conda-meta/x.json", "packages of this kind are not read: 7"),)
    scan = scanned([deb("zlib1g", FIXED, "zlib")], GOOD, unread=unread)
    assert scan.verdict is Verdict.UNSCANNABLE


def test_an_image_without_packages_is_unscannable(scanned: Scanned) -> None:
    assert scanned([], GOOD).verdict is Verdict.UNSCANNABLE


def test_what_is_negligible_does_not_make_it_vulnerable(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(urgency="unimportant")})
    assert (scan.verdict, scan.counts["negligible"]) == (Verdict.CLEAN, 1)


def test_a_system_that_nobody_repairs_is_told(scanned: Scanned) -> None:
    system = System("debian", "10", "Debian GNU/Linux 10 (buster)")
    scan = scanned([deb("zlib1g", "9", "zlib")], {"Debian": [feeds.osv("DSA-1-1", "Debian:10")]}, system=system)
    assert "2024-06-30" in scan.warnings[0]


def test_what_no_update_repairs_can_be_left_out(scanned: Scanned) -> None:
    scan = scanned([deb("zlib1g", "1", "zlib")], {"debian": tracker(urgency="high")})
    assert found(scan) == [("CVE-2026-1001", "zlib1g")]
    assert scanning.only_fixed(scan).counting == ()


# ------------------------------------------------------------------ formats


HOSTILE = "<script>alert(1)</script>\"&'"


@pytest.fixture
def full(scanned: Scanned) -> Scan:
    """A scan with something of everything, and hostile texts where texts come from outside."""
    records: dict[str, Any] = {
        "Debian": [feeds.osv("DSA-1-1", upstream=["CVE-2026-1001", "CVE-2026-1002"], summary=HOSTILE)],
        "PyPI": [feeds.osv("PYSEC-1", "PyPI", "p", [{"introduced": "0"}, {"fixed": "2"}], severity=[{"type": "CVSS_V3", "score": CRITICAL}])],
        "debian": tracker("linux", urgency="high") | tracker("a", "CVE-2026-1003", nodsa="x", nodsa_reason="ignored", urgency="low"),
    }  # fmt: skip
    packages = [
        deb("zlib1g", "1", "zlib"),
        deb("libz-dev", "1", "zlib"),
        deb("linux-libc-dev", "6.1", "linux"),
        deb("a", "1"),
        pypi("p", "junk"),
    ]
    return scanned(packages, records, unread=(Unread("conda", f"opt/{HOSTILE}", "not read"),))


def test_the_document_tells_everything(full: Scan) -> None:
    made = json.loads(document.write(full, "x.sif"))
    assert made["verdict"] == "vulnerable"
    assert {one["id"] for one in made["findings"]} == {"CVE-2026-1001", "CVE-2026-1002", "CVE-2026-1003", "PYSEC-1"}
    assert [one["suppressedBy"] for one in made["suppressed"]] == ["rule"]
    assert [one["kind"] for one in made["gaps"]] == ["conda"]
    assert {one["feed"] for one in made["advisories"]} == {"osv/Debian", "osv/PyPI", "debian"}
    worst = made["findings"][0]
    assert (worst["id"], worst["severity"], worst["score"]) == ("PYSEC-1", "critical", 9.8)


def test_sarif_has_what_code_scanning_needs(full: Scan) -> None:
    (run,) = json.loads(sarif.write(full, "x.sif"))["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert all(re.fullmatch(r"\d+\.\d", one["properties"]["security-severity"]) for one in rules)
    assert [one["ruleId"] for one in run["results"] if "suppressions" in one] == [one.id for one in full.suppressed]
    assert len({one["partialFingerprints"]["computeops/v1"] for one in run["results"]}) == len(run["results"])
    assert any("conda" in one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"])


def test_gitlabs_report_has_what_its_schema_wants(full: Scan) -> None:
    made = json.loads(gitlab.write(full, "registry/x:1"))
    assert made["scan"]["type"] == "container_scanning"
    assert made["scan"]["status"] == "success"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", made["scan"]["start_time"])
    assert len(made["vulnerabilities"]) == len(full.counting)
    for one in made["vulnerabilities"]:
        assert one["severity"] in {"Info", "Unknown", "Low", "Medium", "High", "Critical"}
        assert set(one["location"]) == {"dependency", "operating_system", "image"}
        assert one["identifiers"][0].keys() >= {"type", "name", "value"}
    assert len({one["id"] for one in made["vulnerabilities"]}) == len(full.counting)
    assert gitlab.write(full, "registry/x:1") == gitlab.write(full, "registry/x:1")


def test_openvex_names_image_and_packages(full: Scan) -> None:
    made = json.loads(openvex.write(full, "x.sif"))
    said = {(one["vulnerability"]["name"], one["status"]) for one in made["statements"]}
    assert said == {
        ("CVE-2026-1001", "affected"),
        ("CVE-2026-1002", "affected"),
        ("CVE-2026-1003", "affected"),
        ("PYSEC-1", "affected"),
        ("CVE-2026-1001", "not_affected"),
    }
    for one in made["statements"]:
        assert one["products"][0]["hashes"] == {"sha-256": "a" * 64}
        assert one["products"][0]["subcomponents"]
        assert "action_statement" in one if one["status"] == "affected" else "impact_statement" in one


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src" or (name == "href" and tag == "link")]


def test_the_page_stands_alone_and_runs_nothing(full: Scan) -> None:
    text = page.write(full, HOSTILE)
    parsed = _Tags()
    parsed.feed(text)
    assert "script" not in parsed.tags
    assert parsed.sources == []
    assert "default-src 'none'" in text
    assert "PYSEC-1" in text
    assert "&lt;script&gt;" in text


def test_the_evidence_is_an_in_toto_vulns_statement(full: Scan) -> None:
    made = evidence.evidence(full)
    assert (made.kind, made.subjects) == (kinds.VULNS, SUBJECTS)
    scanner = made.predicate["scanner"]
    assert scanner["db"]["lastUpdate"] == "2026-11-17T11:06:40Z"
    assert {one["id"] for one in scanner["result"]} == {one.id for one in full.counting}
    worst = scanner["result"][0]["severity"]
    assert {"method": "CVSS_V3", "score": "9.8"} in worst
    assert made.predicate["computeops_scan"]["verdict"] == "vulnerable"


def test_the_table_is_of_one_line_each(full: Scan) -> None:
    lines = table.write(full, "x.sif").splitlines()
    assert lines[1].startswith("critical")
    assert lines[-1].startswith("x.sif: vulnerable (not all could be judged): 1 critical")
    everything = table.write(full, "x.sif", everything=True)
    assert "does not count: CVE-2026-1001 linux-libc-dev" in everything


# ------------------------------------------------------------------ up to date?


def test_an_update_would_change_what_the_archive_has_newer(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("zlib1g\t1.0\tzlib\t1.0\na\t1\ta\t1\n")
    (tmp_path / "security").write_text(
        "Package: zlib1g\nArchitecture: amd64\nVersion: 1.1\n\nPackage: b\nArchitecture: all\nVersion: 2\n"
    )
    packages = (deb("zlib1g", "1.0"), deb("a", "2"), deb("b", "2"), deb("own", "1"))
    found = freshness.compare(Inventory(DEBIAN, packages), [tmp_path / "base", tmp_path / "security"])
    assert [(one.package.name, one.to, one.origin) for one in found.changes] == [("zlib1g", "1.1", "security")]
    assert ([one.name for one in found.ahead], [one.name for one in found.elsewhere]) == (["a"], ["own"])
    assert (found.compared, found.fresh) == (3, False)


def test_an_archive_that_has_nothing_of_it_calls_nothing_fresh(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("b\t1\tb\t1\n")
    assert not freshness.compare(Inventory(DEBIAN, (deb("a", "1"),)), [tmp_path / "index"]).fresh


@pytest.mark.parametrize("content", [b"nonsense", b"\xfd7zXZ\x00broken", b"\x1f\x8bbroken", b""])
def test_what_is_no_index_of_packages_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FormatError):
        freshness.compare(Inventory(DEBIAN, ()), [tmp_path / "x"])


def test_the_archive_of_a_release_has_three_indexes() -> None:
    assert freshness.addresses(DEBIAN, "amd64", "http://mirror/debian")[1:] == [
        "http://mirror/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz",
        "http://mirror/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz",
    ]
    with pytest.raises(UsageError):
        freshness.addresses(System("fedora", "40"), "amd64", "")


def test_a_suite_is_as_new_as_itself_and_older_than_its_updates(tmp_path: Path) -> None:
    base, security = tmp_path / "bookworm.tsv", tmp_path / "bookworm-security.tsv.gz"
    versions = [f"1.{number}-1" for number in range(50)]
    base.write_text("".join(f"lib{one}\t{one}\tsource\t{one}\n" for one in versions))
    fixed = "".join(f"lib{one}\t{one}+deb12u1\tsource\t{one}+deb12u1\n" for one in versions[::5])
    security.write_bytes(gzip.compress(fixed.encode()))
    packages = tuple(deb(one.name, one.version) for one in freshness.read(base))
    assert freshness.compare(Inventory(DEBIAN, packages), [base]).fresh
    updated = freshness.compare(Inventory(DEBIAN, packages), [base, security])
    assert (updated.compared, len(updated.changes)) == (50, 10)


# ------------------------------------------------------------------ packages that are known elsewhere by another name


def borrowed(tmp_path: Path, *packages: tuple[str, str, str]) -> Scan:
    """A scan of packages of conda, Spack and Guix: type, name and version of each."""
    mirror = tmp_path / "mirror"
    python = [{"introduced": "0"}, {"fixed": "2.6.0"}]
    feeds.write_zip(mirror / "osv/PyPI/all.zip", [feeds.osv("PYSEC-1", "PyPI", "torch", python)])
    feeds.write_zip(mirror / "osv/CRAN/all.zip", [feeds.osv("RSEC-1", "CRAN", "XML", [{"introduced": "0"}])])
    hdf5 = [{"introduced": "0"}, {"fixed": "1.14.3+0"}]
    feeds.write_zip(mirror / "osv/Julia/all.zip", [feeds.osv("JLSEC-1", "Julia", "HDF5_jll", hdf5)])
    feeds.write(mirror / "names/conda-forge.json", {"pytorch": ["torch"], "hdf5": None, "zlib": None, "torch": "other"})
    update(tmp_path / "borrowed.sqlite", mirror=str(mirror), now=NOW)
    found = tuple(
        Package(kind, name, version, f"pkg:{kind}/{name}@{version}", name) for kind, name, version in packages
    )
    with Index(tmp_path / "borrowed.sqlite") as index:
        return scanning.scan(SUBJECTS, Inventory(System(), found), index, now=NOW, stale_days=7)


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "said"),
    [
        ("conda", "pytorch", "2.1.0", "2.6.0", "PYSEC-1 probable"),
        ("spack", "py-torch", "2.1.0", "2.6.0", "PYSEC-1 probable"),
        ("guix", "python-torch", "2.1.0", "2.6.0", "PYSEC-1 probable"),
        ("nix", "python3.11-torch", "2.1.0", "2.6.0", "PYSEC-1 probable"),
        ("conda", "hdf5", "1.14.2", "1.14.3", "JLSEC-1 upstream version"),
        ("spack", "hdf5", "1.14.2", "1.14.3", "JLSEC-1 upstream version"),
    ],
)
def test_who_publishes_nothing_is_judged_by_others_and_not_as_sure(
    tmp_path: Path, kind: str, name: str, old: str, new: str, said: str
) -> None:
    (finding,) = borrowed(tmp_path, (kind, name, old)).findings
    assert f"{finding.id} {finding.confidence}" == said
    assert borrowed(tmp_path, (kind, name, new)).verdict is Verdict.CLEAN


def test_a_package_of_r_is_known_by_a_name_in_other_letters(tmp_path: Path) -> None:
    assert [one.id for one in borrowed(tmp_path, ("conda", "r-xml", "3.99")).findings] == ["RSEC-1"]


def test_who_is_known_to_nobody_is_a_gap_and_equal_names_are_no_proof(tmp_path: Path) -> None:
    scan = borrowed(tmp_path, ("conda", "zlib", "1.2.13"), ("conda", "torch", "0.1"))
    assert scan.findings == ()  # `torch` of conda is another package: the map says so
    assert [gap.what for gap in scan.gaps] == ["1 packages"]


# ------------------------------------------------------------------ the verb

STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Source: zlib
Version: {version}

Package: broken
Status: install ok installed
Architecture: amd64
Version: 1
"""


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A folder with an image whose zlib is old, and an index of today."""
    image(tmp_path, "1:1.2.13.dfsg-1")
    now = int(time.time())
    scored = [{"type": "CVSS_V3", "score": CRITICAL}]
    record = feeds.osv("DEBIAN-CVE-2026-1001", severity=scored) | {"modified": "2026-11-01T00:00:00Z"}
    feeds.write_zip(tmp_path / "mirror/osv/Debian/all.zip", [record], when=now - 3600)
    update(tmp_path / "index.sqlite", mirror=str(tmp_path / "mirror"), now=now)
    return tmp_path


def image(folder: Path, version: str) -> Path:
    root = folder / "root"
    for path, text in {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "var/lib/dpkg/status": STATUS.format(version=version),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    target = folder / f"image-{version.rpartition('.')[2]}.oci"
    convert.convert(root, target, writer=convert.Writer(), epoch=315532800, arch="amd64")
    return target


def computeops(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "COMPUTEOPS_ADVISORIES": str(folder / "index.sqlite")}
    argv = [sys.executable, "-m", "computeops", *words]
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert "bug of computeops" not in done.stderr
    return done


OLD, NEW = "image-dfsg-1.oci", "image-dfsg-1+deb12u1.oci"


def test_the_gate_is_closed_for_what_is_as_bad_as_asked(at: Path) -> None:
    image(at, FIXED)
    assert computeops(at, "scan", OLD).returncode == 0
    assert computeops(at, "scan", OLD, "--fail-on", "critical").returncode == 13
    clean = computeops(at, "scan", NEW, "--fail-on", "unknown")
    assert (clean.returncode, clean.stdout.splitlines()[-1]) == (
        0,
        f"{NEW}: clean: no findings, in 2 packages of Debian GNU/Linux 12 (bookworm)",
    )


def test_the_gate_is_closed_where_nobody_looked(at: Path) -> None:
    new = image(at, FIXED)
    env = at / "index.sqlite"
    update(env, mirror=str(at / "mirror"), now=1_700_000_000, full=True)
    feeds.write_zip(at / "mirror/osv/Debian/all.zip", [feeds.osv("DSA-1-1", name="x")], when=1_700_000_000)
    update(env, mirror=str(at / "mirror"), now=1_700_000_000, full=True)
    said = computeops(at, "scan", new.name, "--fail-on", "critical")
    assert (said.returncode, "stale" in said.stdout) == (13, True)
    assert computeops(at, "scan", new.name, "--fail-on", "critical", "--accept", "stale").returncode == 0


def test_without_advisories_nothing_is_called_clean(at: Path) -> None:
    (at / "index.sqlite").unlink()
    done = computeops(at, "scan", OLD)
    assert done.returncode == 5
    assert "advisories update" in done.stderr


@pytest.mark.parametrize("form", ["json", "sarif", "cyclonedx", "gitlab", "openvex"])
def test_formats_are_written_to_files_whole(at: Path, form: str) -> None:
    done = computeops(at, "scan", OLD, "--format", form, "--output", "report.json")
    assert "CVE-2026-1001" in done.stdout
    assert "CVE-2026-1001" in json.dumps(json.loads((at / "report.json").read_text()))
    assert json.loads(computeops(at, "scan", OLD, "--format", form).stdout)


def test_the_bill_of_materials_with_vulnerabilities_is_valid(at: Path) -> None:
    text = computeops(at, "scan", OLD, "--format", "cyclonedx").stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (one,) = json.loads(text)["vulnerabilities"]
    assert one["ratings"] == [{"severity": "critical", "score": 9.8, "method": "CVSSv31", "vector": CRITICAL}]
    assert one["recommendation"] == f"update zlib to {FIXED}"


def test_an_ignored_finding_passes_until_its_day(at: Path) -> None:
    entry = '[[ignore]]\nid = "CVE-2026-1001"\nreason = "not used"\nuntil = {day}\n'
    (at / "ignore.toml").write_text(entry.format(day="2099-01-01"))
    assert computeops(at, "scan", OLD, "--fail-on", "low", "--ignore", "ignore.toml").returncode == 0
    (at / "ignore.toml").write_text(entry.format(day="2020-01-01"))
    late = computeops(at, "scan", OLD, "--fail-on", "low", "--ignore", "ignore.toml")
    assert late.returncode == 13
    assert "what it says about CVE-2026-1001 ended" in late.stdout


def test_our_own_vex_is_read_back(at: Path) -> None:
    (at / "ignore.toml").write_text('[[ignore]]\nid = "CVE-2026-1001"\nreason = "not used"\n')
    computeops(at, "scan", OLD, "--ignore", "ignore.toml", "--format", "openvex", "--output", "own.vex.json")
    computeops(at, "scan", OLD, "--ignore", "ignore.toml", "--format", "cyclonedx", "--output", "own.cdx.json")
    for file in ("own.vex.json", "own.cdx.json"):
        again = json.loads(computeops(at, "scan", OLD, "--vex", file, "--json").stdout)
        assert again["findings"] == []
        assert "not used" in again["suppressed"][0]["suppressed"]


def test_a_signed_result_lies_beside_the_image(at: Path) -> None:
    computeops(at, "key", "new", "ada")
    assert computeops(at, "scan", OLD, "--key", "ada").returncode == 0
    (file,) = (at / "image-dfsg-1.release/evidence").glob("vulns-*.dsse.json")
    assert json.loads(file.read_text())["signatures"]
    found = convert.prove(convert.open_image(at / OLD))
    payload = base64.b64decode(json.loads(file.read_text())["payload"])
    assert {"name": "image", "digest": {"sha256": found.id.hex}} in json.loads(payload)["subject"]


def said_of(folder: Path, *words: str) -> tuple[str, list[tuple[str, str, str]]]:
    made = json.loads(computeops(folder, "scan", *words, "--format", "json").stdout)
    return made["verdict"], sorted((one["id"], one["package"]["purl"], one["confidence"]) for one in made["findings"])


def test_image_root_filesystem_and_bill_of_materials_give_the_same(at: Path) -> None:
    site = "usr/lib/python3/dist-packages/Jinja2-3.1.2.dist-info/METADATA"
    carried = "opt/env/lib/python3.11/site-packages/jinja2-3.1.2.dist-info/METADATA"
    names = {"files": [carried.removeprefix("opt/env/")], "name": "jinja2", "version": "3.1.2"}
    for path, text in {
        "var/lib/dpkg/info/zlib1g.list": f"/{site}\n",
        site: "Name: Jinja2\nVersion: 3.1.2\n",
        "opt/env/conda-meta/jinja2.json": json.dumps(names),
        carried: "Name: jinja2\nVersion: 3.1.2\n",
    }.items():
        (at / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (at / "root" / path).write_text(text)
    python = feeds.osv("PYSEC-1", "PyPI", "jinja2", [{"introduced": "0"}, {"fixed": "3.1.3"}])
    now = int(time.time())
    feeds.write_zip(at / "mirror/osv/PyPI/all.zip", [python], when=now - 3600)
    feeds.write(at / "mirror/names/conda-forge.json", {"jinja2": "jinja2"}, when=now - 3600)
    update(at / "index.sqlite", mirror=str(at / "mirror"), now=now)
    image(at, "1:1.2.13.dfsg-1")
    expected = ("vulnerable", [
        ("CVE-2026-1001", "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12", "confirmed"),
        ("PYSEC-1", "pkg:pypi/jinja2@3.1.2", "confirmed"),  # of conda; the other is the distribution's
    ])  # fmt: skip
    assert said_of(at, OLD) == expected
    assert said_of(at, "root") == expected
    for form in ("cyclonedx", "spdx"):
        (at / "bom.json").write_text(computeops(at, "sbom", OLD, "--format", form).stdout)
        assert said_of(at, "bom.json") == expected
    refused = computeops(at, "scan", "bom.json", "--key", "ada")
    assert (refused.returncode, "is no image" in refused.stderr) == (2, True)


def test_a_bill_of_materials_beside_the_image_is_read_where_it_is_about_it(at: Path) -> None:
    image_at, key = convert.open_image(at / OLD), Key.generate("ada")
    bom = json.loads(feeds.cyclonedx({"type": "library", "name": "zlib", "version": "1", "purl": "pkg:cran/zlib@1"}))
    release = Release.beside(at / OLD)
    for digest in (Digest.of(b"another image"), image_at.id):
        release.add_evidence("cyclonedx", dsse.sign(Evidence(kinds.CYCLONEDX, {"image": digest}, bom), key))
        listed = json.loads(computeops(at, "sbom", OLD).stdout)["components"]
        assert ("pkg:cran/zlib@1" in {one.get("purl") for one in listed}) == (digest == image_at.id)
    assert "cran: 1 packages" in computeops(at, "scan", OLD).stdout


def test_freshness_by_an_index(at: Path) -> None:
    (at / "Packages").write_text(
        f"Package: zlib1g\nArchitecture: amd64\nVersion: {FIXED}\n\nPackage: broken\nVersion: 1\n"
    )
    old = computeops(at, "scan", OLD, "--freshness", "--index", "Packages")
    assert old.returncode == 13
    assert f"zlib1g 1:1.2.13.dfsg-1 -> {FIXED}" in old.stdout
    image(at, FIXED)
    new = computeops(at, "scan", NEW, "--freshness", "--index", "Packages", "--json")
    assert (new.returncode, json.loads(new.stdout)["fresh"]) == (0, True)


def test_a_scan_of_findings_is_sorted_by_how_bad_they_are(full: Scan) -> None:
    again = replace(full, findings=tuple(sorted(full.findings, key=lambda one: one.order)))
    assert again == full
