"""Other scanners: their reports become our evidence, and stand beside our findings."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import feeds
from computeops.check import kinds, scanner
from computeops.check.advisories.update import update
from computeops.check.report import evidence
from computeops.errors import FormatError, LimitError, UsageError
from computeops.limits import LIMITS
from computeops.model import Digest

GRYPE = {
    "matches": [
        {
            "vulnerability": {
                "id": "CVE-2026-1001",
                "dataSource": "https://security-tracker.debian.org/tracker/CVE-2026-1001",
                "namespace": "debian:distro:debian:12",
                "severity": "Critical",
                "fix": {"versions": ["1:1.2.13.dfsg-1+deb12u1"], "state": "fixed"},
            },
            "relatedVulnerabilities": [],
            "artifact": {"name": "zlib1g", "version": "1:1.2.13.dfsg-1", "type": "deb", "purl": "pkg:deb/debian/zlib1g"},
        },
        {
            "vulnerability": {"id": "GHSA-aaaa-bbbb-cccc", "severity": "Medium", "fix": {"versions": [], "state": "unknown"}},
            "relatedVulnerabilities": [{"id": "CVE-2026-1002"}],
            "artifact": {"name": "requests", "version": "2.0", "type": "python", "purl": "pkg:pypi/requests@2.0"},
        },
    ],
    "source": {"type": "image"},
    "descriptor": {"name": "grype", "version": "0.100.0", "db": {"status": {"built": "2026-11-17T06:00:00Z"}}},
}  # fmt: skip
TRIVY = {
    "SchemaVersion": 2,
    "Trivy": {"Version": "0.70.0"},
    "ArtifactName": "image.oci",
    "Results": [
        {"Target": "image.oci (debian 12)", "Class": "os-pkgs", "Type": "debian"},
        {
            "Target": "Python",
            "Class": "lang-pkgs",
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-2026-1002",
                    "VendorIDs": ["GHSA-aaaa-bbbb-cccc"],
                    "PkgName": "requests",
                    "PkgIdentifier": {"PURL": "pkg:pypi/requests@2.0"},
                    "InstalledVersion": "2.0",
                    "FixedVersion": "2.1",
                    "Severity": "HIGH",
                }
            ],
        },
    ],
}
CLAIR = {
    "manifest_hash": "sha256:" + "0" * 64,
    "packages": {"1": {"id": "1", "name": "zlib1g", "version": "1:1.2.13.dfsg-1", "kind": "binary"}},
    "vulnerabilities": {
        "7": {"id": "7", "name": "CVE-2026-1001", "normalized_severity": "High", "fixed_in_version": "2"}
    },
    "package_vulnerabilities": {"1": ["7", "7"]},
    "environments": {},
}
ALL = {"grype": GRYPE, "trivy": TRIVY, "clair": CLAIR}
SUBJECTS = {"image": Digest("sha256", "a" * 64)}


def read(folder: Path, document: Any) -> scanner.Report:
    return scanner.read(feeds.write(folder / "report.json", document))


@pytest.mark.parametrize(
    ("name", "version", "database", "said"),
    [
        ("grype", "0.100.0", "2026-11-17T06:00:00Z", "CVE-2026-1001 zlib1g critical, CVE-2026-1002 requests medium"),
        ("trivy", "0.70.0", "", "CVE-2026-1002 requests high"),
        ("clair", "", "", "CVE-2026-1001 zlib1g high"),
    ],
)
def test_reports_of_others_are_read(tmp_path: Path, name: str, version: str, database: str, said: str) -> None:
    report = read(tmp_path, ALL[name])
    assert (report.scanner, report.version, report.database) == (name, version, database)
    assert ", ".join(f"{one.id} {one.package} {one.severity}" for one in report.findings) == said


def test_a_report_that_trivy_has_written_itself_is_read() -> None:
    report = scanner.read(Path(__file__).parent / "packages/scanner/trivy.json")
    assert (report.scanner, report.version) == ("trivy", "dev")
    said = [(one.id, one.package, one.version, one.fixed, one.severity) for one in report.findings]
    assert said == [
        ("CVE-2021-25220", "libbind99", "1:9.16.27-1~deb11u0+b1", "1:9.16.27-1~deb11u1", "high"),
        ("CVE-2022-2795", "libbind99", "1:9.16.27-1~deb11u0+b1", "1:9.16.33-1~deb11u1", "high"),
    ]


def test_they_become_the_same_evidence(tmp_path: Path) -> None:
    made = evidence.reported(read(tmp_path, GRYPE), SUBJECTS, feeds.NOW)
    assert (made.kind, made.subjects) == (kinds.VULNS, SUBJECTS)
    assert made.predicate["scanner"]["uri"] == "https://github.com/anchore/grype@0.100.0"
    assert made.predicate["scanner"]["db"]["lastUpdate"] == "2026-11-17T06:00:00Z"
    assert [one["id"] for one in made.predicate["scanner"]["result"]] == ["CVE-2026-1001", "CVE-2026-1002"]


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "[]",
        "{}",
        '{"matches": 7, "descriptor": {}}',
        '{"matches": [{}], "descriptor": {}}',
        '{"SchemaVersion": 2, "ArtifactName": "x", "Results": [7]}',
        '{"manifest_hash": "", "package_vulnerabilities": {"1": ["2"]}, "packages": {}, "vulnerabilities": {}}',
        "[" * 100_000,
    ],
)
def test_broken_reports_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(FormatError):
        read(tmp_path, content)


def test_a_report_is_bounded_and_clair_is_not_started(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(LIMITS.vex_bytes + 1)
    with pytest.raises(LimitError):
        scanner.read(tmp_path / "large")
    with pytest.raises(UsageError, match="registries"):
        scanner.run("clair", tmp_path)
    with pytest.raises(UsageError, match="gripe"):
        scanner.run("gripe", tmp_path)


# ------------------------------------------------------------------ the verb


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A folder with an image whose zlib is old, and an index of today."""
    root = tmp_path / "root"
    for path, text in {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "var/lib/dpkg/status": "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nSource: zlib\n"
        "Version: 1:1.2.13.dfsg-1\n\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    run(tmp_path, "convert", "root", "image.oci", "--arch", "amd64")
    now = int(time.time())
    record = feeds.osv("DSA-1-1", upstream=["CVE-2026-1001", "CVE-2026-1003"])
    feeds.write_zip(tmp_path / "mirror/osv/Debian/all.zip", [record], when=now)
    update(tmp_path / "index.sqlite", mirror=str(tmp_path / "mirror"), now=now)
    return tmp_path


def run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)}
    env["COMPUTEOPS_ADVISORIES"] = str(folder / "index.sqlite")
    argv = [sys.executable, "-m", "computeops", *words]
    return subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, check=check)


def program(folder: Path, name: str, document: Any) -> None:
    """A program that answers as the scanner does, if it is asked for an OCI layout."""
    feeds.write(folder / f"{name}.json", document)
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f'#!/bin/sh\nfor last; do :; done\ntest -f "${{last#oci-dir:}}/oci-layout" && cat "{folder}/{name}.json"\n'
    )
    file.chmod(0o755)


def test_scanners_stand_side_by_side_and_all_are_signed(at: Path) -> None:
    program(at, "grype", GRYPE)
    feeds.write(at / "trivy-report.json", TRIVY)
    run(at, "key", "new", "ada")
    words = ("scan", "image.oci", "--with", "grype", "--report", "trivy-report.json")
    found = json.loads(run(at, *words, "--json", "--key", "ada").stdout)
    assert found["scanners"] == ["computeops", "trivy", "grype"]
    assert {(one["id"], one["package"]): one["said"] for one in found["findings"]} == {
        ("CVE-2026-1001", "zlib1g"): {"computeops": "unknown", "trivy": "-", "grype": "critical"},
        ("CVE-2026-1002", "requests"): {"computeops": "-", "trivy": "high", "grype": "medium"},
        ("CVE-2026-1003", "zlib1g"): {"computeops": "unknown", "trivy": "-", "grype": "-"},
    }
    assert len(list(at.rglob("vulns-*.dsse.json"))) == 3
    assert "0 of 3 findings in agreement" in run(at, *words).stdout


def test_a_scanner_that_is_not_there_or_fails_is_said(at: Path) -> None:
    missing = run(at, "scan", "image.oci", "--with", "trivy", check=False)
    assert missing.returncode != 0
    assert "trivy is not installed" in missing.stderr
    program(at, "trivy", TRIVY)
    (at / "trivy.json").unlink()
    failed = run(at, "scan", "image.oci", "--with", "trivy", check=False)
    assert failed.returncode != 0
    assert "trivy" in failed.stderr
