"""GPUs and their drivers, from the files of the kernel's drivers."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from computeops.host.model import Gpu

_NVIDIA = Path("proc/driver/nvidia")
_VENDORS = {"0x1002": "amd", "0x8086": "intel", "0x10ee": "xilinx"}
"""PCI vendor ids (https://pci-ids.ucw.cz)."""
_INTEL_GPU_DRIVERS = ("i915", "xe")
_CUDA = {
    450: "11.0",
    455: "11.1",
    460: "11.2",
    465: "11.3",
    470: "11.4",
    495: "11.5",
    510: "11.6",
    515: "11.7",
    520: "11.8",
    525: "12.0",
    530: "12.1",
    535: "12.2",
    545: "12.3",
    550: "12.4",
    555: "12.5",
    560: "12.6",
    565: "12.7",
    570: "12.8",
    575: "12.9",
    580: "13.0",
    590: "13.1",
    595: "13.2",
    610: "13.3",
}
"""First branch of the driver to the CUDA that came with it (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/)."""


_FORWARD = {"11": 450, "12": 470, "13": 535}
"""Major version of CUDA to the oldest branch of the driver under which its compatibility package works, for images that
do not list these branches (those that NVIDIA's own images list: https://gitlab.com/nvidia/container-images/cuda)."""
_NO_FORWARD = re.compile(r"\b(?:GeForce|TITAN)\b", re.IGNORECASE)
"""Cards for which NVIDIA's libraries refuse it."""


def gpus(root: Path = Path("/")) -> Iterator[Gpu]:
    """Yield the accelerators that have a driver; `root` is where the machine's files are."""
    yield from _nvidia(root)
    for card in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = _VENDORS.get(_text(card / "vendor"))
        driver = _link(card / "driver")
        if vendor == "xilinx" or (vendor == "amd" and driver == "amdgpu"):
            yield Gpu(vendor=vendor, name=_text(card / "product_name") or _text(card / "device"), device=card.name)
        elif vendor == "intel" and driver in _INTEL_GPU_DRIVERS:
            yield Gpu(vendor=vendor, name=_text(card / "device"), device=card.name)


def _nvidia(root: Path) -> Iterator[Gpu]:
    for card in sorted((root / _NVIDIA / "gpus").glob("*/information")):
        facts = dict(line.partition(":")[::2] for line in _text(card).splitlines())
        minor = facts.get("Device Minor", "").strip()
        yield Gpu(vendor="nvidia", name=facts.get("Model", "").strip(), device=f"/dev/nvidia{minor}" if minor else "")


def nvidia_driver(root: Path = Path("/")) -> str:
    """Return the version of NVIDIA's kernel driver; "" where there is none."""
    found = re.search(r"(?:Kernel Module.*?|Version:) +([0-9]+(?:\.[0-9]+)+)", _text(root / _NVIDIA / "version"))
    return found[1] if found else ""


def amd_driver(root: Path = Path("/")) -> str:
    """Return the version of AMD's kernel driver; "" where there is none, "kernel" where it is the kernel's own."""
    module = root / "sys/module/amdgpu"
    return _text(module / "version") or ("kernel" if module.is_dir() and (root / "dev/kfd").exists() else "")


def cuda(driver: str) -> str:
    """Return the newest CUDA that NVIDIA's `driver` came with, of those that are known here; "" where none is."""
    branch = driver.partition(".")[0]
    known = [version for first, version in _CUDA.items() if branch.isdigit() and int(branch) >= first]
    return known[-1] if known else ""


def driver_for(version: str) -> str:
    """Return the first driver branch that runs CUDA `version`, for people who must install one."""
    wanted = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    for first, known in _CUDA.items():
        if tuple(map(int, known.split("."))) >= wanted:
            return str(first)
    return ""


def branch(driver: str) -> int:
    """Return the branch of a version of NVIDIA's driver; 0 for what is none."""
    number = driver.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0


def runs_cuda(wanted: str, driver: str, *, newer: str = "", branches: str = "", cards: Sequence[str] = ()) -> bool:
    """Return whether `driver` runs programs of CUDA `wanted`.

    Within one major version newer CUDA runs on older drivers (CUDA Compatibility, "Minor Version Compatibility").
    Beyond it the image must bring the libraries of a `newer` driver, and the machine `cards` that take them and a
    driver of one of the `branches` that NVIDIA tried them with ("Forward Compatibility"). Not every branch is one.
    """
    here, there = cuda(driver).partition(".")[0], wanted.partition(".")[0]
    if not (here.isdigit() and there.isdigit()):
        return False
    if int(here) >= int(there):
        return True
    taken = not any(_NO_FORWARD.search(card) for card in cards)
    old = branch(driver)
    tried = str(old) in branches.split(",") if branches else old >= _FORWARD.get(there, 1 << 30)
    return taken and branch(newer) > old and tried


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""
