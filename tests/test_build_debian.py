"""The Debian builder: real installations from the machine's mirror, as root and as an ordinary user.

The packages are fetched once and kept in pytest's cache, so only the first run needs the mirror.
"""

import os
import shutil
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.errors import BuildError, MissingProgramError, RecipeError
from computeops.recipe import load
from conftest import Scientist

pytestmark = pytest.mark.mmdebstrap


@pytest.fixture(scope="module")
def pinned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[build.Lock, Path]:
    """The lock of the recipe, and a cache with all that it names, in a place that everyone can read."""
    assert request.config.cache
    kept = Path(request.config.cache.mkdir("computeops-packages"))
    folder = building.RECIPES / "debian"
    tmp = tmp_path_factory.mktemp("lock")
    lock = build.lock(folder, load(folder), mirror="", pypi="", cache=kept, tmp=tmp)
    build.sources.fetch(lock.materials, folder, build.Place(work=tmp, cache=kept))
    return lock, kept


@pytest.fixture
def folder(pinned: tuple[build.Lock, Path], tmp_path: Path) -> Path:
    folder = building.copy_recipe("debian", tmp_path / "recipe")
    build.write_lock(folder, pinned[0])
    return folder


def script(folder: Path, text: str, lock: build.Lock) -> None:
    """Give the recipe another build.sh, with the same packages."""
    (folder / "build.sh").write_text(text)
    build.write_lock(folder, build.Lock(lock.builder, build.inputs(folder, load(folder)), lock.materials, lock.options))


def test_the_lock_names_every_package_with_its_digest_and_what_is_removed(pinned: tuple[build.Lock, Path]) -> None:
    lock, _ = pinned
    names = {one.name.partition("_")[0] for one in lock.of_role("package")}
    assert {"busybox-static", "tcc", "libc6", "dpkg"} <= names
    removed = lock.options["removed"]
    assert "tcc" in removed
    assert "libc6" not in removed
    assert all(one.uri.startswith("http") and one.size for one in lock.of_role("package"))


def test_builds_are_equal_whoever_builds_and_where(
    pinned: tuple[build.Lock, Path], folder: Path, tmp_path: Path, scientist: Scientist
) -> None:
    cache = tmp_path / "cache"
    cache.symlink_to(pinned[1])  # as where a home's cache lies on another disk
    mine = building.look(building.run(folder, tmp_path / "work", cache, jobs=2))
    assert mine.command == ["counter"]
    assert mine.files["usr/local/bin/counter"].startswith("file 755 0:0")
    assert mine.files["etc/resolv.conf"].startswith("file 644 0:0 0 ")
    for gone in (
        "usr/src/computeops",
        "usr/bin/tcc",
        "etc/apt/sources.list",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/hostname",
    ):
        assert gone not in mine.files
    there = shutil.copytree(folder, scientist.home / "another folder/recipe")
    os.utime(there / "counter.c", (1, 1))
    cache = shutil.copytree(pinned[1], scientist.home / "cache")
    theirs = building.as_scientist(scientist, scientist.own(there), jobs=1, cache=scientist.own(cache))
    assert {k: v for k, v in theirs.files.items() if mine.files.get(k) != v} == {}
    assert theirs == mine


def test_a_build_file_that_fails_says_why_and_could_not_leave_its_box(
    pinned: tuple[build.Lock, Path], folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    hostile = f"""
perl -e 'mkdir "esc"; chroot "esc" or print "no chroot: $!\\n"'
ls -d {building.RECIPES} {Path.home()}/.bashrc 2>&1 || :
touch {mark} 2>&1 || :
cat /proc/net/dev
wget -T 3 http://deb.debian.org/ 2>&1 || :
grep CapBnd /proc/self/status
echo "host $(cat /proc/sys/kernel/hostname)"
rm -rf /run /var/log /usr/src/computeops/*
ln -s {tmp_path} /run
ln -s {tmp_path} /var/log
echo "the reason is 42"
exit 7
"""
    script(folder, hostile, pinned[0])
    with pytest.raises(BuildError, match="the reason is 42") as caught:
        building.run(folder, tmp_path / "work", pinned[1])
    said = Path(caught.value.hint.rpartition(" ")[2]).read_text()
    assert "host computeops\n" in said
    assert "the build file failed (7)" in caught.value.message
    assert "no chroot: Operation not permitted" in said
    assert "eth0" not in said
    assert said.count("No such file or directory") >= 2
    assert not mark.exists()
    assert folder.is_dir()
    assert not (tmp_path / "work/inside").exists()


def test_links_that_a_build_leaves_lead_nowhere(pinned: tuple[build.Lock, Path], folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    links = "\n".join(
        f"rm -rf {one} && ln -s {precious} {one}" for one in ("/run", "/var/cache/apt", "/etc/hosts", "/root")
    )
    script(folder, f'{links}\necho "$STEP" > /step\ntest "$SOURCE_DATE_EPOCH" = {building.EPOCH}\n', pinned[0])
    seen = building.look(building.run(folder, tmp_path / "work", pinned[1], "twice"))
    assert seen.files["run"].startswith("symlink")
    assert seen.files["etc/hosts"].startswith("file 644 0:0 0 ")
    assert seen.files["step"].split()[3] == "2"
    assert (precious / "file").read_text() == "x"


def test_a_lock_of_another_state_of_the_recipe_is_refused(
    pinned: tuple[build.Lock, Path], folder: Path, tmp_path: Path
) -> None:
    (folder / "build.sh").write_text("true\n")
    with pytest.raises(RecipeError, match="another state of the recipe") as caught:
        building.run(folder, tmp_path / "work", pinned[1])
    assert "computeops lock" in caught.value.hint


def test_a_missing_program_is_told_with_the_line_that_installs_it(
    pinned: tuple[build.Lock, Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingProgramError) as caught:
        building.run(folder, tmp_path / "work", pinned[1])
    assert "install mmdebstrap" in caught.value.hint


def test_line_ends_of_windows_are_told_before_a_shell_meets_them(folder: Path) -> None:
    (folder / "build.sh").write_bytes(b"true\r\n")
    with pytest.raises(RecipeError, match="line ends of Windows"):
        build.lint(folder, load(folder))
