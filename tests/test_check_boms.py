"""Bills of materials of other tools: read, whichever words they have for the same, and in an image weighed right."""

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from computeops.check import inventory, sbom
from computeops.check.inventory import Inventory, Package, System
from computeops.errors import ComputeOpsError, FormatError, LimitError
from computeops.image.oci import canonical
from computeops.image.tree import Directory
from computeops.model import Digest, Image
from feeds import cyclonedx

STORED = Path(__file__).parent / "packages/sbom"


def one(purl: str, **more: object) -> tuple[Package, System]:
    found = inventory.of_document(cyclonedx({"type": "library", "name": "x", "purl": purl, **more}), "x.json")
    (package,) = found.packages
    return package, found.system


@pytest.mark.parametrize("name", ["syft.cdx.json", "syft.spdx.json", "syft.spdx", "syft.json"])
def test_syft_says_the_same_in_every_format(name: str) -> None:
    found = inventory.of_document((STORED / name).read_bytes(), name)
    said = [(one.name, one.version, one.source, one.source_version) for one in found.packages if one.kind == "deb"]
    assert said == [
        ("bsdutils", "1:2.38.1-5+deb12u3", "util-linux", "2.38.1-5+deb12u3"),
        ("libc6", "2.36-9+deb12u14", "glibc", "2.36-9+deb12u14"),
        ("libstdc++6", "12.2.0-14+deb12u1", "gcc-12", "12.2.0-14+deb12u1"),
    ]
    assert (found.system.id, found.system.version) == ("debian", "12")
    assert found.unread == ()


@pytest.mark.parametrize(
    ("purl", "more", "expected"),
    [
        (  # Syft, of Red Hat
            "pkg:rpm/redhat/bash@5.1.8-6.el9?arch=x86_64&distro=rhel-9.3&epoch=1&upstream=bash-5.1.8-6.el9.src.rpm",
            {},
            ("rpm", "bash", "1:5.1.8-6.el9", "bash", "1:5.1.8-6.el9", "rhel-9.3"),
        ),
        (  # Trivy: the source in properties, the release alone in the qualifier
            "pkg:deb/debian/bsdutils@2.38.1-5%2Bdeb12u1?arch=amd64&distro=debian-12.5&epoch=1",
            {
                "properties": [
                    {"name": "aquasecurity:trivy:SrcName", "value": "util-linux"},
                    {"name": "aquasecurity:trivy:SrcVersion", "value": "2.38.1"},
                    {"name": "aquasecurity:trivy:SrcRelease", "value": "5+deb12u1"},
                ]
            },
            ("deb", "bsdutils", "1:2.38.1-5+deb12u1", "util-linux", "2.38.1-5+deb12u1", "debian-12.5"),
        ),
        (
            "pkg:apk/alpine/libssl3@3.1.4-r1?arch=x86_64&distro=3.18.4",
            {"properties": [{"name": "aquasecurity:trivy:SrcName", "value": "openssl"}]},
            ("apk", "libssl3", "3.1.4-r1", "openssl", "3.1.4-r1", "alpine-3.18.4"),
        ),
        (  # Syft, of Alpine
            "pkg:apk/alpine/libssl3@3.1.4-r1?arch=x86_64&distro=alpine-3.18.4&upstream=openssl",
            {},
            ("apk", "libssl3", "3.1.4-r1", "openssl", "3.1.4-r1", "alpine-3.18.4"),
        ),
        (  # Docker Scout
            "pkg:deb/debian/libssl3@3.0.11-1~deb12u2?os_distro=bookworm&os_name=debian&os_version=12",
            {},
            ("deb", "libssl3", "3.0.11-1~deb12u2", "libssl3", "3.0.11-1~deb12u2", "debian-12"),
        ),
        (  # cdxgen
            "pkg:deb/ubuntu/libc6@2.35-0ubuntu3.4?arch=amd64&distro=ubuntu-22.04&distro_name=jammy&source=glibc",
            {},
            ("deb", "libc6", "2.35-0ubuntu3.4", "glibc", "2.35-0ubuntu3.4", "ubuntu-22.04"),
        ),
        (
            "pkg:deb/debian/curl@7.88.1-10?distro=bookworm",
            {},
            ("deb", "curl", "7.88.1-10", "curl", "7.88.1-10", "debian-bookworm"),
        ),
        (
            "pkg:rpm/opensuse.leap/zypper@1.14?distro=opensuse.leap-15.5",
            {},
            ("rpm", "zypper", "1.14", "zypper", "1.14", "opensuse-leap-15.5"),
        ),
        ("pkg:npm/@angular/core@17.0.0", {}, ("npm", "@angular/core", "17.0.0", "", "", "linux")),
        ("pkg:npm/%40angular%2Fcore@17.0.0", {}, ("npm", "@angular/core", "17.0.0", "", "", "linux")),
        ("PKG:Maven/org.slf4j/slf4j-api@2.0?type=jar", {}, ("maven", "org.slf4j:slf4j-api", "2.0", "", "", "linux")),
        ("pkg:golang/github.com/a/b@v1.2.3#cmd/x", {}, ("golang", "github.com/a/b", "v1.2.3", "", "", "linux")),
        ("pkg://pypi/NumPy", {"version": "1.26"}, ("pypi", "NumPy", "1.26", "", "", "linux")),
        ("", {"version": "3"}, ("generic", "x", "3", "", "", "linux")),
    ],
)
def test_every_dialect_of_purls_means_the_same_package(
    purl: str, more: Mapping[str, Any], expected: tuple[str, ...]
) -> None:
    package, system = one(purl, **more)
    found = (package.kind, package.name, package.version, package.source, package.source_version, system.distro)
    assert found == expected


IMAGE = Image(Path("x.sif"), "sif", Digest.of(b"config"))


def test_our_own_documents_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    status = "Package: libstdc++6\nSource: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14+b1\nArchitecture: amd64\n"
    (tmp_path / "var/lib/dpkg/status").write_text(status)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    before = inventory.packages(Directory(tmp_path))
    for write in (sbom.cyclonedx, sbom.spdx):
        again = inventory.of_document(canonical(write(IMAGE, before, 0).predicate), "x.json")
        (package,), (known,) = again.packages, before.packages
        facts = [(p.purl, p.source, p.source_version, p.version) for p in (package, known)]
        assert facts[0] == facts[1]
        assert again.system.distro == before.system.distro


def test_other_forms_are_read_too() -> None:
    graph = [
        {"type": "software_Package", "name": "a", "software_packageUrl": "pkg:pypi/a@1"},
        {
            "type": "software_Package",
            "externalIdentifier": [{"externalIdentifierType": "packageUrl", "identifier": "pkg:pypi/b@2"}],
        },
        {"type": "Person", "name": "c"},
    ]
    statement = {"predicateType": "https://spdx.dev/Document", "predicate": {"@graph": graph}}
    found = inventory.of_document(json.dumps(statement).encode(), "x.json")
    assert [one.purl for one in found.packages] == ["pkg:pypi/a@1", "pkg:pypi/b@2"]


def image(top: Path, files: Mapping[str, bytes | str]) -> Inventory:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data.encode() if isinstance(data, str) else data)
    return inventory.packages(Directory(top))


def test_a_document_in_an_image_counts_where_no_package_manager_knows_better(tmp_path: Path) -> None:
    spdx = {
        "spdxVersion": "SPDX-2.3",
        "packages": [
            {
                "name": "python",
                "SPDXID": "SPDXRef-python",
                "versionInfo": "3.12.1",
                "licenseDeclared": "PSF-2.0",
                "externalRefs": [
                    {"referenceType": "purl", "referenceLocator": "pkg:bitnami/python@3.12.1-0?arch=amd64"}
                ],
            },
        ],
    }
    wheel = cyclonedx({"type": "library", "name": "zlib", "version": "1.3", "purl": "pkg:generic/zlib@1.3"})
    found = image(
        tmp_path,
        {
            "var/lib/dpkg/status": "Package: libc6\nVersion: 2.36-9+deb12u14\nArchitecture: amd64\n",
            "opt/bitnami/python/.spdx-python.spdx": json.dumps(spdx),
            "usr/share/sbom/base.json": (STORED / "syft.cdx.json").read_bytes(),
            "opt/venv/x-1.dist-info/sboms/auditwheel.cdx.json": wheel,
            "opt/venv/x-1.dist-info/METADATA": "Name: x\nVersion: 1\n",
            "opt/bom.json": cyclonedx({"type": "library", "name": "X", "version": "1", "purl": "pkg:pypi/X@1"}),
        },
    )
    assert [one.purl for one in found.packages] == [
        "pkg:bitnami/python@3.12.1-0?arch=amd64",
        "pkg:deb/linux/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=linux",
        "pkg:generic/zlib@1.3",
        "pkg:pypi/x@1",
    ]
    assert found.unread == ()


def test_a_document_beside_an_image_counts_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    documents = [
        (
            "vendor.cdx.json",
            cyclonedx({"type": "library", "name": "mkl", "version": "2024.0", "purl": "pkg:generic/mkl"}),
        ),
        ("broken.json", b"{"),
    ]
    found = inventory.packages(Directory(tmp_path), documents)
    assert [(one.purl, one.place) for one in found.packages] == [("pkg:generic/mkl@2024.0", "vendor.cdx.json")]
    assert [one.place for one in found.unread if one.kind == "sbom"] == ["broken.json"]


@pytest.mark.apptainer
@pytest.mark.squashfs
def test_a_bill_of_materials_in_a_sif_beside_the_filesystem_counts(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "vendor.json").write_bytes(cyclonedx({"type": "library", "name": "mkl", "version": "2024.0"}))
    squashfs, sif = tmp_path / "x.squashfs", tmp_path / "x.sif"
    run = [
        ["mksquashfs", tmp_path / "root", squashfs, "-quiet", "-no-progress"],
        ["apptainer", "sif", "new", sif],
        [
            *[
                "apptainer",
                "sif",
                "add",
                "--datatype",
                "4",
                "--partfs",
                "1",
                "--parttype",
                "2",
                "--partarch",
                "2",
                "--groupid",
                "1",
            ],
            sif,
            squashfs,
        ],
        [
            "apptainer",
            "sif",
            "add",
            "--datatype",
            "9",
            "--sbomformat",
            "cyclonedx-json",
            "--filename",
            "vendor.json",
            sif,
            tmp_path / "vendor.json",
        ],
    ]
    for argv in run:
        subprocess.run(argv, check=True, capture_output=True)
    found = inventory.of_image(sif)
    assert [(one.purl, one.place) for one in found.packages] == [("pkg:generic/mkl@2024.0", "vendor.json")]
    in_a_hub = [sys.executable, "-m", "computeops", "hub", "inventory", sif, tmp_path / "out.json"]
    subprocess.run(in_a_hub, check=True, capture_output=True)
    assert [one["name"] for one in json.loads((tmp_path / "out.json").read_bytes())["packages"]] == ["mkl"]


def deep(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "library", "name": "leaf", "version": "1"}
    for level in range(levels):
        made = {"type": "library", "name": f"n{level}", "version": "1", "components": [made]}
    return made


def test_documents_that_go_in_circles_or_deep_end() -> None:
    circle = {
        "bomFormat": "CycloneDX",
        "components": [deep(100)],
        "dependencies": [{"ref": "a", "dependsOn": ["b"]}, {"ref": "b", "dependsOn": ["a"]}],
    }
    assert len(inventory.of_document(json.dumps(circle).encode(), "x").packages) == 101
    relations = [{"spdxElementId": a, "relationshipType": "CONTAINS", "relatedSpdxElement": b} for a, b in ("ab", "ba")]
    packages = [{"name": a, "SPDXID": a, "versionInfo": "1"} for a in "ab"]
    circle = {"spdxVersion": "SPDX-2.3", "packages": packages, "relationships": relations}
    assert len(inventory.of_document(json.dumps(circle).encode(), "x").packages) == 2


def test_a_million_components_are_refused() -> None:
    data = b'{"bomFormat":"CycloneDX","components":[' + b"{}," * 300_000 + b"{}]}"
    with pytest.raises(LimitError, match="300001 components; at most 250000"):
        inventory.of_document(data, "x.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"<bom/>", b"\xff\xfe", b'{"a":' * 100_000, b'{"spdxVersion": 7}', b'{"bomFormat": "x"}'],
)
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"/x\.json"):
        inventory.of_document(data, "x.json")


@pytest.mark.parametrize(
    "component",
    [
        {"name": 7, "version": [], "purl": {}},
        {"name": "a", "version": "1", "purl": "pkg:"},
        {"name": "a", "version": "1", "purl": "pkg:npm/%00@1"},
        {"name": "a", "version": "1", "purl": "pkg:npm/a%1b[31m@1"},
        {"name": "a\nb", "version": "1"},
        {"name": "a"},
        {"name": "a", "version": "1 2"},
        {"name": "a", "version": "1", "licenses": "MIT", "properties": 3, "components": "x", "purl": "pkg:../a@1"},
    ],
)
def test_components_of_any_shape_are_packages_or_counted(component: Mapping[str, Any]) -> None:
    found = inventory.of_document(cyclonedx({"type": "library", **component}), "x.json")
    assert found.packages == ()
    assert [one.why for one in found.unread] == ["1 components without a name or version"]


def test_cut_and_changed_documents_raise_nothing_but_our_errors() -> None:
    chance = random.Random(7)
    for name in ("syft.cdx.json", "syft.spdx.json", "syft.spdx", "syft.json"):
        whole = (STORED / name).read_bytes()
        for _ in range(60):
            data = bytearray(whole[: chance.randrange(1, len(whole))] if chance.random() < 0.3 else whole)
            for _ in range(chance.randrange(20)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                inventory.of_document(bytes(data), name)
            except ComputeOpsError:
                continue
