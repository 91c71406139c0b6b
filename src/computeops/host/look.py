"""This machine, read from its files in a few milliseconds."""

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from computeops.host import cpu, gpu
from computeops.host.model import Host, Mpi

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/opt/lib")
_LD_CONF = Path("/etc/ld.so.conf.d")
_MPI = re.compile(r"libmpi(?:ch|cxx|_abi)?\.so\.([0-9]+)(?:\.([0-9]+))?(?:\.[0-9]+)*")
_OPENMPI = {"0": "3.0", "10": "3.1", "20": "4.0", "30": "4.1", "40": "5.0"}
"""Second number of libmpi.so.40.X to the release of Open MPI (the VERSION files of its branches)."""
_FAMILIES = {"40": "openmpi", "12": "mpich"}
_FABRIC_DEVICES = {"infiniband": "/dev/infiniband/uverbs*", "slingshot": "/dev/cxi*", "omni-path": "/dev/hfi1*"}
_SCHEDULERS = {
    "slurm": "sbatch",
    "htcondor": "condor_submit",
    "gridengine": "qconf",
    "lsf": "bsub",
    "pbs": "qstat",
    "kubernetes": "kubectl",
    "flux": "flux",
}
"""A batch system to a command that only it has; PBS and Torque share theirs, and Grid Engine has a qstat too."""


def look(environ: Mapping[str, str], *, engines: tuple[str, ...] = ()) -> Host:
    """Return this machine. `environ` names the display and where libraries are; `engines` are those that work."""
    driver = gpu.nvidia_driver()
    libraries = sorted(set(_found(environ)))
    return Host(
        arch=cpu.ARCHITECTURES.get(platform.machine(), platform.machine()),
        name=platform.node(),
        cpu=cpu.name(),
        cpu_levels=cpu.levels(),
        cpu_features=tuple(sorted(cpu.features())),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=tuple(gpu.gpus()),
        nvidia_driver=driver,
        cuda=gpu.cuda(driver),
        amd_driver=gpu.amd_driver(),
        mpi=tuple(_mpi(libraries)),
        fabrics=tuple(_fabrics(libraries)),
        kernel=platform.release(),
        glibc=_glibc(),
        user_namespaces=_user_namespaces(),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        cgroups=_cgroups(),
        display=bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")),
        engines=engines,
        schedulers=tuple(_schedulers(environ.get("PATH", os.defpath))),
    )


def _found(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the shared libraries of MPI and of fast networks in every folder that the loader knows."""
    machine = f"{platform.machine()}-linux-gnu"
    folders = [Path(one) for one in environ.get("LD_LIBRARY_PATH", "").split(":") if one.startswith("/")]
    folders += [path for one in _LIBRARIES for path in (Path(one), Path(one, machine))]
    for file in sorted(_LD_CONF.glob("*.conf")):
        folders += [Path(line) for line in file.read_text(errors="replace").split() if line.startswith("/")]
    seen = set()
    for folder in folders:
        try:
            if (real := folder.resolve()) in seen or not real.is_dir():
                continue
            seen.add(real)
            names = os.listdir(real)  # noqa: PTH208  one call for folders of thousands of files
        except OSError:
            continue
        for name in names:
            if name.startswith(("libmpi", "libfabric.so.", "libucp.so.")) and not (real / name).is_symlink():
                yield real / name


def _mpi(libraries: list[Path]) -> Iterator[Mpi]:
    for path in libraries:
        match = _MPI.fullmatch(path.name)
        if match is None:
            continue
        family = "standard" if path.name.startswith("libmpi_abi") else _FAMILIES.get(match[1], "")
        if family:
            version = _OPENMPI.get(match[2] or "", "") if family == "openmpi" else ""
            yield Mpi(family=family, version=version, library=str(path))


def _fabrics(libraries: list[Path]) -> Iterator[str]:
    for path in libraries:
        kind = {"libfabric": "libfabric", "libucp": "ucx"}.get(path.name.partition(".")[0])
        if kind:
            yield f"{kind} ({path})"
    for name, pattern in _FABRIC_DEVICES.items():
        if any(Path("/").glob(pattern.lstrip("/"))):
            yield name


def _glibc() -> str:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc").strip()
    except (ValueError, OSError):  # musl knows no such name
        return ""


def _user_namespaces() -> bool:
    """Whether an ordinary user may have namespaces, as far as the kernel's switches tell."""
    switches = {
        "user/max_user_namespaces": True,
        "kernel/unprivileged_userns_clone": True,
        "kernel/apparmor_restrict_unprivileged_userns": False,
    }
    for name, wanted in switches.items():
        file = Path("/proc/sys", name)
        if file.exists() and (file.read_text().strip() != "0") is not wanted:
            return False
    return Path("/proc/self/ns/user").exists()


def _cgroups() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "v2"
    if (root / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (root / "memory").is_dir() else ""


def _schedulers(path: str) -> Iterator[str]:
    found = [name for name, program in _SCHEDULERS.items() if shutil.which(program, path=path)]
    if "gridengine" in found and "pbs" in found and not shutil.which("qmgr", path=path):
        found.remove("pbs")
    yield from found
