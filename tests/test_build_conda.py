"""The conda builder: an environment solved from a channel in a folder, installed where it will lie."""

import asyncio
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.build import conda, conda_locks, scaffold
from computeops.errors import RecipeError
from computeops.recipe import load

pytest.importorskip("rattler", reason="py-rattler is not installed")

RECIPE = """
[package]
name = "tool"
version = "1.0"
summary = "An environment of two packages"
license = "MIT"

[build]
builder = "conda"
file = "environment.yml"
suite = "bookworm"
"""


def recipe(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "environment.yml").write_text(text)
    (folder / "computeops.toml").write_text(RECIPE)
    return folder


def package(channel: Path, name: str, subdir: str, file: str, content: bytes, depends: list[str]) -> None:
    """Write a package of one file that has its prefix in it, and the index of its folder."""
    index = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "depends": depends, "subdir": subdir}
    path = {"_path": file, "path_type": "hardlink", "sha256": hashlib.sha256(content).hexdigest()}
    path |= {"size_in_bytes": len(content), "file_mode": "text", "prefix_placeholder": "/placeholder"}  # type: ignore[dict-item]
    files = {
        file: content,
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": [path]}).encode(),
    }
    folder = channel / subdir
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}-1.0-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for one, data in files.items():
            info = tarfile.TarInfo(one)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    data = archive.read_bytes()
    known = {**index, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    table = {"info": {"subdir": subdir}, "packages": {archive.name: known}, "packages.conda": {}}
    (folder / "repodata.json").write_text(json.dumps(table))


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    made = tmp_path / "channel"
    script = b"#!/bin/sh\n# of /placeholder/bin\necho tool\n"
    package(made, "_tool", "linux-64", "bin/tool", script, ["_data", "__glibc >=2.30,<3"])
    package(made, "_data", "noarch", "share/data", b"from /placeholder\n", [])
    return made


@pytest.mark.mmdebstrap
def test_an_environment_is_locked_and_equal_builds_are_equal(
    request: pytest.FixtureRequest, channel: Path, tmp_path: Path
) -> None:
    assert request.config.cache
    cache = Path(request.config.cache.mkdir("computeops-packages"))
    folder = recipe(tmp_path / "recipe", f"channels: [{channel.as_uri()}]\ndependencies:\n  - _tool =1.0\n")
    lock = build.lock(folder, load(folder), mirror="", pypi="", cache=cache, tmp=tmp_path)
    locked = {one.name: one for one in lock.of_role("conda")}
    assert set(locked) == {"linux-64:_tool-1.0-0.tar.bz2", "noarch:_data-1.0-0.tar.bz2"}
    build.write_lock(folder, lock)
    first = building.look(building.run(folder, tmp_path / "one", cache, jobs=2))
    shutil.rmtree(channel)  # what is locked is in the cache
    there = shutil.copytree(folder, tmp_path / "another place/recipe")
    second = building.look(building.run(there, tmp_path / "two", cache, jobs=1))
    assert {path: about for path, about in second.files.items() if first.files.get(path) != about} == {}
    assert second == first
    assert first.env["PATH"].startswith("/opt/env/bin:")
    assert first.files["opt/env/bin/tool"].startswith("file 755 0:0")
    text = hashlib.sha256(b"from /opt/env\n").hexdigest()[:16]
    assert first.files["opt/env/share/data"].endswith(text)


def test_lint_names_what_any_version_may_be_and_refuses_pip(tmp_path: Path) -> None:
    folder = recipe(
        tmp_path / "a",
        "dependencies:\n  - samtools\n  - bwa =0.7.17\n  - conda-forge::zlib\n  - a>=2\n  - b 1.2 0\n  - c==1.*\n  - d=1\n",
    )
    notes = [one for one in build.lint(folder, load(folder)) if one.startswith("environment.yml")]
    assert notes == [
        "environment.yml names no version of samtools, conda-forge::zlib, a>=2, c==1.*: only the lock pins them"
    ]
    folder = recipe(tmp_path / "b", "dependencies:\n  - samtools\n  - pip:\n    - six\n")
    with pytest.raises(RecipeError) as caught:
        build.lint(folder, load(folder))
    assert "builder `python`" in caught.value.hint


@pytest.mark.parametrize("text", ["[", "dependencies: 3\n", "a: &a [*a]\n", "!!python/object:os.system {}\n", ""])
def test_a_broken_environment_is_the_recipes_fault(tmp_path: Path, text: str) -> None:
    folder = recipe(tmp_path / "a", text)
    with pytest.raises(RecipeError, match=r"environment\.yml: "):
        build.lint(folder, load(folder))


def locks(channel: Path, folder: Path) -> dict[str, Path]:
    """Write what pixi, conda-lock and conda would, each for the two packages of the channel."""
    import rattler

    found = asyncio.run(
        rattler.solve(
            [channel.as_uri()],
            ["_tool"],
            platforms=["linux-64", "noarch"],
            virtual_packages=[
                rattler.GenericVirtualPackage(
                    rattler.PackageName("__glibc"), rattler.Version("2.36"), rattler.BuildString("0")
                )
            ],
        )
    )
    written = {name: folder / name for name in ("pixi.lock", "conda-lock.yml", "explicit.txt")}
    pixi = rattler.LockFile([rattler.LockPlatform("linux-64")])
    pixi.set_channels("default", [rattler.LockChannel(channel.as_uri())])
    for one in found:
        pixi.add_conda_package("default", rattler.LockPlatform("linux-64"), one)
    pixi.to_path(written["pixi.lock"])
    packages = [
        {"name": str(one.name), "manager": "conda", "platform": platform, "url": str(one.url), "hash": {"sha256": sum_}}
        for one in found
        for platform, sum_ in (("linux-64", one.sha256.hex()), ("osx-64", "0" * 64))
    ]
    written["conda-lock.yml"].write_text(json.dumps({"version": 1, "package": packages}))  # JSON is YAML
    lines = [f"{one.url}#{one.sha256.hex()}" for one in found]
    written["explicit.txt"].write_text("\r\n".join(["# platform: linux-64", "@EXPLICIT", *lines, ""]))
    return written


def test_what_other_tools_locked_is_taken_as_it_is(channel: Path, tmp_path: Path) -> None:
    written = locks(channel, tmp_path)
    names = ["linux-64:_tool-1.0-0.tar.bz2", "noarch:_data-1.0-0.tar.bz2"]
    sums = [hashlib.sha256((channel / one.replace(":", "/")).read_bytes()).hexdigest() for one in names]
    for file in written.values():
        assert conda_locks.is_one(file)
        found = sorted(conda_locks.read(file), key=lambda one: one.name)
        assert [one.name for one in found] == names
        assert [one.digest.hex for one in found] == sums
        assert {one.role for one in found} == {"conda"}
    folder = tmp_path / "recipe"
    scaffold.write(folder, scaffold.files("tool", scaffold.builder_of(written["pixi.lock"]), written["pixi.lock"]))
    assert load(folder).build.file == "pixi.lock"
    assert not [one for one in build.lint(folder, load(folder)) if "names no version" in one]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "explicit.txt",
            "@EXPLICIT\nhttps://x.org/noarch/a-1-0.conda#0123456789abcdef0123456789abcdef\n",
            "no package",
        ),
        ("explicit.txt", "@EXPLICIT\nhttps://x.org/noarch/../../a#" + "0" * 64, "no package"),
        ("explicit.txt", "@EXPLICIT\n", "no packages for"),
        ("conda-lock.yml", "package: [{platform: linux-64, manager: pip, name: six}]", "six is no package of conda"),
        ("conda-lock.yml", "package: [{platform: linux-64, manager: conda, url: 3, hash: 4}]", "not what conda-lock"),
        ("conda-lock.yml", "package: [{platform: linux-64, manager: conda, url: a/b/c, hash: {sha256: x}}]", "c: "),
        ("conda-lock.yml", "[", "conda-lock.yml: "),
        ("pixi.lock", "version: 99\n", "pixi.lock: "),
        ("pixi.lock", "x", "pixi.lock: "),
    ],
)
def test_a_broken_lock_is_the_recipes_fault(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(RecipeError, match=re.escape(said)):
        conda_locks.read(tmp_path / file)


def test_what_cannot_be_solved_says_why(channel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="missing"):
        asyncio.run(conda._solve([channel.as_uri()], ["missing"], "2.36"))
