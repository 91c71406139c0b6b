"""What a start needs to know of this machine, read from files in microseconds: GPUs, the display, namespaces, disks."""

from collections.abc import Mapping
from pathlib import Path

from computeops.engine.model import Bind

_NVIDIA, _AMD = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")
_X11_SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108  where X servers listen, on every system
_NETWORK_FILESYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "orangefs", "pvfs", "panfs")


def gpu(wanted: str) -> str:
    """Return `nvidia`, `amd` or `none` for `auto`, else what is wanted."""
    if wanted != "auto":
        return wanted
    return "nvidia" if _NVIDIA.exists() else "amd" if _AMD.exists() else "none"


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
