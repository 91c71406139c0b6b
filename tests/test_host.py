"""What this machine offers, and whether an image fits it or one that was described."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import containers
import releases
from computeops.errors import UsageError
from computeops.host import Needs, cpu, gpu, needs, site
from computeops.host.look import look
from computeops.host.model import Gpu, Host, Mpi
from computeops.host.verdict import fit, holds
from computeops.image import convert, oci
from computeops.image.tree import Directory

CLUSTER = Host(
    arch="amd64",
    cpu="haswell",
    cpu_levels=("haswell", "x86_64_v3", "x86_64_v2", "x86_64"),
    gpus=(Gpu(vendor="nvidia", name='NVIDIA "A100"', device="/dev/nvidia0"),),
    nvidia_driver="535.104.05",
    cuda="12.2",
    mpi=(Mpi(family="openmpi", version="4.1", library="/usr/lib/libmpi.so.40.30.4"),),
    kernel="4.18.0-553.el8",
    glibc="2.28",
    engines=("apptainer",),
)


def computeops(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "computeops", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})


def verdicts(host: Host = CLUSTER, **wanted) -> dict[str, bool | None]:
    return {one.what: one.fits for one in fit(Needs(**wanted), host)}


def test_this_machine_is_as_other_programs_see_it() -> None:
    archspec = pytest.importorskip("archspec.cpu")
    found = look({"PATH": os.environ["PATH"]})
    assert (found.kernel, found.cores) == (platform.release(), len(os.sched_getaffinity(0)))
    assert found.cpu == archspec.host().name
    assert set(map(str, archspec.host().ancestors)) < set(found.cpu_levels)
    assert found.glibc == ".".join(platform.libc_ver()[1].split(".")[:2])
    assert not found.display
    assert look({"DISPLAY": ":0"}).display


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_the_levels_are_those_of_archspec() -> None:
    from archspec.cpu import TARGETS

    for name, features in cpu.LEVELS.items():
        assert features == TARGETS[name].features - {"sse3"}, name  # which the kernel calls pni, and ssse3 implies
    flags = set(cpu.features())
    assert [name for name in cpu.LEVELS if not cpu.lacking(name)] == [n for n, f in cpu.LEVELS.items() if f <= flags]
    assert cpu.executes("x86_64")
    assert not cpu.executes("power9le")
    assert not cpu.executes("no-such-cpu")
    assert cpu.lacking("x86_64_v4", cpu.LEVELS["x86_64_v3"]) == (
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512vl",
    )


def test_gpus_are_read_from_the_files_of_their_drivers(tmp_path: Path) -> None:
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\nDevice Minor: \t 3\n")
    (tmp_path / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"
    )
    for name, vendor, driver in (
        ("a", "0x1002", "amdgpu"),
        ("b", "0x8086", "i915"),
        ("c", "0x10ee", ""),
        ("d", "0x8086", "e1000"),
    ):
        pci = tmp_path / "sys/bus/pci/devices" / name
        pci.mkdir(parents=True)
        (pci / "vendor").write_text(f"{vendor}\n")
        if driver:
            (pci / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
    found = [(one.vendor, one.name, one.device) for one in gpu.gpus(tmp_path)]
    assert found[0] == ("nvidia", "NVIDIA H100 80GB HBM3", "/dev/nvidia3")
    assert [vendor for vendor, *_ in found] == ["nvidia", "amd", "intel", "xilinx"]
    assert gpu.nvidia_driver(tmp_path) == "550.54.15"
    open_kernel = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(open_kernel)
    assert gpu.nvidia_driver(tmp_path) == "580.65.06"
    assert [gpu.cuda(one) for one in ("550.54.15", "525.1", "440.33", "999.1", "", "x")] == [
        "12.4",
        "12.0",
        "",
        "13.3",
        "",
        "",
    ]
    assert gpu.driver_for("12.0") == "525"


@pytest.mark.parametrize(
    ("constraint", "version", "answer"),
    [
        (">=525", "535.104.05", True),
        (">=525,<530", "535.104.05", False),
        ("openmpi>=4", "4.1", True),
        ("openmpi>=5", "4.1", False),
        ("==4.1", "4.1.6", True),
        (">4", "4.1", False),
        ("<=10.9", "10.10", False),
        (">=4", "kernel", None),
        ("", "1", True),
    ],
)
def test_ranges_of_versions(constraint: str, version: str, answer: bool | None) -> None:
    assert holds(constraint, version) is answer


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"arch": "amd64"}, {"architecture": True}),
        ({"arch": "arm64", "cpu": "neoverse_n1"}, {"architecture": False}),
        ({"cpu": "x86_64_v3"}, {"cpu": True}),
        ({"cpu": "x86_64_v4"}, {"cpu": False}),
        ({"cpu": "zen3"}, {"cpu": False}),
        ({"kernel": "3.2.0"}, {"kernel": True}),
        ({"kernel": "5.10.0"}, {"kernel": False}),
        ({"gpu": "nvidia", "driver": ">=525"}, {"gpu": True, "driver": True}),
        ({"gpu": "nvidia", "driver": ">=550"}, {"gpu": True, "driver": False}),
        ({"gpu": "amd"}, {"gpu": False}),
        ({"cuda": "12.4.1"}, {"cuda": True}),
        ({"cuda": "13.0"}, {"cuda": False}),
        ({"mpi": "openmpi>=4"}, {"mpi": True}),
        ({"mpi": "openmpi>=5"}, {"mpi": False}),
        ({"mpi": "mpich"}, {"mpi": False}),
        ({"x11": True}, {"x11": False}),
        ({}, {}),
    ],
)
def test_a_described_machine(wanted: dict, answer: dict[str, bool | None]) -> None:
    assert verdicts(**wanted) == answer


def test_a_family_of_mpi_is_its_abi() -> None:
    host = msgspec.structs.replace(CLUSTER, mpi=(Mpi(family="mpich"),), gpus=(), nvidia_driver="")
    assert verdicts(host, mpi="intelmpi") == {"mpi": True}
    assert verdicts(host, mpi="mvapich2>=2") == {"mpi": None}
    assert verdicts(host, mpi="openmpi") == {"mpi": False}
    assert verdicts(host, gpu="nvidia", driver=">=525") == {"gpu": False, "driver": False}


def test_a_machine_without_engine_and_namespaces_runs_nothing() -> None:
    bare = msgspec.structs.replace(CLUSTER, engines=())
    assert verdicts(bare) == {"engine": False}


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    for host in (CLUSTER, look({"PATH": os.environ["PATH"]})):
        file.write_text(site.dump(host))
        assert site.load(file) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "arch = 1",
        "arch = 'amd64'\nnonsense = 1",
        "arch = 'amd64'\ngpus = [1]",
        "arch =",
        "a = " + "[" * 9999,
        b"\xff",
    ],
)
def test_what_describes_no_machine(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        site.load(file)
    assert "bad.toml" in caught.value.message
    with pytest.raises(UsageError):
        site.load(tmp_path / "none.toml")


def image(folder: Path, **labels) -> Path:
    """A small SIF with what the recipe would say."""
    tree = containers.root_filesystem(folder / "tree")
    described = oci.Description("amd64", labels=needs.labels(**labels), env={"PATH": "/bin"})
    convert.pack(Directory(tree), described, to_sif=folder / "x.sif", writer=convert.Writer(level=1), epoch=0)
    return folder / "x.sif"


@pytest.mark.squashfs
def test_fit_says_at_once_what_is_missing_and_where(tmp_path: Path) -> None:
    sif = image(tmp_path, cpu="x86_64_v4", gpu="nvidia", driver=">=999", mpi="openmpi>=4", x11=True)
    file = tmp_path / "cluster.toml"
    file.write_text(site.dump(CLUSTER))
    began = time.process_time()
    done = computeops("fit", "--site", file, "--json", sif)
    assert time.process_time() - began < 1
    assert done.returncode == 13, done.stderr
    told = json.loads(done.stdout)
    assert {one["what"]: one["fits"] for one in told["findings"]} == {
        "architecture": True,
        "kernel": True,
        "cpu": False,
        "gpu": True,
        "driver": False,
        "mpi": True,
        "x11": False,
    }
    assert told["needs"]["glibc"]
    text = computeops("fit", "--site", file, sif).stdout
    assert "the site must update the GPU driver" in text
    assert text.endswith("it does not fit\n")


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "9" * 100_000, ">=" * 5000, "openmpi>=" + "9" * 5000, "", 7, None, "\u202enoise", "a b", ">=1,<"],
)
def test_labels_of_strangers_do_no_harm(text: object) -> None:
    labels = dict.fromkeys(needs.labels(cpu="x", gpu="x", driver="x", mpi="x", x11=True), text)
    asked = Needs.of("amd64", labels, {"CUDA_VERSION": text if isinstance(text, str) else ""}, b"GNU C Library \xff")
    for one in fit(asked, CLUSTER):
        assert one.needs.isprintable()
        assert len(one.needs) <= 100
    odd = msgspec.structs.replace(CLUSTER, kernel="9" * 5000, nvidia_driver="." * 5000, cuda="x")
    assert fit(asked, odd)


@pytest.mark.squashfs
def test_what_asks_for_nothing_fits(tmp_path: Path) -> None:
    done = computeops("fit", image(tmp_path), env={"XDG_CACHE_HOME": str(tmp_path)})
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "it fits"), done.stderr
    missing = computeops("fit", tmp_path / "none.sif")
    assert missing.returncode == 5


@pytest.mark.squashfs
@pytest.mark.parametrize("form", ["sif", "tree"])
def test_an_image_for_another_cpu_is_not_started(tmp_path: Path, form: str) -> None:
    sif = image(tmp_path, cpu="power9le")
    if form == "tree":
        subprocess.run(
            ["unsquashfs", "-q", "-o", "32768", "-d", tmp_path / "root", sif], check=True, capture_output=True
        )
    path = sif if form == "sif" else tmp_path / "root"
    for _ in range(2):  # the second time it is remembered
        done = computeops("exec", path, "true", env={"XDG_CACHE_HOME": str(tmp_path)})
        assert done.returncode == 125
        assert "was built for CPUs of power9le" in done.stderr
    if form == "sif":
        environ = {"XDG_CACHE_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
        done = computeops("submit", path, "--on", "local", env=environ)
        assert (done.returncode, done.stdout) == (125, "")


@pytest.mark.squashfs
def test_an_image_for_this_cpu_is_started(tmp_path: Path) -> None:
    sif = image(tmp_path, cpu=cpu.best() or cpu.name())
    done = computeops("exec", "--engine", "native", sif, "true", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_host_prints_text_json_and_toml(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    told = json.loads(computeops("host", "--json", env=environ).stdout)
    assert told["kernel"] == platform.release()
    file = tmp_path / "here.toml"
    file.write_text(computeops("host", "--toml", env=environ).stdout)
    assert site.load(file).kernel == platform.release()
    assert platform.release() in computeops("host", env=environ).stdout


@pytest.mark.squashfs
def test_a_release_in_a_hub_is_judged_without_being_pulled(hub, tmp_path: Path) -> None:
    made, _ = releases.release(tmp_path / "made")
    name = f"{hub.address}/bio/thing:1.0"
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for words in (["key", "new", "ada"], ["sign", made.sif, "--key", "ada"]):
        assert computeops(*words, env=environ).returncode == 0
    argv = [sys.executable, "-m", "computeops", "login", hub.address, "--token-stdin"]
    subprocess.run(argv, input=hub.token("push:bio/thing").encode(), env={**os.environ, **environ}, check=True)
    assert computeops("push", made.sif, name, env=environ).returncode == 0
    done = computeops("fit", name, env=environ)
    assert done.returncode == 0, done.stderr
    assert "it fits" in done.stdout
    assert not (tmp_path / "cache/computeops/images").exists()
    assert computeops("fit", f"{hub.address}/bio/other:1.0", env=environ).returncode == 5
