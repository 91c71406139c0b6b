"""Lay out a tar file that a stranger packed: files, folders and links that stay inside, up to a size."""

import os
import shutil
import tarfile
import zlib
from pathlib import Path

from computeops.errors import FormatError, LimitError

_MEMBERS = 100_000


def unpack(archive: Path, into: Path, *, most_bytes: int, strip: bool = False) -> None:
    """Unpack `archive` below `into`, which is made anew; with `strip`, without the first folder of each path.

    Raises:
        FormatError: it is no tar file, or something in it leads out of `into`.
        LimitError: it is more than `most_bytes` unpacked, or too many files.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    left = most_bytes
    try:
        with tarfile.open(archive) as tar:
            for count, member in enumerate(tar):
                left -= member.size if member.isreg() else 0
                if count >= _MEMBERS or left < 0:
                    raise LimitError(f"the source has more than {_MEMBERS} files, or {most_bytes} bytes")
                _lay(tar, member, into, strip=strip)
    except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(f"the source cannot be unpacked: {error}") from error


def _lay(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, *, strip: bool) -> None:
    parts = [part for part in member.name.split("/") if part not in {"", "."}]
    parts = parts[1:] if strip else parts
    if not parts:
        return
    target = into.joinpath(*parts)
    if ".." in parts or not target.parent.resolve().is_relative_to(into.resolve()):
        raise FormatError(f"the source has {member.name[:200]!r}, which leads out of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        _link(target, member.linkname, into)
    elif member.isreg():
        content = tar.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(target, flags, 0o755 if member.mode & 0o100 else 0o644), "wb") as file:
            if content is not None:
                shutil.copyfileobj(content, file)
    else:
        raise FormatError(f"the source has {member.name[:200]!r}, which is neither file, folder nor symbolic link")


def _link(target: Path, to: str, into: Path) -> None:
    """Make a symbolic link that stays inside, however it is followed."""
    leads = os.path.normpath(target.parent.resolve() / to)
    if to.startswith("/") or not Path(leads).is_relative_to(into.resolve()):
        raise FormatError(f"the source has a link {target.name[:200]!r} to {to[:200]!r}, which leads out of it")
    target.symlink_to(to)
