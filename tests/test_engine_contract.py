"""One contract for all engines: what goes in and comes out is the same, and what one cannot do is refused with a way out.

The engines that only few tests drive are here too; `test_engine_start` has the finer points of the others.
"""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import containers
from computeops import engine
from computeops.engine.model import ABILITIES

CONTRACT = [
    pytest.param("native", marks=pytest.mark.squashfs),
    pytest.param("apptainer", marks=pytest.mark.apptainer),
    pytest.param("bubblewrap", marks=[pytest.mark.squashfs, pytest.mark.bubblewrap]),
    pytest.param("charliecloud", marks=[pytest.mark.squashfs, pytest.mark.charliecloud]),
    pytest.param("podman", marks=[pytest.mark.squashfs, pytest.mark.podman]),
    pytest.param("docker", marks=[pytest.mark.squashfs, pytest.mark.docker]),
    pytest.param("udocker", marks=[pytest.mark.squashfs, pytest.mark.udocker]),
]
WRAPPERS = [pytest.param("podman-hpc", marks=[pytest.mark.squashfs, pytest.mark.podman, pytest.mark.podman_hpc])]
"""Their options are another engine's: they are tried once."""
every = pytest.mark.parametrize("run", CONTRACT, indirect=True)
SCRIPT = """
echo "env $COLOUR|$SHAPE|$HOST|$PATH"
echo "cwd $(pwd)"
echo "home $HOME $(ls ~/small.sif)"
echo "stdin $(cat)"
echo "rw $(cat /mnt/file)"
echo written > /mnt/new
ls -ln /mnt/new
while read -r line; do echo "account $line"; done < /etc/passwd
echo error >&2
exit 7
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return containers.image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def run(request, scientist, built: Path):
    """`computeops exec --engine E ... IMAGE sh -c SCRIPT`."""
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    launcher = containers.Launcher(scientist)
    containers.set_up(launcher, request.param, lambda: request.getfixturevalue("docker_host"))

    def call(script: str, *options: str | Path, **how):
        return launcher("exec", "--engine", request.param, *options, "small.sif", "/bin/sh", "-c", script, **how)

    call.engine, call.launcher = request.param, launcher
    return call


@pytest.mark.parametrize("run", [*CONTRACT, *WRAPPERS], indirect=True)
def test_what_goes_in_and_comes_out(run) -> None:
    home = run.launcher.home
    data = home / "data"
    data.mkdir()
    (data / "file").write_text("content")
    run.launcher.scientist.own(data)
    options = ["--bind", f"{data}:/mnt", "--env", "SHAPE=two 'words' $x"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"bash -c 'exec >/dev/tcp/127.0.0.1/{server.getsockname()[1]}' || exit 9\n{SCRIPT}"
        done = run(script, *options, stdin=b"input", env={"HOST": "inherited", "COLOUR": "red"})
    assert done.returncode == 7, done.stderr
    assert done.stderr.endswith(b"error\n")
    said = done.stdout.decode().splitlines()
    user = (home / "small.sif").stat().st_uid
    assert said[:5] == [
        "env blue|two 'words' $x|inherited|/usr/bin:/bin",
        f"cwd {home}",
        f"home {home} {home}/small.sif",
        "stdin input",
        "rw content",
    ]
    assert said[5].split()[2] == str(user)
    assert (data / "new").stat().st_uid == user
    assert "account service:x:77:77::/:/bin/false" in said
    assert any(f":x:{user}:" in line for line in said)


@every
def test_the_image_stays_as_it_is(run) -> None:
    run("echo x > /new; echo x > /etc/passwd; echo x > /bin/new")
    for path in (*run.launcher.cache.glob("trees/*/root"), *run.launcher.cache.glob("trees/*/sealed")):
        assert not (path / "new").exists()
        assert not (path / "bin/new").exists()
        assert "service:x:77" in (path / "etc/passwd").read_text()


@every
@pytest.mark.parametrize(
    ("options", "script", "ability"),
    [
        (["--bind", ".:/mnt:ro"], "! echo x > /mnt/new", "read-only binds"),
        (["--writable"], "echo new > /bin/new && cat /bin/new && echo x:x:1:1::/: > /etc/x", "writable"),
        (["--contain"], "echo x > /tmp/contract-x && ! ls ~/small.sif", "isolated"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_those_that_can(run, options: list, script: str, ability: str) -> None:
    done = run(script, *options, cwd=run.launcher.home)
    if ability in engine.load(run.engine).CAN:
        assert done.returncode == 0, done.stderr
        assert not Path("/tmp/contract-x").exists()
        assert not (run.launcher.home / "new").exists()
        assert not [*run.launcher.cache.glob("trees/*/root/bin/new")]
    else:
        assert done.returncode == 125
        assert ABILITIES[ability].encode() in done.stderr
        assert b"these can: native" in done.stderr


@every
def test_it_ends_when_its_process_is_told_to(run) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    argv = ["exec", "--engine", run.engine, "small.sif", "/bin/sh", "-c", script]
    with run.launcher.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read() == b""
        assert child.wait(20) == (9 if run.engine not in {"bubblewrap", "udocker"} else -signal.SIGTERM)


def test_every_built_in_engine_says_what_it_can_do() -> None:
    for name in engine.names():
        one = engine.load(name)
        assert set(ABILITIES) >= one.CAN
        assert {"foreign tree", "sif", "tree"} >= one.TAKES
        assert isinstance(one.BRINGS_GPUS, bool)
        assert isinstance(one.available(), str)
