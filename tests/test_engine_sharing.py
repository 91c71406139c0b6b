"""Unpacked images that a site shares: used by all, believed only of administrators, checked once."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import containers
from conftest import SCIENTIST

pytestmark = [
    pytest.mark.squashfs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root is an administrator whom others believe"),
]
SAY = ["exec", "--engine", "native", "small.sif", "/bin/sh", "-c", "echo $COLOUR; cat /etc/passwd"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    sif = containers.image(folder)
    (folder / "tree/bin/su").write_text("#!/bin/sh\n")
    (folder / "tree/bin/su").chmod(0o4755)
    (folder / "tree/srv").mkdir(mode=0o777)
    (folder / "tree/srv").chmod(0o777)
    return containers.packed(folder / "tree", sif)


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder of root that every user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="site-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def launch(scientist, built: Path, site: Path) -> containers.Launcher:
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    one = containers.Launcher(scientist)
    one.extra["COMPUTEOPS_SHARED"] = str(site / "shared")
    return one


def prepare(launch: containers.Launcher, *options: str, code: int = 0) -> Path:
    """`computeops prepare` by root; returns the tree."""
    argv = launch.argv("prepare", *options, launch.home / "small.sif")
    argv = argv[argv.index("--") + 1 :] if argv[0] == "setpriv" else argv
    done = subprocess.run(argv, env=launch.env({"HOME": "/root"}), capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    return Path(done.stdout.decode().strip()) / "root"


def unpacked(launch: containers.Launcher) -> bool:
    return any(launch.cache.glob("trees/*/root"))


def test_what_an_administrator_prepared_is_used_by_all(launch) -> None:
    root = prepare(launch)
    done = launch(*SAY)
    assert done.returncode == 0, done.stderr
    assert f":x:{(launch.home / 'small.sif').stat().st_uid}:" in done.stdout.decode()
    assert not unpacked(launch)
    assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o755  # nobody becomes root by it
    assert not any(path.lstat().st_mode & 0o022 for path in root.parent.rglob("*") if not path.is_symlink())
    assert prepare(launch) == root
    (launch.home / "small.sif").rename(launch.home / "copy.sif")
    shutil.copy(launch.home / "copy.sif", launch.home / "small.sif")
    launch.scientist.own(launch.home)
    assert launch(*SAY).returncode == 0
    assert not unpacked(launch)


def test_what_was_changed_is_not_run(launch) -> None:
    root = prepare(launch)
    (root / "bin/su").write_text("#!/bin/false\n")
    done = launch(*SAY)
    assert done.returncode != 0
    assert b"was changed" in done.stderr
    assert b"prepare --again" in done.stderr
    prepare(launch, "--again")
    assert launch(*SAY).returncode == 0


@pytest.mark.parametrize("what", ["tree", "entry", "folder", "above", "owner"])
def test_what_others_could_have_put_there_is_not_believed(launch, site: Path, what: str) -> None:
    root = prepare(launch)
    places = {"tree": root, "entry": root.parent, "folder": site / "shared", "above": site, "owner": root.parent}
    if what == "owner":
        shutil.chown(places[what], SCIENTIST)
    else:
        places[what].chmod(0o777)
    assert launch(*SAY).returncode == 0
    assert unpacked(launch)
    launch.extra["COMPUTEOPS_SHARED_OWNERS"] = SCIENTIST
    shutil.rmtree(launch.cache)
    assert launch(*SAY).returncode == 0
    assert unpacked(launch) is (what != "owner")


def test_only_administrators_prepare(launch) -> None:
    done = launch("prepare", "small.sif")
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    launch.extra["COMPUTEOPS_SHARED"] = str(launch.home / "mine")
    assert b"nobody would believe" in launch("prepare", "small.sif").stderr
    launch.extra["COMPUTEOPS_SHARED_OWNERS"] = "nobody-of-this-name"
    assert b"shared_owners" in launch("prepare", "small.sif").stderr
    del launch.extra["COMPUTEOPS_SHARED"]
    assert b"no shared folder is set" in launch("prepare", "small.sif").stderr
