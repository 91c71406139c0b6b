"""Make a tree of the cache: one at a time per image, whole or not at all, and never more than the cache may hold."""

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from computeops import proc
from computeops.engine import trees
from computeops.engine.mounts import resolved
from computeops.engine.trees import stamp
from computeops.errors import FormatError, StorageError
from computeops.image import sif

_FOLDERS = ("dev", "etc", "home", "proc", "sys", "tmp", "var/tmp")
_FILES = ("etc/group", "etc/hosts", "etc/localtime", "etc/passwd", "etc/resolv.conf")
"""What is laid over an image at every start; Apptainer makes these in every image that it builds."""
_ACCOUNT_BYTES = 1024 * 1024
_NOT_FOR_USERS = "because you're not superuser"
_NEW, _GONE = ".new-", ".gone-"
_HINT = "set COMPUTEOPS_CACHE to a folder on a disk with more room, or use --engine apptainer, which does not unpack"
_FULL = ("No space left", "Disk quota")


def unpacked(image: Path, folder: Path, limit_bytes: int) -> Path:
    """Return the entry of `image` in the cache `folder`, made if need be, and locked for use.

    Raises:
        FormatError, StorageError, MissingProgramError: as `trees.prepare`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # a program in an image may be setuid: nobody else may start it as this user
        (folder / "by-file").mkdir(exist_ok=True)
        before = stamp(image)
        name = digest(image)
        while (entry := trees.hold(folder / name)) is None:  # again if it is removed between the two locks
            with _alone(folder, name):
                if not (folder / name / "root").is_dir():
                    _make(image, folder, name)
        if stamp(image) == before:
            _remember(folder, before, name)
        evict(folder, limit_bytes, keep=name)
    except OSError as error:
        raise StorageError(f"cannot unpack {image} into {folder}: {error.strerror}", hint=_HINT) from error
    return entry


def digest(image: Path) -> str:
    """Return the name of the tree of `image`: one for a SIF whether it was signed or not.

    Raises:
        FormatError: it is not an image.
    """
    if trees.is_sif(image):
        return sif.unsigned_digest(image).hex
    from computeops.image import convert

    return convert.open_image(image).id.hex


def made(image: Path, folder: Path, limit_bytes: int, finish: Callable[[Path], None], *, again: bool) -> Path:
    """Return the entry of `image` in `folder`, made if need be; `finish` is given each new one before it appears.

    With `again` one that is there is made anew, unless a program runs in it.

    Raises:
        FormatError, StorageError, MissingProgramError: as `trees.prepare`.
    """
    name = digest(image)
    try:
        (folder / "by-file").mkdir(exist_ok=True)
        with _alone(folder, name, wait=not again):
            (folder / f"{name}.lock").chmod(0o644)
            if again or not (folder / name / "root").is_dir():
                _make(image, folder, name, finish)
        evict(folder, limit_bytes, keep=name)
    except BlockingIOError as error:
        raise StorageError(f"a program runs in the tree of {image}") from error
    except OSError as error:
        raise StorageError(f"cannot unpack {image} into {folder}: {error.strerror}", hint=_HINT) from error
    return folder / name


def accounts(root: Path, into: Path) -> Mapping[str, Path]:
    """Return the files with the accounts of the image in `root` and this user's own, made in `into` if need be."""
    if not (into / f"passwd-{os.geteuid()}").exists():
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        _add_accounts(root, into)
    return trees.accounts(into)


@contextlib.contextmanager
def _alone(folder: Path, name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an entry alone; without `wait`, BlockingIOError if someone else holds it."""
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(lock)


def _make(image: Path, folder: Path, name: str, finish: Callable[[Path], None] | None = None) -> None:
    """Unpack `image` beside its place in the cache and put it there when it is complete and on the disk."""
    new = folder / f"{_NEW}{name}"
    remove(new)  # left by one that was killed: whoever holds the lock is the only one who makes it
    new.mkdir()
    try:
        root = new / "root"
        if trees.is_sif(image):
            _unsquash(image, sif.Sif.open(image).partition, root)
        else:
            _unpack_oci(image, new, root)
        _add_places(root)
        _add_accounts(root, new)
        (new / "bytes").write_text(str(_used(root)))
        if finish:
            finish(new)
        proc.run(["sync", "--file-system", str(new)], error=StorageError)
        remove(folder / name)  # what someone has damaged
        new.rename(folder / name)
    finally:
        remove(new)


def _unpack_oci(image: Path, new: Path, root: Path) -> None:
    from computeops.image import convert

    packed = new / "image.sif"
    convert.convert(image, packed, writer=convert.Writer(level=1), epoch=0)
    _unsquash(packed, sif.Sif.open(packed).partition, root)
    packed.unlink()


def _unsquash(image: Path, partition: sif.Object, into: Path) -> None:
    """Unpack the squashfs in `image`; what only root may make, device files, is left out for others.

    Raises:
        FormatError: it is not a squashfs, or a broken one; StorageError: the disk is full.
    """
    if partition.filesystem != "squashfs":
        raise FormatError(f"{image}: its filesystem is {partition.filesystem}; only squashfs can be unpacked")
    options = ["-quiet", "-no-progress", "-no-xattrs", "-offset", str(partition.offset), "-dest", str(into)]
    command = ["unsquashfs", *options, str(image)]
    done = proc.capture(command)
    said = (done.stderr + done.stdout).decode(errors="replace")
    lines = [line for line in said.splitlines() if line.strip() and _NOT_FOR_USERS not in line]
    if done.returncode == 0 or (done.returncode == 2 and not lines):  # 2: some files were left out
        return
    if any(word in said for word in _FULL):
        raise StorageError(f"{image} does not fit on the disk of {into.parent.parent}", hint=_HINT)
    raise proc.failed(command, done.returncode, "\n".join(lines).encode(), FormatError)


def _add_places(root: Path) -> None:
    """Make the places of what every container sees, where the image has none."""
    for name in (*_FOLDERS, *_FILES):
        place = root.joinpath(*resolved(root, name))
        if os.path.lexists(place):
            continue
        if name in _FILES:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        else:
            place.mkdir(parents=True, exist_ok=True)


def _add_accounts(root: Path, into: Path) -> None:
    """Write the image's accounts and this user's own, for programs that ask who they are."""
    user = os.geteuid()
    with contextlib.suppress(KeyError):  # a user without an account, as in some containers
        own = pwd.getpwuid(user)
        line = f"{own.pw_name}:x:{user}:{own.pw_gid}:{own.pw_gecos}:{own.pw_dir}:{own.pw_shell}"
        _add_lines(root, "etc/passwd", into / f"passwd-{user}", {user: line})
    groups = {}
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            groups[number] = f"{grp.getgrgid(number).gr_name}:x:{number}:"
    _add_lines(root, "etc/group", into / f"group-{user}", groups)


def _add_lines(root: Path, name: str, target: Path, lines: dict[int, str]) -> None:
    with root.joinpath(*resolved(root, name)).open(errors="surrogateescape") as file:
        text = file.read(_ACCOUNT_BYTES)
    there = {fields[2] for fields in (line.split(":") for line in text.splitlines()) if len(fields) > 2}
    added = [line for number, line in sorted(lines.items()) if str(number) not in there]
    target.write_text("\n".join([text.rstrip("\n"), *added, ""]).lstrip("\n"), errors="surrogateescape")


def _used(root: Path) -> int:
    """Return the bytes that a tree takes on the disk."""
    total = 0
    for folder, _, names in os.walk(root):
        total += 4096 + sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in names)  # noqa: PTH118
    return total


def _remember(folder: Path, seen: str, name: str) -> None:
    new = folder / "by-file" / f"{_NEW}{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(folder / "by-file" / seen)


def evict(folder: Path, limit_bytes: int, *, keep: str = "") -> None:
    """Remove the trees that were not used for longest until the others fit into `limit_bytes`.

    Trees in use and `keep` stay. What was left by processes that were killed is removed too.
    """
    sizes = {file.parent.name: int(file.read_text() or 0) for file in folder.glob("[0-9a-f]*/bytes")}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda one: (folder / f"{one}.lock").stat().st_mtime_ns):
        if total <= limit_bytes:
            break
        if name != keep and _take_away(folder, name):
            total -= sizes[name]
    for left in folder.glob(f"{_GONE}*"):
        remove(left)
    for left in folder.glob(f"{_NEW}*"):
        with contextlib.suppress(BlockingIOError), _alone(folder, left.name.removeprefix(_NEW), wait=False):
            remove(left)
    for link in (folder / "by-file").iterdir():
        with contextlib.suppress(FileNotFoundError):  # its maker has just given it its own name
            if not (folder / os.readlink(link)).is_dir():  # noqa: PTH115
                link.unlink()


def _take_away(folder: Path, name: str) -> bool:
    """Move an entry that nobody uses out of the way, to be removed."""
    try:
        with _alone(folder, name, wait=False):
            (folder / name).rename(folder / f"{_GONE}{name}-{os.getpid()}")
    except BlockingIOError:
        return False
    return True


def remove(tree: Path) -> None:
    """Remove a tree with whatever modes an image gave to its folders; nothing happens where there is none."""
    for folder, _, _ in os.walk(tree):
        with contextlib.suppress(OSError):
            Path(folder).chmod(0o700)
    shutil.rmtree(tree, ignore_errors=True)
