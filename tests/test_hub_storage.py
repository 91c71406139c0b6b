"""Objects in a folder and in a bucket behave alike; what a bucket does in its own way."""

import asyncio
import hashlib
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends import azure, s3
from computeops.errors import LimitError, NotFoundError, StorageError, UnavailableError, UsageError
from computeops.hub.storage import Storage, open_storage

LARGE = hashlib.shake_256(b"large").digest(20_000_000)


def bucket(name: str, *, redirect: bool = False) -> Storage:
    options = {"endpoint": s3().endpoint, "region": "us-east-1"}
    return open_storage(Path("/nowhere"), f"s3://hubs/{name}", options, redirect=redirect)


@pytest.fixture(params=["folder", "s3", pytest.param("azure", marks=pytest.mark.azurite)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path)
    name = f"test{tmp_path.name}{time.time_ns()}"
    return bucket(name) if request.param == "s3" else open_storage(tmp_path, f"az://hubs/{name}", azure())


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


def test_an_object_comes_and_goes(storage: Storage) -> None:
    assert storage.stat("blobs/a/b") is None
    with pytest.raises(NotFoundError):
        storage.read("blobs/a/b")
    with pytest.raises(NotFoundError):
        list(storage.chunks("blobs/a/b"))
    storage.write("blobs/a/b", b"one")
    storage.write("blobs/a/b", b"other")
    storage.write("blobs/empty", b"")
    found = storage.stat("blobs/a/b")
    assert found
    assert (found.size, abs(found.modified - time.time()) < 60) == (5, True)
    assert (storage.read("blobs/a/b"), storage.read("blobs/a/b", 1, 3), storage.read("blobs/empty", 0, 9)) == (
        b"other",
        b"th",
        b"",
    )
    assert sorted(one.key for one in storage.entries("blobs/")) == ["blobs/a/b", "blobs/empty"]
    assert list(storage.entries("nothing/")) == []
    storage.move("blobs/a/b", "quarantine/b")
    assert (storage.stat("blobs/a/b"), storage.read("quarantine/b")) == (None, b"other")
    storage.delete("quarantine/b")
    storage.delete("quarantine/b")
    assert storage.stat("quarantine/b") is None


def test_a_large_object_in_pieces(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "uploads/file"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(LARGE)
    storage.take(file, "blobs/large")
    assert b"".join(storage.chunks("blobs/large")) == LARGE

    async def stream(begin: int, end: int) -> bytes:
        return b"".join([chunk async for chunk in storage.stream("blobs/large", begin, end)])

    for begin, end in ((0, len(LARGE)), (7, 7), (4_194_303, 4_194_305), (19_999_999, 20_000_000)):
        assert asyncio.run(stream(begin, end)) == LARGE[begin:end]


def test_an_upload_goes_on_in_another_process(storage: Storage) -> None:
    upload = storage.begin("bio/x")
    asyncio.run(upload.append(parts(LARGE[:9_000_000], LARGE[9_000_000:12_000_000]), 10**9))
    again = storage.resume(upload.id, "bio/x")
    assert again.offset == 12_000_000
    asyncio.run(again.append(parts(LARGE[12_000_000:]), 10**9))
    last = storage.resume(upload.id, "bio/x")
    assert last.digest("sha256") == again.digest("sha256") == hashlib.sha256(LARGE).hexdigest()
    assert last.digest("sha512") == hashlib.sha512(LARGE).hexdigest()
    last.publish("blobs/it")
    last.publish("blobs/it")
    last.forget()
    assert b"".join(storage.chunks("blobs/it")) == LARGE
    with pytest.raises(NotFoundError):
        storage.resume(upload.id, "bio/x")
    assert list(storage.entries("uploads/")) == []


def test_what_came_before_a_broken_connection_stays(storage: Storage) -> None:
    upload = storage.begin("bio/x")

    async def broken(size: int) -> AsyncIterator[bytes]:
        yield LARGE[:size]
        raise ConnectionResetError

    for size in (1_000_000, 15_000_000):
        with pytest.raises(ConnectionResetError):
            asyncio.run(upload.append(broken(size), 10**9))
    assert storage.resume(upload.id, "bio/x").offset == 16_000_000
    upload.publish("blobs/it")
    assert b"".join(storage.chunks("blobs/it")) == LARGE[:1_000_000] + LARGE[:15_000_000]


def test_an_empty_upload(storage: Storage) -> None:
    upload = storage.begin("bio/x")
    asyncio.run(upload.append(parts(), 10**9))
    assert upload.digest("sha256") == hashlib.sha256().hexdigest()
    upload.publish("blobs/empty")
    assert storage.read("blobs/empty") == b""


def test_not_larger_than_allowed(storage: Storage) -> None:
    upload = storage.begin("bio/x")
    with pytest.raises(LimitError):
        asyncio.run(upload.append(parts(b"x" * 900, b"x" * 101), 1000))


@pytest.mark.parametrize("identity", ["..", "../", "a" * 31, "", "é" * 32, "0" * 32])
def test_ids_that_lead_elsewhere(storage: Storage, identity: str) -> None:
    with pytest.raises(NotFoundError):
        storage.resume(identity, "bio/x")


def test_uploads_of_another_repository(storage: Storage) -> None:
    with pytest.raises(NotFoundError):
        storage.resume(storage.begin("bio/x").id, "bio/y")


def test_forgotten_uploads_are_swept(storage: Storage) -> None:
    upload = storage.begin("bio/x")
    assert storage.sweep(time.time() - 3600) == 0
    assert storage.sweep(time.time() + 3600) == 1
    with pytest.raises(NotFoundError):
        storage.resume(upload.id, "bio/x")


def test_readers_are_sent_to_the_bucket_if_asked_for() -> None:
    storage = bucket(f"signed{time.time_ns()}", redirect=True)
    storage.write("blobs/x", b"content")
    with urllib.request.urlopen(storage.address("blobs/x")) as answer:
        assert answer.read() == b"content"
    assert bucket("signed").address("blobs/x") == ""


def test_a_bucket_that_does_not_answer() -> None:
    options = {"endpoint": "http://127.0.0.1:9", "region": "us-east-1"}
    storage = open_storage(Path("/nowhere"), "s3://hubs/x", options)
    with pytest.raises(UnavailableError):
        storage.stat("x")


def test_a_bucket_that_is_not_there() -> None:
    options = {"endpoint": s3().endpoint, "region": "us-east-1"}
    with pytest.raises(StorageError):
        open_storage(Path("/nowhere"), "s3://nobody/x", options).write("x", b"x")


def test_options_of_the_connection() -> None:
    given = {"region": "x", "allow_http": "true", "timeout": "60s", "proxy_url": "http://127.0.0.1:9"}
    with pytest.raises(UnavailableError):  # by that proxy
        open_storage(Path("/nowhere"), "s3://hubs/x", {"endpoint": s3().endpoint, **given}).stat("x")
    for wrong in ({"timeout": "sixty"}, {"no_such_option": "x"}):
        with pytest.raises(UsageError):
            open_storage(Path("/nowhere"), "s3://hubs/x", {"region": "x", **wrong})


def test_what_is_no_storage() -> None:
    for url in ("ftp://x", "s3:/x", "nonsense"):
        with pytest.raises(UsageError):
            open_storage(Path("/nowhere"), url)
