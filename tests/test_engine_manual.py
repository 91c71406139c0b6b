"""Engines that no package offers: what is started, by their manuals, through a program that stands in for the command."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import containers
from computeops import engine
from computeops.engine import stores
from computeops.errors import EngineError

RECORDER = """#!/bin/sh
case "$1" in
    --version) exit 0 ;;
    images) cat "{folder}/loaded" 2>/dev/null; exit 0 ;;
    load) cp "$2" "{folder}/archive.tar" && echo "load/library/$3 latest" >"{folder}/loaded"; exit ;;
esac
for word; do printf '%s\\n' "$word"; done >"{folder}/argv"
env >"{folder}/env"
exit 7
"""
pytestmark = pytest.mark.squashfs


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return containers.image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def record(scientist, built: Path) -> Callable[..., list[str]]:
    """`computeops exec --engine E ...` with a stand-in for the command of E; returns the words that it was started with."""
    home = scientist.home
    shutil.copy(built, home / "small.sif")
    (home / "bin").mkdir()
    (home / "data").mkdir()
    launch = containers.Launcher(scientist)
    launch.extra["PATH"] = f"{home}/bin:{os.environ['PATH']}"

    def call(name: str, *options: str, code: int = 7) -> list[str]:
        program = home / "bin" / name
        program.write_text(RECORDER.format(folder=home))
        program.chmod(0o755)
        scientist.own(home)
        words = ["--engine", name, *options, "--env", "SECRET=s3cret", "small.sif", "/bin/sh", "-c", "exit 7"]
        done = launch("exec", *words, env={"HOST": "inherited"})
        assert done.returncode == code, done.stderr
        return (home / "argv").read_text().splitlines() if code == 7 else [done.stderr.decode()]

    return call


def test_shifter_starts_the_unpacked_image(record, scientist) -> None:
    home = scientist.home
    words = record("shifter", "--bind", f"{home}/data:/mnt:ro", "--cwd", "/mnt")
    root = next((home / ".cache/computeops/trees").glob("*/root"))
    assert words[0] == f"--image=local:{root}"
    assert {f"--volume={home}:{home}", "--volume=/tmp:/tmp", f"--volume={home}/data:/mnt:ro", "--workdir=/mnt"} <= {
        *words
    }
    assert words[-3:] == ["/bin/sh", "-c", "exit 7"]
    assert "s3cret" not in " ".join(words)
    assert "HOST=inherited" in (home / "env").read_text()
    assert "cannot bind" in record("shifter", "--bind", f"{home}/data:/etc/x", code=125)[0]
    assert "these can: native" in record("shifter", "--contain", code=125)[0]


@pytest.mark.skopeo
def test_sarus_loads_the_image_once_and_runs_it(record, scientist) -> None:
    home = scientist.home
    words = record("sarus", "--bind", f"{home}/data:/mnt:ro")
    assert words[0] == "run"
    assert f"--mount=type=bind,source={home}/data,destination=/mnt,readonly" in words
    assert f"--workdir={home}" in words
    name = next(word for word in words if word.startswith("load/library/computeops-"))
    assert "s3cret" not in " ".join(words)
    shown = subprocess.run(["skopeo", "inspect", f"docker-archive:{home}/archive.tar"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["Architecture"] == "amd64"
    with tarfile.open(home / "archive.tar") as archive:
        layer = archive.extractfile("layer.tar")
        with tarfile.open(fileobj=layer) as files:
            assert "./etc/passwd" in files.getnames()
            assert {entry.uid for entry in files} == {0}
    (home / "archive.tar").unlink()
    assert name in record("sarus")
    assert not (home / "archive.tar").exists()
    assert "cannot bind" in record("sarus", "--bind", f"{home}/data:/a=b", code=125)[0]


@pytest.mark.docker
def test_the_command_of_kata_is_good_for_docker_with_another_runtime(scientist, built: Path, docker_host: str) -> None:
    home = scientist.home
    shutil.copy(built, home / "small.sif")
    (home / "bin").mkdir()
    (home / 'odd, "name"').mkdir()
    stand_in = f'#!/bin/bash\nexec {shutil.which("docker")} "${{@/io.containerd.kata.v2/io.containerd.runc.v2}}"\n'
    (home / "bin/docker").write_text(stand_in)
    (home / "bin/docker").chmod(0o755)
    scientist.own(home)
    launch = containers.Launcher(scientist)
    launch.extra.update(DOCKER_HOST=docker_host, PATH=f"{home}/bin:{os.environ['PATH']}")
    words = ["exec", "--engine", "kata", "--contain", "--bind", f'{home}/odd, "name":/mnt/a,b', "--env", "X=a 'b' $c"]
    script = 'echo "$X"; echo x > /mnt/a,b/new; echo x > /tmp/new; echo x > /bin/new; exit 7'
    done = launch(*words, "small.sif", "/bin/sh", "-c", script)
    assert done.returncode == 7, done.stderr
    assert done.stdout == b"a 'b' $c\n"
    assert (home / 'odd, "name"/new').stat().st_uid == (home / "small.sif").stat().st_uid
    assert b"/bin/new" in done.stderr
    assert b"/tmp/new" not in done.stderr
    again = launch("exec", "--engine", "kata", "--dry-run", "small.sif", "true")
    assert again.stdout.split().count(b"--runtime=io.containerd.kata.v2") == 1
    assert b"these can: native" in launch("exec", "--engine", "kata", "--x11", "small.sif", "true").stderr


@pytest.mark.docker
def test_a_store_is_not_believed_by_its_names(scientist, built: Path, docker_host: str) -> None:
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    launch = containers.Launcher(scientist)
    launch.extra["DOCKER_HOST"] = docker_host
    words = ["exec", "--engine", "docker", "small.sif", "/bin/sh", "-c", "echo $COLOUR"]
    assert launch(*words).stdout == b"blue\n"
    noted = next((launch.cache / "stored").iterdir())
    of = noted.name.removeprefix("docker-")
    tar = subprocess.run(["tar", "-cf-", "-T/dev/null"], capture_output=True, check=True).stdout
    evil = ["docker", "--host", docker_host, "import", "-", f"computeops/cache:{of}"]
    subprocess.run(evil, input=tar, capture_output=True, check=True)  # another user takes the name
    assert launch(*words).stdout == b"blue\n"
    subprocess.run(
        ["docker", "--host", docker_host, "rmi", "--force", noted.read_text()], capture_output=True, check=True
    )
    assert launch(*words).stdout == b"blue\n"  # handed over again


def test_udocker_does_not_run_a_folder_that_a_program_could_change(built: Path, tmp_path: Path) -> None:
    request = engine.Request(action="exec", argv=("true",))
    with pytest.raises(EngineError, match="would let a program change"):
        engine.plan(built.with_name("tree"), request, engine="udocker", cache=tmp_path, environ={})


def test_a_folder_has_another_key_when_anything_in_it_changes(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    image = engine.Prepared(tmp_path / "root", tmp_path / "root")
    (tmp_path / "root/etc/file").write_text("a")
    before = stores.key(image)
    assert stores.key(image) == before
    (tmp_path / "root/etc/file").chmod(0o600)
    assert stores.key(image) != before
