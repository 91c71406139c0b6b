"""Files of feeds, read without trusting them: bounded in bytes, records and depth, and never a bomb."""

import csv
import gzip
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def members(file: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a zip archive whose name ends with `suffix`.

    Raises:
        FormatError: it is no whole zip archive; LimitError: it is larger unpacked than is read.
    """
    left = LIMITS.feed_unpacked_bytes
    try:
        with zipfile.ZipFile(file) as archive:
            listed = [one for one in archive.infolist() if one.filename.endswith(suffix)]
            if len(listed) > LIMITS.advisories:
                raise LimitError(f"{file.name} has {len(listed)} records; at most {LIMITS.advisories} are read")
            for one in listed:
                data = _member(archive, one)
                left -= len(data)
                if left < 0:
                    raise LimitError(f"{file.name} is larger than {LIMITS.feed_unpacked_bytes} bytes unpacked")
                yield one.filename, data
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise FormatError(f"{file.name} is no whole zip archive: {error}") from error


_LOCAL = struct.Struct("<4s22xHH")
"""Of a member's own header (APPNOTE.TXT 4.3.7) its mark, and how long its name and its extra field are."""


def _member(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> bytes:
    """Return the content of a member; `ZipFile.open` takes as long for its small ones as to parse them."""
    if one.compress_type != zipfile.ZIP_DEFLATED or one.compress_size > LIMITS.advisory_bytes or one.flag_bits & 1:
        with archive.open(one) as opened:
            return bounded(opened, LIMITS.advisory_bytes, one.filename)
    assert archive.fp is not None
    archive.fp.seek(one.header_offset)
    mark, name, extra = _LOCAL.unpack(archive.fp.read(_LOCAL.size))
    if mark != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"{one.filename[:200]} is not where the directory says")
    archive.fp.seek(name + extra, io.SEEK_CUR)
    packed = zlib.decompressobj(-zlib.MAX_WBITS)
    data = packed.decompress(archive.fp.read(one.compress_size), LIMITS.advisory_bytes + 1)
    if len(data) > LIMITS.advisory_bytes:
        raise LimitError(f"{one.filename[:200]} is larger than {LIMITS.advisory_bytes} bytes")
    if not packed.eof or zlib.crc32(data) != one.CRC:
        raise zipfile.BadZipFile(f"{one.filename[:200]} is broken")
    return data


def bounded(file: IO[bytes], limit: int, name: str) -> bytes:
    """Return what is in `file`.

    Raises:
        LimitError: it is more than `limit` bytes, whatever a header says.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise LimitError(f"{name[:200]} is larger than {limit} bytes")
    return data


def whole(file: Path, limit: int = 1024 * 1024 * 1024) -> bytes:
    """Return the content of a file, unpacked where it is packed by gzip.

    Raises:
        FormatError: it is packed and broken; LimitError: it is larger than `limit` bytes.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            return bounded(gzip.GzipFile(fileobj=raw) if packed else raw, limit, file.name)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise FormatError(f"{file.name} is no whole gzip file: {error}") from error


@contextmanager
def unpacked(file: Path) -> Iterator[IO[bytes]]:
    """Give the content of a file that may be packed by zstd or gzip.

    Raises:
        FormatError: it is packed and broken.
    """
    with file.open("rb") as raw:
        mark = raw.read(len(_ZSTD))
        raw.seek(0)
        packed: Any = raw
        if mark == _ZSTD:
            packed = zstd.ZstdFile(raw, "rb")
        elif mark.startswith(_GZIP):
            packed = gzip.GzipFile(fileobj=raw)
        try:
            yield packed
        except (zstd.ZstdError, gzip.BadGzipFile, zlib.error) as error:
            raise FormatError(f"{file.name} is no whole file: {error}") from error


def table_of(data: bytes, name: str) -> dict[str, msgspec.Raw]:
    """Return the values of a JSON object, undecoded.

    Raises:
        FormatError: it is no JSON object.
    """
    found: dict[str, msgspec.Raw] = typed(data, dict[str, msgspec.Raw], name)
    return found


def typed(data: bytes | msgspec.Raw, kind: Any, name: str) -> Any:
    """Return JSON as the type `kind`.

    Raises:
        FormatError: it is not of this type, or nested too deep.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{name[:200]}: {error}") from error


def rows(data: bytes) -> Iterator[list[str]]:
    """Yield the rows of a CSV file, without lines that begin with `#`."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline="")
    yield from csv.reader(line for line in text if not line.startswith("#"))


def document(file: Path, limit: int) -> Any:
    """Return a small JSON document.

    Raises:
        FormatError: it is none, or nested too deep; LimitError: it is larger than `limit` bytes.
    """
    data = whole(file, limit)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file.name} is not JSON: {error!r:.200}") from error
