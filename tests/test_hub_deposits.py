"""Deposits: from sources with no recipe to a release that a client pulls, whatever is in the archive."""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from building import base_layout
from computeops import recipe
from computeops.errors import FormatError, LimitError, RecipeError
from computeops.hub import rebuild
from computeops.hub.auth import Scope
from computeops.hub.deposits import apart, keep, reading, recipes, swhid
from computeops.hub.gc import collect
from computeops.hub.state import Hub
from computeops.limits import LIMITS
from computeops.model import Digest
from raw_http import Answer, Caller
from shelf import Shelf
from worksite import Worksite, archive_of, git_over_http, packed, worksite

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
    archive = Path(shutil.make_archive(str(tmp_path / "tiny-1.10"), "zip", tmp_path, "tiny")).read_bytes()
    browser = Browser(site)
    fields = {"form": browser.form("/-/deposits"), "repository": "portal/tiny"}
    assert browser.send("/-/deposits", {**fields, "form": "forged"}, archive).status == 403
    assert browser.send("/-/deposits", {**fields, "repository": "Not a name"}, archive).status == 400
    assert browser.send("/-/deposits", fields, archive, end=b"").status == 400  # it was cut off
    kept = browser.send("/-/deposits", fields, archive)
    assert kept.status == 303, kept.body
    place = kept.headers["location"]
    page = browser.page(place)
    assert "Licence, as an SPDX expression <strong>(please say)" in page
    assert "Ada Lovelace; 0000-0002-1825-0097" in page
    answers = fields | dict(re.findall(r'<input id="q-\S+" name="(\S+)" type="text" value="(.*?)"', page))
    refused = browser.post(place, answers)
    assert (refused.status, b"nobody answered: license" in refused.body) == (400, True)
    started = browser.post(place, {**answers, "license": "MIT", "test": "cat /made"})
    assert started.status == 303, started.body
    site.ended(int(started.headers["location"].rpartition("/")[2]))
    assert "hello" not in browser.page("/portal/tiny/1.10")
    assert browser.send("/-/deposits", fields, archive).headers["location"] == f"{place}?known=yes"


class Browser(Caller):
    """Somebody who is signed in at the portal, without scripts."""

    def __init__(self, site: Worksite) -> None:
        super().__init__(site.hub.address)
        begun = self.get("/auth/tokens")
        self.headers = {"Cookie": begun.headers["set-cookie"].partition(";")[0]}
        entered = self.post("/auth/login", {"form": _signature(begun.body.decode()), "token": site.token})
        cookies = re.findall(r"computeops_session=[^;]+", entered.headers["set-cookie"])
        self.headers = {"Cookie": cookies[0]}

    def page(self, path: str) -> str:
        answer = self.get(path)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def form(self, path: str) -> str:
        return _signature(self.page(path))

    def post(self, path: str, fields: dict[str, str]) -> Answer:
        return self("POST", path, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"})

    def send(self, path: str, fields: dict[str, str], file: bytes, end: bytes = b"\r\n--mark--\r\n") -> Answer:
        head = "".join(
            f'--mark\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += '--mark\r\nContent-Disposition: form-data; name="archive"; filename="tiny-1.10.zip"\r\n\r\n'
        return self("POST", path, head.encode() + file + end, {"Content-Type": "multipart/form-data; boundary=mark"})


def _signature(page: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', page)
    assert found
    return unescape(found[1])


def plain(into: Path, said: str = "", version: str = "1.10") -> Path:
    """Write sources that need no time to be sent and that nobody will build."""
    into.mkdir(parents=True)
    (into / "Dockerfile").write_text(f"FROM scratch\nLABEL said={said}\n")
    (into / "LICENSE").write_text(MIT)
    (into / "CITATION.cff").write_text(f"title: A tiny thing\nversion: {version}\n")
    return into


def deposited(site: Worksite, repository: str, folder: Path) -> tuple[int, Any]:
    data = packed(folder)
    digest = str(Digest.of(data))
    assert site.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)[0] == 201
    asked = {"repository": repository, "archive": digest, "name": "tiny.tar"}
    return site.ask("POST", "/api/v1/deposits", asked)


def test_two_deposits_of_one_version_at_once_and_what_is_missing(site: Worksite, tmp_path: Path) -> None:
    kept = [deposited(site, "race/tiny", plain(tmp_path / name, name))[1]["id"] for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda one: site.ask("POST", f"/api/v1/deposits/{one}", {"answers": {}}), kept))
    assert sorted(status for status, _ in told) == [201, 409], told
    assert "another source" in next(said for status, said in told if status == 409)
    number = next(said["id"] for status, said in told if status == 201)
    site.ask("POST", f"/api/v1/pipelines/{number}/cancel")
    # without questions, the error lists what nobody said, and nothing is started
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "thing.c").write_text("int main(void) { return 0; }\n")
    done = site.run("deposit", bare, "--for", f"{site.hub.host}/race/bare", "--yes", "--set", "version=1")
    assert done.returncode == 2
    assert all(f"--set {key}=" in done.stderr for key in ("summary", "license", "builder")), done.stderr
    assert "--set version" not in done.stderr
    assert site.ask("POST", f"/api/v1/deposits/{kept[0]}", {"answers": {"licence": "MIT"}})[0] == 400
    other = site.hub.token("push:elsewhere/*", name="eve")
    assert site.ask("POST", f"/api/v1/deposits/{kept[0]}", {"answers": {}}, token=other)[0] in {403, 404}


def test_a_tag_is_kept_when_its_repository_is_gone(site: Worksite, tmp_path: Path) -> None:
    work = plain(tmp_path / "work")
    (work / "CITATION.cff").unlink()
    bare = tmp_path / "tiny"
    with git_over_http(work, bare) as (url, commit):
        who = [
            "git",
            "-c",
            "user.name=ada",
            "-c",
            "user.email=a@b.c",
            "-c",
            "core.hooksPath=/dev/null",
            "--git-dir",
            bare,
        ]
        subprocess.run([*who, "tag", "-a", "-m", "x", "v2.5", commit], check=True)
        subprocess.run([*who, "update-server-info"], check=True)
        asked = {"repository": "gone/tiny", "git": url, "ref": "v2.6"}
        assert site.ask("POST", "/api/v1/deposits", asked)[0] == 404
        assert site.ask("POST", "/api/v1/deposits", asked | {"ref": "--upload-pack=x"})[0] == 400
        assert site.ask("POST", "/api/v1/deposits", asked | {"git": "file:///etc"})[0] == 400
        status, kept = site.ask("POST", "/api/v1/deposits", asked | {"ref": "v2.5"})
        shutil.make_archive(str(bare / "tiny-3.1"), "gztar", tmp_path, "work")
        fetched = site.run("deposit", f"{url}/tiny-3.1.tar.gz", "--for", f"{site.hub.host}/gone/web", "--keep")
        assert "3.1  (tiny-3.1.tar.gz)" in fetched.stdout, fetched.stderr
    assert status == 201, kept
    assert kept["origin"] == f"{url}@{commit}"
    assert {one["key"]: one["value"] for one in kept["questions"]}["version"] == "2.5"
    assert not (tmp_path / "ran").exists()
    collect(Hub.open(site.hub.data), grace_seconds=0)
    assert site.ask("HEAD", f"/v2/gone/tiny/blobs/{kept['archive']}")[0] == 200
    status, said = site.ask("POST", f"/api/v1/deposits/{kept['id']}", {"answers": {"summary": "Tiny"}})
    assert status == 201, said
    site.ask("POST", f"/api/v1/pipelines/{said['id']}/cancel")


def test_deposits_come_back_from_storage_alone(tmp_path: Path) -> None:
    def kept(hub: Hub) -> list[dict[str, Any]]:
        caller = hub.auth.caller(f"Bearer {hub.auth.issue('ada', [Scope('push', '*')], days=1)}")
        found = [msgspec.to_builtins(one) for one in keep.entries(hub, caller)]
        return sorted(({**one, "id": 0} for one in found), key=lambda one: str(one["tree"]))

    folder = tmp_path / "hub"
    with Shelf(folder) as shelf:
        for name in ("a", "b"):
            archive = shelf.blob("main/tiny", packed(plain(tmp_path / name, name)))["digest"]
            keep.deposit(shelf.hub, "main/tiny", apart.Asked(name=f"{name}-3.tar"), archive=archive, asked_by="ada")
        before = kept(shelf.hub)
        assert [one["origin"] for one in before] != []
        rebuild.rebuild(shelf.hub, print)
        assert kept(shelf.hub) == before
    for file in folder.glob("hub.sqlite*"):
        file.unlink()
    hub = Hub.open(folder, rebuilding=True)
    assert kept(hub) == []
    assert rebuild.rebuild(hub, print).faults == ()
    assert kept(hub) == before
    collect(hub, grace_seconds=0)
    assert {hub.blobs.size(Digest.parse(one["archive"])) for one in before} == {one["size"] for one in before}
    hub.database.close()


HOSTILE: list[tuple[str, list[tuple[str, str, str]]]] = [
    ("leads out", [("a/../../b", "f", "x")]),
    ("leads out", [("link", "l", "/etc"), ("link/passwd", "f", "x")]),
    ("neither file", [("null", "d", "")]),
]


def test_hostile_archives_are_refused(tmp_path: Path) -> None:
    for count, (what, members) in enumerate(HOSTILE):
        with pytest.raises(FormatError, match=what):
            _opened(archive_of(tmp_path / f"{count}.tar", members), tmp_path)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as zipped:
        zipped.writestr("../out", "x")
    with pytest.raises(FormatError, match="leads out"):
        _opened(tmp_path / "out.zip", tmp_path)
    bomb = tarfile.TarInfo("zeros")
    bomb.size = LIMITS.deposit_unpacked_bytes + 1
    (tmp_path / "bomb.tar").write_bytes(bomb.tobuf())
    with pytest.raises(LimitError):
        _opened(tmp_path / "bomb.tar", tmp_path)
    (tmp_path / "text").write_text("not an archive")
    with pytest.raises(FormatError):
        _opened(tmp_path / "text", tmp_path)
    assert list(tmp_path.glob("deposit-*")) == []


def test_a_hub_whose_folder_is_named_from_where_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").write_bytes(packed(plain(tmp_path / "tiny")))
    monkeypatch.chdir(tmp_path)
    with apart.opened(apart.Asked(archive=str(tmp_path / "x.tar")), Path()) as (found, folder):
        assert (found.tops, folder.is_absolute()) == (["CITATION.cff", "Dockerfile", "LICENSE"], True)


def _opened(archive: Path, work: Path) -> None:
    with apart.opened(apart.Asked(archive=str(archive)), work):
        raise AssertionError


def test_what_sources_say(tmp_path: Path) -> None:
    def said(**files: str) -> dict[str, str]:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        return {key: text for key, (text, _) in reading.read(folder, "thing-1.2.3.tar.gz").items()}

    meta = {
        "version": "2.0",
        "license": "https://spdx.org/licenses/GPL-3.0-or-later.html",
        "description": "A thing.",
        "author": [{"givenName": "Ada", "familyName": "L", "@id": "https://orcid.org/0000-0002-1825-0097"}],
        "referencePublication": {"@id": "https://doi.org/10.1234/abc"},
    }
    assert said(codemeta__json=json.dumps(meta), CMakeLists__txt="project(thing VERSION 9)") == {
        "version": "2.0",
        "summary": "A thing.",
        "license": "GPL-3.0-or-later",
        "citation": "10.1234/abc",
        "maintainer": "Ada L; 0000-0002-1825-0097",
        "builder": "debian",
        "system": "cmake",
    }
    assert said(
        pyproject__toml='[project]\nname="t"\nversion="3"\nlicense={text="MIT"}\n[project.scripts]\nt="t:m"'
    ) == {
        "version": "3",
        "license": "MIT",
        "command": "t",
        "builder": "python",
        "file": "pyproject.toml",
    }
    assert said(setup__cfg="[metadata]\ndescription = A thing\n", COPYING=MIT)["license"] == "MIT"
    assert said(configure__ac="AC_INIT([thing],[4.5],[x@y.z],[thing],[https://e.org])")["homepage"] == "https://e.org"
    assert said(thing__def="Bootstrap: docker\nFrom: debian\n")["builder"] == "apptainer"
    assert said(environment__yml="dependencies: [samtools]\n")["builder"] == "conda"
    # what is not what it seems is as if it were not there; the name of the archive is left
    nothing = said(codemeta__json="[" * 100_000, CITATION__cff="a: &a [*a]\nversion: {x: y}\n- b", setup__cfg="x")
    assert nothing == {"version": "1.2.3"}


def test_names_of_content_are_those_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert swhid.directory(tmp_path / "empty") == "swh:1:dir:4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    (tmp_path / "a").write_bytes(b"")
    assert swhid.content(tmp_path / "a") == "swh:1:cnt:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    (tmp_path / "a").write_text("hello\n")
    assert swhid.content(tmp_path / "a") == "swh:1:cnt:ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_written_recipe_builds_with_the_build_system() -> None:
    values = {"version": "1", "summary": "A thing", "license": "MIT", "builder": "debian", "system": "cmake"}
    files = recipes.write("thing", values | {"maintainer": "Ada; a@b.c"}, ["src", ".git", "CMakeLists.txt", "a b"])
    made = recipe.parse(files["computeops.toml"])
    assert [one.path for one in made.sources] == ["src", "CMakeLists.txt"]
    assert made.build.build_packages == ("cmake", "g++", "make")
    assert b"cmake --install" in files[made.build.file]
    with pytest.raises(RecipeError):
        recipes.write("thing", values | {"maintainer": "Ada; not-an-orcid"}, ["src"])
