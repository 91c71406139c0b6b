"""Deposits: from sources with no recipe to a release that a client pulls, whatever is in the archive."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from building import base_layout
from worksite import Worksite, worksite

pytestmark = [pytest.mark.buildah, pytest.mark.apptainer, pytest.mark.squashfs]
MIT = "Permission is hereby granted, free of charge, to any person ... all copies or substantial portions of the Software."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worksite]:
    """A hub with one worker, which the tests of this module share."""
    with worksite(tmp_path_factory.mktemp("site")) as made:
        made.login()
        made.worker("one", "--at-once", "2")
        yield made


def sources(into: Path, said: str = "hello") -> Path:
    """Write a program as its author has it: a Dockerfile, a licence and a citation, and no recipe."""
    (into / "src").mkdir(parents=True)
    base_layout(into / "base.oci")
    (into / "src/made").write_text(f"{said}\n")
    (into / "Dockerfile").write_text("FROM oci:base.oci\nCOPY src/made /made\n")
    (into / "LICENSE").write_text(MIT)
    (into / "CITATION.cff").write_text(
        "cff-version: 1.2.0\ntitle: A tiny thing\nversion: 1.10\nauthors:\n"
        "  - given-names: Ada\n    family-names: Lovelace\n    orcid: https://orcid.org/0000-0002-1825-0097\n"
    )
    return into


def test_from_a_folder_without_recipe_to_an_image_that_runs(site: Worksite, tmp_path: Path) -> None:
    folder = sources(tmp_path / "tiny")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    tree = ["git", "-c", "core.safecrlf=false", "write-tree"]
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    known = subprocess.run(tree, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    where = f"{site.hub.host}/main/tiny"
    argv = ["deposit", folder, "--for", where, "--yes", "--set", "test=cat /made", "--set", "expect=hello"]
    done = site.run(*argv, "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], found["version"]) == ("succeeded", "1.10")
    assert site.run("key", "import", "worker", site.workers["one"].state / "keys/worker/public").returncode == 0
    pulled = site.run("pull", f"{where}:1.10", tmp_path / "tiny.sif")
    assert pulled.returncode == 0, pulled.stderr
    said = site.run("deposit", folder, "--for", where, "--keep").stdout
    assert f"swh:1:dir:{known}" in said
    assert "is kept already" in said
