"""What a build may take: each bound ends the step, with all that it began, and says which one it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from computeops.errors import DeniedError, FormatError, LimitError, UsageError
from computeops.hub.worker import addresses
from computeops.hub.worker.unpack import unpack
from conftest import Scientist
from worksite import archive_of, python_for

PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
from computeops.hub.pipelines.words import Bounds
from computeops.hub.worker import cage

folder = Path(sys.argv[1])
folder.mkdir()
most = dict(seconds=30, memory=192, disk=64, log_bytes=1000, processes=120)

def hang():
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; setsid sleep 777 & sleep 777"])
    time.sleep(777)

def fork():
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(1)

def memory():
    subprocess.run([sys.executable, "-c", "x = bytearray(1 << 28); import time; time.sleep(777)"])
    grown = []
    for _ in range(2000):
        grown.append(subprocess.Popen([sys.executable, "-c", "x = b'1' * (60 << 20); import time; time.sleep(777)"]))
        time.sleep(0.01)

def disk():
    for number in range(1000):
        (folder / str(number)).write_bytes(b"1" * (4 << 20))
        time.sleep(0.01)

def file():
    with (folder / "one").open("wb") as one:
        for _ in range(100):
            one.write(b"1" * (1 << 20))

def good():
    print("good", flush=True)

found = {}
for step, more in ((good, {}), (hang, {"seconds": 1}), (fork, {"memory": 1 << 14}), (memory, {}), (disk, {}), (file, {})):
    bounds = Bounds(**{**most, **more})
    code, reason = cage.run(step, folder.parent / "log", folder, bounds)
    found[step.__name__] = [code, reason, sum(1 for _ in cage._descendants(os.getpid()))]
    for one in folder.iterdir():
        one.unlink()
print(json.dumps(found))
"""


def test_each_bound_ends_a_step_with_all_that_it_began(scientist: Scientist) -> None:
    program = scientist.home / "program.py"
    program.write_text(PROGRAM)
    python, env = python_for(scientist)
    done = scientist.run([python, program, scientist.home / "work"], env=env)
    found = json.loads(done.stdout.splitlines()[-1])
    assert (scientist.home / "log").read_text().startswith("good\n")
    assert found["good"] == [0, "", 0]
    assert found["hang"] == [-9, "it took longer than 1 seconds", 0]
    assert found["fork"] == [-9, "it has more than 120 processes", 0]
    assert found["memory"] == [-9, "it uses more than 192 MiB of memory", 0]
    assert found["disk"] == [-9, "it wrote more than 64 MiB", 0]
    assert found["file"][0] != 0  # one file that is too large: the kernel itself stops it
    assert found["file"][2] == 0


def test_sources_come_from_the_web_and_nothing_of_this_machine() -> None:
    addresses.require(["path:build.sh", "oci:base.oci", "docker://debian:12"], private=False)
    for bad in (
        "file:///etc/passwd",
        "copy:/etc/passwd",
        "git+ssh://x/y",
        "git+file:///srv/x",
        "ftp://x/y",
        "/etc/passwd",
    ):
        with pytest.raises(DeniedError, match="takes nothing from"):
            addresses.require([bad], private=True)
    for inside in (
        "docker://127.0.0.1:5000/x",
        "http://127.0.0.1/x",
        "git+https://localhost/x",
        "https://[::1]/x",
        "http://169.254.169.254/latest",
    ):
        with pytest.raises(DeniedError, match="not a public address"):
            addresses.require([inside], private=False)
    addresses.require(["copy:/srv/mirror/pool/a.deb"], private=False, own=["file:///srv/mirror"])
    with pytest.raises(DeniedError):
        addresses.require(["copy:/srv/mirror/../../etc/passwd"], private=False, own=["file:///srv/mirror"])


@pytest.mark.parametrize(
    "members",
    [
        [("../out", "f", "")],
        [("a/../../out", "f", "")],
        [("link", "l", "/etc")],
        [("link", "l", "../..")],
        [("link", "l", "sub"), ("link/../../x", "f", "")],
        [("dev", "d", "")],
        [("hard", "h", "/etc/passwd")],
        [("twice", "f", ""), ("twice", "f", "")],
    ],
)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, members: list[tuple[str, str, str]]) -> None:
    into = tmp_path / "a/b/into"
    with pytest.raises((FormatError, OSError)):
        unpack(archive_of(tmp_path / "x.tar", members), into, most_bytes=1 << 20)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(into)}
    assert outside == {tmp_path / "a", tmp_path / "a/b", tmp_path / "x.tar"}


def test_an_archive_has_a_size(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.tar", [("big", "f", "1" * 2000)])
    with pytest.raises(LimitError):
        unpack(archive, tmp_path / "into", most_bytes=1999)
    unpack(archive, tmp_path / "into", most_bytes=2000)
    assert (tmp_path / "into/big").read_text() == "1" * 2000


def test_a_worker_is_not_root_and_keeps_its_key_where_no_build_looks(scientist: Scientist) -> None:
    python, env = python_for(scientist)
    words = ["-m", "computeops", "hub", "worker", "http://127.0.0.1:9", "--state"]
    token = {**env, "COMPUTEOPS_WORKER_TOKEN": "x"}
    seen = scientist.run([python, *words, "/opt/worker"], env=token, check=False)
    assert (seen.returncode, b"builds could read /opt/worker" in seen.stderr) == (2, True), seen.stderr
    if os.geteuid() == 0:
        argv = [sys.executable, *words, str(scientist.home / "w")]
        done = subprocess.run(argv, env={**os.environ, **token}, capture_output=True, check=False)
        assert (done.returncode, b"does not run as root" in done.stderr) == (UsageError.exit_code, True)
