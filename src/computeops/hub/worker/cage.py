"""One step in a child process that is watched: its time, memory, processes and disk; all that it began ends with it.

The kernel bounds each process by itself (setrlimit); that all of them together stay in bounds is looked at twice a
second. A child whose parents died is a child of this process (PR_SET_CHILD_SUBREAPER), so none gets lost. Where the
scheduler has cgroups, it bounds the whole job besides.
"""

import contextlib
import ctypes
import fcntl
import os
import pwd
import resource
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from computeops import proc
from computeops.hub.pipelines.words import Bounds

_PDEATHSIG, _SUBREAPER = 1, 36  # linux/prctl.h
_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_CAPABILITY_VERSION, _SETGID, _SETUID = 0x20080522, 6, 7  # linux/capability.h
_ID_CAPABILITIES = 1 << _SETGID | 1 << _SETUID
_AMBIENT, _AMBIENT_RAISE = 47, 2
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # netdevice(7)
_SESSION = ".session"
_MIB = 1024 * 1024
_PAGE = resource.getpagesize()
_TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.5
_END_SECONDS = 10.0
_MORE = 32
"""So many processes more than it may have, so that who has too many is seen and ended, and not only held up."""
_FLOOR_BYTES = 256 * _MIB
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(
    step: Callable[[], None],
    log: Path,
    folder: Path,
    bounds: Bounds,
    tick: Callable[[], None] = lambda: None,
    *,
    network: bool = True,
    gateway: Callable[[socket.socket], None] | None = None,
    ids: bool = True,
) -> tuple[int, str]:
    """Do `step` in a child whose output goes to `log`; return its exit code, and why it was ended, if it was.

    `tick` is called ten times a second. `folder` is where it may write. Without `network` it has a loopback of its own;
    `gateway` is given a socket that listens there, and all programs of the step take it for their proxy. `ids`: whether
    programs may take the user's subordinate ids in there: boxes of builds and Podman must, Bubblewrap refuses to.
    """
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
    end_left(folder)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        leave = None if network else lambda: _leave_network(theirs, guarded=gateway is not None, ids=ids)
        _child(step, log, bounds, leave)
    theirs.close()
    with ours:
        if not network and ours.recv(1):
            _map_ids(child)
            ours.send(b"+")
            if gateway and (passed := socket.recv_fds(ours, 1, 1)[1]):
                gateway(socket.socket(fileno=passed[0]))
    (folder / _SESSION).write_text(f"{child} {_began(child)}")
    watch = os.pidfd_open(child)
    try:
        reason = _watch(watch, child, folder, bounds, tick)
    finally:
        os.close(watch)
        _end_all()
        tick()
    return os.waitstatus_to_exitcode(_reap(child)), reason


def end_left(folder: Path) -> None:
    """Kill what a step in `folder` left whose own watcher was killed, so that no two are at work there."""
    try:
        session, began = (folder / _SESSION).read_text().split()
    except (OSError, ValueError):
        return
    if _began(int(session)) not in {"", began}:  # the number is that of another process by now
        return
    left = [pid for pid, _, _, of in _processes() if of == int(session)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + _END_SECONDS
    while any(of == int(session) for _, _, _, of in _processes()) and time.monotonic() < until:
        time.sleep(0.01)


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the machine did; empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _child(step: Callable[[], None], log: Path, bounds: Bounds, leave: Callable[[], None] | None) -> None:
    """Become the leader of a session within bounds, do the step, and end without going back."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(out, stream)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if leave:
            leave()
        _bound(resource.RLIMIT_CORE, 0)
        _bound(resource.RLIMIT_FSIZE, bounds.disk * _MIB)
        _bound(resource.RLIMIT_DATA, bounds.memory * _MIB)
        _bound(resource.RLIMIT_NPROC, bounds.processes + _own_processes() + _MORE)
        step()
        code = 0
    finally:
        with contextlib.suppress(OSError):
            os.write(2, b"")
        os._exit(code)


def _leave_network(watcher: socket.socket, *, guarded: bool, ids: bool) -> None:
    """Go to a network namespace where there is but a loopback, as the same user with the same subordinate ids."""
    if _LIBC.unshare(_NEWUSER | _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "this machine does not let a step be without the network")
    watcher.send(b"+")
    if not watcher.recv(1):
        raise OSError("the step got no ids in its user namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    if guarded:
        _listen(watcher)
    watcher.close()
    # newuidmap, by which boxes and engines take subordinate ids, is no program of root in here
    held = struct.pack("6I", *[_ID_CAPABILITIES] * 3, 0, 0, 0)
    if ids and _LIBC.capset(struct.pack("Ii", _CAPABILITY_VERSION, 0), held) == 0:
        for number in (_SETGID, _SETUID):
            _LIBC.prctl(_AMBIENT, _AMBIENT_RAISE, number, 0, 0)
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # gone with the change of credentials


def _listen(watcher: socket.socket) -> None:
    """Give the watcher a socket that listens in here, and let all programs of this step take it for their proxy."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        socket.send_fds(watcher, [b"+"], [listener.fileno()])
    names = ("http_proxy", "https_proxy", "HTTPS_PROXY")
    os.environ.update(dict.fromkeys(names, proxy), no_proxy="", NO_PROXY="")  # noqa: TID251  is written, not read


def _map_ids(child: int) -> None:
    """Let a child be in its user namespace who it was: this user, and, where it has some, its subordinate ids."""
    for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
        ranges = [f"{first} {first} {count}".split() for first, count in _subordinate(kind)]
        argv = [f"new{kind}map", str(child), str(own), str(own), "1", *(word for one in ranges for word in one)]
        if not ranges or proc.find(argv[0]) is None or proc.capture(argv).returncode != 0:
            if kind == "gid":
                Path(f"/proc/{child}/setgroups").write_text("deny")
            Path(f"/proc/{child}/{kind}_map").write_text(f"{own} {own} 1")


def _subordinate(kind: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of subordinate ids that this user was given (subuid(5))."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        me = pwd.getpwuid(os.getuid()).pw_name
        for line in Path(f"/etc/sub{kind}").read_text().splitlines():
            name, _, given = line.partition(":")
            if name in {me, str(os.getuid())}:
                first, _, count = given.partition(":")
                yield int(first), int(count)


def _bound(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    new = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (new, new))


def _watch(watch: int, child: int, folder: Path, bounds: Bounds, tick: Callable[[], None]) -> str:
    """Return why the child must end; empty: it ended by itself."""
    began = looked = time.monotonic()
    measured, pause = 0.0, _LOOK_SECONDS
    while True:
        if select.select([watch], [], [], _TICK_SECONDS)[0]:
            return ""
        tick()
        now = time.monotonic()
        if now - began > bounds.seconds:
            return f"it took longer than {bounds.seconds} seconds"
        if now - looked < _LOOK_SECONDS:
            continue
        looked = now
        if reason := _too_many(child, bounds):
            return reason
        if now - measured > pause:
            if reason := _too_large(folder, bounds):
                return reason
            measured = time.monotonic()
            pause = max(_LOOK_SECONDS, 10 * (measured - now))  # a look at many files costs at most a tenth


def _too_many(child: int, bounds: Bounds) -> str:
    found = list(_descendants(os.getpid()))
    if len(found) > bounds.processes:
        return f"it has more than {bounds.processes} processes"
    memory = sum(_memory(pid) for pid in {child, *found})
    if memory > bounds.memory * _MIB:
        return f"it uses more than {bounds.memory} MiB of memory"
    return ""


def _too_large(folder: Path, bounds: Bounds) -> str:
    most = bounds.disk * _MIB
    if _size(folder, most) > most:
        return f"it wrote more than {bounds.disk} MiB"
    if shutil.disk_usage(folder).free < _FLOOR_BYTES:
        return "the disk of the worker is full"
    return ""


def _size(folder: Path, most: int) -> int:
    """Return how many bytes the files below `folder` take, as far as they can be seen and are no more than `most`."""
    total, waiting = 0, [str(folder)]
    while waiting and total <= most:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _memory(pid: int) -> int:
    """Return the bytes that a process has for itself (proc(5), statm)."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE


def _processes() -> Iterator[tuple[int, int, int, int]]:
    """Yield number, parent, threads and session of all processes (proc(5), stat)."""
    for name in os.listdir("/proc"):  # noqa: PTH208  no Path for each of many
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in {"Z", "X"}:
                yield int(name), int(fields[1]), int(fields[17]), int(fields[3])


def _descendants(root: int) -> Iterator[int]:
    """Yield the processes below `root`, each as often as it has threads."""
    below: dict[int, list[tuple[int, int]]] = {}
    for pid, parent, threads, _ in _processes():
        below.setdefault(parent, []).append((pid, threads))
    waiting = [root]
    while waiting:
        for pid, threads in below.get(waiting.pop(), ()):
            waiting.append(pid)
            yield from [pid] * threads


def _own_processes() -> int:
    """Return how many processes and threads this user has, whom the kernel counts together with the new ones."""
    mine, count = os.getuid(), 0
    for pid, _, threads, _ in _processes():
        with contextlib.suppress(OSError):
            count += threads if Path(f"/proc/{pid}").stat().st_uid == mine else 0
    return count


def _end_all() -> None:
    """Kill all that is below this process; first they are stopped, so that none begins another one meanwhile."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        seen = set[int]()
        while new := set(_descendants(os.getpid())) - seen:
            seen |= new
            for pid in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            if number == signal.SIGKILL and len(seen) > 1_000_000:
                return
    for _ in range(100):
        if not any(True for _ in _descendants(os.getpid())):
            return
        time.sleep(0.01)


def _reap(child: int) -> int:
    """Collect what ended, and return how `child` did."""
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return status
