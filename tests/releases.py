"""Releases on disk for tests: small, real, packed as `computeops build` packs them."""

import json
from pathlib import Path

from computeops.image import convert, oci
from computeops.image.tree import Directory
from computeops.model import IN_TOTO_PAYLOAD, IN_TOTO_STATEMENT, Image, Signature, Signed
from computeops.store.release import Release

EPOCH = 315532800
TEST = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
RECIPE = b"""
[package]
name = "thing"
version = "1.0"
summary = "A thing for tests"
license = "MIT"
domains = ["astronomy"]

[build]
builder = "debian"
suite = "bookworm"
packages = ["samtools"]
"""


def signed(image: Image, kind: str = TEST, signer: str = "SHA256:one", **predicate: object) -> Signed:
    """An envelope about `image`; its signature is bytes that nobody checks here."""
    statement = {
        "_type": IN_TOTO_STATEMENT,
        "subject": [{"name": name, "digest": {d.algorithm: d.hex}} for name, d in image.subjects.items()],
        "predicateType": kind,
        "predicate": predicate or {"result": "PASSED"},
    }
    return Signed(oci.canonical(statement), IN_TOTO_PAYLOAD, (Signature(signer, b"signature"),))


def pack(folder: Path, content: str = "one", *, sif: bool = True, name: str = "thing-1.0") -> Image:
    """An image NAME.sif and NAME.oci in `folder`."""
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True, exist_ok=True)
    (tree / "bin/thing").write_text(f"#!/bin/sh\necho {content}\n")
    (tree / "bin/thing").chmod(0o755)
    return convert.pack(
        Directory(tree),
        oci.Description("amd64", command=("thing",), labels={"org.opencontainers.image.title": "thing"}),
        to_sif=folder / f"{name}.sif" if sif else None,
        to_layout=folder / f"{name}.oci",
        writer=convert.Writer(threads=1),
        epoch=EPOCH,
        recipe=RECIPE,
    )


def release(folder: Path, content: str = "one", *, sif: bool = True) -> tuple[Release, Image]:
    """A whole release: image in both forms, recipe, a source, two pieces of evidence."""
    image = pack(folder, content, sif=sif)
    made = Release.beside(image.path)
    made.add("recipe", "computeops.toml", RECIPE)
    made.add("recipe", "computeops.lock", b"[lock]\n")
    made.add("sources", "thing_1.0~rc1+dfsg.orig.tar.xz", b"source" * 1000)
    made.add_evidence("test-result", signed(image))
    made.add_evidence("provenance", signed(image, PROVENANCE, predicate=json.dumps({"a": 1})))
    return made, image
