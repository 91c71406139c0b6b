"""What a machine offers, as data that a TOML or JSON file can hold."""

from msgspec import Struct


class Gpu(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accelerator."""

    vendor: str
    """nvidia, amd, intel or xilinx."""
    name: str = ""
    device: str = ""
    """Its device file, or its place on the PCI bus."""


class Mpi(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An MPI library that programs of this machine can load."""

    family: str
    """Programs built for one family run with every library of it: openmpi, mpich (with Intel MPI, MVAPICH and Cray
    MPICH) or standard (the ABI of MPI 5)."""
    version: str = ""
    """As far as its file name tells."""
    library: str = ""


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine."""

    arch: str
    """As OCI calls it: amd64, arm64 ..."""
    name: str = ""
    cpu: str = ""
    """As archspec calls it: icelake, zen3 ..."""
    cpu_levels: tuple[str, ...] = ()
    """What this CPU executes, in archspec's words: itself, its ancestors, x86_64_v3 and the like."""
    cpu_features: tuple[str, ...] = ()
    cores: int = 0
    memory_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()
    nvidia_driver: str = ""
    cuda: str = ""
    """The newest CUDA that the driver runs without compatibility packages in the image."""
    amd_driver: str = ""
    mpi: tuple[Mpi, ...] = ()
    fabrics: tuple[str, ...] = ()
    """libfabric and UCX where they are installed, and the devices of fast networks."""
    kernel: str = ""
    glibc: str = ""
    """Empty where the C library is another."""
    user_namespaces: bool = False
    fuse: bool = False
    cgroups: str = ""
    """v1, v2 or hybrid."""
    display: bool = False
    """Whether programs can open windows."""
    engines: tuple[str, ...] = ()
    """Container engines that work."""
    schedulers: tuple[str, ...] = ()
    """Batch systems whose commands are here."""
