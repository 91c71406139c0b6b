"""Content by digest on disk: whole or not there, whatever happens in between."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.hub.blobs import Blobs, Upload
from computeops.hub.storage import blob_key
from computeops.hub.storage.folder import Folder
from computeops.model import Digest

DATA = hashlib.shake_256(b"data").digest(3_000_000)


def make(folder: Path, **options: int) -> Blobs:
    return Blobs(Folder(folder), Folder(folder), **options)


def file_of(folder: Path, digest: Digest) -> Path:
    return folder / blob_key(digest)


def finish(blobs: Blobs, upload: Upload, digest: Digest) -> int:
    with upload.claimed():
        try:
            return blobs.publish(upload, digest)
        finally:
            blobs.forget(upload)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return make(tmp_path)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def append(upload: Upload, *parts: bytes) -> None:
    asyncio.run(upload.append(chunks(*parts)))


def test_put_and_read(blobs: Blobs) -> None:
    digest = Digest.of(b"x")
    assert blobs.size(digest) is None
    with pytest.raises(NotFoundError):
        blobs.read(digest, 10)
    blobs.put(b"x", digest)
    blobs.put(b"x", digest)
    assert (blobs.read(digest, 10), blobs.size(digest)) == (b"x", 1)
    with pytest.raises(LimitError):
        blobs.read(digest, 0)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_upload_in_pieces(blobs: Blobs, tmp_path: Path, algorithm: str) -> None:
    upload = blobs.begin("bio/x")
    append(upload, DATA[:10], DATA[10:2_000_000])
    append(blobs.upload(upload.id, "bio/x"), DATA[2_000_000:])
    digest = Digest.of(DATA, algorithm)
    assert finish(blobs, upload, digest) == len(DATA)
    assert file_of(tmp_path, digest).read_bytes() == DATA
    assert list((tmp_path / "uploads").iterdir()) == []
    with pytest.raises(NotFoundError):
        blobs.upload(upload.id, "bio/x")


def test_an_upload_goes_on_after_a_restart(blobs: Blobs, tmp_path: Path) -> None:
    upload = blobs.begin("bio/x")
    append(upload, DATA[:1_000_000])
    again = make(tmp_path).upload(upload.id, "bio/x")
    assert again.offset == 1_000_000
    append(again, DATA[1_000_000:])
    assert finish(make(tmp_path), again, Digest.of(DATA)) == len(DATA)


def test_wrong_content_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    upload = blobs.begin("bio/x")
    append(upload, b"wrong")
    with pytest.raises(FormatError):
        finish(blobs, upload, Digest.of(b"right"))
    assert blobs.size(Digest.of(b"right")) is None
    assert blobs.size(Digest.of(b"wrong")) is None
    assert list((tmp_path / "uploads").iterdir()) == []


def test_one_request_at_a_time(blobs: Blobs) -> None:
    upload = blobs.begin("bio/x")

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        for change in (lambda: upload.append(chunks(b"second")), lambda: asyncio.to_thread(blobs.cancel, upload)):
            with pytest.raises(ConflictError):
                await change()
        with pytest.raises(ConflictError):
            await asyncio.to_thread(finish, blobs, upload, Digest.of(b"first"))

    asyncio.run(upload.append(slow()))
    assert finish(blobs, upload, Digest.of(b"first")) == 5


def test_what_came_before_a_broken_connection_stays(blobs: Blobs) -> None:
    upload = blobs.begin("bio/x")

    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:1_500_000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(upload.append(broken()))
    assert upload.offset == 1_500_000
    append(upload, DATA[1_500_000:])
    assert finish(blobs, upload, Digest.of(DATA))


def test_not_larger_than_allowed(tmp_path: Path) -> None:
    upload = make(tmp_path, limit_bytes=1000).begin("bio/x")
    with pytest.raises(LimitError):
        append(upload, b"x" * 900, b"x" * 101)
    assert upload.offset <= 1000


def test_ids_that_lead_elsewhere(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("bio/x")
    for identity in ("..", "../", "a" * 31, "", ".", "é" * 32, "0" * 32):
        with pytest.raises(NotFoundError):
            blobs.upload(identity, "bio/x")


def test_forgotten_uploads_are_swept(blobs: Blobs, tmp_path: Path) -> None:
    old, empty, stray = blobs.begin("bio/x"), tmp_path / "uploads" / ("0" * 32), tmp_path / "uploads" / "stray"
    empty.mkdir()
    stray.touch()
    yesterday = time.time() - 25 * 3600
    for path in (tmp_path / "uploads" / old.id / "data", empty, stray):
        os.utime(path, (yesterday, yesterday))
    fresh = make(tmp_path)
    new = fresh.begin("bio/x")
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == [new.id]


def test_a_file_is_taken(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "uploads/new").write_bytes(b"made")
    blobs.take(tmp_path / "uploads/new", Digest.of(b"made"))
    assert blobs.read(Digest.of(b"made"), 10) == b"made"
    assert not (tmp_path / "uploads/new").exists()
