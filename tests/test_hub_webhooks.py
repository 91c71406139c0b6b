"""Webhooks: what is pushed is told, signed, again until it is heard, and never to a machine of the own network."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from computeops.errors import NetworkError, NotFoundError, UsageError
from computeops.hub import outside, webhooks
from computeops.hub.app import create_app
from computeops.hub.settings import Settings
from computeops.hub.tables import deliveries
from computeops.image import oci
from shelf import Shelf, until
from test_hub_registry import sha256

INSIDE = Settings(webhooks_to_private_addresses=True)


class Receiver:
    """A machine that is told, and can be deaf, slow or sly."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.location = ""
        self.pause = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
                time.sleep(receiver.pause)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


class Sender:
    """A hub, and pushes to it through its own door."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.shelf = Shelf(folder)
        self.hub = self.shelf.hub.open(folder, settings=settings)
        self.client = TestClient(create_app(folder, settings=settings))
        self.token = {"Authorization": f"Bearer {self.shelf.token('push:bio/*')}"}
        self.shelf.release("bio/tool", "0")

    def push(self, tag: str) -> str:
        config = json.dumps({"tag": tag}).encode()
        path = f"/v2/bio/tool/blobs/uploads/?digest={sha256(config)}"
        assert self.client.post(path, content=config, headers=self.token).status_code == 201
        body = oci.canonical(
            {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": oci.descriptor(oci.CONFIG, config), "layers": []}
        )
        path = f"/v2/bio/tool/manifests/{tag}"
        assert (
            self.client.put(path, content=body, headers=self.token | {"Content-Type": oci.MANIFEST}).status_code == 201
        )
        return sha256(body)

    def deliveries(self, webhook: int) -> list[webhooks.Delivery]:
        return webhooks.list_deliveries(self.hub.database, "bio", webhook)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    made = Sender(tmp_path / "hub", INSIDE)
    with made.client:
        yield made


def genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As https://www.standardwebhooks.com says that receivers check."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return abs(time.time() - int(headers["webhook-timestamp"])) < 60 and headers["webhook-signature"] == expected


def test_a_push_is_told_signed(sender: Sender, receiver: Receiver) -> None:
    hook, secret = webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
    digest = sender.push("1.0")
    assert until(10, lambda: len(receiver.heard) == 1)
    headers, body = receiver.heard[0]
    assert genuine(secret, headers, body)
    assert not genuine("whsec_" + base64.b64encode(b"other").decode(), headers, body)
    said = json.loads(body)
    assert said["type"] == "computeops.push"
    assert said["data"] == {"repository": "bio/tool", "digest": digest, "tag": "1.0"}
    assert until(5, lambda: sender.deliveries(hook.id)[0].outcome == "answered 200")
    assert sender.deliveries(hook.id)[0].due is None
    assert secret not in json.dumps([str(one) for one in webhooks.list_webhooks(sender.hub.database, "bio")])


def test_only_the_events_that_were_asked_for(sender: Sender, receiver: Receiver) -> None:
    hook, _ = webhooks.add(sender.hub, "bio", receiver.url, ["evidence"], added_by="ada")
    sender.push("1.0")
    repository = sender.hub.database.repository("bio/tool")
    assert repository is not None
    digest = sender.push("2.0")
    proof = sender.shelf.evidence("bio/tool", digest, "https://slsa.dev/provenance/v1", {})
    webhooks.announce(sender.hub, repository, proof)
    assert until(10, lambda: len(receiver.heard) == 1)
    said = json.loads(receiver.heard[0][1])
    assert (said["type"], said["data"]["subject"]) == ("computeops.evidence", digest)
    assert len(sender.deliveries(hook.id)) == 1


def test_it_is_told_again_until_it_is_heard(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPTS_SECONDS", (0, 0))
    hook, _ = webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
    receiver.statuses = [500, 503]
    sender.push("1.0")
    assert until(15, lambda: len(receiver.heard) == 3)
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert until(5, lambda: sender.deliveries(hook.id)[0].outcome == "answered 200")
    receiver.statuses = [500] * 9
    sender.push("2.0")
    assert until(15, lambda: sender.deliveries(hook.id)[0].attempts == 3)
    assert (sender.deliveries(hook.id)[0].due, sender.deliveries(hook.id)[0].outcome) == (None, "answered 500")


def test_it_is_told_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    sender = Sender(tmp_path / "hub", INSIDE)
    webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
    sender.push("1.0")  # nothing runs here that could tell it
    assert receiver.heard == []
    with TestClient(create_app(tmp_path / "hub", settings=INSIDE)):
        assert until(10, lambda: len(receiver.heard) == 1)


def test_two_hubs_do_not_tell_the_same(tmp_path: Path, receiver: Receiver) -> None:
    sender = Sender(tmp_path / "hub", INSIDE)
    webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
    for number in range(1, 13):
        sender.push(str(number))
    receiver.pause = 0.1
    with (
        TestClient(create_app(tmp_path / "hub", settings=INSIDE)),
        TestClient(create_app(tmp_path / "hub", settings=INSIDE)),
    ):
        assert until(20, lambda: len(receiver.heard) >= 12)
        time.sleep(0.5)
    assert len(receiver.heard) == 12


def test_a_redirect_is_not_followed(sender: Sender, receiver: Receiver) -> None:
    other = Receiver()
    try:
        receiver.statuses, receiver.location = [307], other.url
        hook, _ = webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
        sender.push("1.0")
        assert until(10, lambda: sender.deliveries(hook.id)[0].outcome == "answered 307")
        assert other.heard == []
    finally:
        other.stop()


def test_a_webhook_that_is_removed_is_told_nothing(tmp_path: Path, receiver: Receiver) -> None:
    sender = Sender(tmp_path / "hub", INSIDE)
    hook, _ = webhooks.add(sender.hub, "bio", receiver.url, (), added_by="ada")
    sender.push("1.0")
    webhooks.remove(sender.hub.database, "bio", hook.id)
    with sender.hub.database.read() as connection:
        assert connection.execute(sa.select(deliveries)).all() == []
    with pytest.raises(NotFoundError):
        webhooks.remove(sender.hub.database, "bio", hook.id)
    with pytest.raises(NotFoundError):
        webhooks.list_deliveries(sender.hub.database, "bio", hook.id)


# SSRF


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://10.1.2.3/",
        "https://192.168.0.1:8443/",
        "https://172.16.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://user:password@example.org/",
        "https://example.org/#x",
        "https://example.org/ x",
        "https://example.org\\@127.0.0.1/",
        "https://",
        "https://example.org:99999/",
        "https://example.org:0/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "//example.org/",
        "example.org",
        "",
        "https://exa\r\nmple.org/",
    ],
)
def test_addresses_that_are_refused_at_once(tmp_path: Path, url: str) -> None:
    sender = Sender(tmp_path / "hub", Settings())
    with pytest.raises(UsageError):
        webhooks.add(sender.hub, "bio", url, (), added_by="ada")


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "[::]"])
def test_names_that_lead_inside(host: str, receiver: Receiver) -> None:
    """However a name server or the C library reads it: what it leads to is looked at."""
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    with pytest.raises((UsageError, NetworkError)):
        asyncio.run(outside.post(f"https://{host}:{port}/", b"{}", {}, private=False))
    assert receiver.heard == []


def test_a_name_is_resolved_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer of the name server, a private address, is never asked for."""
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])
    asked: list[str] = []

    async def rebinding(_loop: Any, host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", rebinding)
    headers = {"content-type": "application/json"}
    assert asyncio.run(outside.post(f"http://rebind.example.org:{port}/", b"{}", headers, private=True)) == 200
    assert asked == ["rebind.example.org"]
    assert receiver.heard[0][0]["host"] == f"rebind.example.org:{port}"


def test_a_name_with_one_private_address_among_public_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: Any, **__: Any) -> Any:
        return [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", both)
    with pytest.raises(UsageError, match="not public"):
        asyncio.run(outside.post("https://both.example.org/", b"{}", {}, private=False))


def test_a_receiver_that_never_answers(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_SECONDS", 0.3)
    receiver.pause = 1.0
    began = time.monotonic()
    with pytest.raises(NetworkError):
        asyncio.run(outside.post(receiver.url, b"{}", {}, private=True))
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses(address: str) -> None:
    assert outside.is_public(ipaddress.ip_address(address))
