"""Several processes that are one hub, on one PostgreSQL server and in one bucket: two that answer, others that work."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

import feeds
from backends import furnish
from computeops.check.advisories.update import update
from computeops.hub import migrations
from computeops.hub.state import Hub
from computeops.hub.tables import deliveries
from computeops.hub.vulnerabilities import index as advisories
from computeops.hub.vulnerabilities import inspector
from computeops.model import Digest
from conftest import RunningHub
from raw_http import Caller
from servers import Asked, serving
from test_hub_care import REPO, computeops, push_image
from test_hub_faults import Pusher, in_chunks, library, one_request, require_all, wait_until

pytestmark = pytest.mark.postgresql


@dataclass
class Site:
    """What an operator has in several machines."""

    folder: Path
    hubs: list[RunningHub]
    token: str = ""

    def add(self, role: str) -> RunningHub:
        """Give the configuration to another machine, whose hub is not started."""
        data = self.folder / f"{len(self.hubs)}{role}/hub"
        data.mkdir(parents=True, mode=0o700)
        shutil.copy(self.folder / "hub.toml", data)
        self.hubs.append(RunningHub(data))
        return self.hubs[-1]

    @property
    def web(self) -> list[RunningHub]:
        return self.hubs[:2]

    @property
    def callers(self) -> list[Caller]:
        return [Caller(hub.address, self.token) for hub in self.web]

    @contextlib.contextmanager
    def database(self) -> Iterator[sa.Connection]:
        hub = Hub.open(self.web[0].data)
        with hub.database.read() as connection:
            yield connection
        hub.database.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two that answer and one that works, all started in the same moment on an empty database."""
    folder = tmp_path_factory.mktemp("site")
    furnish(folder, database="postgresql", storage="s3", more="webhooks_to_private_addresses = true")
    site = Site(folder, [])
    roles = ("web", "web", "background")
    hubs = [site.add(role) for role in roles]
    try:
        with ThreadPoolExecutor(len(hubs)) as pool:
            list(pool.map(lambda hub, role: hub.start("--port", "0", "--role", role), hubs, roles))
        site.token = hubs[0].token("delete:*")
        yield site
        for hub in site.hubs:
            assert "Traceback" not in hub.log()
    finally:
        for hub in site.hubs:
            if hub.process:
                hub.stop()


def test_the_tables_were_made_once(site: Site) -> None:
    with site.database() as connection:
        numbers = list(connection.exec_driver_sql("SELECT number FROM schema_version ORDER BY number").scalars())
    assert numbers == list(range(1, migrations.NEWEST + 1))
    assert [Caller(hub.address).get("/readyz").status for hub in site.hubs] == [200] * 3


def test_an_upload_goes_from_one_to_the_other(site: Site) -> None:
    one, two = site.callers
    data = os.urandom(3_000_000)
    place = one("POST", f"{REPO}/blobs/uploads/").headers["location"]
    assert two("PATCH", place, data[:1_000_000]).headers["range"] == "0-999999"
    assert one("PATCH", place, data[1_000_000:2_000_000]).headers["range"] == "0-1999999"
    assert two("PUT", f"{place}?digest={Digest.of(data)}", data[2_000_000:]).status == 201
    assert one.get(f"{REPO}/blobs/{Digest.of(data)}", Range="bytes=999990-1000009").body == data[999990:1000010]


def test_what_one_did_the_other_knows_at_once(site: Site) -> None:
    one, two = site.callers
    for number in range(10):
        digest, _ = push_image(one, "moving", b"%d" % number)
        assert two.get(f"{REPO}/manifests/moving").headers["docker-content-digest"] == digest
    assert two("DELETE", f"{REPO}/manifests/moving").status == 202
    assert one.get(f"{REPO}/manifests/moving").status == 404
    session = one.get("/auth/token?service=x").json["token"]
    assert Caller(site.web[1].address, session).get("/v2/").status == 200  # both have one key


def test_one_tag_at_once(site: Site) -> None:
    pushed: dict[str, bytes] = {}

    def push(number: int) -> None:
        digest, _ = push_image(site.callers[number % 2], "same", b"%d" % number)
        pushed[digest] = b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(8)))
    assert len(pushed) == 8
    before = {caller.get(f"{REPO}/manifests/same").headers["docker-content-digest"] for caller in site.callers}
    assert len(before) == 1
    assert computeops("hub", "reindex", "--data", site.web[0].data).returncode == 0
    assert {c.get(f"{REPO}/manifests/same").headers["docker-content-digest"] for c in site.callers} == before


def test_kill_9_of_one_in_the_middle_of_uploads(site: Site) -> None:
    one, two = site.callers
    data = os.urandom(6_000_000)
    place = one("POST", f"{REPO}/blobs/uploads/").headers["location"]
    assert one("PATCH", place, data[:1_000_000]).status == 202
    pushers = [Pusher(caller, form, 20_000) for caller in (one, two) for form in (one_request, in_chunks)]
    with contextlib.closing(http.client.HTTPConnection(one.host)) as connection:
        connection.putrequest("PATCH", place)
        for name, value in {**one.headers, "Content-Length": "4000000"}.items():
            connection.putheader(name, value)
        connection.endheaders(data[1_000_000:3_000_000])  # and never the rest
        for pusher in pushers:
            pusher.start()
        wait_until(lambda: all(pusher.answered for pusher in pushers))
        site.web[0].stop(signal.SIGKILL)
    others = [len(pusher.answered) for pusher in pushers[2:]]
    wait_until(lambda: all(len(p.answered) > n + 2 for p, n in zip(pushers[2:], others, strict=True)))
    for pusher in pushers:
        pusher.stopped.set()
        pusher.join()
    assert two.get(place).headers["range"] == "0-999999"  # what had been answered
    assert two("PUT", f"{place}?digest={Digest.of(data)}", data[1_000_000:]).status == 201
    require_all(site.web[1], pushers)
    site.web[0].start("--port", "0", "--role", "web")
    assert site.callers[0].get(f"{REPO}/blobs/{Digest.of(data)}").body == data
    require_all(site.web[0], pushers)


def test_two_workers_tell_each_thing_once(site: Site) -> None:
    heard: list[str] = []

    def told(asked: Asked) -> None:
        asked.body()
        heard.append(asked.headers["webhook-id"])
        asked.answer(204)

    site.add("background").start("--port", "0", "--role", "background")
    with serving(told) as there:
        assert push_image(site.callers[0], "0", b"begins", "/v2/once/tool")
        added = computeops("hub", "webhook", "add", "once", there.url, "--data", site.web[1].data)
        assert added.returncode == 0, added.stderr
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: push_image(site.callers[n % 2], f"t{n}", b"%d" % n, "/v2/once/tool"), range(24)))
        wait_until(lambda: len(heard) >= 24 and _waiting(site) == 0)
    assert (len(heard), len(set(heard))) == (24, 24)


def _waiting(site: Site) -> int:
    with site.database() as connection:
        return connection.execute(sa.select(sa.func.count()).where(deliveries.c.due.is_not(None))).scalar_one()


def test_those_with_advisories_of_their_own_do_not_take_turns(tmp_path: Path) -> None:
    """Each machine loads them at another time: the newest are asked, once, and nobody goes back to older ones."""
    furnish(tmp_path / "0", database="postgresql", storage="s3")
    (tmp_path / "1").mkdir()
    shutil.copy(tmp_path / "0/hub.toml", tmp_path / "1")
    hubs = [Hub.open(tmp_path / name) for name in "01"]
    now = int(time.time())

    def load(number: int, when: int, *records: str) -> None:
        events = [{"introduced": "0"}]
        found = [feeds.osv(f"DEBIAN-{name}", name="openssl", events=events, upstream=[name]) for name in records]
        feeds.write_zip(tmp_path / "mirror/osv/Debian/all.zip", found, when=now - 400 + len(found))
        update(advisories.place(hubs[number]), mirror=str(tmp_path / "mirror"), now=when, full=True)

    def steps() -> list[int]:
        return [next(n for n in range(20) if not inspector.step(hub, threading.Event())) for hub in hubs]

    load(0, now - 300, "CVE-2024-1")
    load(1, now - 200, "CVE-2024-1")
    assert steps() == [1, 0]  # the same, loaded later
    load(1, now - 100, "CVE-2024-1", "CVE-2024-2")
    assert [steps(), steps()] == [[0, 1], [0, 0]]
    load(0, now, "CVE-2024-1", "CVE-2024-2")
    assert steps() == [0, 0]
    for hub in hubs:
        hub.database.close()


def test_one_work_on_the_storage_at_a_time(site: Site) -> None:
    hub = Hub.open(site.web[0].data)
    with hub.database.exclusive("storage") as free:
        assert free
        assert computeops("hub", "gc", "--data", site.web[1].data).returncode == 6
    hub.database.close()
    assert computeops("hub", "gc", "--data", site.web[1].data).returncode == 0


def test_backed_up_while_others_push_and_made_again_elsewhere(site: Site, tmp_path: Path) -> None:
    """In the copy is what was answered before it began, and nothing that is not whole."""
    pushers = [Pusher(c, form, size) for c in site.callers for form, size in ((library, 900), (in_chunks, 30_000))]
    for pusher in pushers:
        pusher.start()
    wait_until(lambda: all(pusher.tags for pusher in pushers))
    before = [_so_far(pusher) for pusher in pushers]
    argv = ["hub", "backup", "--data", site.web[0].data, tmp_path / "copy.tar.zst"]
    copying = subprocess.Popen([sys.executable, "-m", "computeops", *map(str, argv)], stdout=subprocess.DEVNULL)
    assert copying.wait(120) == 0
    assert all(pusher.is_alive() for pusher in pushers)
    for pusher in pushers:
        pusher.stopped.set()
        pusher.join()
    furnish(tmp_path / "new/hub", database="postgresql", storage="s3")
    done = computeops("hub", "restore", "--data", tmp_path / "new/hub", tmp_path / "copy.tar.zst")
    assert done.returncode == 0, done.stderr
    restored = RunningHub(tmp_path / "new/hub").start()
    try:
        require_all(restored, before)
        caller = Caller(restored.address, site.token)
        for tag in caller.get(f"{REPO}/tags/list").json["tags"]:
            assert caller.get(f"{REPO}/manifests/{tag}").status == 200
        scrubbed = computeops("hub", "scrub", "--data", restored.data)
        assert scrubbed.returncode == 0, scrubbed.stdout
        push_image(caller, "afterwards", b"goes on")
    finally:
        restored.stop()
    assert "Traceback" not in restored.log()


def _so_far(pusher: Pusher) -> Pusher:
    copy = Pusher(pusher.caller, pusher.form, pusher.size)
    copy.answered, copy.tags = list(pusher.answered), dict(pusher.tags)
    return copy
