"""The registry as clients see it: every error code, ranges, uploads in pieces, tags, referrers, and what never moves."""

import hashlib
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from backends import CHOSEN
from computeops.image import oci
from conftest import RunningHub
from raw_http import Answer, Caller

REPO = "/v2/bio/tool"
BLOB = bytes(range(256)) * 8


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha512(data: bytes) -> str:
    return "sha512:" + hashlib.sha512(data).hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One hub for all tests of a module that only add to it, each in a repository of its own."""
    running = RunningHub(tmp_path_factory.mktemp("registry") / "hub").start()
    yield running
    log = running.log()
    running.stop()
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def admin(shared: RunningHub) -> Caller:
    return Caller(shared.address, shared.token("delete:*"))


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository for one test."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return f"/v2/bio/{name}"


def push_blob(caller: Caller, repo: str, data: bytes) -> str:
    digest = sha256(data)
    answer = caller("POST", f"{repo}/blobs/uploads/?digest={digest}", data)
    assert answer.status == 201, answer
    return digest


def manifest(caller: Caller, repo: str, *layers: bytes, **more: Any) -> bytes:
    """An image manifest whose blobs are there."""
    config = more.pop("config", b"{}")
    for data in (config, *layers):
        push_blob(caller, repo, data)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.descriptor(more.pop("config_type", oci.CONFIG), config),
            "layers": [oci.descriptor("application/octet-stream", data) for data in layers],
            **more,
        }
    ).encode()


def push(caller: Caller, repo: str, reference: str, body: bytes, media_type: str = oci.MANIFEST) -> Answer:
    return caller("PUT", f"{repo}/manifests/{reference}", body, {"Content-Type": media_type})


def begin(caller: Caller, repo: str) -> str:
    answer = caller("POST", f"{repo}/blobs/uploads/", b"")
    assert answer.status == 202
    return answer.headers["location"]


class TestBlobs:
    def test_in_one_request(self, admin: Caller, repo: str) -> None:
        digest = push_blob(admin, repo, BLOB)
        answer = admin.get(f"{repo}/blobs/{digest}")
        assert (answer.status, answer.body) == (200, BLOB)
        assert answer.headers["docker-content-digest"] == digest
        head = admin("HEAD", f"{repo}/blobs/{digest}")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(BLOB)), b"")

    def test_in_chunks(self, admin: Caller, repo: str) -> None:
        place = begin(admin, repo)
        first = admin("PATCH", place, BLOB[:1000], {"Content-Range": "0-999"})
        assert (first.status, first.headers["range"]) == (202, "0-999")
        state = admin.get(first.headers["location"])
        assert (state.status, state.headers["range"], state.body) == (204, "0-999", b"")
        last = admin("PUT", f"{place}?digest={sha256(BLOB)}", BLOB[1000:], {"Content-Range": f"1000-{len(BLOB) - 1}"})
        assert last.status == 201
        assert admin.get(last.headers["location"]).body == BLOB
        assert admin.get(place).code == "BLOB_UPLOAD_UNKNOWN"

    def test_a_chunk_out_of_order_leaves_the_upload_as_it_was(self, admin: Caller, repo: str) -> None:
        place = begin(admin, repo)
        answer = admin("PATCH", place, BLOB[10:], {"Content-Range": f"10-{len(BLOB) - 1}"})
        assert (answer.status, answer.code, answer.headers["range"]) == (416, "BLOB_UPLOAD_INVALID", "0-0")
        assert admin("PATCH", place, BLOB, {"Content-Range": f"0-{len(BLOB) - 1}"}).status == 202
        assert admin("PUT", f"{place}?digest={sha512(BLOB)}", b"").status == 201

    def test_sha512(self, admin: Caller, repo: str) -> None:
        assert admin("POST", f"{repo}/blobs/uploads/?digest={sha512(BLOB)}", BLOB).status == 201
        answer = admin.get(f"{repo}/blobs/{sha512(BLOB)}")
        assert (answer.body, answer.headers["docker-content-digest"]) == (BLOB, sha512(BLOB))
        assert admin.get(f"{repo}/blobs/{sha256(BLOB)}").status == 404

    def test_content_that_is_not_its_digest(self, admin: Caller, repo: str) -> None:
        wrong = sha256(b"something else")
        for answer in (
            admin("POST", f"{repo}/blobs/uploads/?digest={wrong}", BLOB),
            admin("PUT", f"{begin(admin, repo)}?digest={wrong}", BLOB),
            admin("PUT", f"{begin(admin, repo)}?digest=sha256:short", BLOB),
            admin("PUT", begin(admin, repo), BLOB),
        ):
            assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
        assert admin.get(f"{repo}/tags/list").code == "NAME_UNKNOWN"

    def test_a_cancelled_upload_is_gone(self, admin: Caller, repo: str) -> None:
        place = begin(admin, repo)
        assert admin("DELETE", place).status == 204
        assert admin("PATCH", place, b"x").code == "BLOB_UPLOAD_UNKNOWN"

    def test_an_upload_belongs_to_its_repository(self, admin: Caller, repo: str) -> None:
        place = begin(admin, repo).replace(repo, f"{repo}-other")
        assert admin("PATCH", place, b"x").code == "BLOB_UPLOAD_UNKNOWN"
        assert admin("PATCH", f"{repo}/blobs/uploads/..%2f..%2fhub.sqlite", b"x").code == "BLOB_UPLOAD_UNKNOWN"

    @pytest.mark.parametrize(
        ("asked", "begin", "end"),
        [("500-1499", 500, 1500), ("500-", 500, 2048), ("-500", 1548, 2048), ("2000-5000", 2000, 2048), ("0-0", 0, 1)],
    )
    def test_a_range(self, admin: Caller, repo: str, asked: str, begin: int, end: int) -> None:
        answer = admin.get(f"{repo}/blobs/{push_blob(admin, repo, BLOB)}", Range=f"bytes={asked}")
        assert (answer.status, answer.body) == (206, BLOB[begin:end])
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/2048"
        assert answer.headers["content-length"] == str(end - begin)

    @pytest.mark.parametrize("asked", ["500-0", "5000-10000", "2048-", "-0"])
    def test_a_range_that_is_not_there(self, admin: Caller, repo: str, asked: str) -> None:
        answer = admin.get(f"{repo}/blobs/{push_blob(admin, repo, BLOB)}", Range=f"bytes={asked}")
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */2048")

    @pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=a-b"])
    def test_other_ranges_mean_the_whole(self, admin: Caller, repo: str, asked: str) -> None:
        answer = admin.get(f"{repo}/blobs/{push_blob(admin, repo, BLOB)}", Range=asked)
        assert (answer.status, answer.body) == (200, BLOB)

    def test_a_large_blob_in_ranges_is_the_blob(self, admin: Caller, repo: str) -> None:
        large = hashlib.shake_256(b"large").digest(3_000_001)
        path = f"{repo}/blobs/{push_blob(admin, repo, large)}"
        step = 1_000_000
        parts = [admin.get(path, Range=f"bytes={at}-{at + step - 1}").body for at in range(0, len(large), step)]
        assert b"".join(parts) == large
        assert admin.get(path).body == large

    def test_mount(self, admin: Caller, repo: str) -> None:
        digest = push_blob(admin, repo, b"mounted")
        answer = admin("POST", f"{repo}-two/blobs/uploads/?mount={digest}&from={repo[4:]}", b"")
        assert (answer.status, answer.headers["location"]) == (201, f"{repo}-two/blobs/{digest}")
        assert admin("POST", f"{repo}-two/blobs/uploads/?mount={sha256(b'nowhere')}&from={repo[4:]}", b"").status == 202

    def test_deleted(self, admin: Caller, repo: str) -> None:
        digest = push_blob(admin, repo, b"short-lived")
        assert admin("DELETE", f"{repo}/blobs/{digest}").status == 202
        assert admin.get(f"{repo}/blobs/{digest}").code == "BLOB_UNKNOWN"
        assert admin("DELETE", f"{repo}/blobs/{digest}").status == 404

    def test_not_deleted_while_a_manifest_consists_of_it(self, admin: Caller, repo: str) -> None:
        assert push(admin, repo, "1", manifest(admin, repo, b"layer")).status == 201
        answer = admin("DELETE", f"{repo}/blobs/{sha256(b'layer')}")
        assert (answer.status, answer.code) == (409, "DENIED")
        assert admin.get(f"{repo}/blobs/{sha256(b'layer')}").status == 200


class TestManifests:
    def test_bytes_and_type_come_back(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo, b"layer") + b"\n"
        answer = push(admin, repo, "1.0", body)
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, sha256(body))
        for reference in ("1.0", sha256(body)):
            found = admin.get(f"{repo}/manifests/{reference}")
            assert (found.status, found.body, found.headers["content-type"]) == (200, body, oci.MANIFEST)
        same = admin.get(f"{repo}/manifests/1.0", If_None_Match=f'"{sha256(body)}"')
        assert (same.status, same.body) == (304, b"")

    def test_by_a_digest_that_is_not_its_own(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo)
        for reference in (sha256(b"other"), "sha256:short", "md5:00"):
            assert push(admin, repo, reference, body).code == "DIGEST_INVALID"

    def test_parts_must_be_there(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo, b"layer")
        answer = push(admin, f"{repo}-other", "1", body)
        assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [oci.descriptor(oci.MANIFEST, body)]}
        answer = push(admin, repo, "1", json.dumps(index).encode(), oci.INDEX)
        assert answer.code == "MANIFEST_BLOB_UNKNOWN"
        assert push(admin, repo, "part", body).status == 201
        assert push(admin, repo, "1", json.dumps(index).encode(), oci.INDEX).status == 201
        assert admin("DELETE", f"{repo}/manifests/{sha256(body)}").status == 409

    @pytest.mark.parametrize(
        "change",
        [
            {"schemaVersion": 1},
            {"mediaType": oci.INDEX},
            {"config": None},
            {"layers": [7]},
            {"layers": [{"digest": "sha256:x", "size": 1}]},
            {"layers": [{"digest": sha256(b""), "size": -1}]},
            {"layers": [{"digest": sha256(b""), "size": True}]},
            {"subject": {"digest": "nonsense", "size": 1}},
            {"annotations": {"number": 1}},
            {"artifactType": ["x"]},
        ],
    )
    def test_broken(self, admin: Caller, repo: str, change: dict[str, Any]) -> None:
        body = json.dumps(json.loads(manifest(admin, repo)) | change).encode()
        answer = push(admin, repo, "1", body)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"schemaVersion":2}'])
    def test_no_manifest_at_all(self, admin: Caller, repo: str, body: bytes) -> None:
        assert push(admin, repo, "1", body).code == "MANIFEST_INVALID"

    def test_a_size_that_lies(self, admin: Caller, repo: str) -> None:
        body = json.loads(manifest(admin, repo, b"layer"))
        body["layers"][0]["size"] += 1
        assert push(admin, repo, "1", json.dumps(body).encode()).code == "MANIFEST_INVALID"

    def test_too_large(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo, annotations={"x": "y" * 5_000_000})
        answer = push(admin, repo, "1", body)
        assert (answer.status, answer.code) == (413, "SIZE_INVALID")
        assert push(admin, repo, "1", manifest(admin, repo, annotations={"x": "y" * 4_000_000})).status == 201

    @pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "a%20b"])
    def test_bad_tags(self, admin: Caller, repo: str, tag: str) -> None:
        assert push(admin, repo, tag, manifest(admin, repo)).code == "MANIFEST_INVALID"

    def test_deleting_a_tag_keeps_the_manifest(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo)
        push(admin, repo, "a", body)
        push(admin, repo, "b", body)
        assert admin("DELETE", f"{repo}/manifests/a").status == 202
        assert admin.get(f"{repo}/manifests/a").code == "MANIFEST_UNKNOWN"
        assert admin.get(f"{repo}/manifests/b").status == 200
        assert admin("DELETE", f"{repo}/manifests/{sha256(body)}").status == 202
        assert admin.get(f"{repo}/manifests/b").status == 404
        assert admin("DELETE", f"{repo}/manifests/{sha256(body)}").code == "MANIFEST_UNKNOWN"


class TestLists:
    def test_tags_in_pages(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo)
        for tag in ("c", "a", "b", "B"):
            push(admin, repo, tag, body)
        assert admin.get(f"{repo}/tags/list").json == {"name": repo[4:], "tags": ["B", "a", "b", "c"]}
        first = admin.get(f"{repo}/tags/list?n=3")
        assert first.json["tags"] == ["B", "a", "b"]
        following = first.headers["link"].partition("<")[2].partition(">")[0]
        second = admin.get(following)
        assert second.json["tags"] == ["c"]
        assert "link" not in second.headers
        assert admin.get(f"{repo}/tags/list?n=0").json["tags"] == []
        assert admin.get(f"{repo}/tags/list?n=-1").status == 400

    def test_referrers(self, admin: Caller, repo: str) -> None:
        body = manifest(admin, repo)
        subject = oci.descriptor(oci.MANIFEST, body)
        first = manifest(admin, repo, b"1", artifactType="text/one", subject=subject, annotations={"who": "ada"})
        second = manifest(admin, repo, b"2", config_type="text/two", subject=subject)
        for one in (first, second):  # before the subject: also then they refer to it
            answer = push(admin, repo, sha256(one), one)
            assert (answer.status, answer.headers["oci-subject"]) == (201, sha256(body))
        push(admin, repo, "1", body)
        answer = admin.get(f"{repo}/referrers/{sha256(body)}")
        found = {one["digest"]: one for one in answer.json["manifests"]}
        assert answer.headers["content-type"] == oci.INDEX
        assert found[sha256(first)] == {
            **oci.descriptor(oci.MANIFEST, first),
            "artifactType": "text/one",
            "annotations": {"who": "ada"},
        }
        assert found[sha256(second)]["artifactType"] == "text/two"
        filtered = admin.get(f"{repo}/referrers/{sha256(body)}?artifactType=text/two")
        assert [one["digest"] for one in filtered.json["manifests"]] == [sha256(second)]
        assert filtered.headers["oci-filters-applied"] == "artifactType"

    def test_referrers_of_nothing(self, admin: Caller, repo: str) -> None:
        answer = admin.get(f"{repo}/referrers/{sha256(b'?')}")
        assert (answer.status, answer.json["manifests"]) == (200, [])
        assert admin.get(f"{repo}/referrers/x").code == "DIGEST_INVALID"


class TestReleases:
    """A tag whose manifest has a recipe or evidence never moves, and its name is never used again."""

    @pytest.fixture
    def released(self, admin: Caller, repo: str) -> bytes:
        body = manifest(admin, repo, b"the image")
        push(admin, repo, "1.0", body)
        subject = oci.descriptor(oci.MANIFEST, body)
        recipe = manifest(admin, repo, b"[package]", artifactType=oci.RECIPE_ARTIFACT, subject=subject)
        assert push(admin, repo, sha256(recipe), recipe).status == 201
        return recipe

    def test_never_moves(self, admin: Caller, repo: str, released: bytes) -> None:
        before = admin.get(f"{repo}/manifests/1.0").body
        answer = push(admin, repo, "1.0", manifest(admin, repo, b"another"))
        assert (answer.status, answer.code) == (409, "DENIED")
        assert admin.get(f"{repo}/manifests/1.0").body == before
        assert push(admin, repo, "1.0", before).status == 201  # the same again is no change
        assert push(admin, repo, "1.1", manifest(admin, repo, b"another")).status == 201

    def test_other_tags_move(self, admin: Caller, repo: str) -> None:
        push(admin, repo, "edge", manifest(admin, repo, b"old"))
        new = manifest(admin, repo, b"new")
        assert push(admin, repo, "edge", new).status == 201
        assert admin.get(f"{repo}/manifests/edge").body == new

    @pytest.mark.parametrize("by_digest", [True, False])
    def test_a_deleted_version_is_not_used_again(
        self, admin: Caller, repo: str, released: bytes, *, by_digest: bool
    ) -> None:
        body = admin.get(f"{repo}/manifests/1.0").body
        assert admin("DELETE", f"{repo}/manifests/{sha256(body) if by_digest else '1.0'}").status == 202
        assert admin.get(f"{repo}/manifests/1.0").status == 404
        assert admin.get(f"{repo}/tags/list").json["tags"] == []
        assert push(admin, repo, "1.0", manifest(admin, repo, b"another")).status == 409

    def test_nothing_is_taken_away_from_it(self, admin: Caller, repo: str, released: bytes) -> None:
        assert admin("DELETE", f"{repo}/manifests/{sha256(released)}").status == 409
        assert admin.get(f"{repo}/manifests/{sha256(released)}").status == 200


class TestNames:
    @pytest.mark.parametrize("name", ["single", "Bio/tool", "bio//tool", "bio/tool-", "bio/" + "x" * 256, "api/tool"])
    def test_refused(self, admin: Caller, name: str) -> None:
        assert admin("POST", f"/v2/{name}/blobs/uploads/", b"").code == "NAME_INVALID"

    def test_methods_that_are_not_there(self, admin: Caller, repo: str) -> None:
        for method, path in (
            ("POST", "manifests/1"),
            ("PUT", "blobs/x"),
            ("GET", "blobs/uploads/"),
            ("PUT", "tags/list"),
        ):
            answer = admin(method, f"{repo}/{path}")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert admin.get("/v2/nothing").status == 404


@pytest.mark.skipif(CHOSEN["storage"] == "s3", reason="what came of a request that was cut is in no bucket")
def test_an_upload_survives_kill_9(hub: RunningHub) -> None:
    caller = Caller(hub.address, hub.token("push:*"))
    done = push_blob(caller, REPO, b"answered 201")
    body = manifest(caller, REPO, b"layer")
    assert push(caller, REPO, "1.0", body).status == 201
    place = begin(caller, REPO)
    large = hashlib.shake_256(b"x").digest(3_000_000)
    half = len(large) // 2
    connection = socket.create_connection(hub.host.split(":"))
    head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: {caller.headers['Authorization']}\r\n"
    connection.sendall(f"{head}Content-Length: {len(large)}\r\n\r\n".encode() + large[:half])
    wait_for(lambda: any(path.stat().st_size > 1_000_000 for path in (hub.data / "uploads").glob("*/data")))
    hub.stop(signal.SIGKILL)
    connection.close()

    hub.start()
    assert caller.get(f"{REPO}/blobs/{done}").body == b"answered 201"
    assert caller.get(f"{REPO}/manifests/1.0").body == body
    assert caller.get(f"{REPO}/blobs/{sha256(large)}").status == 404
    there = int(caller.get(place).headers["range"].partition("-")[2]) + 1
    assert 1_000_000 < there <= half
    assert caller("PUT", f"{place}?digest={sha256(large)}", large[there:]).status == 201
    assert caller.get(f"{REPO}/blobs/{sha256(large)}").body == large


def test_a_connection_that_breaks_leaves_nothing_half(hub: RunningHub) -> None:
    caller = Caller(hub.address, hub.token("push:*"))
    digest = sha256(BLOB)
    connection = socket.create_connection(hub.host.split(":"))
    head = f"POST {REPO}/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\n"
    head += f"Authorization: {caller.headers['Authorization']}\r\nContent-Length: {len(BLOB)}\r\n\r\n"
    connection.sendall(head.encode() + BLOB[:-1])
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert push_blob(caller, REPO, b"still well")
    assert caller.get(f"{REPO}/blobs/{digest}").code == "BLOB_UNKNOWN"


@pytest.mark.skipif(CHOSEN["storage"] == "s3", reason="looks into the folder")
def test_told_to_stop_it_first_finishes_what_is_under_way(hub: RunningHub) -> None:
    caller = Caller(hub.address, hub.token("push:*"))
    large = hashlib.shake_256(b"x").digest(3_000_000)
    connection = socket.create_connection(hub.host.split(":"))
    head = f"POST {REPO}/blobs/uploads/?digest={sha256(large)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: {caller.headers['Authorization']}\r\nContent-Length: {len(large)}\r\n\r\n"
    connection.sendall(head.encode() + large[:1_500_000])
    wait_for(lambda: any(path.stat().st_size > 1_000_000 for path in (hub.data / "uploads").glob("*/data")))
    assert hub.process is not None
    hub.process.send_signal(signal.SIGTERM)
    connection.sendall(large[1_500_000:])
    assert connection.makefile("rb").readline() == b"HTTP/1.1 201 Created\r\n"
    connection.close()
    assert hub.stop() == 0
    assert Caller(hub.start().address).get(f"{REPO}/blobs/{sha256(large)}").body == large


def wait_for(true: Any) -> None:
    import time

    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_data_is_for_its_owner(hub: RunningHub) -> None:
    assert hub.data.stat().st_mode & 0o777 == 0o700
    assert (hub.data / "session.key").stat().st_mode & 0o777 == 0o600
    assert (hub.data / "hub.sqlite").exists() == (CHOSEN["database"] == "sqlite")
