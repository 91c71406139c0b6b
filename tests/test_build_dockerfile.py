"""Dockerfiles: real builds by Buildah, as root and as an ordinary user, of a recipe that needs no network."""

import json
import os
import shutil
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.build import instructions
from computeops.errors import BuildError, FormatError, MissingProgramError, RecipeError
from computeops.image.tree import read_files
from computeops.recipe import load
from conftest import Scientist
from servers import docker_registry

real = [pytest.mark.buildah, pytest.mark.skopeo]


def marked(test):
    for one in real:
        test = one(test)
    return test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return building.copy_recipe("dockerfile", tmp_path / "recipe")


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "Dockerfile"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def pin(folder: Path, tmp_path: Path) -> build.Lock:
    return build.lock(folder, load(folder), mirror="", pypi="", cache=tmp_path / "cache", tmp=tmp_path / "tmp")


@marked
def test_the_last_stage_becomes_the_image_and_says_how_it_runs(folder: Path, tmp_path: Path) -> None:
    built = building.run(folder, tmp_path / "work", tmp_path / "cache")
    seen = building.look(built)
    assert seen.env["GREETED"] == "yes"
    assert "SOURCE_DATE_EPOCH" not in seen.env
    assert "HOSTNAME" not in seen.env
    assert seen.labels["kind"] == "greeting"
    assert seen.labels["org.opencontainers.image.title"] == "greeting"
    assert built.working_dir == "/usr/share/greeting"
    assert "first" not in seen.files
    assert seen.files["bin/greet"].startswith("file 755 0:0")
    script = read_files(built.tree, lambda path: f"/{path}" == seen.command[0], 1000)
    assert script[seen.command[0][1:]] == b'#!/bin/sh\n[ $# -gt 0 ] || set -- nobody\nexec greet "$@"\n'


@marked
def test_the_options_of_a_variant_are_build_arguments(folder: Path, tmp_path: Path) -> None:
    built = building.run(folder, tmp_path / "work", tmp_path / "cache", "loud")
    found = read_files(built.tree, lambda path: path == "usr/share/greeting/first", 100)
    assert found == {"usr/share/greeting/first": b"HELLO\n"}


@marked
def test_builds_are_equal_whoever_builds_and_where(folder: Path, tmp_path: Path, scientist: Scientist) -> None:
    mine = building.look(building.run(folder, tmp_path / "work", tmp_path / "cache"))
    there = shutil.copytree(folder, scientist.home / "an other/recipe")
    theirs = building.as_scientist(scientist, scientist.own(there), jobs=1)
    assert theirs == mine


@marked
def test_the_base_is_pinned_by_its_manifest_and_kept(folder: Path, tmp_path: Path) -> None:
    pinned = pin(folder, tmp_path)
    (base,) = pinned.of_role("base")
    listed = json.loads((folder / "base.oci/index.json").read_text())["manifests"]
    assert [str(base.digest)] == [one["digest"] for one in listed]
    build.write_lock(folder, pinned)
    building.run(folder, tmp_path / "one", tmp_path / "cache")
    shutil.rmtree(folder / "base.oci")  # the copy in the cache is enough from now on
    building.run(folder, tmp_path / "two", tmp_path / "cache")


@marked
def test_another_base_than_the_pinned_one_is_refused(folder: Path, tmp_path: Path) -> None:
    build.write_lock(folder, pin(folder, tmp_path))
    shutil.rmtree(folder / "base.oci")
    building.base_layout(folder / "base.oci", {"NEW": "1"})
    with pytest.raises(FormatError, match="is not what was pinned"):
        building.run(folder, tmp_path / "work", tmp_path / "cache")


@marked
def test_a_broken_base_in_the_cache_is_fetched_again(folder: Path, tmp_path: Path) -> None:
    build.write_lock(folder, pin(folder, tmp_path))
    building.run(folder, tmp_path / "one", tmp_path / "cache")
    for blob in (tmp_path / "cache/bases").rglob("*"):
        if blob.is_file() and blob.stat().st_size > 10_000:
            blob.write_bytes(b"rotten")
    building.run(folder, tmp_path / "two", tmp_path / "cache")


@marked
def test_a_build_that_fails_says_why_and_where_all_of_it_is(folder: Path, tmp_path: Path) -> None:
    change(folder, 'RUN echo "$GREETING" > /first', "RUN echo the reason is 42; exit 3")
    with pytest.raises(BuildError, match="the reason is 42") as caught:
        building.run(folder, tmp_path / "work", tmp_path / "cache")
    assert "exit status 3" in caught.value.message
    log = Path(caught.value.hint.rpartition(" ")[2])
    assert "the reason is 42" in log.read_text()
    assert not (tmp_path / "work/inside").exists()


@marked
def test_only_sources_are_seen_and_what_is_missing_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "secret").write_text("x")
    change(folder, "COPY greeting.txt", "COPY secret")
    with pytest.raises(BuildError) as caught:
        building.run(folder, tmp_path / "work", tmp_path / "cache")
    assert "[[sources]]" in caught.value.hint


@marked
def test_a_build_has_no_network_and_sees_neither_homes_nor_this_machine(folder: Path, tmp_path: Path) -> None:
    change(
        folder,
        'RUN echo "$GREETING" > /first',
        f"RUN cat /proc/net/dev > /first; id >> /first; [ ! -e {Path.home()}/.bashrc ]",
    )
    built = building.run(folder, tmp_path / "work", tmp_path / "cache")
    (first,) = read_files(built.tree, lambda path: path == "usr/share/greeting/first", 5000).values()
    assert [line.split(b":")[0].strip() for line in first.splitlines()[2:-1]] == [b"lo"]
    assert b"uid=0" in first


@marked
def test_a_full_disk_is_a_clear_error(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file system of its own size can be mounted by root only")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=3m small "$1" && exec "$2" "$3" "$4" "" "$1/work" "$5" 0'
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "x",
        disk,
        sys.executable,
        building.__file__,
        folder,
        tmp_path / "cache",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "BuildError" in done.stderr
    assert "no space left on device" in done.stderr.lower()


@marked
def test_a_recipe_may_ask_for_the_network(folder: Path, tmp_path: Path) -> None:
    recipe = folder / "computeops.toml"
    recipe.write_text(recipe.read_text().replace('file = "Dockerfile"', 'file = "Dockerfile"\nnetwork = true'))
    change(folder, 'RUN echo "$GREETING" > /first', "RUN cat /proc/net/dev > /first")
    built = building.run(folder, tmp_path / "work", tmp_path / "cache")
    (first,) = read_files(built.tree, lambda path: path == "usr/share/greeting/first", 5000).values()
    assert first.splitlines()[2:] != [line for line in first.splitlines()[2:] if line.strip().startswith(b"lo:")]


def test_a_missing_program_is_told_with_the_line_that_installs_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingProgramError) as caught:
        pin(folder, tmp_path)
    assert "install skopeo" in caught.value.hint


# Bases in a registry


@marked
@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
def test_a_tag_is_pinned_to_the_manifest_for_this_machine_and_may_move_then(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building.base_layout(tmp_path / "other", {"OTHER": "1"})
    with docker_registry(tmp_path / "registry") as host:
        conf = tmp_path / "home/.config/containers/registries.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        mine = push(folder / "base.oci", f"docker://{host}/science/base:mine")
        other = push(tmp_path / "other", f"docker://{host}/science/base:other")
        platforms = {"amd64": mine, "arm64": other}
        index(f"http://{host}/v2/science/base/manifests/1", platforms)
        change(folder, "ARG BASE=oci:base.oci", f"ARG BASE={host}/science/base:1")

        lock = pin(folder, tmp_path)
        assert str(lock.of_role("base")[0].digest) == mine
        assert lock.of_role("base")[0].uri == f"docker://{host}/science/base:1"
        build.write_lock(folder, lock)
        index(f"http://{host}/v2/science/base/manifests/1", {"amd64": other})
        built = building.run(folder, tmp_path / "work", tmp_path / "cache")
        assert built.env["GREETED"] == "yes"

        index(f"http://{host}/v2/science/base/manifests/1", {"arm64": other, "s390x": mine})
        with pytest.raises(RecipeError, match="is not made for amd64") as caught:
            pin(folder, tmp_path)
        assert caught.value.hint == "it has: arm64, s390x"
    shutil.rmtree(tmp_path / "work")
    building.run(folder, tmp_path / "work", tmp_path / "cache")  # and without any registry


def push(layout: Path, to: str) -> str:
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", to], check=True)
    return json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


def index(url: str, platforms: dict[str, str]) -> None:
    media = "application/vnd.oci.image.index.v1+json"
    manifests = []
    for arch, digest in platforms.items():
        head = urllib.request.Request(
            f"{url.rpartition('/')[0]}/{digest}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
        )
        with urllib.request.urlopen(head) as answer:
            size = len(answer.read())
        one = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size}
        manifests.append({**one, "platform": {"os": "linux", "architecture": arch}})
    body = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": manifests}).encode()
    put = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": media})
    urllib.request.urlopen(put).close()


# Which images a Dockerfile needs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM debian:12", ["debian:12"]),
        ("from --platform=linux/amd64 debian:12 as base\nFROM base\n", ["debian:12"]),
        ("FROM scratch\nCOPY --from=busybox:1 /bin/sh /", ["busybox:1"]),
        ("FROM a AS x\nFROM b\nCOPY --from=x / /\nCOPY --from=0 / /\n", ["a", "b"]),
        ("FROM a\nRUN --mount=type=bind,from=c/d:1,target=/x true", ["a", "c/d:1"]),
        ("ARG V=12\nARG N=debian\nFROM ${N}:${V}\n", ["debian:12"]),
        ("ARG V\nFROM debian:${V:-13}\n", ["debian:13"]),
        ('ARG V="12"\nFROM "debian:$V"\n', ["debian:12"]),
        ("# escape=`\nFROM `\n  debian:12\n", ["debian:12"]),
        ("FROM \\\n# a comment\n  debian:12\n", ["debian:12"]),
        ("FROM a\nRUN <<EOF\nFROM not:an-image\nEOF\nRUN x\n", ["a"]),
        ("FROM a\nRUN echo \\\n FROM b\n", ["a"]),
        ("ARG\tV=12\nFROM\tdebian:$V\n", ["debian:12"]),
        ("FROM a\nRUN true \\\n" + "  x \\\n" * 50_000, ["a"]),
        ("FROM a\n\\", ["a"]),
        ("FROM a\nRUN " + "--mount=" * 50_000 + "\nRUN echo --from=b --mount=type=bind,from=c\n", ["a"]),
    ],
)
def test_the_images_of_a_dockerfile(text: str, expected: list[str]) -> None:
    assert [image for _, image in instructions.images(text, {})] == expected


def test_options_win_over_the_defaults_of_arg() -> None:
    assert instructions.images("ARG V=1\nFROM a:$V", {"V": "2"}) == [("a:$V", "a:2")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN true\n", "has no FROM"),
        ("ARG B\nFROM ${B}\n", r"Dockerfile:2: FROM \$\{B\} has no value"),
        ("FROM a b c\n", "Dockerfile:1: not an image"),
        ("", "has no FROM"),
        ("FROM a \\", ""),
        ("ARG A0=x\n" + "".join(f"ARG A{n + 1}=$A{n}$A{n}\n" for n in range(60)) + "FROM $A60\n", "longer than 4096"),
    ],
)
def test_a_dockerfile_whose_images_cannot_be_told_is_refused(text: str, expected: str) -> None:
    if not expected:
        assert instructions.images(text, {}) == [("a", "a")]
        return
    with pytest.raises(RecipeError, match=expected):
        instructions.images(text, {})


@pytest.mark.skopeo
@pytest.mark.parametrize("image", ["oci:../outside", "oci-archive:/etc/passwd", "containers-storage:x", "oci:missing"])
def test_a_base_outside_of_the_recipe_is_refused(folder: Path, tmp_path: Path, image: str) -> None:
    building.base_layout(tmp_path / "outside")
    change(folder, "ARG BASE=oci:base.oci", f"ARG BASE={image}")
    with pytest.raises(ComputeOpsErrors):
        pin(folder, tmp_path)


ComputeOpsErrors = (RecipeError, build.sources.NetworkError)


def test_the_files_of_the_cache_can_be_read_in_the_box(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    before = os.umask(0o077)
    try:
        place = build.Place(work=tmp_path, cache=tmp_path / "cache")
        (material,) = build.sources.pin(tmp_path, _with_path(tmp_path), place)
        file = build.sources.fetch([material], tmp_path, place)[material]
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755


def _with_path(folder: Path):
    head = '[package]\nname = "a"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\n[build]\nbuilder = "dockerfile"\nfile = "Dockerfile"\n'
    (folder / "computeops.toml").write_text(head + '[[sources]]\npath = "data"\n')
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return load(folder)
