"""SBOM documents, judged by the schemas and validators of CycloneDX and SPDX."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from computeops.check import inventory, kinds, sbom
from computeops.check.inventory import Inventory, Package, System, Unread
from computeops.image.oci import canonical
from computeops.image.tree import Directory
from computeops.model import Digest, Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

IMAGE = Image(
    Path("samtools-1.21.sif"),
    "sif",
    Digest.of(b"config"),
    Digest.of(b"manifest"),
    labels={"org.opencontainers.image.title": "samtools", "org.opencontainers.image.version": "1.21"},
)
EPOCH = 1_700_000_000
SITE = "usr/lib/python3/dist-packages"
NUMPY = Package(
    "deb",
    "python3-numpy",
    "1:1.24.2-1+deb12u1",
    "pkg:deb/debian/python3-numpy@1:1.24.2-1%2Bdeb12u1?arch=amd64&distro=debian-12",
    "var/lib/dpkg/status",
    "amd64",
    "numpy",
    "1:1.24.2-1",
    "BSD-3-Clause AND LicenseRef-public-domain",
)
FOUND = Inventory(
    System("debian", "12", "Debian GNU/Linux 12 (bookworm)"),
    (
        NUMPY,
        Package("pypi", "numpy", "1.24.2", "pkg:pypi/numpy@1.24.2", f"{SITE}/numpy.egg-info", owner=NUMPY.purl),
        Package("pypi", "six", "1.16.0", "pkg:pypi/six@1.16.0", "opt/a/six.dist-info/METADATA", license="MIT"),
        Package("pypi", "six", "1.16.0", "pkg:pypi/six@1.16.0", "opt/b/six.dist-info/METADATA", license="MIT"),
    ),
    (Unread("conda", "opt/conda/conda-meta/zlib.json", "packages of this kind are not read: 1"),),
    ("deb", "pypi"),
)
BARE = Inventory(System(), ())
UNNAMED = Image(Path("x.oci"), "oci", Digest.of(b"x"))


def cyclonedx(found: Inventory = FOUND, image: Image = IMAGE) -> dict[str, Any]:
    made = json.loads(canonical(sbom.cyclonedx(image, found, EPOCH).predicate))
    assert isinstance(made, dict)
    return made


def spdx(found: Inventory = FOUND, image: Image = IMAGE) -> dict[str, Any]:
    made = json.loads(canonical(sbom.spdx(image, found, EPOCH).predicate))
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize(("found", "image"), [(FOUND, IMAGE), (BARE, UNNAMED)])
def test_cyclonedx_holds_against_the_strict_schema(found: Inventory, image: Image) -> None:
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(cyclonedx(found, image)))
    assert fault is None


@pytest.mark.parametrize(("found", "image"), [(FOUND, IMAGE), (BARE, UNNAMED)])
def test_spdx_holds_against_the_validator_of_spdx(found: Inventory, image: Image) -> None:
    document = JsonLikeDictParser().parse(spdx(found, image))
    assert validate_full_spdx_document(document, "SPDX-2.3") == []


def test_equal_images_give_equal_bytes_and_others_another_name() -> None:
    for made in (cyclonedx, spdx):
        assert canonical(made()) == canonical(made())
    assert cyclonedx()["serialNumber"] != cyclonedx(image=UNNAMED)["serialNumber"]
    assert spdx()["documentNamespace"] != spdx(image=UNNAMED)["documentNamespace"]
    assert cyclonedx()["metadata"]["timestamp"] == spdx()["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_evidence_is_about_every_known_digest_of_the_image() -> None:
    for evidence, kind in [
        (sbom.cyclonedx(IMAGE, FOUND, 0), kinds.CYCLONEDX),
        (sbom.spdx(IMAGE, FOUND, 0), kinds.SPDX),
    ]:
        assert evidence.kind == kind
        assert evidence.subjects == {"image": IMAGE.id, "manifest": IMAGE.manifest}
        assert evidence.passed is None


def test_a_package_inside_a_package_of_the_distribution_is_named_once_below_it() -> None:
    parts = {one["bom-ref"]: one for one in cyclonedx()["components"]}
    assert [one["purl"] for one in parts[NUMPY.purl]["components"]] == ["pkg:pypi/numpy@1.24.2"]
    assert "pkg:pypi/numpy@1.24.2" not in parts
    document = spdx()
    names = {one["SPDXID"]: one["name"] for one in document["packages"]}
    inside = {
        (names[one["spdxElementId"]], names[one["relatedSpdxElement"]])
        for one in document["relationships"]
        if one["relationshipType"] == "CONTAINS"
    }
    assert inside == {("samtools", "python3-numpy"), ("python3-numpy", "numpy"), ("samtools", "six")}


def test_the_same_package_in_two_places_has_two_references() -> None:
    references = [one["bom-ref"] for one in cyclonedx()["components"]]
    assert len(set(references)) == len(references)
    assert "pkg:pypi/six@1.16.0#opt/a/six.dist-info/METADATA" in references


def test_a_known_gap_is_said_and_completeness_is_never_claimed() -> None:
    assert cyclonedx()["compositions"][0]["aggregate"] == "incomplete"
    assert cyclonedx(BARE)["compositions"][0]["aggregate"] == "unknown"
    assert "conda: /opt/conda/conda-meta/zlib.json" in spdx()["comment"]
    said = [(one["name"], one["value"]) for one in cyclonedx()["metadata"]["properties"]]
    assert said[:2] == [("computeops:looked-for", "deb"), ("computeops:looked-for", "pypi")]
    assert "conda" in said[2][1]
    assert spdx()["comment"].startswith("Looked for packages of: deb, pypi")


def test_a_licence_without_identifier_is_explained_in_spdx() -> None:
    assert [one["licenseId"] for one in spdx()["hasExtractedLicensingInfos"]] == ["LicenseRef-public-domain"]


def test_the_packages_of_a_real_environment_make_valid_documents() -> None:
    import sysconfig

    found = inventory.packages(Directory(Path(sysconfig.get_path("purelib"))))
    assert len(found.packages) > 40
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(cyclonedx(found))) is None
    assert validate_full_spdx_document(JsonLikeDictParser().parse(spdx(found)), "SPDX-2.3") == []
