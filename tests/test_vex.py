"""What people say about findings: three formats of VEX and ignore files, whom they concern, and when they hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import feeds
from computeops.check import vex
from computeops.check.findings import Finding, Scan
from computeops.check.inventory import Package, System
from computeops.check.vex.statement import Purl
from computeops.errors import FormatError, LimitError, NotFoundError
from computeops.limits import LIMITS
from computeops.model import Digest

BAD = Path(__file__).parent / "bad/scan/vex"
NOW = feeds.NOW
IMAGE = Digest("sha256", "a" * 64)
ZLIB = Package(
    "deb",
    "zlib1g",
    "1:1.2",
    "pkg:deb/debian/zlib1g@1:1.2?arch=amd64&distro=debian-12",
    "status",
    "amd64",
    "zlib",
    "1:1.2",
)
OTHER = Package("deb", "other", "1", "pkg:deb/debian/other@1?arch=amd64", "status", "amd64", "other", "1")
ZOPE = Package("pypi", "Zope.Interface", "1.0", "pkg:pypi/zope-interface@1.0", "METADATA")


def scan(*packages: Package) -> Scan:
    findings = [
        Finding(
            id="CVE-2026-1001",
            package=one,
            ecosystem="Debian:12",
            asked_name=one.source,
            asked_version=one.version,
            advisories=("DSA-1-1",),
            aliases=("GHSA-x",),
            severity="high",
        )
        for one in packages
    ]
    return Scan(
        subjects={"image": IMAGE},
        system=System("debian", "12"),
        packages=len(packages),
        owned=0,
        findings=tuple(findings),
        gaps=(),
        stale=(),
        warnings=(),
        feeds=(),
        time=NOW,
    )


def applied(tmp_path: Path, documents: Sequence[Any], *packages: Package, now: int = NOW) -> Scan:
    statements = []
    for number, one in enumerate(documents):
        file = tmp_path / (f"{number}.toml" if isinstance(one, str) else f"{number}.json")
        file.write_text(one if isinstance(one, str) else json.dumps(one))
        statements += vex.read(file)
    return vex.apply(scan(*(packages or (ZLIB,))), statements, now=now)


def openvex(
    status: str = "not_affected", products: Sequence[Any] = ("pkg:deb/debian/zlib1g",), **more: Any
) -> dict[str, Any]:
    statement = {
        "vulnerability": {"name": "CVE-2026-1001"},
        "products": [{"@id": one} if isinstance(one, str) else one for one in products],
        "status": status,
        "impact_statement": "minizip is not built",
    }
    document = {"@context": "https://openvex.dev/ns/v0.2.0", "timestamp": "2026-11-01T00:00:00Z"}
    return document | {"statements": [statement | more]}


def quiet(tmp_path: Path, document: Any, *packages: Package) -> list[str]:
    return [one.package.name for one in applied(tmp_path, [document], *packages).suppressed]


def test_a_finding_is_kept_with_the_reason_and_who_gave_it(tmp_path: Path) -> None:
    made = applied(tmp_path, [openvex(justification="vulnerable_code_not_present")])
    (one,) = made.findings
    assert (one.suppressed, one.suppressed_by, one.justification) == (
        "minizip is not built",
        "0.json",
        "vulnerable_code_not_present",
    )
    assert made.counting == ()


@pytest.mark.parametrize(
    ("status", "count"), [("not_affected", 0), ("fixed", 0), ("affected", 1), ("under_investigation", 1)]
)
def test_which_statuses_make_quiet(tmp_path: Path, status: str, count: int) -> None:
    assert len(applied(tmp_path, [openvex(status)]).counting) == count


@pytest.mark.parametrize(
    "vulnerability",
    [{"name": "CVE-2026-1001"}, "CVE-2026-1001", {"name": "GHSA-x"}, {"@id": "https://nvd.nist.gov/vuln/detail/CVE-2026-1001"}, {"name": "X", "aliases": ["DSA-1-1"]}],
)  # fmt: skip
def test_a_vulnerability_has_many_names(tmp_path: Path, vulnerability: Any) -> None:
    assert quiet(tmp_path, openvex(vulnerability=vulnerability)) == ["zlib1g"]
    assert quiet(tmp_path, openvex(vulnerability="CVE-2026-9999")) == []


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        ("pkg:deb/debian/zlib1g", ["zlib1g"]),
        ("pkg:deb/debian/zlib1g@1%3A1.2", ["zlib1g"]),
        ("pkg:deb/debian/zlib1g@1:1.2?arch=arm64&distro=bookworm", ["zlib1g"]),
        ("pkg:deb/debian/zlib1g@1:1.3", []),
        ("pkg:deb/ubuntu/zlib1g", []),
        ("pkg:deb/debian/zlib", []),
        ("pkg:deb/debian/zlib@1:1.2?arch=source", ["zlib1g"]),
        ("pkg:rpm/debian/zlib1g", []),
        ("pkg:oci/image@sha256%3A" + "a" * 64, ["zlib1g", "other"]),
        ("pkg:oci/image@sha256%3A" + "b" * 64, []),
        ("pkg:docker/debian@12", []),
        ("sha256:" + "a" * 64, ["zlib1g", "other"]),
        ("nonsense", []),
        ("", []),
    ],
)
def test_a_product_is_a_package_or_an_image(tmp_path: Path, product: str, expected: list[str]) -> None:
    assert quiet(tmp_path, openvex(products=[product]), ZLIB, OTHER) == expected


def test_a_package_in_one_image(tmp_path: Path) -> None:
    part = [{"@id": "pkg:deb/debian/zlib1g"}]
    this = {"@id": f"pkg:oci/image@{IMAGE}", "subcomponents": part}
    other = {"@id": "pkg:oci/image@sha256:" + "b" * 64, "subcomponents": part}
    hashed = {"@id": "x", "hashes": {"sha-256": "a" * 64}, "subcomponents": part}
    assert quiet(tmp_path, openvex(products=[this]), ZLIB, OTHER) == ["zlib1g"]
    assert quiet(tmp_path, openvex(products=[other]), ZLIB, OTHER) == []
    assert quiet(tmp_path, openvex(products=[hashed]), ZLIB, OTHER) == ["zlib1g"]


def test_python_names_have_many_spellings(tmp_path: Path) -> None:
    for name in ("zope-interface", "zope_interface", "Zope.Interface"):
        assert quiet(tmp_path, openvex(products=[f"pkg:pypi/{name}@1.0"]), ZOPE) == ["Zope.Interface"], name


def test_without_a_product_nothing_is_meant(tmp_path: Path) -> None:
    assert quiet(tmp_path, openvex(products=[])) == []


def test_without_a_reason_it_counts_and_is_told(tmp_path: Path) -> None:
    made = applied(tmp_path, [openvex(impact_statement="")])
    assert len(made.counting) == 1
    assert "does not say why" in made.warnings[0]


def test_the_newest_statement_holds(tmp_path: Path) -> None:
    later = openvex("affected", timestamp="2026-11-10T00:00:00Z")
    assert len(applied(tmp_path, [openvex(), later]).counting) == 1
    assert len(applied(tmp_path, [later, openvex()]).counting) == 1
    assert len(applied(tmp_path, [later, openvex(timestamp="2026-11-11T00:00:00Z")]).counting) == 0


def cyclonedx(state: str = "not_affected", ref: str = "zlib-ref") -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"timestamp": "2026-11-01T00:00:00Z"},
        "components": [{"name": "outer", "components": [{"name": "zlib1g", "bom-ref": "zlib-ref", "purl": "pkg:deb/debian/zlib1g@1:1.2"}]}],
        "vulnerabilities": [
            {
                "id": "CVE-2026-1001",
                "analysis": {"state": state, "justification": "code_not_reachable", "detail": "never called"},
                "affects": [{"ref": ref}],
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "ref", "expected"),
    [
        ("not_affected", "zlib-ref", ["zlib1g"]),
        ("false_positive", "pkg:deb/debian/zlib1g@1:1.2", ["zlib1g"]),
        (
            "resolved",
            "urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#pkg%3Adeb%2Fdebian%2Fzlib1g%401%3A1.2",
            ["zlib1g"],
        ),
        ("in_triage", "zlib-ref", []),
        ("exploitable", "zlib-ref", []),
        ("not_affected", "unknown-ref", []),
    ],
)
def test_the_analysis_of_a_cyclonedx_document(tmp_path: Path, state: str, ref: str, expected: list[str]) -> None:
    assert quiet(tmp_path, cyclonedx(state, ref), ZLIB, OTHER) == expected


def test_words_of_cyclonedx_become_those_of_openvex(tmp_path: Path) -> None:
    (one,) = applied(tmp_path, [cyclonedx()]).suppressed
    assert (one.suppressed, one.justification) == ("never called", "vulnerable_code_not_in_execute_path")


def csaf(status: str = "known_not_affected", purl: str = "pkg:deb/debian/zlib1g@1:1.2") -> dict[str, Any]:
    product = {"product_id": "Z", "name": "zlib", "product_identification_helper": {"purl": purl}}
    whole = {
        "full_product_name": {"product_id": "OS:Z", "name": "zlib of OS"},
        "product_reference": "Z",
        "relates_to_product_reference": "OS",
    }
    return {
        "document": {"category": "csaf_vex", "csaf_version": "2.0", "tracking": {"current_release_date": "2026-11-01T00:00:00Z"}},
        "product_tree": {"branches": [{"branches": [{"product": product}]}], "relationships": [whole]},
        "vulnerabilities": [
            {
                "cve": "CVE-2026-1001",
                "product_status": {status: ["OS:Z"]},
                "flags": [{"label": "vulnerable_code_not_present", "product_ids": ["OS:Z"]}],
                "threats": [{"category": "impact", "details": "not built in", "product_ids": ["OS:Z"]}],
            }
        ],
    }  # fmt: skip


def test_the_products_of_a_csaf_document(tmp_path: Path) -> None:
    (one,) = applied(tmp_path, [csaf()]).suppressed
    assert (one.suppressed, one.justification) == ("not built in", "vulnerable_code_not_present")
    assert quiet(tmp_path, csaf("known_affected")) == []
    # Without a version it is about a package of another release, too.
    assert quiet(tmp_path, csaf(purl="pkg:deb/debian/zlib1g")) == []


def test_an_ignore_file(tmp_path: Path) -> None:
    text = '[[ignore]]\nid = "CVE-2026-1001"\npackage = "{}"\nreason = "not used"\n'
    assert quiet(tmp_path, text.format("zlib1g"), ZLIB, OTHER) == ["zlib1g"]
    assert quiet(tmp_path, text.format("pkg:deb/debian/other"), ZLIB, OTHER) == ["other"]
    assert quiet(tmp_path, '[[ignore]]\nid = "GHSA-x"\nreason = "not used"\n', ZLIB, OTHER) == ["zlib1g", "other"]


def test_an_ignore_file_holds_to_the_end_of_its_day(tmp_path: Path) -> None:
    text = '[[ignore]]\nid = "CVE-2026-1001"\nreason = "not used"\nuntil = 2026-11-18\n'
    on_the_day = NOW  # 2026-11-18
    assert len(applied(tmp_path, [text], now=on_the_day).counting) == 0
    late = applied(tmp_path, [text], now=on_the_day + feeds.DAY)
    assert len(late.counting) == 1
    assert "ended" in late.warnings[0]


def test_the_owner_decides_over_others(tmp_path: Path) -> None:
    text = '[[ignore]]\nid = "CVE-2026-1001"\nreason = "not used"\n'
    assert applied(tmp_path, [text, openvex("affected", timestamp="2099-01-01T00:00:00Z")]).counting == ()


@pytest.mark.parametrize("file", sorted(BAD.iterdir()), ids=lambda file: file.name)
def test_broken_documents_are_refused_with_a_message(file: Path) -> None:
    with pytest.raises(FormatError, match=file.name.replace(".", r"\.")):
        vex.read(file)


def test_what_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        vex.read(tmp_path / "x.json")
    with (tmp_path / "large.json").open("wb") as large:
        large.truncate(LIMITS.vex_bytes + 1)
    with pytest.raises(LimitError):
        vex.read(tmp_path / "large.json")


def test_reasons_do_not_steer_a_terminal(tmp_path: Path) -> None:
    (one,) = applied(tmp_path, [openvex(impact_statement="ok\x1b[2J\nreally\u202e")]).suppressed
    assert one.suppressed.isprintable()


@given(st.text(alphabet="pkg:/@?#%deb+.-aZ0&=", max_size=60) | st.text(max_size=40))
def test_any_text_is_a_purl_or_none(text: str) -> None:
    purl = Purl.parse(text)
    assert purl is None or isinstance(purl.fits(ZLIB), bool)
