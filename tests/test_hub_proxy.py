"""Pull-through caches: what is fetched, kept, refused, and what is served while the other registry is away."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeops.errors import UsageError
from computeops.hub.settings import parse
from computeops.image import oci
from computeops.model import Digest
from computeops.store.oci import Registry
from conftest import RunningHub
from raw_http import Caller
from servers import Asked, docker_registry, serving
from shelf import TEST, Shelf
from test_hub_mirror import _pushed


class Cache(RunningHub):
    """A hub with one pull-through cache below `far`."""

    def __init__(self, data: Path, registry: str, **settings: object) -> None:
        super().__init__(data)
        data.mkdir(mode=0o700)
        lines = {"prefix": "far", "registry": registry, "fresh_minutes": 0, **settings}
        (data / "hub.toml").write_text("[[proxies]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items()))
        self.start()


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[tuple[Shelf, RunningHub]]:
    (tmp_path / "there").mkdir()
    shelf = Shelf(tmp_path / "there/hub")
    running = RunningHub(tmp_path / "there/hub").start()
    try:
        yield shelf, running
    finally:
        if running.process:
            running.stop()


def fetch_all(ask: Caller, name: str, reference: str) -> str:
    answer = ask.get(f"/v2/{name}/manifests/{reference}")
    assert answer.status == 200, answer.body
    assert str(Digest.of(answer.body)) == answer.headers["docker-content-digest"]
    found = json.loads(answer.body)
    for one in (found["config"], *found["layers"]):
        blob = ask.get(f"/v2/{name}/blobs/{one['digest']}")
        assert blob.status == 200, blob.body
        assert str(Digest.of(blob.body)) == one["digest"]
    return answer.headers["docker-content-digest"]


def test_fetched_kept_moved_and_served_without_the_registry(upstream: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, there = upstream
    first = shelf.image("bio/tool", "nightly", content="one")
    shelf.evidence("bio/tool", first, TEST, {"result": "PASSED"})
    shelf.release("bio/stable", "1")
    shelf.image("bio/other", "1")
    cache = Cache(tmp_path / "hub", there.address)
    try:
        ask = Caller(cache.address)
        assert fetch_all(ask, "far/bio/tool", "nightly") == first
        referrers = ask.get(f"/v2/far/bio/tool/referrers/{first}").json["manifests"]
        assert [one["artifactType"] for one in referrers] == [oci.EVIDENCE_ARTIFACT]
        fetch_all(ask, "far/bio/tool", referrers[0]["digest"])
        fetch_all(ask, "far/bio/stable", "1")
        assert ask.get("/v2/far/bio/tool/manifests/none").status == 404
        assert ask.get("/v2/far/bio/tool/blobs/sha256:" + "0" * 64).status == 404
        found = ask.get("/api/v1/search?q=stable").json["releases"]
        assert [one["reference"] for one in found] == ["far/bio/stable:1"]
        there.stop()
        assert fetch_all(ask, "far/bio/tool", "nightly") == first
        assert fetch_all(ask, "far/bio/stable", "1")
        assert ask.get("/v2/far/bio/other/manifests/1").status in {404, 502}
        assert len(ask.get(f"/v2/far/bio/tool/referrers/{first}").json["manifests"]) == 1
    finally:
        cache.stop()
    assert "Traceback" not in cache.log()


@pytest.mark.registry
def test_a_tag_that_moves(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host, Registry(host) as there:
        cache = Cache(tmp_path / "hub", f"http://{host}", below="tools")
        try:
            ask = Caller(cache.address)
            for content in (b"one", b"two"):
                pushed = _pushed(there, "tools/blast/plus", content, b'{"architecture":"amd64"}', "latest")
                assert fetch_all(ask, "far/blast/plus", "latest") == str(pushed)
        finally:
            cache.stop()


def test_nobody_pushes_to_a_cache(upstream: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "hub", upstream[1].address)
    try:
        ask = Caller(cache.address, cache.token("push:*"))
        answer = ask("POST", "/v2/far/bio/x/blobs/uploads/")
        assert (answer.status, answer.code) == (403, "DENIED")
        assert ask("POST", "/v2/near/x/blobs/uploads/").status == 202
    finally:
        cache.stop()


def test_a_private_cache_asks_for_nobody_who_may_not_read(tmp_path: Path) -> None:
    with serving(lambda asked: asked.answer(404)) as server:
        cache = Cache(tmp_path / "hub", server.url, public=False)
        try:
            assert Caller(cache.address).get("/v2/far/a/b/manifests/1").status == 401
            assert Caller(cache.address, cache.token("pull:near/*")).get("/v2/far/a/b/manifests/1").status == 404
            assert server.asked == []
            assert Caller(cache.address, cache.token("pull:far/*")).get("/v2/far/a/b/manifests/1").status == 404
            assert server.paths("HEAD") == ["/v2/a/b/manifests/1"]
        finally:
            cache.stop()


def test_what_a_private_cache_has_shows_to_nobody_else(upstream: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, there = upstream
    shelf.release("bio/tool", "1")
    cache = Cache(tmp_path / "hub", there.address, public=False)
    try:
        fetch_all(Caller(cache.address, cache.token("pull:far/*")), "far/bio/tool", "1")
        stranger = Caller(cache.address)
        assert stranger.get("/v2/far/bio/tool/manifests/1").status == 401
        assert stranger.get("/api/v1/search?q=tool").json["releases"] == []
    finally:
        cache.stop()


def test_a_registry_that_lies_or_leads_away(tmp_path: Path) -> None:
    """Nothing of another digest is kept, and no other host is asked, whatever the registry says."""
    with serving(lambda asked: asked.answer(200, b"secret of the network")) as inner:

        def answers(asked: Asked) -> None:
            headers = {"docker-content-digest": "sha256:" + "1" * 64}
            if "/away/" in asked.path:
                asked.answer(307, b"", {"Location": f"{inner.url}/x"})
            elif "/login/" in asked.path:
                asked.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{inner.url}/token",service="x"'})
            else:
                asked.answer(200, b'{"schemaVersion":2}', headers)

        with serving(answers) as server:
            cache = Cache(tmp_path / "hub", server.url)
            try:
                for name in ("away", "login", "lies"):
                    answer = Caller(cache.address).get(f"/v2/far/{name}/x/manifests/1")
                    assert answer.status == 502, (name, answer.body)
                    assert Caller(cache.address).get(f"/v2/far/{name}/x/tags/list").status == 401
                assert inner.asked == []
            finally:
                cache.stop()


def test_names_that_lead_out(tmp_path: Path) -> None:
    with serving(lambda asked: asked.answer(404)) as server:
        cache = Cache(tmp_path / "hub", server.url, below="tools")
        try:
            ask = Caller(cache.address)
            for name in ("far/../admin", "far/%2e%2e/admin", "far/x?y", "far/a//b", "far/", "far/A"):
                assert ask.get(f"/v2/{name}/manifests/1").status in {400, 401, 404}
            ask.get("/v2/far/x/manifests/..%2F..%2Fadmin")
            assert all(path.startswith("/v2/tools/x/manifests/1") for path in server.paths("HEAD"))
        finally:
            cache.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "api", "registry": "https://a.example"},
        {"prefix": "a/b", "registry": "https://a.example"},
        {"prefix": "a", "registry": "http://a.example"},
        {"prefix": "a", "registry": "file:///etc"},
        {"prefix": "a", "registry": "https://a.example", "hostz": []},
        {"prefix": "a", "registry": "https://a.example", "below": "../x"},
    ],
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        parse({"proxies": [wrong]}, "hub.toml")
