"""convert and inspect as real processes: what they print, refuse, and leave behind when they are stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import oci_images
from computeops.errors import INTERRUPTED, ConflictError, FormatError, NotFoundError, StorageError

pytestmark = pytest.mark.squashfs
COMPUTEOPS = [sys.executable, "-m", "computeops"]
BAD = Path(__file__).parent / "bad/image"
LAYERS: list[list[oci_images.Member]] = [
    [("data", "file", os.urandom(300_000))],
    [("etc", "dir"), ("etc/x", "file", b"x")],
]


def run(*words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COMPUTEOPS_LEVEL": "1", **environ}
    return subprocess.run([*COMPUTEOPS, *map(str, words)], env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    config = {"Env": ["A=b"], "Entrypoint": ["tool"], "Labels": {"title": "\x1b[31mred"}}
    return oci_images.archive(oci_images.image(LAYERS, config=config, compression="gzip"), tmp_path / "in.tar")


def test_convert_says_what_it_wrote_and_inspect_the_same(archive: Path, tmp_path: Path) -> None:
    done = run("convert", archive, tmp_path / "x.sif", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads(done.stdout)
    assert (written["form"], written["arch"]) == ("sif", "amd64")
    shown = json.loads(run("inspect", tmp_path / "x.sif", "--json").stdout)
    assert shown["digests"] == written["digests"]
    assert (shown["lossless"], shown["recipe"], shown["signatures"], shown["verified"]) == (True, False, [], False)
    assert shown["env"]["A"] == "b"
    assert [one["name"] for one in shown["parts"]] == ["rootfs", "oci-config.json"]
    text = run("inspect", tmp_path / "x.sif").stdout
    assert written["digests"]["image"] in text
    assert "\x1b" not in text


def test_it_never_replaces_what_is_there_unless_it_is_told_to(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("precious")
    done = run("convert", archive, tmp_path / "x.sif")
    assert done.returncode == ConflictError.exit_code
    assert "--force" in done.stderr
    assert (tmp_path / "x.sif").read_text() == "precious"
    assert run("convert", archive, tmp_path / "x.sif", "--force").returncode == 0
    assert (tmp_path / "x.sif").read_bytes().startswith(b"#!/usr/bin/env run-singularity")


def test_a_dry_run_writes_nothing(archive: Path, tmp_path: Path) -> None:
    done = run("convert", archive, tmp_path / "x.oci", "--dry-run", "--json")
    assert json.loads(done.stdout)["form"] == "oci"
    assert not (tmp_path / "x.oci").exists()


def test_another_architecture_than_asked_for_is_refused(archive: Path, tmp_path: Path) -> None:
    done = run("convert", archive, tmp_path / "x.sif", "--arch", "arm64")
    assert done.returncode == NotFoundError.exit_code
    assert "is for amd64, not for arm64" in done.stderr


@pytest.mark.parametrize("name", ["encrypted.sif", "ext3.sif", "overlay.sif"])
def test_a_filesystem_that_cannot_be_read_is_shown_and_not_converted(name: str, tmp_path: Path) -> None:
    assert re.search(
        r"problem .*(only squashfs is|changes to the root filesystem are not) read", run("inspect", BAD / name).stdout
    )
    done = run("convert", BAD / name, tmp_path / "x.oci")
    assert done.returncode == FormatError.exit_code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["x.sif", "x.tar", "x.oci"])
@pytest.mark.parametrize("name", ["layer-cut.tar", "layer-bomb.tar", "file-of-2-62-bytes.sqfs"])
def test_a_hostile_image_leaves_nothing(name: str, target: str, tmp_path: Path) -> None:
    done = run("convert", BAD / name, tmp_path / target)
    assert done.returncode in {4, 15}, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["x.sif", "x.tar", "x.oci"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(target: str, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    # A process that may write 100 kB to a file sees the same as one on a disk with 100 kB left.
    limited = ["prlimit", "--fsize=100000", *COMPUTEOPS, "convert", str(archive), str(out / target)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == StorageError.exit_code, done.stderr
    assert done.stderr.count("error:") == 1
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("target", ["x.sif", "x.tar", "x.oci"])
def test_a_small_disk_fills_up(target: str, archive: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=True)
    try:
        done = run("convert", archive, disk / target)
        assert done.returncode == StorageError.exit_code, done.stderr
        assert done.stderr.count("error:") == 1
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("target", ["x.sif", "x.tar", "x.oci"])
def test_an_interrupted_conversion_leaves_nothing(target: str, tmp_path: Path) -> None:
    layers: list[list[oci_images.Member]] = [[("big", "file", os.urandom(2**20) * 60)]]
    archive = oci_images.archive(oci_images.image(layers), tmp_path / "in.tar")
    out = tmp_path / "out"
    argv = [*COMPUTEOPS, "convert", str(archive), str(out / target)]
    child = subprocess.Popen(
        argv, env={**os.environ, "COMPUTEOPS_LEVEL": "19"}, stderr=subprocess.PIPE, text=True, process_group=0
    )
    deadline = time.monotonic() + 30
    while not any(one.is_file() for one in out.rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    _, errors = child.communicate(timeout=30)
    # A Python that is interrupted while it executes generated code (a dataclass) ends by the signal; shells see 130 too.
    assert child.returncode in {INTERRUPTED, -signal.SIGINT}, errors
    assert list(out.iterdir()) == []
    assert "Traceback" not in errors
