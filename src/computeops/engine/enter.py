"""Enter a container in this very process: `enter.py [OPTIONS OF BWRAP] -- PROGRAM ARGS...`.

bwrap(1) stays behind as the parent of the program: a signal to the process that a scheduler knows kills bwrap, and the
program never learns of it. Here the process that was started becomes the program, so signals, exit code and terminal
are its own. It needs Linux 5.12 (mount_setattr) and understands the options that `computeops.engine.mounts` writes.

It is a program by itself, run with `python -I -S`, and imports nothing of computeops: it must start fast.
"""

import ctypes
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence

FAILED = 125
"""Exit code where the container could not be made."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell where the program could not be started."""

# linux/sched.h, linux/mount.h, linux/fcntl.h, linux/prctl.h; these three system calls have one number everywhere
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_SLAVE, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 0x4000, 1 << 19, 2, 4, 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE, _AT_EMPTY_PATH = 1, 0o2000000, 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH, _ATTR_RDONLY, _ATTR_NOSUID = 0x4, 0x1, 0x2
_AT_FDCWD = -100
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES = 64
_SIGPIPE, _SIGXFSZ = 13, 25

_BEFORE = "/proc"
"""A folder that every machine has: the new root is put together over it, then becomes the root."""
_ARGUMENTS = {"--ro-bind": 2, "--bind": 2, "--dev-bind": 2, "--symlink": 2}
_ARGUMENTS |= {"--overlay-src": 1, "--tmp-overlay": 1, "--tmpfs": 1, "--perms": 1, "--remount-ro": 1, "--chdir": 1}

_libc = ctypes.CDLL(None, use_errno=True)

Step = tuple[str, ...]
"""An option of bwrap and its arguments."""


class _MountAttr(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = (("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("how", ctypes.c_uint64), ("ns", ctypes.c_uint64))


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Make the container and become the program; return an exit code only where that failed."""
    split = argv.index("--")
    steps, command = list(_steps(argv[:split])), argv[split + 1 :]
    try:
        _own_namespaces()
        _build(steps)
        for number in range(_CAPABILITIES):  # root of the namespace could undo what is read-only
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _say(f"cannot make the container: {error.strerror}{where}")
        return FAILED
    return _become(command, environ)


def _steps(words: Sequence[str]) -> Iterator[Step]:
    at = 0
    while at < len(words):
        end = at + 1 + _ARGUMENTS[words[at]]
        yield tuple(words[at:end])
        at = end


def environment() -> dict[str, str]:
    """Return the environment as it was given: Python adds LC_CTYPE to one whose locale is C (PEP 538)."""
    environ = dict(os.environ)
    with open("/proc/self/environ", "rb") as file:
        given = file.read()
    if not (b"\0" + given).count(b"\0LC_CTYPE="):
        environ.pop("LC_CTYPE", None)
    return environ


def _own_namespaces() -> None:
    """Take a user and a mount namespace of this process's own, in which this user is the same user."""
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "no user namespace")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1\n"),
        ("gid_map", f"{group} {group} 1\n"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "/")


def _build(steps: Sequence[Step]) -> None:
    """Put the new root together and make it the root of this process."""
    trees = [_clone(step[1]) if step[0].endswith("bind") else -1 for step in steps]  # before one hides another
    permissions, start, lower = "755", "/", ""
    for step, tree in zip(steps, trees, strict=True):
        if step[0] == "--perms":
            permissions = step[1]
        elif step[0] == "--chdir":
            start = step[1]
        elif step[0] == "--overlay-src":
            lower = step[1]
        elif step[0] == "--tmp-overlay":
            _lay_over(lower)
        else:
            _lay(step, tree, permissions)
            permissions = "755"
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "the old root")
    os.chdir(start)


def _lay_over(lower: str) -> None:
    """Begin the new root with the folder `lower` and, over it, memory that takes what is written."""
    _check(_libc.mount(b"tmpfs", _BEFORE.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755"), _BEFORE)
    for name in ("upper", "work"):
        os.mkdir(f"{_BEFORE}/{name}", 0o755)
    for sign in "\\:,":  # they would end an option or a folder
        lower = lower.replace(sign, f"\\{sign}")
    options = f"lowerdir={lower},upperdir={_BEFORE}/upper,workdir={_BEFORE}/work,userxattr"
    flags = _MS_NOSUID | _MS_NODEV
    _check(_libc.mount(b"overlay", _BEFORE.encode(), b"overlay", flags, os.fsencode(options)), "no overlay")
    os.chdir(_BEFORE)


def _lay(step: Step, tree: int, permissions: str) -> None:
    """Carry out one step that makes something in the new root, which is the current folder once it is there."""
    kind, target = step[0], step[-1]
    inside = f".{target}" if os.getcwd() == _BEFORE else _BEFORE
    if kind == "--remount-ro":
        _set(_AT_FDCWD, os.fsencode(inside), 0, _ATTR_RDONLY)
    elif kind == "--symlink":
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        os.symlink(step[1], inside)
    elif kind == "--tmpfs":
        os.makedirs(inside, exist_ok=True)
        options = f"mode={permissions}".encode()
        _check(_libc.mount(b"tmpfs", os.fsencode(inside), b"tmpfs", _MS_NOSUID | _MS_NODEV, options), target)
    else:
        read_only = _ATTR_RDONLY if kind == "--ro-bind" else 0
        _set(tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, read_only | _ATTR_NOSUID)
        _make_place(inside, folder=stat.S_ISDIR(os.fstat(tree).st_mode))
        _check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(inside), _MOVE_MOUNT_F_EMPTY_PATH), target)
        os.close(tree)
    if inside == _BEFORE:
        os.chdir(_BEFORE)


def _clone(source: str) -> int:
    """Return a descriptor of a copy of what is mounted at `source` and below."""
    how = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), how), source)


def _set(tree: int, path: bytes, how: int, attributes: int) -> None:
    attr = _MountAttr(set=attributes)
    what = os.fsdecode(path)
    _check(_libc.syscall(_MOUNT_SETATTR, tree, path, how, ctypes.byref(attr), ctypes.sizeof(attr)), what)


def _make_place(inside: str, *, folder: bool) -> None:
    if os.path.lexists(inside):
        return
    os.makedirs(inside if folder else os.path.dirname(inside), exist_ok=True)
    if not folder:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _become(command: Sequence[str], environ: Mapping[str, str]) -> int:
    _libc.signal(_SIGPIPE, None)  # Python ignores both, and what is ignored stays so in the program
    _libc.signal(_SIGXFSZ, None)
    try:
        os.execvpe(command[0], list(command), dict(environ))
    except OSError as error:
        _say(f"cannot start {command[0]} in the container: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _say(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], environment()))
