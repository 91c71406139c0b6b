"""Floods, slow clients and large headers, against a hub started as a user starts it."""

import concurrent.futures
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import RunningHub
from raw_http import Caller


@pytest.fixture
def strict(tmp_path: Path) -> RunningHub:
    return _hub(tmp_path, "requests_per_second = 5\nrequests_at_once = 4\ntrusted_proxies = ['127.0.0.1']\n")


def _hub(tmp_path: Path, settings: str) -> RunningHub:
    data = tmp_path / "hub"
    data.mkdir(mode=0o700)
    (data / "hub.toml").write_text(settings)
    return RunningHub(data).start()


def test_a_flood_is_answered_with_when_to_come_again(strict: RunningHub) -> None:
    try:
        ask = Caller(strict.address)
        began = time.monotonic()
        answers = [ask.get("/v2/bio/x/manifests/1") for _ in range(150)]
        refused = [one for one in answers if one.status == 429]
        # ten seconds' worth at once, and what has grown meanwhile
        assert 150 - 50 - 5 * (time.monotonic() - began) - 5 <= len(refused) <= 100
        assert refused[0].code == "TOOMANYREQUESTS"
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        page, found = ask.get("/api/v1/search?q=x"), ask.get("/v1/search?value=abc")
        assert (page.status, page.json["error"]["code"]) == (429, "busy")
        assert found.status in {200, 429}
        time.sleep(1.2)
        assert ask.get("/v2/bio/x/manifests/1").status == 401
    finally:
        strict.stop()


def test_who_has_a_token_has_an_own_share(strict: RunningHub) -> None:
    try:
        token = strict.token("pull:*")
        for _ in range(60):
            Caller(strict.address).get("/v2/bio/x/manifests/1")
        assert Caller(strict.address).get("/v2/bio/x/manifests/1").status == 429
        assert Caller(strict.address, token).get("/v2/bio/x/manifests/1").status == 404
        other = Caller(strict.address)
        assert other.get("/v2/bio/x/manifests/1", X_Forwarded_For="203.0.113.7").status == 401
    finally:
        strict.stop()


def test_false_tokens_are_dear(strict: RunningHub) -> None:
    try:
        statuses = [
            Caller(strict.address).get("/v2/", Authorization=f"Bearer guess{n}", X_Forwarded_For="203.0.113.9").status
            for n in range(10)
        ]
        assert statuses[:2] == [401, 401]
        assert statuses.count(429) >= 6
    finally:
        strict.stop()


def test_another_address_does_not_suffer_from_a_flood(strict: RunningHub) -> None:
    try:

        def flood(number: int) -> int:
            return Caller(strict.address).get("/", X_Forwarded_For="2001:db8::" + str(number % 10)).status

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = Counter(pool.map(flood, range(300)))
        assert statuses[429] > 250
        assert set(statuses) == {200, 429}
        assert Caller(strict.address).get("/", X_Forwarded_For="2001:db8:1::1").status == 200
        assert strict.process is not None
        assert strict.process.poll() is None
    finally:
        strict.stop()


def test_without_a_limit(tmp_path: Path) -> None:
    free = _hub(tmp_path, "requests_per_second = 0\n")
    try:
        assert {Caller(free.address).get("/version").status for _ in range(100)} == {200}
    finally:
        free.stop()


def test_large_headers_are_refused(hub: RunningHub) -> None:
    ask = Caller(hub.address)
    assert ask.get("/v2/", X_Long="x" * 30_000).status == 401
    assert ask.get("/v2/", X_Long="x" * 66_000).status == 431


def test_slow_clients_do_not_stop_the_others(hub: RunningHub) -> None:
    """200 connections that say half a request and nothing more."""
    host, port = hub.host.split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(200)]
    try:
        for one in idle:
            one.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        began = time.monotonic()
        assert Caller(hub.address).get("/version").status == 200
        assert time.monotonic() - began < 5
        idle[0].settimeout(25)
        while idle[0].recv(1000):  # it is closed, with or without a word
            pass
        assert time.monotonic() - began < 25
    finally:
        for one in idle:
            one.close()
