"""GPUs as a machine shows them: made-up devices, drivers and CDI files under a root folder of real files."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from computeops.engine import cdi, demands, gpu, machine
from computeops.engine.model import Request
from computeops.errors import EngineError
from computeops.host import Needs, elf, needs
from computeops.host import gpu as drivers
from computeops.host.model import Gpu, Host
from computeops.host.verdict import fit
from computeops.image import compat, convert, oci
from computeops.image.tree import Directory

NVIDIA = """\
cdiVersion: "0.6.0"
kind: nvidia.com/gpu
containerEdits:
  env: ["NVIDIA_VISIBLE_DEVICES=void"]
  hooks:
    - hookName: createContainer
      path: /usr/bin/nvidia-cdi-hook
  mounts:
    - hostPath: {library}
      containerPath: {library}
      options: [ro, nosuid, nodev, bind]
    - hostPath: /usr/bin/nvidia-smi
      containerPath: /usr/bin/nvidia-smi
      options: [ro]
    - {{hostPath: /run/gone.sock, containerPath: /run/gone.sock}}
devices:
  - name: "0"
    containerEdits: {{deviceNodes: [{{path: /dev/nvidia0}}, {{path: /dev/nvidiactl}}]}}
  - name: "1"
    containerEdits: {{deviceNodes: [{{path: /dev/nvidia1}}]}}
"""


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with two cards of NVIDIA that CDI describes, and a real library as its driver."""
    touch(tmp_path, "dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "usr/bin/nvidia-smi", "etc/cdi/notes.txt")
    real = Path("/lib/x86_64-linux-gnu/libz.so.1").resolve()
    library = tmp_path / "usr/lib/libcuda.so.550.54"
    library.parent.mkdir(parents=True)
    library.write_bytes(real.read_bytes())
    (tmp_path / "etc/cdi/nvidia.yaml").write_text(NVIDIA.format(library="/usr/lib/libcuda.so.550.54"))
    return tmp_path


def test_cdi_says_what_a_device_needs(root: Path) -> None:
    assert cdi.kinds(root) == {"nvidia.com/gpu": ("0", "1")}
    one = cdi.device("nvidia.com/gpu=1", root)
    targets = {bind.target: bind for bind in one.binds}
    assert set(targets) == {
        "/dev/nvidia1",
        "/usr/bin/nvidia-smi",
        "/.singularity.d/libs/libcuda.so.550.54",
        "/.singularity.d/libs/libz.so.1",  # the library's own name, for which NVIDIA's hook makes a link
    }
    assert targets["/usr/bin/nvidia-smi"].read_only
    assert not targets["/dev/nvidia1"].read_only
    assert one.env == {"NVIDIA_VISIBLE_DEVICES": "void"}
    both = {bind.target for bind in gpu.edits("nvidia", root).binds}
    assert {"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"} < both
    with pytest.raises(EngineError, match=r"did you mean 'nvidia.com/gpu=1'"):
        cdi.device("nvidia.com/gpu=2", root)


def test_the_later_folder_wins_and_broken_files_are_passed_over(root: Path) -> None:
    place = root / "var/run/cdi"
    place.mkdir(parents=True)
    spec = {"cdiVersion": "1.0.0", "kind": "nvidia.com/gpu"}
    own = {
        "name": "0",
        "containerEdits": {"env": ["OWN=1", 7], "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/nvidia1"}]},
    }
    (place / "own.json").write_text(json.dumps({**spec, "devices": [own, "none", {"name": 3}]}))
    for name, text in {"a.json": "[" * 9999, "b.yaml": "a: [", "c.json": "[]", "d.json": '{"kind": 1}'}.items():
        (place / name).write_text(text)
    (place / "e.json").mkdir()
    (place / "f.json").write_text(json.dumps({**spec, "devices": {}, "x": "y" * 2_000_000}))
    found = cdi.device("nvidia.com/gpu=0", root)
    assert [(str(bind.source), bind.target) for bind in found.binds] == [(f"{root}/dev/nvidia1", "/dev/x")]
    assert found.env == {"OWN": "1"}


@pytest.mark.parametrize(
    ("files", "found", "devices"),
    [
        (("proc/driver/nvidia/version", "dev/nvidia0", "dev/nvidia-caps/x"), ["nvidia"], ["/dev/nvidia0", "/dev/nvidia-caps"]),
        (("dev/kfd", "dev/dri/renderD128"), ["amd"], ["/dev/kfd", "/dev/dri"]),
        (("dev/dri/renderD128", "sys/bus/pci/drivers/xe/0000:03:00.0/vendor"), ["intel"], ["/dev/dri"]),
        (
            ("dev/xclmgmt512", "dev/dri/renderD129", "sys/bus/pci/drivers/xocl/0000:65:00.1/x", "opt/xilinx/xrt/bin/xbutil"),
            ["xilinx"],
            ["/dev/xclmgmt512", "/dev/dri", "/opt/xilinx/xrt"],
        ),
        (("dev/dri/renderD128",), [], []),
    ],
)  # fmt: skip
def test_every_vendor_is_known_by_its_files(tmp_path: Path, files, found, devices) -> None:
    touch(tmp_path, *files)
    assert list(gpu.present(tmp_path)) == found
    assert [bind.target for kind in found for bind in gpu.edits(kind, tmp_path).binds] == devices


def test_auto_takes_what_image_and_machine_agree_on(tmp_path: Path) -> None:
    assert machine.gpu("auto", "nvidia") == machine.gpu("auto") == "none"  # this machine has none
    assert machine.gpu("intel", "nvidia") == "intel"
    assert Request(action="exec", gpu="nvidia.com/gpu=0").asks == {"gpu nvidia"}
    assert Request(action="exec", gpu="example.com/nic=x").asks == {"gpu cdi"}


@pytest.mark.parametrize(
    ("cuda", "driver", "newer", "card", "runs"),
    [
        ("12.4", "550.54", "", "", True),
        ("12.8", "535.104", "", "", True),  # minor version compatibility
        ("11.8", "580.65", "", "", True),
        ("13.0", "535.104", "", "", False),
        ("13.0", "535.104", "580.65", "NVIDIA A100", True),
        ("13.0", "535.104", "580.65", "NVIDIA GeForce RTX 4090", False),
        ("13.0", "525.60", "580.65", "NVIDIA A100", False),
        ("13.0", "", "580.65", "", False),
        ("x", "550.54", "", "", False),
    ],
)
def test_which_cuda_a_driver_runs(cuda: str, driver: str, newer: str, card: str, runs: bool) -> None:
    assert drivers.runs_cuda(cuda, driver, newer=newer, cards=[card]) is runs
    if driver and cuda != "x":
        cards = (Gpu(vendor="nvidia", name=card),)
        host = Host(arch="amd64", gpus=cards, nvidia_driver=driver, cuda=drivers.cuda(driver), engines=("x",))
        (found,) = [one for one in fit(Needs(cuda=cuda, newer=newer), host) if one.what == "cuda"]
        assert found.fits is runs
        assert ("libraries of driver 580.65" in found.has) is (runs and bool(newer))
        assert runs or "it needs driver 580 or newer" in found.hint


LISTED = "cuda>=13.0 " + " ".join(
    f"brand={brand},driver>={branch},driver<{branch + 1}"
    for branch in (535, 550, 565, 570, 575)
    for brand in ("unknown", "grid", "tesla", "nvidia", "quadrortx", "cloudgaming")
)
"""NVIDIA_REQUIRE_CUDA of nvidia/cuda:13.0.2: the branches of drivers that its compatibility package goes with."""


def test_an_image_lists_the_drivers_that_its_libraries_go_with() -> None:
    found = Needs.of("amd64", {}, {"CUDA_VERSION": "13.0.2", "NVIDIA_REQUIRE_CUDA": LISTED}, newer="580.95.05")
    assert found.branches == "535,550,565,570,575"

    def runs(driver: str, branches: str = found.branches) -> bool:
        return drivers.runs_cuda("13.0.2", driver, newer=found.newer, branches=branches, cards=["NVIDIA A100"])

    assert runs("550.54.15")
    assert not runs("545.23.06")  # a branch of new features, with which NVIDIA does not support it
    assert not runs("560.35.03")
    assert runs("560.35.03", branches="")  # the image does not say


@pytest.mark.squashfs
def test_the_libraries_for_older_drivers_are_found_in_the_image(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    touch(tree, "usr/local/cuda-13.0/compat/libcuda.so.580.65.06", "usr/local/cuda-13.0/lib64/libcudart.so.13")
    (tree / "usr/local/cuda").symlink_to("cuda-13.0")
    described = oci.Description(
        "amd64",
        env={"CUDA_VERSION": "13.0.1", "NVIDIA_REQUIRE_CUDA": LISTED},
        labels=needs.labels(gpu="nvidia", driver=">=535"),
    )
    convert.pack(Directory(tree), described, to_sif=tmp_path / "x.sif", writer=convert.Writer(level=1), epoch=0)
    assert compat.driver(tmp_path / "x.sif") == ("/usr/local/cuda-13.0/compat", "580.65.06")
    for _ in range(2):  # the second time it is remembered
        found = demands.said(tmp_path / "x.sif", tmp_path / "cache")
        assert (found.driver, found.gpu, found.cuda) == (">=535", "nvidia", "13.0.1")
        assert (found.compat, found.newer) == ("/usr/local/cuda-13.0/compat", "580.65.06")
        assert found.branches == "535,550,565,570,575"
    asked = demands.forward(tmp_path / "x.sif", Request(action="run", gpu="nvidia"), tmp_path / "cache")
    assert asked.env["LD_LIBRARY_PATH"].startswith("/usr/local/cuda-13.0/compat:")
    assert compat.driver(tree) == ("/usr/local/cuda-13.0/compat", "580.65.06")


def test_names_of_libraries_are_those_that_other_programs_read(tmp_path: Path) -> None:
    library = Path("/lib/x86_64-linux-gnu/libz.so.1").resolve()
    told = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    found = elf.read(library)
    assert found.soname == "libz.so.1"
    assert all(name in told for name in found.needed)
    assert "libc.so.6" in found.needed
    whole = library.read_bytes()
    for cut in (0, 3, 40, 63, 64, 200, len(whole) // 2):
        (tmp_path / "cut").write_bytes(whole[:cut])
        assert elf.read(tmp_path / "cut").soname in {"", "libz.so.1"}
    (tmp_path / "wild").write_bytes(whole[:32] + os.urandom(512) + whole[544:])
    elf.read(tmp_path / "wild")
    assert elf.read(tmp_path) == elf.read(tmp_path / "none") == elf.Library()
