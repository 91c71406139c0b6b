"""What a start takes from this machine: GPU drivers, the way ranks of MPI find each other, the display."""

from pathlib import Path

import pytest

from computeops.engine import gpu, load, machine
from computeops.engine.model import ABILITIES, Bind, Prepared, Request
from computeops.errors import EngineError


def request(**more) -> Request:
    return Request(action="exec", argv=("true",), cwd="/", **more)


def test_of_nvidia_devices_driver_and_programs_come_and_nothing_of_opengl(tmp_path: Path) -> None:
    libraries = tmp_path / "usr/lib64"
    for folder in ("usr/lib64", "usr/bin", "dev/dri", "dev/nvidia-caps", "run"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("libcuda.so.550.54", "libnvidia-ml.so.550.54", "libGLX_nvidia.so.550.54", "libGL.so.1", "libGLX.so.0"):
        (libraries / name).touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.550.54")
    for name in ("dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm", "dev/kfd", "usr/bin/nvidia-smi"):
        (tmp_path / name).touch()
    found = {bind.target: bind for bind in gpu.files("nvidia", tmp_path)}
    assert found["/.singularity.d/libs/libcuda.so.1"].source == libraries / "libcuda.so.550.54"
    assert found["/.singularity.d/libs/libcuda.so.1"].read_only
    assert {"/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-caps", "/usr/bin/nvidia-smi"} < set(found)
    assert not found["/dev/nvidia0"].read_only
    assert not any("libGL.so" in one or "libGLX.so" in one for one in found)
    assert [bind.target for bind in gpu.files("amd", tmp_path)] == ["/dev/kfd", "/dev/dri"]


@pytest.mark.parametrize(
    ("wanted", "environ", "how"),
    [
        ("auto", {}, "none"),
        ("auto", {"PMIX_RANK": "0"}, "pmix"),
        ("auto", {"PMI_RANK": "1"}, "pmi"),
        ("auto", {"PMI_FD": "7", "PMIX_RANK": "1"}, "pmix"),
        ("none", {"PMIX_RANK": "0"}, "none"),
    ],
)
def test_a_rank_is_known_by_what_its_launcher_left(wanted: str, environ: dict[str, str], how: str) -> None:
    assert machine.mpi(wanted, environ) == how


def test_a_rank_gets_its_launchers_folders_unless_they_are_seen_anyway(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    environ = {"PMIX_SYSTEM_TMPDIR": "/etc", "SLURM_PMIX_TMPDIR": "/tmp", "UCX_POSIX_USE_PROC_LINK": "y"}
    asked = machine.with_files(request(mpi="pmix"), environ, gpus=False)
    targets = [bind.target for bind in asked.binds]
    assert "/etc" in targets
    assert "/tmp" not in targets
    assert asked.env["OMPI_MCA_smsc"] == "^cma"
    assert "UCX_POSIX_USE_PROC_LINK" not in asked.env, "what the user has set stays"
    alone = machine.with_files(request(mpi="pmix", isolated=True), environ, gpus=False)
    assert "/tmp" in [bind.target for bind in alone.binds]
    assert machine.with_files(request(), environ, gpus=False).binds == ()


def test_without_a_fast_network_nobody_is_warned() -> None:
    assert machine.slow_network({"SLURM_NNODES": "1", "UCX_TLS": "tcp"}) == ""


def test_the_cookie_of_the_display_is_bound_read_only(tmp_path: Path) -> None:
    cookie = tmp_path / "cookie"
    cookie.touch()
    assert Bind(cookie, str(cookie), read_only=True) in machine.display({"XAUTHORITY": str(cookie)})


def test_what_a_request_asks_for() -> None:
    assert request(gpu="auto", mpi="auto").asks == set()
    bind = Bind(Path("/"), "/mnt", read_only=True)
    asked = request(gpu="amd", mpi="pmi", x11=True, isolated=True, home=False, binds=(bind,), writable=True).asks
    assert asked == {one for one in ABILITIES if not one.startswith("gpu ") or one == "gpu amd"}


@pytest.mark.parametrize(("name", "source"), [("charliecloud", "co:lon"), ("podman", "com,ma"), ("podman", 'quo"te')])
def test_names_that_an_engine_cannot_be_told_are_refused(tmp_path: Path, name: str, source: str) -> None:
    for folder in ("etc", "mnt", source):
        (tmp_path / folder).mkdir()
    asked = request(binds=(Bind(tmp_path / source, "/mnt"),), isolated=name == "podman")
    with pytest.raises(EngineError, match=name):
        load(name).argv(Prepared(tmp_path, tmp_path), asked, {"PATH": "/usr/bin:/bin"})


def test_charliecloud_makes_no_place_for_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EngineError, match="no such file"):
        load("charliecloud").argv(Prepared(tmp_path, tmp_path), request(binds=(Bind(file, "/new"),)), {})


def test_podman_names_variables_and_never_shows_their_values(tmp_path: Path) -> None:
    asked = request(env={"TOKEN": "s3cret"})
    words, env = load("podman").argv(Prepared(tmp_path, tmp_path), asked, {"PATH": "/usr/bin:/bin"})
    assert "TOKEN" in words
    assert not any("s3cret" in word for word in words)
    assert env["TOKEN"] == "s3cret"
    assert env["PATH"] == "/usr/bin:/bin"
