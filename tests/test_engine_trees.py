"""The cache of unpacked images: made once, whole, by one at a time, and never larger than allowed."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import containers
from computeops import engine
from computeops.engine import trees, unpack
from computeops.errors import FormatError, StorageError

pytestmark = pytest.mark.squashfs
LARGE = 10**12


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return containers.image(tmp_path_factory.mktemp("image"))


def entries(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "trees").iterdir() if p.is_dir() and p.name != "by-file")


def test_a_tree_is_unpacked_once_and_found_again_without_reading_the_file(built: Path, tmp_path: Path) -> None:
    image = tmp_path / "small.sif"
    shutil.copy(built, image)
    first = trees.prepare(image, tmp_path, LARGE)
    assert (first.path / ".singularity.d/runscript").is_file()
    image.chmod(0o755)
    again = trees.prepare(image, tmp_path, LARGE)  # chmod changed a time: read again, unpacked no second time
    assert again.path == first.path
    before = first.path.stat().st_ino
    with image.open("r+b") as file:  # the same bytes, but as the index sees it another file
        file.write(b"#")
    assert trees.prepare(image, tmp_path, LARGE).path.stat().st_ino == before
    assert len(entries(tmp_path)) == 1


def test_a_signature_does_not_make_another_tree(built: Path, tmp_path: Path) -> None:
    from computeops.image import sif

    image = tmp_path / "small.sif"
    shutil.copy(built, image)
    first = trees.prepare(image, tmp_path, LARGE)
    sif.add_signature(image, b"signature", bytes(20), 1_700_000_000)
    assert trees.prepare(image, tmp_path, LARGE).path == first.path


def test_another_image_in_the_same_place_is_another_tree(built: Path, tmp_path: Path) -> None:
    image = tmp_path / "small.sif"
    shutil.copy(built, image)
    first = trees.prepare(image, tmp_path, LARGE)
    other = containers.root_filesystem(tmp_path / "other")
    (other / "new").write_text("new")
    containers.packed(other, image)
    second = trees.prepare(image, tmp_path, LARGE)
    assert second.path != first.path
    assert (second.path / "new").read_text() == "new"


def test_nobody_else_may_enter_the_cache(built: Path, tmp_path: Path) -> None:
    trees.prepare(built, tmp_path, LARGE)
    assert (tmp_path / "trees").stat().st_mode & 0o777 == 0o700


def test_two_first_starts_at_once_unpack_once(scientist, built: Path) -> None:
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    launch = containers.Launcher(scientist)
    words = ["exec", "--engine", "native", "small.sif", "/bin/sh", "-c", "echo $0", "started"]
    children = [launch.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    said = [child.communicate(timeout=60) for child in children]
    assert [out for out, _ in said] == [b"started\n"] * 4, said
    assert len(entries(launch.cache)) == 1


def test_killed_while_unpacking_leaves_nothing_that_is_believed(scientist, built: Path) -> None:
    home = scientist.home
    slow = home / "slow/unsquashfs"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n{shutil.which("unsquashfs")} "$@"\necho unpacked >{home}/unpacked\nsleep 60\n')
    slow.chmod(0o755)
    shutil.copy(built, home / "small.sif")
    scientist.own(home)
    launch = containers.Launcher(scientist)
    words = ["exec", "--engine", "native", "small.sif", "/bin/sh", "-c", "echo alive"]
    path = {"PATH": f"{slow.parent}:{os.environ['PATH']}"}
    child = subprocess.Popen(launch.argv(*words), env=launch.env(path), cwd=home, start_new_session=True)
    for _ in range(400):
        if (home / "unpacked").exists():
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(20)
    assert all(name.startswith(".new-") for name in entries(launch.cache))
    assert launch(*words).stdout == b"alive\n"
    assert [name for name in entries(launch.cache) if name.startswith(".")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small filesystem")
def test_a_full_disk_is_said_and_leaves_nothing(built: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", cache], check=True)
    try:
        with pytest.raises(StorageError) as caught:
            trees.prepare(built, cache, LARGE)
        assert "COMPUTEOPS_CACHE" in caught.value.hint
        assert entries(cache) == []
    finally:
        subprocess.run(["umount", cache], check=True)


@pytest.mark.parametrize("cut", [0, 20, 4096, 40_000, -2000])
def test_a_broken_image_is_refused_and_leaves_nothing(built: Path, tmp_path: Path, cut: int) -> None:
    bad = tmp_path / "bad.sif"
    bad.write_bytes(built.read_bytes()[:cut])
    with pytest.raises(FormatError):
        trees.prepare(bad, tmp_path, LARGE)
    assert not (tmp_path / "trees").exists() or entries(tmp_path) == []


def test_broken_squashfs_inside_a_good_sif_is_refused(built: Path, tmp_path: Path) -> None:
    broken = bytearray(built.read_bytes())
    broken[32768 + 96 : 32768 + 4096] = b"\xff" * 4000
    bad = tmp_path / "bad.sif"
    bad.write_bytes(broken)
    with pytest.raises(FormatError):
        trees.prepare(bad, tmp_path, LARGE)
    assert entries(tmp_path) == []


def three(built: Path, tmp_path: Path) -> list[Path]:
    """Three images, used one after the other."""
    images = []
    for number in range(3):
        tree = tmp_path / f"tree{number}"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin/file").write_bytes(os.urandom(200_000))
        images.append(containers.packed(tree, tmp_path / f"{number}.sif"))
    return images


def released(prepare, *arguments) -> str:
    """Prepare in a process that ends, so that the tree is not in use afterwards."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, os.fsencode(prepare(*arguments).path.parent.name))
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as file:
        return file.read()


def test_what_was_not_used_for_longest_goes_first(built: Path, tmp_path: Path) -> None:
    one, two, three_ = three(built, tmp_path)
    first = released(trees.prepare, one, tmp_path, LARGE)
    second = released(trees.prepare, two, tmp_path, LARGE)
    released(trees.prepare, one, tmp_path, LARGE)
    size = int((tmp_path / "trees" / first / "bytes").read_text())
    third = released(trees.prepare, three_, tmp_path, 2 * size + size // 2)
    assert entries(tmp_path) == sorted([first, third])
    assert second not in {os.readlink(link) for link in (tmp_path / "trees/by-file").iterdir()}


def test_a_tree_in_use_is_never_removed(scientist, built: Path) -> None:
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    launch = containers.Launcher(scientist)
    for name in ("native", "apptainer", "bubblewrap"):
        if engine.available(name):
            continue
        image = scientist.home / ("small.oci" if name == "apptainer" else "small.sif")
        if name == "apptainer":
            shutil.copytree(built.with_name("small.oci"), image)
            scientist.own(image)
        words = ["exec", "--engine", name, image, "/bin/sh", "-c", "echo in; read line; cat /etc/passwd"]
        with launch.start(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"in\n"
            unpack.evict(launch.cache / "trees", 0)
            said, _ = child.communicate(b"\n", timeout=20)
            assert b"root:x:0:0" in said, name
    unpack.evict(launch.cache / "trees", 0)
    assert entries(launch.cache) == []


def test_folders_that_nobody_may_write_can_be_removed(tmp_path: Path) -> None:
    deep = tmp_path / "tree/a/b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    for folder in (deep, deep.parent):
        folder.chmod(0)
    unpack.remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_a_lock_file_alone_is_no_tree(built: Path, tmp_path: Path) -> None:
    made = trees.prepare(built, tmp_path, LARGE)
    shutil.rmtree(made.path.parent)
    assert trees.prepare(built, tmp_path, LARGE).path.is_dir()


def test_the_lock_lasts_as_long_as_the_container(built: Path, tmp_path: Path) -> None:
    made = trees.prepare(built, tmp_path, LARGE)
    with open(made.path.parent.with_name(made.path.parent.name + ".lock")) as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
