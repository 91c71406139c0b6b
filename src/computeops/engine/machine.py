"""What a start needs to know of this machine, read from files in microseconds: GPUs, the display, namespaces, disks."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from computeops.engine import mounts
from computeops.engine.model import Bind, Request

HOST_MPI = "host"
"""The machine's own MPI takes the place of that in the image."""
_NVIDIA, _AMD = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")
_X11_SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108  where X servers listen, on every system
_NETWORK_FILESYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "orangefs", "pvfs", "panfs")


_SHARED = ("/proc", "/sys", "/tmp")  # noqa: S108
"""What every engine shows of this machine anyway."""
_RANK_ENV = {
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_smsc": "^cma",
    "UCX_POSIX_USE_PROC_LINK": "n",
}
"""Each rank has a user namespace of its own, in which it may not read the memory of another: ranks copy through shared
memory then (https://github.com/openucx/ucx/issues/4224)."""
_RANK_FOLDERS = ("PMIX_SYSTEM_TMPDIR", "SLURM_PMIX_TMPDIR", "PALS_SPOOL_DIR", "OMPI_MCA_orte_local_daemon_uri")
_RANK_FILES = ("/dev/shm", "/var/spool/slurmd", "/run/munge", "/etc/libibverbs.d", "/run/nscd")  # noqa: S108
_NODE_COUNTS = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "OMPI_MCA_orte_num_nodes", "PALS_NODES")
_DEVICES = Path("/dev")
_FAST = {"InfiniBand": "infiniband/uverbs*", "Slingshot": "cxi*", "Omni-Path": "hfi1*"}
_TCP = {"UCX_TLS": "tcp", "FI_PROVIDER": "tcp", "OMPI_MCA_btl": "tcp", "OMPI_MCA_pml": "ob1"}
"""What, set so, keeps an MPI off the fast network."""


def gpu(wanted: str, asked: str = "") -> str:
    """Return the vendor of the GPU to bring, or `none`, for `auto`; else what is wanted.

    `asked`: the vendor that the image names; another one's cards are of no use to it.
    """
    if wanted != "auto":
        return wanted
    if not asked:
        return "nvidia" if _NVIDIA.exists() else "amd" if _AMD.exists() else "none"
    from computeops.engine import gpu

    return asked if asked in gpu.present() else "none"


def architecture() -> str:
    """Return this machine's architecture in OCI's words."""
    from computeops.host.cpu import ARCHITECTURES

    return ARCHITECTURES.get(os.uname().machine, os.uname().machine)


def mpi(wanted: str, environ: Mapping[str, str]) -> str:
    """Return how this process was started as a rank of an MPI program: `pmix`, `pmi` or `none`; for `none`, `none`."""
    if wanted not in {"auto", HOST_MPI}:
        return wanted
    if "PMIX_RANK" in environ:
        return "pmix"
    return "pmi" if "PMI_RANK" in environ or "PMI_FD" in environ else "none"


def with_files(request: Request, environ: Mapping[str, str], *, gpus: bool, image: Path | None = None) -> Request:
    """Return `request` with the binds of what its display and MPI need of this machine, and with `gpus` its GPUs.

    `image`: given where the machine's MPI shall take the place of the one in it.

    Raises:
        EngineError: that cannot be.
    """
    wanted = [*(display(environ) if request.x11 else []), *(ranks(environ) if request.mpi != "none" else [])]
    given: Mapping[str, str] = {}
    if gpus and request.gpu != "none":
        from computeops.engine import gpu

        edits = gpu.edits(request.gpu)
        wanted, given = [*wanted, *edits.binds], edits.env
    if image is not None:
        from computeops.engine import mpi

        mpis = mpi.edits(image, environ)
        wanted, given = [*wanted, *mpis.binds], {**given, **mpis.env}
    shown = [] if request.isolated else [*_SHARED, *mounts.visible(request, environ)[0]]
    named = {bind.target for bind in request.binds}
    env = {**given, **(_RANK_ENV if request.mpi != "none" else {}), **request.env}
    env = {name: value for name, value in env.items() if name in request.env or name not in environ}
    new = (
        bind for bind in wanted if bind.target not in named and not any(_is_below(bind.target, one) for one in shown)
    )
    return replace(request, binds=(*new, *request.binds), env=env)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def ranks(environ: Mapping[str, str]) -> list[Bind]:
    """Return the files through which a rank finds its server and the other ranks, and the devices of fast networks."""
    servers = {path for name, path in environ.items() if name in _RANK_FOLDERS or name.startswith("PMIX_SERVER_TMPDIR")}
    places = [*(Path(one) for one in sorted(servers) if one.startswith("/")), *map(Path, _RANK_FILES)]
    return [Bind(one, str(one)) for one in places if one.exists()]


def slow_network(environ: Mapping[str, str], image: Path | None = None, devices: Path = _DEVICES) -> str:
    """Return a warning if ranks on several machines would talk by TCP though this one has a fast network; else "".

    `image`: that of the ranks; one without the libraries of fast networks falls back to TCP.
    """
    several = any(environ.get(name, "1") not in {"", "0", "1"} for name in _NODE_COUNTS)
    fast = [name for name, device in _FAST.items() if any(devices.glob(device))]
    if not several or not fast:
        return ""
    forced = [f"{name}={value}" for name, tcp in _TCP.items() if (value := environ.get(name, "")) and tcp in value]
    if forced:
        return f"this machine has {fast[0]}, but {forced[0]} makes the ranks talk by TCP"
    if image is None:
        return ""
    from computeops.engine import mpi

    library, fabric = mpi.of_image(image)
    if library is None or fabric:
        return ""
    lacks = "the image has neither UCX nor libfabric"
    return f"this machine has {fast[0]}, but {lacks}: the ranks talk by TCP; try --mpi host"


def display(environ: Mapping[str, str]) -> list[Bind]:
    """Return the files that a program needs to open windows on the display of `environ`."""
    binds = [Bind(_X11_SOCKETS, str(_X11_SOCKETS))] if _X11_SOCKETS.is_dir() else []
    cookie = Path(environ.get("XAUTHORITY") or Path(environ.get("HOME", "/"), ".Xauthority"))
    return [*binds, Bind(cookie, str(cookie), read_only=True)] if cookie.is_file() else binds


def on_network(folder: Path) -> bool:
    """Whether `folder` lies on a filesystem of the network, where many small files are slow."""
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if len(point) > best and (folder == Path(point) or Path(point) in folder.parents):
            best, kind = len(point), right.split(" ", 1)[0]
    return kind.removeprefix("fuse.").startswith(_NETWORK_FILESYSTEMS)


def namespaces() -> str:
    """Return "" if an ordinary user may have user namespaces here, as far as the kernel tells, else why not."""
    for name, wanted, why in _SWITCHES:
        file = Path("/proc/sys", name)
        if file.exists() and (file.read_text().strip() != "0") is not wanted:
            return f"user namespaces are switched off here ({why})"
    return ""


_SWITCHES = (
    ("user/max_user_namespaces", True, "sysctl user.max_user_namespaces=0"),
    ("kernel/unprivileged_userns_clone", True, "sysctl kernel.unprivileged_userns_clone=0"),
    ("kernel/apparmor_restrict_unprivileged_userns", False, "sysctl kernel.apparmor_restrict_unprivileged_userns=1"),
)
