"""The Library API as its clients send it: no content types, zero values, capitalised keys, and statuses taken literally."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import CHOSEN
from computeops.hub.multipart import PART_BYTES
from computeops.image import oci, sif
from conftest import RunningHub
from raw_http import Answer, Caller
from test_hub_registry import manifest, push, push_blob, sha256

ZERO = {"createdAt": "0001-01-01T00:00:00Z", "collections": None, "id": "", "deleted": False, "entity": ""}


def make_sif(path: Path, content: bytes, arch: str = "amd64") -> bytes:
    """A SIF whose squashfs nobody reads here."""
    path.write_bytes(bytes(sif.PARTITION_OFFSET) + content)
    sif.finish(path, arch=arch, identity=content.hex(), epoch=0, objects=[])
    return path.read_bytes()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    running = RunningHub(tmp_path_factory.mktemp("library") / "hub").start()
    yield running
    log = running.log()
    running.stop()
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def ada(shared: RunningHub) -> Caller:
    return Caller(shared.address, shared.token("delete:*", name="ada"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"ada/tools/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def data(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer
    return answer.json["data"]


def send(caller: Caller, method: str, path: str, body: dict[str, Any]) -> Answer:
    return caller(method, path, json.dumps(ZERO | body))


def upload(caller: Caller, name: str, content: bytes) -> tuple[str, str]:
    """Push as the client does, up to the tag; return the ids of container and image."""
    entity, collection, container = name.split("/")
    caller.get(f"/v1/entities/{entity}")
    identity = data(send(caller, "POST", "/v1/entities", {"name": entity}), 201)["id"]
    identity = data(send(caller, "POST", "/v1/collections", {"name": collection, "entity": identity}), 201)["id"]
    holder = data(send(caller, "POST", "/v1/containers", {"name": container, "collection": identity}), 201)["id"]
    digest = hashlib.sha256(content).hexdigest()
    image = data(send(caller, "POST", "/v1/images", {"hash": f"sha256.{digest}", "container": holder}), 201)
    if not image["uploaded"]:
        place = data(send(caller, "POST", f"/v2/imagefile/{image['id']}", {"filesize": len(content)}))["uploadURL"]
        stranger = Caller(place)
        assert stranger("PUT", place.removeprefix(f"http://{stranger.host}"), content).status == 200
        data(send(caller, "PUT", f"/v2/imagefile/{image['id']}/_complete", {}))
    return holder, image["id"]


def tag(caller: Caller, holder: str, image: str, name: str, arch: str = "amd64") -> Answer:
    return send(caller, "POST", f"/v2/tags/{holder}", {"Arch": arch, "Tag": name, "ImageID": image})


def test_discovery_holds_only_objects(shared: RunningHub) -> None:
    found = Caller(shared.address).get("/assets/config/config.prod.json").json
    assert all(isinstance(value, dict) for value in found.values())
    assert found["libraryAPI"]["uri"] == found["keystoreAPI"]["uri"] == found["tokenAPI"]["uri"] == shared.address
    assert data(Caller(shared.address).get("/version"))["apiVersion"] == "2.0.0-alpha.2"


def test_tokens_are_judged_by_200_and_404(shared: RunningHub, ada: Caller) -> None:
    data(ada.get("/v1/token-status"))
    assert Caller(shared.address, "x" * 214).get("/v1/token-status").status == 404
    assert Caller(shared.address).get("/v1/token-status", Authorization="Bearer ").status == 404


def test_who_am_i_is_not_wrapped(shared: RunningHub, ada: Caller) -> None:
    found = ada.get("/v1/rbac/users/current").json
    assert found["username"] == "ada"
    assert Caller(shared.address, found["oidc_user_meta"]["secret"]).get("/v2/").status == 200
    assert Caller(shared.address).get("/v1/rbac/users/current", Authorization="Bearer ").status == 401


class InParts:
    """One push in parts, step by step."""

    def __init__(self, caller: Caller, name: str, content: bytes) -> None:
        self.caller, self.content = caller, content
        self.holder = shelf_identity(name)
        self.image = shelf_identity(f"{name}@{sha256(content)}")
        self.began = data(send(caller, "POST", self.path(), {"filesize": len(content)}))
        self.size, self.count = self.began["partSize"], self.began["totalParts"]
        self.tokens: list[dict[str, Any]] = []

    def path(self, more: str = "") -> str:
        return f"/v2/imagefile/{self.image}/_multipart{more}"

    def send(self, number: int, content: bytes | None = None) -> Answer:
        asked = {"partSize": self.size, "uploadID": self.began["uploadID"], "partNumber": number, "sha256sum": "x"}
        place = data(send(self.caller, "PUT", self.path(), asked))["presignedURL"]
        part = self.content[(number - 1) * self.size : number * self.size] if content is None else content
        answer = Caller(place)("PUT", place.partition(self.caller.host)[2], part)
        if answer.status == 200:
            self.tokens.append({"partNumber": number, "token": answer.headers["etag"]})
        return answer

    def end(self, how: str, **more: Any) -> Answer:
        return send(self.caller, "PUT", self.path(how), {"uploadID": self.began["uploadID"], **more})


def shelf_identity(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


class TestPushInParts:
    @pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1])
    def test_and_pull(self, ada: Caller, name: str, tmp_path: Path, size: int) -> None:
        content = make_sif(tmp_path / "x.sif", b"large").ljust(size, b".")
        push = InParts(ada, name, content)
        assert push.count == -(-size // push.size)
        for number in range(1, push.count + 1):
            assert push.send(number).status == 200
        told = data(push.end("_complete", completedParts=push.tokens))
        assert told["quota"] == {"quotaTotal": 0, "quotaUsage": 0}
        assert data(push.end("_complete", completedParts=push.tokens)) == told  # its answer may have been lost
        assert tag(ada, push.holder, push.image, "1").status == 200
        assert data(ada.get(f"/v1/images/{name}:1?arch=amd64"))["size"] == size

    def test_parts_have_their_place(self, ada: Caller, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"order").ljust(2 * PART_BYTES + 1, b".")
        push = InParts(ada, name, content)
        assert push.send(2, b"x").status == 409
        assert push.send(1).status == 200
        assert push.send(1, b"x").status == 409
        assert push.send(2, b"short").status == 200
        assert push.send(3, b"x").status == 409
        assert push.end("_complete", completedParts=push.tokens[:1]).status == 400
        assert push.end("_complete", completedParts=push.tokens).status == 422
        assert push.end("_complete", completedParts=push.tokens).status == 404

    def test_a_part_is_bounded(self, ada: Caller, name: str) -> None:
        push = InParts(ada, name, b"x" * (PART_BYTES + 10))
        assert push.send(1, b"x" * (PART_BYTES + 1)).status == 413

    def test_aborted(self, ada: Caller, name: str) -> None:
        push = InParts(ada, name, b"x" * 100)
        assert push.send(1).status == 200
        assert push.end("_abort").status == 200
        assert push.end("_abort").status == 404
        assert push.end("_complete", completedParts=push.tokens).status == 404

    def test_who_may_not_push_cannot_begin_or_end(self, ada: Caller, shared: RunningHub, name: str) -> None:
        push = InParts(ada, name, b"x" * 100)
        assert push.send(1).status == 200
        for stranger in (Caller(shared.address), Caller(shared.address, shared.token("push:other/*", name="other"))):
            for method, more, sent in (
                ("POST", "", {"filesize": 1}),
                ("PUT", "", {"uploadID": push.began["uploadID"], "partNumber": 1}),
                ("PUT", "_complete", {"uploadID": push.began["uploadID"], "completedParts": push.tokens}),
                ("PUT", "_abort", {"uploadID": push.began["uploadID"]}),
            ):
                assert send(stranger, method, push.path(more), sent).status in {401, 403}
        assert ada("PUT", f"/v2/imagefile/{push.image}/{'0' * 32}/1", b"x").status == 404

    @pytest.mark.parametrize("sent", [{"filesize": 0}, {"filesize": "x"}, {"filesize": 2**60}, {}])
    def test_sizes_that_are_none(self, ada: Caller, name: str, sent: dict[str, Any]) -> None:
        image = shelf_identity(f"{name}@{sha256(b'x')}")
        assert send(ada, "POST", f"/v2/imagefile/{image}/_multipart", sent).status == 400


class TestPush:
    def test_and_pull(self, ada: Caller, shared: RunningHub, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"one")
        assert ada.get(f"/v1/images/{name}:sha256.{sha256(content)[7:]}?arch=amd64").status == 404
        holder, image = upload(ada, name, content)
        assert data(tag(ada, holder, image, "1.0")) == {"amd64": {"1.0": image}}
        found = data(Caller(shared.address).get(f"/v1/images/{name}:1.0?arch=amd64"))
        assert found["hash"] == f"sha256.{sha256(content)[7:]}"
        assert (found["size"], found["uploaded"], found["arch"], found["signed"]) == (
            len(content),
            True,
            "amd64",
            False,
        )
        assert found["tags"] == ["1.0"]
        moved = Caller(shared.address).get(f"/v1/imagefile/{name}:1.0?arch=amd64")
        assert moved.status == 303
        part = Caller(shared.address).get(moved.headers["location"].removeprefix(shared.address), Range="bytes=5-99")
        assert (part.status, part.body) == (206, content[5:100])

    def test_the_same_again_is_not_uploaded_twice(self, ada: Caller, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"twice")
        holder, image = upload(ada, name, content)
        tag(ada, holder, image, "1")
        assert upload(ada, name, content) == (holder, image)
        assert data(tag(ada, holder, image, "2"))["amd64"] == {"1": image, "2": image}

    def test_an_interrupted_one_goes_on_under_the_same_id(self, ada: Caller, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"interrupted")
        digest = sha256(content)[7:]
        holder = data(
            send(ada, "POST", "/v1/containers", {"name": name.rpartition("/")[2], "collection": ada_tools(ada)}), 201
        )
        first = data(send(ada, "POST", "/v1/images", {"hash": f"sha256.{digest}", "container": holder["id"]}), 201)
        assert send(ada, "PUT", f"/v2/imagefile/{first['id']}/_complete", {}).status == 400
        assert upload(ada, name, content)[1] == first["id"]

    def test_two_architectures_under_one_tag(self, ada: Caller, shared: RunningHub, name: str, tmp_path: Path) -> None:
        contents = {arch: make_sif(tmp_path / arch, arch.encode(), arch) for arch in ("amd64", "arm64")}
        for arch, content in contents.items():
            holder, image = upload(ada, name, content)
            assert tag(ada, holder, image, "1", arch).status == 200
        stranger = Caller(shared.address)
        for arch, content in contents.items():
            assert data(stranger.get(f"/v1/images/{name}:1?arch={arch}"))["hash"] == f"sha256.{sha256(content)[7:]}"
        # a hash means one file whatever the client's architecture
        assert (
            data(stranger.get(f"/v1/images/{name}:sha256.{sha256(contents['arm64'])[7:]}?arch=amd64"))["arch"]
            == "arm64"
        )
        assert stranger.get(f"/v1/images/{name}:1?arch=ppc64le").status == 404
        assert set(data(ada.get(f"/v2/tags/{holder}"))) == {"amd64", "arm64"}
        newer = make_sif(tmp_path / "newer", b"newer", "arm64")
        holder, image = upload(ada, name, newer)
        tag(ada, holder, image, "1", "arm64")
        assert data(stranger.get(f"/v1/images/{name}:1?arch=arm64"))["hash"] == f"sha256.{sha256(newer)[7:]}"
        assert data(stranger.get(f"/v1/images/{name}:1?arch=amd64"))["arch"] == "amd64"

    def test_a_file_that_is_not_its_hash(self, ada: Caller, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"right")
        holder = data(
            send(ada, "POST", "/v1/containers", {"name": name.rpartition("/")[2], "collection": ada_tools(ada)}), 201
        )
        image = data(
            send(ada, "POST", "/v1/images", {"hash": f"sha256.{sha256(content)[7:]}", "container": holder["id"]}), 201
        )
        place = data(send(ada, "POST", f"/v2/imagefile/{image['id']}", {"filesize": len(content)}))["uploadURL"]
        assert ada("PUT", place.partition(ada.host)[2], content[:-1] + b"!").status == 422
        assert tag(ada, holder["id"], image["id"], "1").status == 404

    def test_what_is_no_sif_gets_no_tag(self, ada: Caller, name: str) -> None:
        holder, image = upload(ada, name, b"no SIF at all" * 100)
        assert tag(ada, holder, image, "1").status == 404

    def test_a_wrong_architecture_is_refused(self, ada: Caller, name: str, tmp_path: Path) -> None:
        holder, image = upload(ada, name, make_sif(tmp_path / "x.sif", b"arm", "arm64"))
        assert tag(ada, holder, image, "1", "amd64").status == 400

    @pytest.mark.skipif(CHOSEN["storage"] == "s3", reason="a bucket has no end")
    def test_too_large_is_said_before_anything_is_sent(self, ada: Caller, name: str, tmp_path: Path) -> None:
        _, image = upload(ada, name, make_sif(tmp_path / "x.sif", b"x"))
        for size, status in ((2**60, 400), (200 * 2**30, 507), (-1, 400), ("x", 400), (None, 400)):
            assert send(ada, "POST", f"/v2/imagefile/{image}", {"filesize": size}).status == status

    def test_redirects_fall_back(self, ada: Caller) -> None:
        assert ada.get("/v1/oci-redirect?namespace=a/b/c&accessTypes=pull").status == 404

    def test_old_clients(self, ada: Caller, name: str, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"old")
        holder = data(
            send(ada, "POST", "/v1/containers", {"name": name.rpartition("/")[2], "collection": ada_tools(ada)}), 201
        )
        image = data(
            send(ada, "POST", "/v1/images", {"hash": f"sha256.{sha256(content)[7:]}", "container": holder["id"]}), 201
        )
        assert ada("POST", f"/v1/imagefile/{image['id']}", content).status == 200
        assert data(send(ada, "POST", f"/v1/tags/{holder['id']}", {"Tag": "1", "ImageID": image["id"]})) == {
            "1": image["id"]
        }

    def test_a_release_does_not_move(self, ada: Caller, name: str, tmp_path: Path) -> None:
        holder, image = upload(ada, name, make_sif(tmp_path / "a.sif", b"a"))
        tag(ada, holder, image, "1")
        target = ada.get(f"/v2/{name}/manifests/1").body
        recipe = manifest(
            ada, f"/v2/{name}", b"r", artifactType=oci.RECIPE_ARTIFACT, subject=oci.descriptor(oci.MANIFEST, target)
        )
        assert push(ada, f"/v2/{name}", sha256(recipe), recipe).status == 201
        holder, image = upload(ada, name, make_sif(tmp_path / "b.sif", b"b"))
        answer = tag(ada, holder, image, "1")
        assert answer.status == 409
        assert "never moves" in answer.json["error"]["message"]


def ada_tools(caller: Caller) -> str:
    entity = data(send(caller, "POST", "/v1/entities", {"name": "ada"}), 201)["id"]
    return data(send(caller, "POST", "/v1/collections", {"name": "tools", "entity": entity}), 201)["id"]


class TestPermission:
    def test_a_stranger_creates_nothing(self, shared: RunningHub, ada: Caller, name: str, tmp_path: Path) -> None:
        stranger = Caller(shared.address)
        _, image = upload(ada, name, make_sif(tmp_path / "x.sif", b"x"))
        for path in ("entities", "collections", "containers"):
            assert send(stranger, "POST", f"/v1/{path}", {"name": "x"}).status == 401
        assert send(stranger, "POST", f"/v2/imagefile/{image}", {"filesize": 1}).status == 401
        assert stranger("DELETE", f"/v1/images/{name}:1").status == 401

    def test_a_scope_is_as_far_as_one_goes(self, shared: RunningHub, name: str, tmp_path: Path) -> None:
        author = Caller(shared.address, shared.token(f"push:{name}", name="author"))
        holder, image = upload(author, name, make_sif(tmp_path / "x.sif", b"x"))
        assert tag(author, holder, image, "1").status == 200
        assert author("DELETE", f"/v1/images/{name}:1").status == 403
        assert send(author, "POST", "/v1/entities", {"name": "other"}).status == 403
        other = Caller(shared.address, shared.token("push:other/*", name="other"))
        assert tag(other, holder, image, "2").status == 403
        assert send(other, "POST", f"/v2/imagefile/{image}", {"filesize": 1}).status == 403

    def test_an_address_for_uploads_is_good_once_and_for_its_image(
        self, ada: Caller, name: str, tmp_path: Path
    ) -> None:
        content = make_sif(tmp_path / "x.sif", b"x")
        _, image = upload(ada, name, content)
        _, other = upload(ada, f"{name}2", content)
        place = data(send(ada, "POST", f"/v2/imagefile/{image}", {"filesize": len(content)}))["uploadURL"]
        path = place.partition(ada.host)[2]
        assert ada("PUT", path.replace(image, other), content).status == 404
        assert ada("PUT", path, content).status == 200
        assert ada("PUT", path, content).status == 404


class TestNames:
    def test_forms_of_a_reference(self, ada: Caller, shared: RunningHub, tmp_path: Path) -> None:
        content = make_sif(tmp_path / "x.sif", b"named")
        holder, image = upload(ada, "library/bio/named", content)
        tag(ada, holder, image, "latest")
        assert ada.get("/v2/bio/named/tags/list").json["tags"] == ["latest"]
        for reference in ("bio/named:latest", "bio/named", "library/bio/named", f"{shared.host}/bio/named:latest"):
            assert data(ada.get(f"/v1/images/{reference}"))["hash"] == f"sha256.{sha256(content)[7:]}"
        holder, image = upload(ada, "library/library/single", content)
        tag(ada, holder, image, "latest")
        assert data(ada.get("/v1/images/single:latest"))["containerName"] == "single"

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/images/a/b/c:sha256.xyz",
            "/v1/images/..%2f..%2fetc:1",
            "/v1/imagefile/a/b/c:",
            "/v2/tags/notbase64!",
            "/v2/tags/Li4vLi4",
            "/v1/containers/a/b/c",
            "/v1/entities/%00",
        ],
    )
    def test_nonsense(self, shared: RunningHub, path: str) -> None:
        answer = Caller(shared.address).get(path)
        assert answer.status in {400, 404, 422}
        assert answer.json["error"]["message"]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"name": 7}', b"[" * 100_000])
    def test_bodies_that_are_nothing(self, ada: Caller, body: bytes) -> None:
        for path in ("/v1/entities", "/v1/images", "/v1/collections"):
            answer = ada("POST", path, body)
            assert answer.status in {400, 404}, (path, answer)


def test_search(ada: Caller, shared: RunningHub, tmp_path: Path) -> None:
    for arch in ("amd64", "arm64"):
        holder, image = upload(ada, "ada/found/needle", make_sif(tmp_path / arch, arch.encode(), arch))
        tag(ada, holder, image, "1", arch)
    stranger = Caller(shared.address)
    found = data(stranger.get("/v1/search?value=needle&arch=amd64"))
    assert set(found) == {"entity", "collection", "container", "image"}
    (one,) = found["image"]
    assert (one["entityName"], one["collectionName"], one["containerName"]) == ("ada", "found", "needle")
    assert (one["tags"], one["arch"]) == (["1"], "amd64")
    assert len(data(stranger.get("/v1/search?value=needle&arch=amd64,arm64"))["image"]) == 2
    assert data(stranger.get("/v1/search?value=needle&signed=true"))["image"] == []
    assert stranger.get("/v1/search?value=ne").status == 400


def test_delete_by_hash(ada: Caller, name: str, tmp_path: Path) -> None:
    content = make_sif(tmp_path / "x.sif", b"deleted")
    holder, image = upload(ada, name, content)
    tag(ada, holder, image, "1")
    assert ada("DELETE", f"/v1/images/{name}:sha256.{sha256(content)[7:]}?arch=amd64").status == 200
    assert ada.get(f"/v1/images/{name}:1").status == 404
    assert ada("DELETE", f"/v1/images/{name}:1").status == 404
    assert push_blob(ada, f"/v2/{name}", content)


def test_the_sif_that_refers_to_an_image_first_stays_what_is_served(ada: Caller, name: str, tmp_path: Path) -> None:
    repo = f"/v2/{name}"
    body = manifest(ada, repo, b"layer")
    push(ada, repo, "1", body)
    contents = [make_sif(tmp_path / str(number), b"%d" % number) for number in (1, 2)]
    for content in contents:
        push_blob(ada, repo, content)
        referrer = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": oci.SIF_ARTIFACT,
            "config": oci.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [oci.descriptor(oci.SIF_ARTIFACT, content)],
            "subject": oci.descriptor(oci.MANIFEST, body),
        }
        data_ = json.dumps(referrer).encode()
        assert push(ada, repo, sha256(data_), data_).status == 201
    assert data(ada.get(f"/v1/images/{name}:1"))["hash"] == f"sha256.{sha256(contents[0])[7:]}"
    alias = ada.get(f"{repo}/manifests/1.sif").json
    assert alias["layers"][0]["digest"] == sha256(contents[0])


def test_an_image_that_cannot_become_a_sif(ada: Caller, name: str) -> None:
    push(ada, f"/v2/{name}", "1", manifest(ada, f"/v2/{name}", b"no layer"))
    for _ in range(2):
        answer = ada.get(f"/v1/images/{name}:1")
        assert answer.status == 404
        assert "none can be made" in answer.json["error"]["message"]
    assert ada.get(f"/v2/{name}/manifests/1.sif").code == "MANIFEST_UNKNOWN"
