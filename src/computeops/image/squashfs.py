"""Squashfs 4.0: packed from the normalised tar by `mksquashfs - FILE -tar`.

It is what `sqfstar` does; the sqfstar of squashfs-tools 4.5 (Debian 12) cannot be given a compression level.

The bytes are a function of the tar and of the recorded writer (`writer`): the version of squashfs-tools, of the
compressor's library, and the level. Neither the number of threads nor the machine changes them.
"""

import contextlib
import fcntl
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from computeops import proc
from computeops.errors import BuildError, StorageError

BLOCK_SIZE = 128 * 1024
"""Data block: larger ones save a few percent and cost reading speed."""
_PIPE_BYTES = 1024 * 1024
_FULL = (b"No space left", b"Disk quota", b"File too large")


def argv(out: Path, *, offset: int, compression: str, level: int, epoch: int | None, threads: int) -> list[str]:
    """Return the command that reads a tar on standard input and writes a squashfs at byte `offset` of `out`.

    `epoch`: seconds since 1970 of every file and of the filesystem; None keeps the files' own times.
    """
    time = str(epoch if epoch is not None else 0)
    options = ["-tar", "-no-exports", "-noappend", "-quiet", "-no-progress"]
    options += ["-o", str(offset), "-b", str(BLOCK_SIZE), "-comp", compression]
    options += ["-Xcompression-level", str(min(level, 9) if compression == "gzip" else level)]
    options += ["-mkfs-time", time, "-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"]
    options += ["-all-time", time] if epoch is not None else []
    options += ["-processors", str(threads)] if threads else []
    return ["mksquashfs", "-", str(out), *options]


class Packing:
    """A running mksquashfs that is fed the normalised tar."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child = proc.start(command, stdin=proc.PIPE, stdout=proc.DEVNULL, stderr=proc.PIPE)
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):  # the system's limit may be lower: then it stays as it is
                fcntl.fcntl(self._child.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, block: bytes) -> None:
        """Feed bytes of the tar.

        Raises:
            BuildError: mksquashfs ended early; StorageError: because the disk is full.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(block)
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        """End the tar and wait until the filesystem is written.

        Raises:
            BuildError: mksquashfs failed; StorageError: because the disk is full.
        """
        _, errors = self._child.communicate()
        if self._child.returncode != 0:
            code = self._child.returncode
            full = code == -signal.SIGXFSZ or any(text in errors for text in _FULL)
            raise proc.failed(self._command, code, errors, StorageError if full else BuildError)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stderr):
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):  # the child is gone: what is in the buffer has nowhere to go
                    stream.close()


def writer(compression: str, level: int) -> str:
    """Return the recorded writer: program, compressor library and level, as far as they can be found out."""
    said = proc.capture(["mksquashfs", "-version"]).stdout.decode(errors="replace")
    version = re.search(r"version (\S+)", said)
    library = "libzstd.so.1" if compression == "zstd" else "libz.so.1"
    linked = proc.find("ldconfig") or "/sbin/ldconfig"
    listed = proc.capture([linked, "-p"]).stdout.decode(errors="replace") if Path(linked).exists() else ""
    path = re.search(rf"{re.escape(library)} .*=> (\S+)", listed)
    real = Path(path[1]).resolve().name if path else library
    return f"squashfs-tools {version[1] if version else 'unknown'}, {real}, {compression} {level}"
