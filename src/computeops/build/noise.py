"""What a Debian installation leaves behind that no program needs and that differs from one build to the next.

Nothing in `tmp` may be named here: mmdebstrap keeps there the configuration that holds apt to the new root until its
own last step, which empties `tmp`. Without it, apt would work on the host's own lists.
"""

REMOVED = (
    "etc/*-",  # passwd-, group-, shadow-: copies of the state before the last change
    "etc/.pwd.lock",
    "etc/apt/sources.list",  # names a folder of the build
    "etc/hostname",  # the build host's
    "etc/ssh/ssh_host_*",  # keys of a host must be its own
    "root/.cache",
    "run/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/fontconfig/*",
    "var/cache/ldconfig/aux-cache",  # inode numbers and times of libraries
    "var/cache/man/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/log/*",
    "var/tmp/*",
)
"""Shell patterns below the root."""

EMPTIED = (
    "etc/hosts",  # a mount point for the host's
    "etc/machine-id",  # an empty one is filled when a system boots
    "etc/resolv.conf",  # a mount point for the host's
)
"""Files that must exist, without content."""


def script() -> str:
    """Return the shell lines that quieten the tree in `$root`."""
    removed = [f'rm -rf -- "$root"/{pattern}' for pattern in REMOVED]
    emptied = [f'rm -f -- "$root"/{name}\n: > "$root"/{name}' for name in EMPTIED]
    return "\n".join([*removed, *emptied]) + "\n"
