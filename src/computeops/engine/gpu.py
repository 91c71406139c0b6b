"""What a program needs of this machine to use its GPUs, for engines that have no option for it.

The vendor-neutral libraries of OpenGL are left out on purpose: they are in the image, and those of a newer machine ask
for a newer C library than the image has (https://github.com/apptainer/apptainer/issues/945).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from computeops.engine.model import Bind

LIBRARIES = "/.singularity.d/libs"
"""Where the libraries of drivers are in a container, as under Apptainer; its environment names this folder."""
_DEVICES = {
    "nvidia": ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvidia-uvm*", "dev/nvidia-modeset", "dev/nvidia-caps"),
    "amd": ("dev/kfd", "dev/dri"),
}
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


def files(kind: str, root: Path = Path("/")) -> list[Bind]:
    """Return devices, and of NVIDIA the driver's libraries and programs; `root` is where the machine's files are.

    AMD's libraries are in the image: only the devices come from the machine.
    """
    return [*_devices(kind, root), *(_driver(root) if kind == "nvidia" else ())]


def _devices(kind: str, root: Path) -> Iterator[Bind]:
    for pattern in _DEVICES.get(kind, ()):
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
