"""The main path as its users walk it: build, look, sign, publish, pull, verify, run; and what must stop on the way."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import RunningHub

pytestmark = [pytest.mark.mmdebstrap, pytest.mark.squashfs]

RECIPE = """
[package]
name = "busy"
version = "1"
summary = "One program"
license = "GPL-2.0-only"

[[sources]]
path = "data.txt"

[[sources]]
path = "more"

[build]
builder = "debian"
suite = "bookworm"
packages = ["busybox-static"]

[run]
command = ["busybox"]

[[tests]]
name = "adds"
run = 'test -n "$HOME"; busybox expr 1 + 2'
expect = "3"
"""
Person = Callable[..., subprocess.CompletedProcess[str]]


def person(home: Path, cache: Path | None = None) -> Person:
    """Somebody with settings and keys of their own, and a cache that they may share."""

    def computeops(
        *argv: str | Path,
        code: int = 0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        kept = str(cache or home / ".cache")
        given = {
            "XDG_CACHE_HOME": kept,
            "HOME": str(home),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "USER": "x",
        }
        given |= env or {}
        command = [*before, sys.executable, "-m", "computeops", *map(str, argv)]
        done = subprocess.run(command, capture_output=True, text=True, input=stdin, check=False, env=given, cwd=home)
        assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    home.mkdir()
    return computeops


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an author who has built and signed a release."""
    home = tmp_path_factory.mktemp("author") / "home"
    author = person(home)
    folder = home / "recipe"
    folder.mkdir()
    (folder / "computeops.toml").write_text(RECIPE)
    (folder / "data.txt").write_text("archived with the release\n")
    (folder / "more/deeper").mkdir(parents=True)
    (folder / "more/deeper/file").write_text("in a folder")
    author("key", "new", "author")
    author("build", folder, "--out", home / "out", "--key", "author")
    return home


@pytest.fixture
def author(built: Path, tmp_path: Path) -> tuple[Person, Path]:
    """The author in a copy of that home, and the image."""
    home = tmp_path / "author"
    again = person(home, built / ".cache")
    shutil.copytree(built, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache"))
    return again, home / "out/busy-1.sif"


def published(author: Person, image: Path, hub: RunningHub) -> str:
    token = hub.token("push:tools/*")
    author("login", hub.address, "--token-stdin", stdin=token)
    author("push", image, f"{hub.address}/tools/busy:1")
    return f"{hub.address}/tools/busy:1"


def test_a_build_leaves_image_recipe_sources_and_evidence(author: tuple[Person, Path]) -> None:
    _, image = author
    release = image.with_suffix(".release")
    assert {path.name for path in (release / "recipe").iterdir()} == {"computeops.toml", "computeops.lock"}
    assert (release / "sources/data.txt").read_text() == "archived with the release\n"
    kinds = {path.name.partition("-")[0] for path in (release / "evidence").iterdir()}
    assert kinds == {"provenance", "test", "cyclonedx", "spdx"}


def test_two_builds_in_other_folders_have_equal_digests(author: tuple[Person, Path], tmp_path: Path) -> None:
    run, image = author
    folder = tmp_path / "else/where"
    shutil.copytree(image.parent.parent / "recipe", folder)
    done = run("build", folder, "--out", folder, "--json", "--no-test")
    first = json.loads(run("inspect", image, "--json").stdout)["digests"]
    assert json.loads(done.stdout)["digests"] == first


def test_verify_names_who_signed_what(author: tuple[Person, Path]) -> None:
    run, image = author
    found = json.loads(run("verify", image, "--json").stdout)
    assert [one["name"] for one in found["signatures"]] == ["author"]
    assert len([one for one in found["evidence"] if one["signers"]]) == 4


def test_one_changed_byte_of_the_image_is_seen(author: tuple[Person, Path]) -> None:
    run, image = author
    with image.open("r+b") as file:
        file.seek(200_000)
        byte = file.read(1)
        file.seek(200_000)
        file.write(bytes([byte[0] ^ 1]))
    assert "error: " in run("verify", image, code=9).stderr


def test_changed_evidence_is_seen(author: tuple[Person, Path]) -> None:
    run, image = author
    (file,) = image.with_suffix(".release").glob("evidence/test-*")
    envelope = json.loads(file.read_text())
    envelope["signatures"][0]["sig"] = "AAAA" + envelope["signatures"][0]["sig"][4:]
    file.write_text(json.dumps(envelope))
    assert "does not hold" in run("verify", image, code=9).stderr


def test_without_evidence_nothing_is_trusted(author: tuple[Person, Path]) -> None:
    run, image = author
    shutil.rmtree(image.with_suffix(".release"))
    run("verify", image, code=10)


def test_a_failing_test_is_evidence_against_the_image(author: tuple[Person, Path]) -> None:
    run, image = author
    folder = image.parent.parent / "recipe"
    text = (folder / "computeops.toml").read_text()
    (folder / "computeops.toml").write_text(text.replace('expect = "3"', 'expect = "4"'))
    done = run("test", image, "--recipe", folder, "--key", "author", code=13)
    assert "FAILED  adds" in done.stdout
    assert "failed" in run("verify", image, code=10).stderr


def test_evidence_of_one_form_is_signed_with_another(author: tuple[Person, Path]) -> None:
    run, image = author
    run("test", image)
    layout = image.with_suffix(".oci")
    assert "with 5 pieces of evidence" in run("sign", layout, "--key", "author").stdout
    run("verify", layout)


def test_a_stranger_gets_nothing_until_the_key_is_known(
    author: tuple[Person, Path], hub: RunningHub, tmp_path: Path
) -> None:
    run, image = author
    reference = published(run, image, hub)
    scientist = person(tmp_path / "scientist")
    target = tmp_path / "busy.sif"
    (keyid,) = (one["keyid"] for one in json.loads(run("key", "list", "--json").stdout))
    refused = scientist("pull", reference, target, code=10).stderr
    assert "key import" in refused
    assert keyid in refused
    assert not target.exists()
    for _ in range(2):  # who follows a tutorial twice, or on one machine, is not told off
        scientist("key", "import", "author", "-", stdin=run("key", "export", "author").stdout)
    with ThreadPoolExecutor() as jobs:  # an array of jobs on a cold cache
        said = jobs.map(lambda n: scientist("run", reference, "expr", n, "+", "1").stdout, ["1", "2", "3"])
        assert list(said) == ["2\n", "3\n", "4\n"]
    scientist("pull", reference, target)
    assert target.read_bytes() == image.read_bytes()
    scientist("verify", target)
    assert scientist("run", target, "echo", "two  words").stdout == "two  words\n"
    assert scientist("run", reference, "expr", "20", "+", "3").stdout == "23\n"
    assert scientist("exec", target, "sh", "-c", "exit 7", code=7).stdout == ""


def test_an_image_can_be_taken_on_ones_own_risk(author: tuple[Person, Path], hub: RunningHub, tmp_path: Path) -> None:
    run, image = author
    reference = published(run, image, hub)
    person(tmp_path / "scientist")("pull", reference, tmp_path / "busy.sif", "--untrusted")
    assert (tmp_path / "busy.sif").read_bytes() == image.read_bytes()


def test_a_released_version_never_changes(author: tuple[Person, Path], hub: RunningHub) -> None:
    run, image = author
    reference = published(run, image, hub)
    folder = image.parent.parent / "recipe"
    text = (folder / "computeops.toml").read_text()
    (folder / "computeops.toml").write_text(text.replace("One program", "Another program"))
    run("build", folder, "--out", image.parent, "--key", "author")
    assert "error: " in run("push", image, reference, code=6).stderr


def test_what_is_not_trusted_is_not_published(author: tuple[Person, Path], hub: RunningHub) -> None:
    run, image = author
    shutil.rmtree(image.with_suffix(".release"))
    run("login", hub.address, "--token-stdin", stdin=hub.token("push:tools/*"))
    run("push", image, f"{hub.address}/tools/busy:1", code=10)
    assert "nothing found" in run("search", "--hub", hub.address, "busy").stdout


def test_a_policy_of_the_site_holds_for_run(author: tuple[Person, Path], tmp_path: Path) -> None:
    run, image = author
    policy = tmp_path / "policy.toml"
    policy.write_text("[passed]\ntest = 2\n")
    settings = image.parent.parent / ".config/computeops/config.toml"
    settings.write_text(f'policy = "{policy}"\n')
    assert "asks for 2" in run("run", image, "true", code=10).stderr
    policy.write_text("[passed]\ntest = 1\n")
    run("run", image, "true")


def test_a_release_can_be_built_again_from_itself_alone(author: tuple[Person, Path], tmp_path: Path) -> None:
    run, image = author
    elsewhere = tmp_path / "moved"
    shutil.copytree(image.parent, elsewhere)
    shutil.rmtree(image.parent.parent / "recipe")
    empty = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run("rebuild", elsewhere / image.name, "--key", "author", env=empty, before=["unshare", "--net"])
    assert "identical: image, manifest, sif" in done.stdout
    assert '"https://computeops.org/evidence/rebuild/v1"' in run("verify", elsewhere / image.name, "--json").stdout


def test_a_rebuild_that_differs_says_where(author: tuple[Person, Path]) -> None:
    run, image = author
    recipe = image.with_suffix(".release") / "recipe/computeops.toml"
    recipe.write_text(recipe.read_text().replace("One program", "Another program"))
    done = run("rebuild", image, code=13)
    assert "/.singularity.d/labels.json: " in done.stdout


@pytest.mark.apptainer
def test_the_real_apptainer_verifies_what_we_signed(author: tuple[Person, Path], scientist) -> None:
    run, image = author
    shutil.copy(image, scientist.home / "busy.sif")
    (scientist.home / "author.pub").write_text(run("key", "export", "author").stdout)
    scientist.own(scientist.home / "busy.sif")
    scientist.run(["apptainer", "key", "import", scientist.home / "author.pub"])
    assert b"Verified signature(s)" in scientist.run(["apptainer", "verify", scientist.home / "busy.sif"]).stderr
