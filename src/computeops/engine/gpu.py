"""What a program needs of this machine to use its GPUs, for engines that have no option for it.

Where the site describes its devices by CDI (`engine.cdi`), that is what they need, else what is known of each vendor
here. The vendor-neutral libraries of OpenGL are left out on purpose: they are in the image, and those of a newer
machine ask for a newer C library than the image has (https://github.com/apptainer/apptainer/issues/945).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from computeops.engine import cdi
from computeops.engine.cdi import LIBRARIES, Edits
from computeops.engine.model import Bind

__all__ = ["LIBRARIES", "Stack", "edits", "files", "present", "vendor"]


@dataclass(frozen=True, slots=True)
class Stack:
    """What is known of one vendor."""

    signs: tuple[str, ...]
    """One of these files is there when the machine has a card with its driver."""
    devices: tuple[str, ...]
    cdi: tuple[str, ...] = ()
    """What CDI files call its cards."""
    drivers: tuple[str, ...] = ()
    """Names of the kernel's drivers, for vendors that share the devices of others."""
    folders: tuple[str, ...] = ()
    """Of programs that must be those of the machine, with its version of the driver."""


STACKS: Mapping[str, Stack] = {
    "nvidia": Stack(
        signs=("proc/driver/nvidia/version",),
        devices=("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvidia-uvm*", "dev/nvidia-modeset", "dev/nvidia-caps"),
        cdi=("nvidia.com/gpu",),
    ),
    # https://rocm.docs.amd.com: the libraries of ROCm are in the image.
    "amd": Stack(signs=("dev/kfd",), devices=("dev/kfd", "dev/dri"), cdi=("amd.com/gpu",)),
    # https://dgpu-docs.intel.com: Level Zero and the compute runtime are in the image.
    "intel": Stack(signs=("dev/dri/renderD*",), devices=("dev/dri",), cdi=("intel.com/gpu",), drivers=("i915", "xe")),
    # https://xilinx.github.io/XRT: XRT talks to xocl by its own nodes beside the cards' render nodes.
    "xilinx": Stack(
        signs=("dev/xclmgmt*", "dev/dri/renderD*"),
        devices=("dev/xclmgmt*", "dev/xfpga", "dev/dri"),
        cdi=("xilinx.com/fpga", "amd.com/fpga"),
        drivers=("xocl", "xclmgmt", "amdxdna"),
        folders=("opt/xilinx/xrt",),
    ),
}
"""In the order in which `auto` looks for them."""
_FOLDERS = (
    "usr/lib64",
    "usr/lib/{machine}-linux-gnu",
    "usr/lib/{machine}-linux-gnu/nvidia/current",
    "usr/lib/wsl/lib",
    "run/opengl-driver/lib",
)
_NVIDIA = re.compile(
    r"lib(?:cuda|cudadebugger|nvcuvid|nvoptix|(?:EGL|GLX|GLESv[12]_CM|GLESv2)_nvidia"
    r"|nvidia-(?:allocator|cfg|egl[a-z0-9-]*|encode|fbc|gl(?:core|si|vkspirv)|gpucomp|ml|ngx|nvvm|opencl"
    r"|opticalflow|ptxjitcompiler|rtcore|tls))\.so(?:\.[0-9.]+)?"
)
"""Parts of NVIDIA's driver that programs load: they must be as new as the kernel's part."""
_PROGRAMS = ("usr/bin/nvidia-smi", "usr/bin/nvidia-debugdump", "usr/bin/nvidia-cuda-mps-control")
_SOCKETS = ("run/nvidia-persistenced/socket",)


def present(root: Path = Path("/")) -> Iterator[str]:
    """Yield the vendors of the accelerators that this machine has with their drivers."""
    for name, stack in STACKS.items():
        if any(any(root.glob(sign)) for sign in stack.signs) and _driven(stack, root):
            yield name


def _driven(stack: Stack, root: Path) -> bool:
    """Whether one of the vendor's drivers is bound to a card, where the signs alone do not tell."""
    return not stack.drivers or any(any((root / "sys/bus/pci/drivers" / one).glob("0*")) for one in stack.drivers)


def vendor(kind: str) -> str:
    """Return the vendor of `kind`: itself, or of a CDI device VENDOR/CLASS=NAME whose it is, else `cdi`."""
    if "=" not in kind:
        return kind
    name = kind.partition("=")[0]
    return next((vendor for vendor, stack in STACKS.items() if name in stack.cdi), "cdi")


def edits(kind: str, root: Path = Path("/")) -> Edits:
    """Return binds and variables for a vendor's cards, or for the one CDI device VENDOR/CLASS=NAME.

    `root` is where the machine's files are.

    Raises:
        EngineError: a CDI device has a name that no file describes.
    """
    if "=" in kind:
        return cdi.device(kind, root)
    described = cdi.kinds(root) if any((root / one).is_dir() for one in cdi.FOLDERS) else {}
    for name in STACKS[kind].cdi:
        if described.get(name):
            return cdi.device(f"{name}=all", root)
    return Edits(tuple(files(kind, root)))


def files(kind: str, root: Path = Path("/")) -> list[Bind]:
    """Return devices, and of NVIDIA the driver's libraries and programs; `root` is where the machine's files are.

    The libraries of AMD and Intel are in the image: only the devices come from the machine.
    """
    folders = [Bind(root / one, f"/{one}", read_only=True) for one in STACKS[kind].folders if (root / one).is_dir()]
    return [*_devices(kind, root), *folders, *(_driver(root) if kind == "nvidia" else ())]


def _devices(kind: str, root: Path) -> Iterator[Bind]:
    for pattern in STACKS[kind].devices:
        for path in sorted(root.glob(pattern)):
            yield Bind(path, f"/{path.relative_to(root)}")


def _driver(root: Path) -> Iterator[Bind]:
    seen = set()
    for folder in _FOLDERS:
        place = root / folder.format(machine=os.uname().machine)
        for name in sorted(os.listdir(place)) if place.is_dir() else ():  # noqa: PTH208  thousands of files
            if _NVIDIA.fullmatch(name) and name not in seen:
                seen.add(name)
                yield Bind((place / name).resolve(), f"{LIBRARIES}/{name}", read_only=True)
    for name in (*_PROGRAMS, *_SOCKETS):
        if (root / name).exists():
            yield Bind(root / name, f"/{name}", read_only=name in _PROGRAMS)
