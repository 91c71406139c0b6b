"""SLSA Provenance v1 of a build, and the words for kinds of evidence."""

from pathlib import Path

import pytest

from computeops.build.model import Material
from computeops.check import kinds
from computeops.check.provenance import provenance
from computeops.model import Digest, Evidence, Image
from computeops.recipe import parse

RECIPE = parse(
    b"""
[package]
name = "samtools"
version = "1.21"
summary = "Tools"
license = "MIT"
[build]
builder = "debian"
suite = "bookworm"
"""
)
IMAGE = Image(Path("x.sif"), "sif", Digest.of(b"config"), Digest.of(b"manifest"))
SOURCE = Material("samtools.tar.bz2", "https://ada:secret@example.org/samtools.tar.bz2", Digest.of(b"source"), 6)
PACKAGE = Material("libc6.deb", "git+https://example.org/x@0123", Digest.of(b"deb", "sha512"), 3, "package")


def made(finished: float = 1_700_000_060.9) -> Evidence:
    return provenance(
        IMAGE,
        RECIPE,
        (SOURCE, PACKAGE),
        variant="v3",
        started=1_700_000_000,
        finished=finished,
        builder_id="https://example.org/builder",
        parameters={"epoch": 0, "writer": "sqfstar 4.6"},
        recipe_digest=Digest.of(b"recipe"),
    )


def test_it_says_from_what_how_when_and_by_whom() -> None:
    evidence = made()
    assert evidence.kind == kinds.PROVENANCE
    assert evidence.subjects == {"image": IMAGE.id, "manifest": IMAGE.manifest}
    definition, details = evidence.predicate["buildDefinition"], evidence.predicate["runDetails"]
    recipe = {"sha256": Digest.of(b"recipe").hex}
    assert definition["buildType"] == "https://computeops.org/build/v1"
    assert definition["externalParameters"] == {
        "recipe": {"name": "samtools", "version": "1.21", "digest": recipe},
        "variant": "v3",
    }
    assert definition["internalParameters"] == {"epoch": 0, "writer": "sqfstar 4.6"}
    assert details["builder"]["id"] == "https://example.org/builder"
    assert (details["metadata"]["startedOn"], details["metadata"]["finishedOn"]) == (
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:14:20Z",
    )


def test_every_material_is_named_with_its_digest_and_without_passwords() -> None:
    dependencies = made().predicate["buildDefinition"]["resolvedDependencies"]
    assert [(one["name"], one.get("uri"), one["annotations"]["role"]) for one in dependencies] == [
        ("computeops.toml", None, "recipe"),
        ("samtools.tar.bz2", "https://example.org/samtools.tar.bz2", "source"),
        ("libc6.deb", "git+https://example.org/x@0123", "package"),
    ]
    assert [list(one["digest"]) for one in dependencies] == [["sha256"], ["sha256"], ["sha512"]]


def test_one_build_has_one_id_and_another_build_another() -> None:
    def invocation(evidence: Evidence) -> object:
        return evidence.predicate["runDetails"]["metadata"]["invocationId"]

    assert invocation(made()) == invocation(made()) != invocation(made(finished=1_700_000_099))


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (kinds.TEST, "test"),
        (kinds.PROVENANCE, "provenance"),
        (kinds.CYCLONEDX, "cyclonedx"),
        (kinds.SPDX, "spdx"),
        (kinds.VULNS, "vulns"),
        ("https://computeops.org/review/v1", "review"),
        ("https://in-toto.io/attestation/scai/v0.3", "scai"),
        ("https://example.org/../../etc/passwd%00", "passwd-00"),
        ("", "other"),
        ("///", "other"),
    ],
)
def test_a_kind_has_a_word_that_is_safe_in_a_file_name(kind: str, word: str) -> None:
    assert kinds.short(kind) == word
