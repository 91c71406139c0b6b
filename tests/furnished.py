"""A hub with content as it is in use: for the pictures in the documentation, and for looking at pages while writing them.

python tests/furnished.py FOLDER [PORT]
"""

import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from computeops.hub.tables import releases
from computeops.image import oci
from shelf import CYCLONEDX, PROVENANCE, TEST, VULNS, Shelf

AUTHOR = "SHA256:n4bQgYhMfWWaL3qgxVrQFaO7TxsrC4Is0V1sFbDwCgg"
SITE = "SHA256:Xy0Rk2t7QHk1mG9eJwqP5vYb8uLhZ6cS3dNfA4oTiBE"
DAY = 24 * 3600

SOFTWARE: list[tuple[str, str, str, str, list[str], int, int]] = [
    (
        "physics/root",
        "6.32.10",
        "Data analysis framework of high-energy physics: histograms, fits, storage, graphics",
        "LGPL-2.1-or-later",
        ["physics"],
        612,
        388,
    ),
    (
        "climate/cdo",
        "2.4.4",
        "Climate Data Operators: manipulate and analyse climate and forecast model data",
        "BSD-3-Clause",
        ["climate", "geosciences"],
        96,
        141,
    ),
    (
        "genomics/bwa-mem2",
        "2.2.1",
        "Aligner of short reads to large genomes, two to three times as fast as BWA-MEM",
        "MIT",
        ["bioinformatics"],
        54,
        74,
    ),
    (
        "chemistry/quantum-espresso",
        "7.3.1",
        "Electronic-structure calculations and materials modelling at the nanoscale",
        "GPL-2.0-or-later",
        ["chemistry", "materials"],
        284,
        203,
    ),
    (
        "imaging/fiji",
        "2.16.0",
        "ImageJ with what microscopy needs: registration, segmentation, tracking",
        "GPL-3.0-or-later",
        ["microscopy", "neuroscience"],
        431,
        266,
    ),
    (
        "chemistry/gromacs",
        "2024.4",
        "Molecular dynamics of proteins, lipids and nucleic acids, on CPUs and GPUs",
        "LGPL-2.1-or-later",
        ["chemistry", "biophysics"],
        233,
        187,
    ),
    (
        "genomics/samtools",
        "1.20",
        "Tools for manipulating next-generation sequencing data",
        "MIT",
        ["bioinformatics"],
        41,
        92,
    ),
    (
        "astronomy/casa",
        "6.6.5",
        "Reduction of radio interferometry data: calibration, imaging, analysis",
        "GPL-3.0-or-later",
        ["astronomy"],
        1210,
        421,
    ),
    (
        "genomics/samtools",
        "1.21",
        "Tools for manipulating next-generation sequencing data",
        "MIT",
        ["bioinformatics"],
        41,
        92,
    ),
]

SAMTOOLS = """\
# Samtools from its source release, for two generations of processors.

[package]
name = "samtools"
version = "1.21"
summary = "Tools for manipulating next-generation sequencing data"
license = "MIT"
homepage = "https://www.htslib.org"
domains = ["bioinformatics", "genomics"]
citation = "10.1093/gigascience/giab008"

[[maintainers]]
name = "Ada Lovelace"
orcid = "0000-0002-1825-0097"

[[maintainers]]
name = "Genome Tools Working Group"

[[sources]]
url = "https://github.com/samtools/samtools/releases/download/1.21/samtools-1.21.tar.bz2"
sha256 = "05724b083a6b6f12305fcae5883a056d58e4c8b1f4ac3a4b0b1bf1f3d0c2a5d1"

[build]
builder = "debian"
file = "build.sh"
suite = "bookworm"
packages = ["libcurl4", "zlib1g", "libbz2-1.0", "liblzma5"]
build_packages = ["build-essential", "zlib1g-dev", "libbz2-dev", "liblzma-dev"]

[run]
command = ["samtools"]

[[variants]]
name = "v3"
cpu = "x86_64_v3"
options = { CFLAGS = "-O3 -march=x86-64-v3" }

[[tests]]
name = "version"
run = "samtools --version"
expect = "samtools 1.21"
"""
BUILD = b"""\
#!/bin/sh
# Runs in the root filesystem; the sources are unpacked in the working directory.
set -eu
cd samtools-1.21
./configure --prefix=/usr --without-curses CFLAGS="${CFLAGS:--O2}"
make -j"$(nproc)" install
"""


def furnish(folder: Path, *, base: str = "https://csan.example.org") -> Shelf:
    """Fill the hub in `folder`."""
    shelf = Shelf(folder, base=base)
    shelf.hub.database.set_public("embargo", public=False)
    digests: dict[str, str] = {}
    for repository, version, summary, license_, domains, _, packages in SOFTWARE:
        if (repository, version) == ("genomics/samtools", "1.21"):
            digests |= samtools(shelf, repository)
        else:
            digest = shelf.release(repository, version, summary=summary, license=license_, domains=domains)
            digests[f"{repository}:{version}"] = digest
            known(shelf, repository, digest, packages, failed=repository == "imaging/fiji")
    shelf.release("embargo/unpublished", "0.1", summary="Under embargo")
    settle(shelf, digests)
    return shelf


def samtools(shelf: Shelf, repository: str) -> dict[str, str]:
    digests = {}
    for tag, arch in (("1.21-v3", "amd64"), ("1.21", "arm64"), ("1.21", "amd64")):
        key = f"{repository}:{tag}:{arch}"
        digests[key] = shelf.image(repository, "" if tag == "1.21" else tag, arch=arch)
        shelf.recipe(
            repository,
            digests[key],
            SAMTOOLS,
            {"build.sh": BUILD, "computeops.lock": b'[debian]\nsnapshot = "20250520T000000Z"\n'},
        )
        shelf.artifact(
            repository,
            digests[key],
            oci.SIF_ARTIFACT,
            {f"samtools-{tag}.sif": key.encode() * (1_480_000 if tag == "1.21" else 1000)},
        )
        shelf.artifact(repository, digests[key], oci.SOURCES_ARTIFACT, {"samtools-1.21.tar.bz2": b"s" * 8_912_000})
        known(shelf, repository, digests[key], 92)
    images = [digests[f"{repository}:1.21:{arch}"] for arch in ("amd64", "arm64")]
    shelf.index(repository, "1.21", images)
    shelf.evidence(
        repository,
        images[0],
        TEST,
        {"result": "PASSED", "passedTests": ["version", "sorts", "at the site"]},
        signers=[SITE],
    )
    return digests


def known(shelf: Shelf, repository: str, digest: str, packages: int, *, failed: bool = False) -> None:
    tests: dict[str, Any] = {"result": "PASSED", "passedTests": ["version", "sorts and counts alignments"]}
    if failed:
        tests = {"result": "FAILED", "passedTests": ["version"], "failedTests": ["opens a stack of images"]}
    builder = {"runDetails": {"builder": {"id": "https://computeops.example.org/builder/debian"}}}
    for kind, predicate in (
        (TEST, tests),
        (PROVENANCE, builder),
        (CYCLONEDX, {"components": [{"name": str(n)} for n in range(packages)]}),
        (VULNS, {"scanner": {"uri": "", "version": "", "result": [{"id": "CVE-2024-0001"}] * (packages % 3)}}),
    ):
        shelf.evidence(repository, digest, kind, predicate, signers=[AUTHOR])


def settle(shelf: Shelf, digests: dict[str, str]) -> None:
    """Give the images the sizes that they really have, and days instead of one second."""
    sizes = {f"{repository}:{version}": mega for repository, version, _, _, _, mega, _ in SOFTWARE}
    with shelf.hub.database.write() as connection:
        rows = connection.execute(sa.select(releases.c.id, releases.c.created).order_by(releases.c.id)).all()
        for age, row in enumerate(reversed(rows)):
            change = sa.update(releases).where(releases.c.id == row.id)
            connection.execute(change.values(created=row.created - max(0, age - 2) ** 2 * DAY // 2))
        for key, digest in digests.items():
            mega = sizes[":".join(key.split(":")[:2]).removesuffix("-v3")]
            size = mega * 1_000_000 + int(digest[-5:], 16)
            connection.execute(sa.update(releases).where(releases.c.digest == digest).values(size=size))


if __name__ == "__main__":
    import uvicorn

    from computeops.hub.app import create_app

    furnish(Path(sys.argv[1]))
    uvicorn.run(
        create_app(Path(sys.argv[1]), base="https://csan.example.org"), port=int(sys.argv[2]), log_level="warning"
    )
