"""Kinds of evidence: the in-toto predicate types, and a word for each."""

import re

TEST = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
SPDX = "https://spdx.dev/Document"
VULNS = "https://in-toto.io/attestation/vulns/v0.2"
REBUILD = "https://computeops.org/evidence/rebuild/v1"

_WORDS = {
    TEST: "test",
    PROVENANCE: "provenance",
    CYCLONEDX: "cyclonedx",
    SPDX: "spdx",
    VULNS: "vulns",
    REBUILD: "rebuild",
}
_VERSION = re.compile(r"v?\d[\d.]*")
_UNSAFE = re.compile(r"[^a-z0-9]+")


def short(kind: str) -> str:
    """Return a word for `kind`, for people and file names: lower case letters, digits and single `-` between.

    A kind that is not one of ours is called by the last part of its URI that is not a version.
    """
    if kind in _WORDS:
        return _WORDS[kind]
    parts = [part for part in re.split(r"[/#?]", kind.lower()) if part and not _VERSION.fullmatch(part)]
    return _UNSAFE.sub("-", parts[-1] if parts else "").strip("-")[:40].strip("-") or "other"
