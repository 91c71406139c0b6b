"""docs/how-to/add-a-builder.md, typed in."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/how-to/add-a-builder.md").read_text()
RECIPE = """
[package]
name = "other"
version = "1"
summary = "A system of somebody else"
license = "MIT"
"""


def block(language: str, containing: str) -> str:
    [found] = [one for one in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in one]
    return str(found)


def test_a_builder_that_is_typed_in_and_installed_builds(tmp_path: Path) -> None:
    package, installed, folder = tmp_path / "rootfs-builder", tmp_path / "installed", tmp_path / "recipe"
    package.mkdir()
    (package / "rootfs.py").write_text(block("python", "def build"))
    (package / "pyproject.toml").write_text(block("toml", "entry-points"))
    assert len((package / "rootfs.py").read_text().splitlines()) < 150
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--target={installed}", str(package)], check=True)

    folder.mkdir()
    system = io.BytesIO()
    with tarfile.open(fileobj=system, mode="w") as tar:
        for name, data in (("bin/hello", b"#!/bin/sh\necho hello\n"), ("var/log/noise", b"1"), ("etc/hostname", b"x")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    packed = tmp_path / "system.tar.gz"
    packed.write_bytes(gzip.compress(system.getvalue()))
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    (folder / "files").mkdir()
    (folder / "files/rootfs.txt").write_text(f"{packed.as_uri()} sha256:{digest}\n")
    build = block("toml", 'builder = "rootfs"').replace('"rootfs.txt"', '"files/rootfs.txt"')
    (folder / "computeops.toml").write_text(RECIPE + build)

    def computeops(*words: object) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        argv = [sys.executable, "-m", "computeops", *map(str, words)]
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False)

    done = computeops("lock", folder)
    assert done.returncode == 0, done.stderr
    assert computeops("lint", folder, "--reproducible").returncode == 0
    done = computeops("build", folder, "--out", tmp_path / "built")
    assert done.returncode == 0, done.stderr
    done = computeops("rebuild", tmp_path / "built/other-1.sif", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identical"]["image"]
    packed.write_bytes(gzip.compress(b"another"))
    done = computeops("build", folder, "--out", tmp_path / "again")
    assert done.returncode == 0  # it is in the cache by its digest
    (folder / "files/rootfs.txt").write_text("https://example.org/x.tar.gz\n")
    done = computeops("lint", folder)
    assert done.returncode == 3
    assert "must be the address" in done.stderr
