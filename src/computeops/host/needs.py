"""What an image asks of a machine: by the labels that its recipe gave it, and by what is in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

CPU = "org.computeops.cpu"
"""Label: the CPU, in archspec's words, that the variant was built for."""
DRIVER = "org.computeops.requires.driver"
"""Label: the range of versions of the GPU's driver."""
_GPU = "org.computeops.requires.gpu"
_MPI, _X11 = "org.computeops.requires.mpi", "org.computeops.requires.x11"
_ABI_NOTE = re.compile(rb"\x04\0\0\0\x10\0\0\0\x01\0\0\0GNU\0\0\0\0\0(.{12})", re.DOTALL)
"""NT_GNU_ABI_TAG of a little-endian C library (elf.h): after the system, 0 for Linux, the oldest kernel it runs on."""
_RELEASE = re.compile(rb"GNU C Library .{0,80}? version (\d+\.\d+)")
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}")
_BRANCH = re.compile(r"\bdriver>=(\d{3}),driver<\d{3}\b", re.ASCII)
"""A clause of NVIDIA_REQUIRE_CUDA, in which NVIDIA's images list the branches that their libraries were tried with."""
_MOST_CHARS, _MOST_REQUIRED = 100, 16384


def labels(*, cpu: str = "", gpu: str = "", driver: str = "", mpi: str = "", x11: bool = False) -> dict[str, str]:
    """Return the labels that say what an image needs; what is empty is not said."""
    said = {CPU: cpu, _GPU: gpu, DRIVER: driver, _MPI: mpi, _X11: "true" if x11 else ""}
    return {name: value for name, value in said.items() if value}


def said(labels: Mapping[str, object], name: str) -> str:
    """Return a short text of an image's labels, without what steers a terminal; "" if there is none."""
    found = labels.get(name, "")
    return (
        "".join(one for one in found if one.isprintable() and one != " ")[:_MOST_CHARS]
        if isinstance(found, str)
        else ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a machine must have to run an image; empty: nothing is asked, or nothing is known."""

    arch: str = ""
    cpu: str = ""
    gpu: str = ""
    driver: str = ""
    """Range of versions of the GPU's driver."""
    cuda: str = ""
    """The CUDA in the image."""
    newer: str = ""
    """The driver whose libraries it brings for machines with an older one."""
    branches: str = ""
    """The branches of drivers that these go with, `535,550`; empty: it does not say."""
    mpi: str = ""
    """Family and range of versions of the machine's MPI."""
    x11: bool = False
    kernel: str = ""
    """The oldest kernel that its C library runs on."""
    glibc: str = ""
    """The version of its C library."""

    @classmethod
    def of(
        cls, arch: str, labels: Mapping[str, object], env: Mapping[str, str], libc: bytes = b"", newer: str = ""
    ) -> Self:
        """Return what labels, environment (NVIDIA's images name their CUDA there) and C library of an image say.

        `newer`: the driver whose libraries are in it.
        """
        gpu = said(labels, _GPU)
        cuda = said(env, "CUDA_VERSION")
        kernel = _ABI_NOTE.search(libc)
        numbers = [int.from_bytes(kernel[1][at : at + 4], "little") for at in (0, 4, 8)] if kernel else []
        release = _RELEASE.search(libc)
        return cls(
            arch=arch,
            cpu=said(labels, CPU),
            gpu=gpu,
            driver=said(labels, DRIVER),
            cuda=cuda if gpu in {"", "nvidia"} and _VERSION.fullmatch(cuda) else "",
            newer=newer,
            branches=",".join(sorted(set(_BRANCH.findall(env.get("NVIDIA_REQUIRE_CUDA", "")[:_MOST_REQUIRED])))),
            mpi=said(labels, _MPI),
            x11=said(labels, _X11) == "true",
            kernel=".".join(map(str, numbers)),
            glibc=release[1].decode() if release else "",
        )
