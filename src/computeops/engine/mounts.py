"""What a container sees: an unpacked image, read-only, and parts of this machine laid into it.

The result is the options of bwrap(1), which two engines carry out: bwrap itself, and `computeops.engine.enter`. A place
that a mount needs and the image does not have is never made in the image: the nearest folder above it is *opened*, that
is, becomes an empty one in memory into which the image's own entries and the new place are laid.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError, UsageError

_FILES = ("/etc/hosts", "/etc/localtime", "/etc/resolv.conf")
_SCRATCH = ("/tmp", "/var/tmp")  # noqa: S108  shared with the machine, as Apptainer does
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero", "pts")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_OF_THE_SYSTEM = frozenset(
    ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/sys", "/usr", "/var")
)
"""Folders that are not laid over the image's own because someone stands in them or calls them home."""
_LINKS = 40
"""Symbolic links followed in one path, as the kernel does."""

Place = tuple[str, ...]
"""Components of a path in the container, none of them a symbolic link; () is the root."""


@dataclass(frozen=True, slots=True)
class _Mount:
    """One option of bwrap without its last word, the place."""

    words: tuple[str, ...]
    target: str
    source: Path | None = None
    """What is shown there; None: something new and empty, in which every place can be made."""
    needed: bool = False
    """Whether it is an error if it does not fit the image; else it is left out."""


@dataclass(slots=True)
class _Layout:
    """Mounts by place, and the folders of the image that must be opened for them."""

    root: Path
    mounts: dict[Place, _Mount] = field(default_factory=dict)
    opened: set[Place] = field(default_factory=set)


def options(image: Prepared, request: Request, environ: Mapping[str, str]) -> list[str]:
    """Return bwrap's options that show `image` and what `request` asks for, and the folder that the program starts in.

    Raises:
        UsageError: a bind is a file and its target a folder, or the reverse.
        EngineError: a bind needs a place inside another bind that does not exist.
    """
    layout = _Layout(image.path)
    home = _home(environ) if request.home else ""
    for mount in _isolated(home) if request.isolated else _shared(home):
        _place(layout, mount)
    for file in (*_FILES, *image.accounts):
        source = image.accounts.get(file, Path(file))
        if source.is_file():
            _place(layout, _mount(Bind(source, file, read_only=True)))
    for bind in request.binds:
        _place(layout, _mount(bind, needed=True))
    if request.writable:  # places of binds are made in what lies over the image
        layout.opened.clear()
        words = ["--overlay-src", str(image.path), "--tmp-overlay", "/"]
    else:
        words = list(_image(layout))
    for place in sorted(layout.mounts):
        words += [*layout.mounts[place].words, _path(place)]
    for place in sorted(layout.opened):
        words += ["--remount-ro", _path(place)]
    return [*words, "--chdir", _start(layout, request, home)]


def _shared(home: str) -> Iterator[_Mount]:
    """Yield what a container sees of this machine, as under Apptainer."""
    for path in ("/dev", "/proc", "/sys", *folders(home)):
        yield _mount(Bind(Path(path), path))


def visible(request: Request, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the folders of the user that a container sees, and the one of them to start in ("" for none).

    For engines that lay them in themselves.
    """
    home = _home(environ) if request.home else ""
    shown = [] if request.isolated else folders(home)
    here = _here()
    return shown, next((one for one in (here, home) if one and any(_inside(one, above) for above in shown)), "")


def laid(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[Bind], str]:
    """Return the binds of a container, of what every one sees and of `request`, and the folder that it starts in.

    For engines that lay them over an image by themselves.
    """
    shown, start = visible(request, environ)
    binds = [Bind(Path(path), path) for path in shown]
    binds += [Bind(image.accounts.get(file, Path(file)), file, read_only=True) for file in (*_FILES, *image.accounts)]
    return [bind for bind in (*binds, *request.binds) if bind.source.exists()], request.cwd or start or "/"


def csv(fields: Sequence[str], bind: Bind, read_only: str = "readonly") -> str:
    """Return one mount in CSV, in which a field may hold any character but a line break."""
    words = [*fields, *([read_only] if bind.read_only else [])]
    return ",".join('"' + word.replace('"', '""') + '"' if set(word) & set(',"') else word for word in words)


def folders(home: str) -> list[str]:
    """Return scratch, `home` and the current folder, as far as they are there and nobody else's."""
    found = [*(path for path in _SCRATCH if os.path.isdir(path)), *([home] if home else [])]
    here = _here()
    if here and here not in _OF_THE_SYSTEM and not any(_inside(here, one) for one in (*found, "/dev", "/proc")):
        found.append(here)
    return found


def _isolated(home: str) -> Iterator[_Mount]:
    """Yield a machine's folders as a container of its own has them."""
    for path in ("/proc", "/sys"):
        yield _mount(Bind(Path(path), path))
    yield _Mount(("--tmpfs",), "/dev")
    for name in _DEVICES:
        yield _mount(Bind(Path("/dev", name), f"/dev/{name}"))
    for name, target in _DEVICE_LINKS.items():
        yield _Mount(("--symlink", target), f"/dev/{name}")
    for path in ("/dev/shm", *_SCRATCH):  # noqa: S108
        yield _Mount(("--perms", "1777", "--tmpfs"), path)
    if home:
        yield _Mount(("--perms", "700", "--tmpfs"), home)


def _mount(bind: Bind, *, needed: bool = False) -> _Mount:
    device = _inside(bind.target, "/dev")
    kind = "--ro-bind" if bind.read_only else "--dev-bind" if device else "--bind"
    return _Mount((kind, str(bind.source)), bind.target, bind.source, needed)


def _home(environ: Mapping[str, str]) -> str:
    home = os.path.normpath(environ.get("HOME") or "/")
    return home if home.startswith("/") and home not in _OF_THE_SYSTEM and os.path.isdir(home) else ""


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # the current folder was removed, or is not ours to see
        return ""


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _place(layout: _Layout, mount: _Mount) -> None:
    """Note the place of `mount`, and what must be opened for it."""
    place = resolved(layout.root, mount.target)
    if not place:
        raise UsageError("a bind cannot replace the whole image: its target is /")
    over = next((above for n in range(len(place) - 1, 0, -1) if (above := place[:n]) in layout.mounts), None)
    if over is None:
        under: Path | None = layout.root.joinpath(*place)
        known = _known(layout.root, place)
    else:
        source = layout.mounts[over].source
        under = source.joinpath(*place[len(over) :]) if source else None
        known = place
        if under is not None and not under.exists():
            if mount.needed:
                raise EngineError(
                    f"cannot bind to {mount.target}: the container's {_path(over)} is {source}, which does not have it",
                    hint="make it there, or bind to another place",
                )
            return
    if _differ(mount.source, under):
        if mount.needed:
            raise UsageError(f"cannot bind {mount.source} to {mount.target}: one is a file, the other a folder")
        return
    if known != place:
        layout.opened.add(known)
    layout.mounts[place] = mount


def _differ(source: Path | None, under: Path | None) -> bool:
    """Whether one is a folder and the other something else."""
    return source is not None and under is not None and under.exists() and source.is_dir() is not under.is_dir()


def _known(root: Path, place: Place) -> Place:
    """Return `place` if the image has it, else the nearest folder above it that the image has."""
    for length in range(len(place), 0, -1):
        full = root.joinpath(*place[:length])
        if full.is_dir() or (length == len(place) and full.exists()):
            return place[:length]
    return ()


def resolved(root: Path, target: str) -> Place:
    """Return the place of `target`: every symbolic link of the image is followed, inside the image."""
    pending = _parts(target)
    place: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            place = place[:-1]
            continue
        try:
            link = os.readlink(root.joinpath(*place, part))
        except OSError:  # not a link, or not there
            place.append(part)
            continue
        links += 1
        if links > _LINKS:
            raise UsageError(f"{target}: too many symbolic links in the image")
        place = [] if link.startswith("/") else place
        pending += _parts(link)
    return tuple(place)


def _parts(path: str) -> list[str]:
    """Return the components of `path`, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def _path(place: Sequence[str]) -> str:
    return "/" + "/".join(place)


def _image(layout: _Layout) -> Iterator[str]:
    """Yield the options that show the image: as it is, and its opened folders entry by entry."""
    if () not in layout.opened:
        yield from ("--ro-bind", str(layout.root), "/")
    for place in sorted(layout.opened):
        folder = layout.root.joinpath(*place)
        yield from ("--perms", f"{stat.S_IMODE(folder.stat().st_mode):o}", "--tmpfs", _path(place))
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            inside = (*place, entry.name)
            if entry.is_symlink():
                yield from ("--symlink", os.readlink(entry.path), _path(inside))
            elif inside not in layout.opened and (entry.is_dir() or entry.is_file()):
                yield from ("--ro-bind", entry.path, _path(inside))


def _start(layout: _Layout, request: Request, home: str) -> str:
    """Return the folder asked for, else the caller's own if the container has it, else home, else /."""
    here = "" if request.isolated else _here()
    return request.cwd or next((one for one in (here, home) if one and _has_folder(layout, one)), "/")


def _has_folder(layout: _Layout, path: str) -> bool:
    place = resolved(layout.root, path)
    for length in range(len(place), 0, -1):
        if mount := layout.mounts.get(place[:length]):
            return mount.source is None or mount.source.joinpath(*place[length:]).is_dir()
    return layout.root.joinpath(*place).is_dir()
