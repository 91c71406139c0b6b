"""Open what strangers packed, in a process of its own: `python -m computeops.hub.deposits.apart FOLDER`.

It has bounds of time, memory and disk, none of the hub's environment, and leaves a file that says what it found. A git
repository is fetched as pipelines fetch one: no hooks, no submodules, no redirects; here by the hub, which keeps it.
"""

import contextlib
import lzma
import os
import resource
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore

import msgspec

from computeops import errors, proc
from computeops.build import sources
from computeops.build.model import Place
from computeops.errors import ComputeOpsError, FormatError, LimitError, NotFoundError, UnavailableError
from computeops.hub.deposits import reading, swhid
from computeops.hub.worker import addresses
from computeops.hub.worker.unpack import unpack
from computeops.limits import LIMITS
from computeops.recipe import FILE_NAME
from computeops.store import pipelines

_AT_ONCE = 2
_PEEL = "^{}"
_ZIP = b"PK\x03\x04"
_turn = BoundedSemaphore(_AT_ONCE)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be opened."""

    archive: str = ""
    """Path of a file of this machine."""
    git: str = ""
    """Else the address of a git repository."""
    ref: str = ""
    """Tag or commit."""
    name: str = ""
    """Of the archive, as its author calls it."""
    private: bool = False
    """Whether the repository may be on a machine of the own network."""
    files: dict[str, bytes] | None = None
    """What is laid beside its files before all is packed again; none: it is only read."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    tree: str
    """SWHID of its files."""
    content: str
    """SWHID of the archive."""
    commit: str
    found: dict[str, tuple[str, str]]
    tops: list[str]
    """Names of the first level."""
    recipe: bytes
    """Its computeops.toml; empty: it has none."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    message: str
    hint: str = ""


# the hub's side


@contextlib.contextmanager
def opened(asked: Asked, work: Path) -> Iterator[tuple[Opened, Path]]:
    """Open a source, and give what was found, and the folder where `archive` and, if asked, `packed` are meanwhile.

    Raises:
        FormatError, LimitError: it is no archive, or one that nobody should unpack.
        NotFoundError, NetworkError, DeniedError: of a git repository.
        UnavailableError: others are opened just now.
    """
    if not _turn.acquire(timeout=LIMITS.deposit_seconds):
        raise UnavailableError("the hub is opening other deposits", hint="try again in a minute")
    try:
        with TemporaryDirectory(dir=work.resolve(), prefix="deposit-") as name:  # the other process is elsewhere
            folder = Path(name)
            (folder / "asked.json").write_bytes(msgspec.json.encode(asked))
            _run(folder)
            yield msgspec.json.decode((folder / "opened.json").read_bytes(), type=Opened), folder
    finally:
        _turn.release()


def _run(folder: Path) -> None:
    argv = [sys.executable, "-m", "computeops.hub.deposits.apart", str(folder)]
    path = os.pathsep.join(one for one in sys.path if one)
    env = {"PYTHONPATH": path, "LANG": "C.UTF-8", "PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder)}
    # git follows no redirect: it could lead into our own network
    env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.followRedirects", "GIT_CONFIG_VALUE_0": "false"}
    done = proc.observe(argv, env=env, timeout=LIMITS.deposit_seconds, limit_bytes=4000, cwd=folder)
    if (file := folder / "fault.json").exists():
        said = msgspec.json.decode(file.read_bytes(), type=_Fault)
        kind = getattr(errors, said.kind, FormatError)
        raise kind(said.message[:2000], hint=said.hint[:2000])
    if done.timed_out or done.code < 0:
        raise LimitError(
            f"the source takes more than {LIMITS.deposit_seconds} s, or more memory or disk than it may, to be opened",
            hint="leave out of the archive what its build does not need",
        )
    if done.code != 0 or not (folder / "opened.json").exists():
        raise FormatError("the source cannot be opened", hint="send a tar or zip file")


# the other process


def main(folder: Path) -> int:
    """Do what `asked.json` in the folder says; return the exit code."""
    os.umask(0o022)
    _bound()
    try:
        found = _open(folder, msgspec.json.decode((folder / "asked.json").read_bytes(), type=Asked))
    except ComputeOpsError as error:
        fault = _Fault(kind=type(error).__name__, message=error.message, hint=error.hint)
    except MemoryError:
        fault = _Fault(kind="LimitError", message="the source needs more memory than it may to be opened")
    except (OSError, RecursionError, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        fault = _Fault(kind="FormatError", message=f"the source cannot be opened: {error!s:.300}")
    else:
        (folder / "opened.json").write_bytes(msgspec.json.encode(found))
        return 0
    (folder / "fault.json").write_bytes(msgspec.json.encode(fault))
    return 1


def _bound() -> None:
    for kind, most in (
        (resource.RLIMIT_AS, LIMITS.deposit_memory_bytes),
        (resource.RLIMIT_CPU, LIMITS.deposit_seconds),
        (resource.RLIMIT_FSIZE, LIMITS.deposit_unpacked_bytes + LIMITS.deposit_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _open(folder: Path, asked: Asked) -> Opened:
    archive, commit, name = folder / "archive", "", asked.name
    if asked.git:
        commit = _fetch(asked, archive)
        name = asked.ref if asked.ref != commit else ""
    else:
        archive = Path(asked.archive)
    tree = folder / "tree"
    _unpack(archive, tree)
    only = list(tree.iterdir())
    root = only[0] if len(only) == 1 and only[0].is_dir() and not only[0].is_symlink() else tree
    if not any(root.iterdir()):
        raise FormatError("the source has no files in it", hint="send a tar or zip file of the sources")
    own = root / FILE_NAME
    if own.is_file() and own.stat().st_size > LIMITS.recipe_bytes:
        raise LimitError(f"{FILE_NAME} has more than {LIMITS.recipe_bytes} bytes")
    found = Opened(
        tree=swhid.directory(root),
        content=swhid.content(archive),
        commit=commit,
        found=reading.read(root, name),
        tops=sorted(one.name for one in root.iterdir() if _is_text(one.name))[:1000],
        recipe=own.read_bytes() if own.is_file() and not own.is_symlink() else b"",
    )
    if asked.files is not None:
        _pack(root, asked.files, folder / "packed")
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fetch(asked: Asked, into: Path) -> str:
    """Write the tree of a tag or commit to the tar file `into` and return the commit."""
    addresses.require([f"git+{asked.git}"], private=asked.private)
    place = Place(work=into.parent, cache=into.parent / "cache")
    with addresses.outside(private=asked.private):
        commit = asked.ref if _is_commit(asked.ref) else _resolve(asked.git, asked.ref)
        sources.commit(asked.git, commit, place).replace(into)
    if (size := into.stat().st_size) > LIMITS.deposit_unpacked_bytes:
        raise LimitError(f"the commit has {size} bytes; a source has at most {LIMITS.deposit_unpacked_bytes}")
    return commit


def _is_commit(ref: str) -> bool:
    return len(ref) == 40 and not ref.strip("0123456789abcdef")


def _resolve(address: str, tag: str) -> str:
    """Return the commit of a tag."""
    wanted = f"refs/tags/{tag}"
    argv = [*sources.git_at(address), "ls-remote", "--quiet", "--", address, wanted, wanted + _PEEL]
    said = proc.run(argv, error=errors.NetworkError)
    lines: Mapping[str, str] = {name: commit for commit, _, name in (one.partition("\t") for one in said.splitlines())}
    commit = lines.get(wanted + _PEEL) or lines.get(wanted) or ""
    if not _is_commit(commit):
        raise NotFoundError(f"{address} has no tag {tag}", hint="name a tag, or the 40 hex digits of a commit")
    return commit


def _unpack(archive: Path, into: Path) -> None:
    with archive.open("rb") as file:
        is_zip = file.read(4) == _ZIP
    if is_zip:
        with TemporaryDirectory(dir=into.parent) as scratch:
            packed = Path(scratch) / "unzipped.tar"
            _to_tar(archive, packed)
            unpack(packed, into, most_bytes=LIMITS.deposit_unpacked_bytes)
    else:
        unpack(archive, into, most_bytes=LIMITS.deposit_unpacked_bytes)


def _to_tar(archive: Path, into: Path) -> None:
    """Write the files of a zip as a tar file, whose reader then judges their names; what zips lie about is counted."""
    left = LIMITS.deposit_unpacked_bytes
    with zipfile.ZipFile(archive) as zipped, tarfile.open(into, "w", format=tarfile.PAX_FORMAT) as tar:
        for one in zipped.infolist():
            mode, info = one.external_attr >> 16, tarfile.TarInfo(one.filename)
            left -= one.file_size
            if left < 0:
                raise LimitError(f"the source has more than {LIMITS.deposit_unpacked_bytes} bytes unpacked")
            if one.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif mode & 0o170000 == 0o120000:
                if one.file_size > LIMITS.path_bytes:
                    raise FormatError(f"the source has the link {one.filename[:200]!r} to a place that is too long")
                info.type, info.linkname = tarfile.SYMTYPE, zipped.read(one).decode()
                tar.addfile(info)
            else:
                info.size, info.mode = one.file_size, 0o755 if mode & 0o100 else 0o644
                with zipped.open(one) as content:
                    tar.addfile(info, content)  # takes no more than the size that was counted


def _pack(root: Path, files: Mapping[str, bytes], into: Path) -> None:
    for name, content in files.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(content)
    with into.open("wb") as file:
        pipelines.pack(root, file)
    shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
