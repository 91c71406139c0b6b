"""What was answered 201 is there and whole, whatever breaks: the process, the disk, the database, the bucket."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends import CHOSEN, s3, settings, start_postgresql, start_s3
from computeops.model import Digest
from conftest import RunningHub
from raw_http import Caller
from test_hub_care import REPO, computeops, push_blob, push_image, set_clock_back

BROKEN = (OSError, http.client.HTTPException)
on_folder = pytest.mark.skipif(
    CHOSEN["storage"] == "s3" or CHOSEN["database"] != "sqlite", reason="looks into the folder"
)


# one function for each way in


def one_request(caller: Caller, data: bytes) -> int:
    return caller("POST", f"{REPO}/blobs/uploads/?digest={Digest.of(data)}", data).status


def post_and_put(caller: Caller, data: bytes) -> int:
    place = caller("POST", f"{REPO}/blobs/uploads/").headers["location"]
    return caller("PUT", f"{place}?digest={Digest.of(data)}", data).status


def in_chunks(caller: Caller, data: bytes) -> int:
    place = caller("POST", f"{REPO}/blobs/uploads/").headers["location"]
    half = len(data) // 2
    for begin, end in ((0, half), (half, len(data))):
        caller("PATCH", place, data[begin:end], {"Content-Range": f"{begin}-{end - 1}"})
    return caller("PUT", f"{place}?digest={Digest.of(data)}").status


def library(caller: Caller, data: bytes) -> int:
    import base64

    name = base64.urlsafe_b64encode(f"bio/tool@{Digest.of(data)}".encode()).decode().rstrip("=")
    place = caller("POST", f"/v2/imagefile/{name}", json.dumps({"filesize": len(data)})).json["data"]["uploadURL"]
    status = caller("PUT", "/" + place.split("/", 3)[3], data).status
    return 201 if status == 200 else status


FORMS = {form.__name__: form for form in (one_request, post_and_put, in_chunks, library)}


class Pusher(threading.Thread):
    """Somebody who pushes blobs, and images of them, until the hub is gone; `answered` is what was said to be there."""

    def __init__(self, caller: Caller, form: Callable[[Caller, bytes], int], size: int) -> None:
        super().__init__()
        self.caller, self.form, self.size = caller, form, size
        self.answered: list[bytes] = []
        self.tags: dict[str, str] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(AssertionError, KeyError, *BROKEN):
            while not self.stopped.is_set():
                data = os.urandom(self.size)
                if self.form(self.caller, data) == 201:
                    self.answered.append(data)
                tag = os.urandom(8).hex()
                digest, _ = push_image(self.caller, tag, data[:100])
                self.tags[tag] = digest


def require_all(hub: RunningHub, pushers: list[Pusher]) -> None:
    """Check that everything that was answered is served, as it was sent."""
    anyone = Caller(hub.address)
    for pusher in pushers:
        for data in pusher.answered:
            assert anyone.get(f"{REPO}/blobs/{Digest.of(data)}").body == data
        for tag, digest in pusher.tags.items():
            assert anyone.get(f"{REPO}/manifests/{tag}").headers["docker-content-digest"] == digest


@pytest.mark.parametrize("form", FORMS)
def test_kill_9_in_the_middle_of_pushes(hub: RunningHub, form: str) -> None:
    caller = Caller(hub.address, hub.token("push:bio/*"))
    pushers = [Pusher(caller, FORMS[form], size) for size in (1000, 3_000_000)]
    for _ in range(2):
        threads = [Pusher(caller, FORMS[form], pusher.size) for pusher in pushers]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.5, 1.2))
        hub.stop(signal.SIGKILL)
        for thread, pusher in zip(threads, pushers, strict=True):
            thread.join()
            pusher.answered += thread.answered
            pusher.tags |= thread.tags
        hub.start()
        require_all(hub, pushers)
    assert any(pusher.answered for pusher in pushers)
    done = computeops("hub", "scrub", "--data", hub.data)
    assert done.returncode == 0, done.stdout  # nothing half
    again = computeops("hub", "reindex", "--data", hub.data)
    assert again.returncode == 0, again.stderr
    require_all(hub, pushers)


@on_folder
def test_kill_9_in_the_middle_of_gc(hub: RunningHub) -> None:
    caller = Caller(hub.address, hub.token("delete:bio/*"))
    kept = [push_blob(caller, os.urandom(64)) for _ in range(3)]
    push_image(caller, "1.0", b"layer")
    folder = hub.data / "blobs/sha256"
    for number in range(3000):  # what nobody uses
        name = hashlib.sha256(b"%d" % number).hexdigest()
        (folder / name[:2]).mkdir(parents=True, exist_ok=True)
        (folder / name[:2] / name).write_bytes(b"%d" % number)
    set_clock_back(hub, 2 * 24 * 3600)
    again = [push_blob(caller, hashlib.shake_256(b"%d" % n).digest(8)) for n in range(3)]
    argv = [sys.executable, "-m", "computeops", "hub", "gc", "--data", str(hub.data)]
    rounds = 0
    while True:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            code = process.wait(1.0 + rounds * 0.3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            rounds += 1
            continue
        assert code == 0
        break
    for one in again:
        assert caller.get(f"{REPO}/blobs/{one['digest']}").status == 200
    assert caller.get(f"{REPO}/manifests/1.0").status == 200
    assert [caller.get(f"{REPO}/blobs/{one['digest']}").status for one in kept] == [404] * 3
    left = sum(1 for file in folder.rglob("*") if file.is_file())
    assert left == 3 + 3  # the manifest, its config and layer


@on_folder
def test_gc_beside_pushes_of_what_it_wants_to_remove(hub: RunningHub) -> None:
    """Each blob lies there old and unused, and is pushed and asked for while it is being removed."""
    caller = Caller(hub.address, hub.token("delete:bio/*"))
    folder = hub.data / "blobs/sha256"
    contents = [b"%d" % number for number in range(400)]
    then = time.time() - 2 * 24 * 3600
    for data in contents:
        name = hashlib.sha256(data).hexdigest()
        (folder / name[:2]).mkdir(parents=True, exist_ok=True)
        (folder / name[:2] / name).write_bytes(data)
        os.utime(folder / name[:2] / name, (then, then))
    process = subprocess.Popen([sys.executable, "-m", "computeops", "hub", "gc", "--data", str(hub.data)])
    for data in sorted(contents, key=lambda one: hashlib.sha256(one).hexdigest()):  # in its own order
        push_blob(caller, data)
    assert process.wait(60) == 0
    for data in contents:
        assert caller.get(f"{REPO}/blobs/{Digest.of(data)}").body == data


@on_folder
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_power_loss_order(tmp_path: Path) -> None:
    """The file is on the disk before its name is, and both before the answer: as the kernel was asked."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2,write,writev,sendto,openat,pwrite64"
    hub = RunningHub(tmp_path / "hub")
    argv = ["strace", "-f", "-y", "-s", "60", "-e", calls, "-o", str(trace)]
    argv += [sys.executable, "-m", "computeops", "hub", "serve", "--data", str(hub.data), "--port", "0"]
    hub.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert hub.process.stdout is not None
    hub.address = hub.process.stdout.readline().decode().strip()
    try:
        caller = Caller(hub.address, hub.token("push:bio/*"))
        blob = push_blob(caller, b"durable")["digest"].partition(":")[2]
        push_image(caller, "1.0", b"layer")
    finally:
        subprocess.run(["pkill", "-TERM", "-P", str(hub.process.pid)], check=False)
        hub.process.wait(20)
        hub.process.stdout.close()
    lines = trace.read_text().splitlines()

    def first(pattern: str, after: int = 0) -> int:
        found = re.compile(pattern)
        return next((at for at in range(after, len(lines)) if found.search(lines[at])), -1)

    data = first(r"fsync\(\d+<\S+/uploads/\w+/data>\)")
    named = first(rf"link(at)?\(.*{blob}", data)
    folder = first(rf"fsync\(\d+<\S+/blobs/sha256/{blob[:2]}>\)", named)
    index = first(r"f(data)?sync\(\d+<\S+/hub\.sqlite-wal>\)", folder)
    answer = first(r"(write|writev|sendto)\(.*HTTP/1\.1 201", data)
    assert -1 < data < named < folder < index < answer
    tag = first(r"rename\w*\(.*/_tags/1\.0", answer)
    tags = first(r"fsync\(\d+<\S+/_tags>\)", tag)
    moved = first(r"f(data)?sync\(\d+<\S+/hub\.sqlite-wal>\)", tags)
    said = first(r"(write|writev|sendto)\(.*HTTP/1\.1 201", tag)
    assert -1 < tag < tags < moved < said


@on_folder
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    hub = RunningHub(disk / "hub")
    try:
        hub.start()
        caller = Caller(hub.address, hub.token("delete:bio/*"))
        kept = push_blob(caller, b"kept" * 1000)
        connection = http.client.HTTPConnection(hub.host)
        connection.putrequest("POST", f"{REPO}/blobs/uploads/?digest={Digest.of(b'x')}")
        connection.putheader("Authorization", caller.headers["Authorization"])
        connection.putheader("Content-Length", "20000000")
        connection.endheaders()
        assert connection.getresponse().status == 507  # before anything is sent
        connection.close()
        place = caller("POST", f"{REPO}/blobs/uploads/").headers["location"]
        status = 202
        for at in range(30):  # no length is told in advance that would not fit
            answer = caller("PATCH", place, bytes([at]) * 1_000_000)
            status = answer.status
            if status != 202:
                break
        assert status == 507
        assert caller.get(f"{REPO}/blobs/{kept['digest']}").body == b"kept" * 1000
        assert caller("DELETE", place).status == 204
        push_image(caller, "1.0", b"afterwards")
        assert computeops("hub", "scrub", "--data", hub.data).returncode == 0
    finally:
        if hub.process:
            hub.stop()
        subprocess.run(["umount", str(disk)], check=True)


own_servers = pytest.mark.skipif(
    CHOSEN != {"database": "sqlite", "storage": "folder"}, reason="brings servers of its own"
)


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


@own_servers
@pytest.mark.faketime
def test_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has expired stays expired, what is used goes on, and nothing is taken for old."""
    shown = tmp_path / "clock"
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    more = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    for name, value in {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(shown), **more}.items():
        monkeypatch.setenv(name, value)
    shown.write_text("+0d")
    hub = RunningHub(tmp_path / "hub")
    long, short = (
        computeops("hub", "token", "--data", hub.data, "--name", "x", "--scope", "push:*", "--days", days)
        for days in ("300", "1")
    )
    caller_of = {name: one.stdout.strip() for name, one in {"long": long, "short": short}.items()}
    shown.write_text("+2d")
    hub.start("--port", "0")
    try:
        caller, expired = (Caller(hub.address, caller_of[name]) for name in ("long", "short"))
        assert (caller.get("/v2/").status, expired.get("/v2/").status) == (200, 401)
        shown.write_text("-5d")
        assert (caller.get("/v2/").status, expired.get("/v2/").status) == (200, 401)
        session = Caller(hub.address, caller.get("/auth/token?service=x").json["token"])
        assert session.get("/v2/").status == 200
        push_image(caller, "1.0", b"layer")
        alone = push_blob(caller, b"no manifest yet")
        place = caller("POST", f"{REPO}/blobs/uploads/").headers["location"]
        assert caller("PATCH", place, b"first ").status == 202
        shown.write_text("+20d")
        assert (caller.get("/v2/").status, session.get("/v2/").status) == (200, 401)
        assert caller("POST", f"{REPO}/blobs/uploads/").status == 202  # looks for uploads that nobody continues
        assert caller("PUT", f"{place}?digest={Digest.of(b'first second')}", b"second").status == 201
        done = computeops("hub", "gc", "--data", hub.data)
        assert (done.returncode, "clock" in done.stderr) == (6, True), done.stderr
        for digest in (alone["digest"], Digest.of(b"first second"), Digest.of(b"layer")):
            assert caller.get(f"{REPO}/blobs/{digest}").status == 200
        assert caller.get(f"{REPO}/manifests/1.0").status == 200
        assert computeops("hub", "gc", "--data", hub.data, "--dry-run").returncode == 0
    finally:
        hub.stop()
    assert "Traceback" not in hub.log()


@own_servers
@pytest.mark.postgresql
def test_the_database_is_lost_in_the_middle(tmp_path: Path) -> None:
    server = start_postgresql()
    hub = RunningHub(tmp_path / "hub")
    hub.data.mkdir(mode=0o700)
    (hub.data / "hub.toml").write_text(settings(server.database("lost")))
    hub.start()
    try:
        caller = Caller(hub.address, hub.token("push:bio/*"))
        pushers = [Pusher(caller, one_request, 1000)]
        pushers[0].start()
        time.sleep(0.7)
        server.stop()
        time.sleep(0.5)
        pushers[0].stopped.set()
        pushers[0].join()
        assert caller.get(f"{REPO}/manifests/1.0").status == 503
        assert caller("POST", f"{REPO}/blobs/uploads/").status == 503
        assert Caller(hub.address).get("/healthz").status == 200
        assert Caller(hub.address).get("/readyz").json == {"database": "does not answer", "storage": "ok"}
        server.start()
        wait_until(lambda: Caller(hub.address).get("/readyz").status == 200)
        assert pushers[0].answered
        require_all(hub, pushers)
        push_image(caller, "1.0", b"goes on")
        assert "Traceback" not in hub.log()
    finally:
        hub.stop()
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@own_servers
def test_the_bucket_is_lost_in_the_middle(tmp_path: Path) -> None:
    s3()  # its credentials
    server = start_s3()
    hub = RunningHub(tmp_path / "hub")
    hub.data.mkdir(mode=0o700)
    (hub.data / "hub.toml").write_text(settings("", "s3://hubs/lost", server.endpoint))
    hub.start()
    durable = shutil.which("versitygw") is not None  # moto forgets when it stops
    try:
        caller = Caller(hub.address, hub.token("push:bio/*"))
        pusher = Pusher(caller, in_chunks, 200_000)
        pusher.start()
        time.sleep(1.5)
        server.stop()
        time.sleep(0.5)
        pusher.stopped.set()
        pusher.join()
        assert pusher.answered
        answer = caller("POST", f"{REPO}/blobs/uploads/", b"")
        assert (answer.status, b"object store" in answer.body) == (503, True)
        assert Caller(hub.address).get("/readyz").json["storage"] == "does not answer"
        server.start()
        wait_until(lambda: Caller(hub.address).get("/readyz").status == 200)
        if durable:
            require_all(hub, [pusher])
            push_image(caller, "1.0", b"goes on")
        assert "Traceback" not in hub.log()
    finally:
        hub.stop()
        server.stop()
        shutil.rmtree(server.folder.parent, ignore_errors=True)
