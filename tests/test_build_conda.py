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
from computeops.errors import MissingProgramError, RecipeError
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


def package(channel: Path, name: str, subdir: str, contents: dict[str, bytes | str], depends: list[str]) -> None:
    """Write a package of files that have its prefix in them, or of links, and the index of its folder."""
    name, _, version = name.partition(" ")
    version = version or "1.0"
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": depends, "subdir": subdir}
    paths: list[dict[str, object]] = []
    for file, content in contents.items():
        about: dict[str, object] = {"_path": file, "path_type": "softlink" if isinstance(content, str) else "hardlink"}
        if isinstance(content, bytes):
            about |= {"sha256": hashlib.sha256(content).hexdigest(), "size_in_bytes": len(content)}
            about |= {"file_mode": "text", "prefix_placeholder": "/placeholder"}
        paths.append(about)
    files: dict[str, bytes | str] = {
        **contents,
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}).encode(),
    }
    folder = channel / subdir
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for one, data in files.items():
            info = tarfile.TarInfo(one)
            info.mode = 0o755
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = archive.read_bytes()
    known = {archive.name: {**index, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}
    file = folder / "repodata.json"
    known |= json.loads(file.read_bytes())["packages"] if file.exists() else {}
    file.write_text(json.dumps({"info": {"subdir": subdir}, "packages": known, "packages.conda": {}}))


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    made = tmp_path / "channel"
    script = b"#!/bin/sh\n# of /placeholder/bin\necho tool\n"
    package(made, "_tool", "linux-64", {"bin/tool": script}, ["_data", "__glibc >=2.30,<3"])
    package(made, "_data", "noarch", {"share/data": b"from /placeholder\n"}, [])
    # a Python of conda has 30 MB: this one is Debian's, seen through a prefix of its own
    through = {"bin/python": "/usr/bin/python3", "pyvenv.cfg": b"home = /usr/bin\n"}
    package(made, "python 3.11.2", "linux-64", through, [])
    package(made, "six 1.17.0", "noarch", {"share/six": b"here it would be"}, [])
    return made


@pytest.mark.mmdebstrap
def test_an_environment_is_locked_and_equal_builds_are_equal(
    request: pytest.FixtureRequest, channel: Path, tmp_path: Path
) -> None:
    assert request.config.cache
    cache = Path(request.config.cache.mkdir("computeops-packages"))
    wanted = "dependencies:\n  - _tool =1.0\n  - python\n  - six\n  - pip:\n    - python-dateutil==2.9.0.post0\n"
    folder = recipe(tmp_path / "recipe", f"channels: [{channel.as_uri()}]\n{wanted}")
    with (folder / "computeops.toml").open("a") as file:
        file.write('packages = ["python3"]\n')
    try:
        pypi = "https://pypi.org/simple"
        lock = build.lock(folder, load(folder), mirror="", pypi=pypi, cache=cache, tmp=tmp_path)
    except MissingProgramError as error:
        pytest.skip(error.message)
    locked = {one.name: one for one in lock.of_role("conda")}
    assert {"linux-64:_tool-1.0-0.tar.bz2", "noarch:_data-1.0-0.tar.bz2"} <= set(locked)
    # it needs six, which conda has
    assert [one.name.partition("-")[0] for one in lock.of_role("wheel")] == ["pip", "python_dateutil"]
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
    installed = {path.rpartition("site-packages/")[2] for path in first.files if "/site-packages/" in path}
    assert {"dateutil/__init__.py", "dateutil/__pycache__/__init__.cpython-311.pyc"} <= installed
    assert not [one for one in installed if one.startswith(("six", "pip"))]


def test_lint_names_what_any_version_may_be_and_refuses_options_of_pip(tmp_path: Path) -> None:
    folder = recipe(
        tmp_path / "a",
        "dependencies:\n  - samtools\n  - bwa =0.7.17\n  - conda-forge::zlib\n  - a>=2\n  - b 1.2 0\n  - c==1.*\n  - d=1\n",
    )
    notes = [one for one in build.lint(folder, load(folder)) if one.startswith("environment.yml")]
    assert notes == [
        "environment.yml names no version of samtools, conda-forge::zlib, a>=2, c==1.*: only the lock pins them"
    ]
    folder = recipe(
        tmp_path / "b", "dependencies:\n  - samtools=1\n  - pip\n  - pip:\n    - six\n    - attrs==25.3.0\n"
    )
    notes = [one for one in build.lint(folder, load(folder)) if one.startswith("environment.yml")]
    assert notes == ["environment.yml names no version of pip, six: only the lock pins them"]
    for more in ("-r more.txt", "-e .", "--index-url http://evil.example"):
        folder = recipe(tmp_path / more[:2], f"dependencies: [a=1, {{pip: ['{more}']}}]\n")
        with pytest.raises(RecipeError, match="only requirements can be locked"):
            build.lint(folder, load(folder))
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "dependencies: 3\n",
        "dependencies: [{pip: 3}]\n",
        "dependencies: [{pip: [], x: 1}]\n",
        "a: &a [*a]\n",
        "!!python/object:os.system {}\n",
        "",
    ],
)
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
