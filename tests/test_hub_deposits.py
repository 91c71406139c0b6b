"""Deposits: from sources with no recipe to a release that a client pulls, whatever is in the archive."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
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


def test_by_the_forms_of_the_portal(site: Worksite, tmp_path: Path) -> None:
    folder = sources(tmp_path / "tiny", "hello portal")
    (folder / "LICENSE").unlink()
    archive = shutil.make_archive(str(tmp_path / "tiny-1.10"), "zip", tmp_path, "tiny")
    with httpx.Client(base_url=site.hub.address, timeout=60) as browser:
        assert browser.get("/-/deposits").status_code == 401
        form = _form(browser.get("/auth/tokens").text)
        assert browser.post("/auth/login", data={"form": form, "token": site.token}).status_code == 303
        fields = {"form": _form(browser.get("/-/deposits").text), "repository": "portal/tiny"}
        file = {"archive": ("tiny-1.10.zip", Path(archive).read_bytes())}
        assert browser.post("/-/deposits", data={**fields, "form": "forged"}, files=file).status_code == 403
        kept = browser.post("/-/deposits", data=fields, files=file)
        assert kept.status_code == 303, kept.text
        place = kept.headers["location"]
        page = browser.get(place).text
        assert "Licence, as an SPDX expression <strong>(please say)" in page
        assert "Ada Lovelace; 0000-0002-1825-0097" in page
        answers = {
            "form": fields["form"],
            **dict(re.findall(r'<input id="q-\S+" name="(\S+)" type="text" value="(.*?)"', page)),
        }
        refused = browser.post(place, data=answers)
        assert (refused.status_code, "nobody answered: license" in refused.text) == (400, True)
        started = browser.post(place, data={**answers, "license": "MIT", "test": "cat /made"})
        assert started.status_code == 303, started.text
        site.ended(int(started.headers["location"].rpartition("/")[2]))
        assert browser.get("/portal/tiny/1.10").status_code == 200
        again = browser.post("/-/deposits", data=fields, files=file)
        assert again.headers["location"] == f"{place}?known=yes"


def _form(page: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page)
    assert found
    return unescape(found[1])
