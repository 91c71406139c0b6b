"""The program that goes into a box: run by `namespace` as root of a mount namespace, imports nothing of ours.

    enter.py SCRIPT FIRST-ID NETWORK ROOT [rw|ro PATH]... -- COMMAND...

SCRIPT makes the box of ROOT and moves into it. Then COMMAND is started as user 0 of a user namespace whose 65536 ids
begin at FIRST-ID, or are those around it if that is 0. util-linux cannot be asked for it: before its version 2.39
`unshare` wrote such maps with newuidmap, which knows only what /etc/subuid gives away.
"""

import ctypes
import os
import signal
import sys
from typing import NoReturn

# linux/sched.h, linux/mount.h, linux/prctl.h
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 2, 4, 8, 0x4000, 0x40000
_PDEATHSIG = 1
_IDS = 65536
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_HOST = b"computeops"
"""What every build takes the machine's name for: some programs write it into what they make."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    """Make the box, run the command in it and return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    script, first, network, *rest = argv
    command = rest[rest.index("--") + 1 :]
    made = _end(os.posix_spawn("/bin/sh", ["sh", script, *rest[: rest.index("--")]], {"PATH": _PATH}))
    if made != 0:
        return made
    os.chdir("/")
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go[1])  # the end of the other process must be seen
        _inside(command, ready[1], go[0], network=network == "yes")
    os.close(ready[1])
    os.close(go[0])
    if os.read(ready[0], 1):
        # the kernel wants each range of a map within one range of the map outside
        ranges = f"0 {first} {_IDS}\n" if int(first) else f"0 0 1\n1 1 {_IDS - 1}\n"
        for name in ("uid_map", "gid_map"):
            # as plain system calls: Python's own files may need a module, and the old root is gone
            file = os.open(f"/proc/{child}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(file, ranges.encode())
            os.close(file)
        os.write(go[1], b"+")
    return _end(child)


def _inside(command: list[str], ready: int, go: int, *, network: bool) -> NoReturn:
    """Become root of namespaces of its own and run `command` as their first process."""
    kinds = _NEWUSER | _NEWNS | _NEWPID | _NEWUTS | _NEWIPC | (0 if network else _NEWNET)
    _call("unshare", _LIBC.unshare(kinds))
    os.write(ready, b"+")
    if not os.read(go, 1):
        _fail("the user namespace got no ids")
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child == 0:
        _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
        _call("sethostname", _LIBC.sethostname(_HOST, len(_HOST)))
        _call("mount", _LIBC.mount(b"none", b"/", None, _REC | _PRIVATE, None))
        _call("mount /proc", _LIBC.mount(b"proc", b"/proc", b"proc", _NOSUID | _NODEV | _NOEXEC, None))
        try:
            os.execvp(command[0], command)  # noqa: S606  this is what starts a build, and imports nothing of ours
        except OSError as error:
            _fail(f"{command[0]}: {error.strerror}")
    os._exit(_end(child))


def _end(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def _call(what: str, result: int) -> None:
    if result != 0:
        _fail(f"{what}: {os.strerror(ctypes.get_errno())}")


def _fail(message: str) -> NoReturn:
    os.write(2, f"{message}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
