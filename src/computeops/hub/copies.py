"""The two forms of a backup: a folder, to which the next one only adds, and one file, a tar in zstd.

    tables.jsonl, records.jsonl, session.key, hub.toml
    objects/blobs/...   content by digest
    backup.json         written last: without it a backup is not whole; names the sums of the files above

A file appears under its name when it is whole and on the disk. It is read twice: once to see that every byte is as it
was written, and only then to be used.
"""

import hashlib
import io
import json
import os
import re
import secrets
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from computeops.errors import FormatError, UsageError
from computeops.hub.storage import Entry

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".tar.zst"
"""Of a backup in one file."""
SUMMARY, TABLES, RECORDS, KEY, SETTINGS = "backup.json", "tables.jsonl", "records.jsonl", "session.key", "hub.toml"
_SMALL = (TABLES, RECORDS, KEY, SETTINGS, SUMMARY)
_OBJECTS = "objects/"
_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]{2})/(\2[0-9a-f]{62}(?:[0-9a-f]{64})?)")
_CHUNK = 1024 * 1024
_BROKEN = (EOFError, tarfile.TarError, zstd.ZstdError)
_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}


class Writer(Protocol):
    """A backup that is being made."""

    def lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> int:
        """Add a file of JSON lines; return how many there are."""
        ...

    def small(self, name: str, data: bytes) -> None:
        """Add a small file."""
        ...

    def has(self, entry: Entry) -> bool:
        """Return whether the blob is there from the last time."""
        ...

    def blob(self, entry: Entry, chunks: Iterator[bytes]) -> bool:
        """Add a blob; return whether it was as its name says: else it is left out, because it would look whole."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Make it whole, durably."""
        ...


class Reader(Protocol):
    """A backup that is there."""

    folder: Path
    """Where its small files are, and the lists."""

    def blobs(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield key and content of each blob.

        Raises:
            FormatError: it is broken.
        """
        ...


# made


@contextmanager
def writing(target: Path, *, inside: Path) -> Iterator[Writer]:
    """Give a backup at `target`, a folder or a file `*.tar.zst`, of the hub in the folder `inside`.

    Raises:
        UsageError: it is in the hub's own folder, or something else is there.
    """
    if target.resolve().is_relative_to(inside.resolve()):
        raise UsageError(f"{target} is inside the hub's own folder", hint="choose a place on another disk")
    if not target.name.endswith(SUFFIX):
        if target.exists() and any(target.iterdir()) and not (target / TABLES).exists():
            raise UsageError(
                f"{target} has something else in it", hint="choose a new folder, or that of an older backup"
            )
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / SUMMARY).unlink(missing_ok=True)
        yield _FolderWriter(target)
        return
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint=f"a name that ends in {SUFFIX} is that of one file")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        with _new(temporary) as raw:
            with zstd.ZstdFile(raw, "w", options=_OPTIONS) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
                yield _FileWriter(tar, target.parent)
            raw.flush()
            os.fsync(raw.fileno())
        _appear(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class _FolderWriter:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sums: dict[str, str] = {}

    def lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> int:
        temporary = _temporary(self._folder / name)
        with _new(temporary) as stream:
            count = self._write(name, stream, lines)
        _appear(temporary, self._folder / name)
        return count

    def _write(self, name: str, stream: IO[bytes], lines: Iterable[Mapping[str, Any]]) -> int:
        count, self._sums[name] = _write_lines(stream, lines)
        stream.flush()
        os.fsync(stream.fileno())
        return count

    def small(self, name: str, data: bytes) -> None:
        temporary = _temporary(self._folder / name)
        with _new(temporary) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        self._sums[name] = hashlib.sha256(data).hexdigest()
        _appear(temporary, self._folder / name)

    def has(self, entry: Entry) -> bool:
        file = self._folder / _OBJECTS / entry.key
        return file.exists() and file.stat().st_size == entry.size

    def blob(self, entry: Entry, chunks: Iterator[bytes]) -> bool:
        file = self._folder / _OBJECTS / entry.key
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _temporary(file)
        found = hashlib.new(entry.key.split("/")[1])
        try:
            with _new(temporary) as stream:
                for chunk in chunks:
                    found.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            if found.hexdigest() != file.name:
                return False
            _appear(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def finish(self, summary: Mapping[str, Any]) -> None:
        self.small(SUMMARY, json.dumps({**summary, "sums": self._sums}).encode())


class _FileWriter:
    def __init__(self, tar: tarfile.TarFile, beside: Path) -> None:
        self._tar, self._beside = tar, beside
        self._sums: dict[str, str] = {}
        self._blobs = 0
        self._damaged: list[str] = []

    def lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> int:
        with tempfile.TemporaryFile(dir=self._beside) as stream:  # a tar says the size first
            count, self._sums[name] = _write_lines(stream, lines)
            size = stream.tell()
            stream.seek(0)
            self._add(name, size, stream)
        return count

    def small(self, name: str, data: bytes) -> None:
        self._sums[name] = hashlib.sha256(data).hexdigest()
        self._add(name, len(data), io.BytesIO(data))

    def has(self, entry: Entry) -> bool:  # noqa: ARG002  a file is always made anew
        return False

    def blob(self, entry: Entry, chunks: Iterator[bytes]) -> bool:
        found = _Hashed(entry, chunks)
        self._add(_OBJECTS + entry.key, entry.size, found)
        self._blobs += 1
        if not found.good():
            self._damaged.append(entry.key)
            return False
        return True

    def finish(self, summary: Mapping[str, Any]) -> None:
        more = {"sums": self._sums, "count": self._blobs, "damaged": self._damaged}
        self.small(SUMMARY, json.dumps({**summary, **more}).encode())

    def _add(self, name: str, size: int, stream: "IO[bytes] | _Hashed") -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._tar.addfile(member, stream)


class _Hashed:
    """A blob as `tarfile` reads it: exactly as many bytes as were announced, zeros where some are missing."""

    def __init__(self, entry: Entry, chunks: Iterator[bytes]) -> None:
        self._wanted, self._chunks = entry.key.rpartition("/")[2], chunks
        self._hash = hashlib.new(entry.key.split("/")[1])
        self._rest = b""

    def read(self, size: int = 0, /) -> bytes:
        """Return `size` bytes."""
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                self._rest += bytes(size - len(self._rest))
                break
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        self._hash.update(data)
        return data

    def good(self) -> bool:
        """Return whether it was what its name says."""
        return self._hash.hexdigest() == self._wanted


def _write_lines(stream: IO[bytes], lines: Iterable[Mapping[str, Any]]) -> tuple[int, str]:
    count, found = 0, hashlib.sha256()
    for line in lines:
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        found.update(data)
        stream.write(data)
        count += 1
    return count, found.hexdigest()


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}-{secrets.token_hex(8)}")


def _new(file: Path) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _appear(temporary: Path, file: Path) -> None:
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# read


@contextmanager
def reading(source: Path, work: Path, progress: Callable[[str], None]) -> Iterator[tuple[Reader, dict[str, Any]]]:
    """Give the backup at `source` and its summary, after every byte of it was checked; `work`: a folder for a while.

    Raises:
        FormatError: it is no backup, not whole or damaged anywhere.
    """
    progress("checking the backup")
    if source.is_dir():
        summary = _summary(source, source)
        found: Reader = _FolderReader(source)
        _check_small(source, summary)
        for key, chunks in found.blobs():
            _check_blob(source, key, chunks)
        yield found, summary
        return
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        count, wrong = _check_file(source, folder)
        summary = _summary(source, folder)
        _check_small(folder, summary)
        if count != summary.get("count") or wrong - set(summary["damaged"]):
            raise FormatError(f"{source} is damaged: {', '.join(sorted(wrong)) or f'{count} blobs'}", hint=_AGAIN)
        yield _FileReader(source, folder, wrong), summary


_AGAIN = "use another backup; this one was changed or broke off after it was made"


def _summary(source: Path, folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / SUMMARY).read_bytes())
        known = found["format"] in {1, 2} and found["schema"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{source} is no whole backup: {error}", hint="run hub backup again") from None
    if not known:
        raise FormatError(f"{source} was made by computeops {found.get('computeops')}, which is newer")
    return found


def _check_small(folder: Path, summary: Mapping[str, Any]) -> None:
    for name, wanted in summary.get("sums", {}).items():  # the first format had none
        file = folder / name
        if name not in _SMALL or not file.is_file():
            raise FormatError(f"the backup has no {name}", hint=_AGAIN)
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted:
                raise FormatError(f"{name} of the backup is damaged", hint=_AGAIN)


def _is_good(key: str, chunks: Iterator[bytes]) -> bool:
    match = _BLOB.fullmatch(key)
    if match is None:
        return False
    found = hashlib.new(match[1])
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest() == match[3]


def _check_blob(source: Path, key: str, chunks: Iterator[bytes]) -> None:
    if not _is_good(key, chunks):
        hint = "use another backup, or remove this file from the folder and restore what is left"
        raise FormatError(f"{source} is damaged: {key}", hint=hint)


class _FolderReader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blobs(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        root = self.folder / _OBJECTS
        for file in root.rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                with file.open("rb") as stream:
                    yield str(file.relative_to(root)), _chunks(stream)


class _FileReader:
    def __init__(self, file: Path, folder: Path, wrong: set[str]) -> None:
        self._file, self.folder, self._wrong = file, folder, wrong

    def blobs(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        for name, stream in _members(self._file):
            key = name.removeprefix(_OBJECTS)
            if name.startswith(_OBJECTS) and key not in self._wrong:
                yield key, _chunks(stream)


def _check_file(file: Path, folder: Path) -> tuple[int, set[str]]:
    """Take the small files out; return how many blobs there are, and which of them are not what their names say."""
    count, wrong = 0, set[str]()
    last = ""
    for name, stream in _members(file):
        if name.startswith(_OBJECTS):
            count += 1
            key = name.removeprefix(_OBJECTS)
            if not _is_good(key, _chunks(stream)):
                wrong.add(key)
        elif name in _SMALL and not (folder / name).exists():
            with _new(folder / name) as out:
                out.writelines(_chunks(stream))
        else:
            raise FormatError(f"{file} has {name!r} in it, which no backup has")
        last = name
    if last != SUMMARY:
        raise FormatError(f"{file} is no whole backup", hint=_AGAIN)
    return count, wrong


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    try:
        with zstd.ZstdFile(file) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise FormatError(f"{file} has {member.name!r} in it, which no backup has")
                yield member.name, stream
            while packed.read(_CHUNK):  # to the end: its checksum is there
                pass
    except _BROKEN as error:
        raise FormatError(f"{file} is no whole backup: {error}", hint=_AGAIN) from None


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except _BROKEN as error:
            raise FormatError(f"no whole backup: {error}", hint=_AGAIN) from None
        if not chunk:
            return
        yield chunk
