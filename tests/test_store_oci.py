"""The registry client against Debian's docker-registry, our own hub, and servers that are wrong on purpose."""

import base64
import json
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from computeops.errors import (
    ConflictError,
    DeniedError,
    FormatError,
    LimitError,
    LoginError,
    NetworkError,
    NotFoundError,
)
from computeops.image import oci
from computeops.limits import LIMITS
from computeops.model import Digest, Reference
from computeops.store.credentials import Login
from computeops.store.oci import Descriptor, Registry, tag
from computeops.store.upload import push_blob
from servers import Asked, docker_registry, serving

REPOSITORY = "bio/thing"
CORRECT = "ada:$2y$05$abcdefghijklmnopqrstuuSSgfZSwfwKPbBZRnD5O0VgRw2zVgiZC\n"  # of the password "correct"
EMPTY = Digest.of(b"{}")


@pytest.fixture(params=["docker-registry", "hub"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry that knows referrers (our hub), and one that does not."""
    if request.param == "hub":
        hub = request.getfixturevalue("hub")
        with Registry(hub.address, login=Login(hub.token("push:bio/*")), pause=0.01) as ours:
            yield ours
        return
    with docker_registry(tmp_path / "registry") as address, Registry(address, pause=0.01) as theirs:
        yield theirs


def push_image(registry: Registry, layers: list[bytes], tag: str = "") -> tuple[Digest, bytes]:
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    for blob in [config, *layers]:
        push_blob(registry, REPOSITORY, Digest.of(blob), blob)
    body = oci.canonical(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.descriptor(oci.CONFIG, config),
            "layers": [oci.descriptor("application/vnd.oci.image.layer.v1.tar", one) for one in layers],
        }
    )
    return registry.push_manifest(REPOSITORY, body, oci.MANIFEST, tag), body


def push_referrer(
    registry: Registry, subject: bytes, number: int, artifact_type: str = oci.EVIDENCE_ARTIFACT
) -> Digest:
    push_blob(registry, REPOSITORY, EMPTY, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": artifact_type,
        "config": oci.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [oci.descriptor("text/plain", b"{}")],
        "subject": oci.descriptor(oci.MANIFEST, subject),
        "annotations": {"number": str(number)},
    }
    return registry.push_manifest(REPOSITORY, oci.canonical(document), oci.MANIFEST)


@pytest.mark.registry
def test_blobs_small_and_large_go_and_come(registry: Registry, tmp_path: Path) -> None:
    for data in (b"", b"small", os.urandom(9 * 1024 * 1024)):
        source, digest = tmp_path / "source", Digest.of(data)
        source.write_bytes(data)
        assert not registry.exists(REPOSITORY, digest)
        assert push_blob(registry, REPOSITORY, digest, source)
        assert not push_blob(registry, REPOSITORY, digest, source), "what is there is not sent again"
        assert registry.exists(REPOSITORY, digest)
        registry.blob(REPOSITORY, Descriptor(digest, "", len(data)), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        assert registry.read(REPOSITORY, digest, 10**8) == data


@pytest.mark.registry
def test_a_file_that_is_not_what_its_digest_says_is_not_stored(registry: Registry, tmp_path: Path) -> None:
    for size in (1000, 9 * 1024 * 1024):
        data = os.urandom(size)
        (tmp_path / "source").write_bytes(data[:-1] + b"!")
        with pytest.raises(FormatError):
            push_blob(registry, REPOSITORY, Digest.of(data), tmp_path / "source")
        assert not registry.exists(REPOSITORY, Digest.of(data))
        assert not registry.exists(REPOSITORY, Digest.of(data[:-1] + b"!"))


@pytest.mark.registry
def test_manifests_by_tag_and_by_digest(registry: Registry) -> None:
    digest, body = push_image(registry, [b"layer"], "1.0")
    for target in ("1.0", str(digest)):
        found = registry.resolve(REPOSITORY, target)
        assert (found.digest, found.media_type, found.body) == (digest, oci.MANIFEST, body)
        assert registry.digest_of(REPOSITORY, target) == digest
    assert registry.digest_of(REPOSITORY, "2.0") is None
    with pytest.raises(NotFoundError):
        registry.resolve(REPOSITORY, "2.0")
    with pytest.raises(NotFoundError):
        registry.resolve("bio/nothing", str(digest))


@pytest.mark.registry
def test_what_refers_to_an_image_is_found_with_and_without_the_api(registry: Registry) -> None:
    digest, body = push_image(registry, [b"layer"], "1.0")
    assert registry.referrers(REPOSITORY, digest) == []
    evidence = [push_referrer(registry, body, number) for number in range(3)]
    recipe = push_referrer(registry, body, 9, oci.RECIPE_ARTIFACT)
    push_referrer(registry, body, 0)  # again: nothing new
    assert {one.digest for one in registry.referrers(REPOSITORY, digest)} == {*evidence, recipe}
    assert {one.digest for one in registry.referrers(REPOSITORY, digest, oci.EVIDENCE_ARTIFACT)} == set(evidence)
    (found,) = registry.referrers(REPOSITORY, digest, oci.RECIPE_ARTIFACT)
    assert (found.digest, found.annotations["number"]) == (recipe, "9")


@pytest.mark.registry
def test_two_who_add_referrers_at_once_lose_none(registry: Registry) -> None:
    digest, body = push_image(registry, [b"layer"])
    push_referrer(registry, body, 0)
    with ThreadPoolExecutor(2) as pool:
        pushed = list(pool.map(lambda number: push_referrer(registry, body, number), range(1, 7)))
    found = {one.digest for one in registry.referrers(REPOSITORY, digest)}
    assert len(found & set(pushed)) >= 5, "a registry without the API can lose one when two write at the same moment"


@pytest.mark.registry
def test_a_released_tag_does_not_move(hub) -> None:
    with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as registry:
        digest, body = push_image(registry, [b"one"])
        push_referrer(registry, body, 1)
        registry.push_manifest(REPOSITORY, body, oci.MANIFEST, "1.0")
        registry.push_manifest(REPOSITORY, body, oci.MANIFEST, "1.0")
        with pytest.raises(ConflictError) as caught:
            push_image(registry, [b"two"], "1.0")
        assert "new version" in caught.value.hint
        assert registry.digest_of(REPOSITORY, "1.0") == digest


@pytest.mark.registry
def test_a_password_where_a_registry_asks_for_basic(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", CORRECT) as address:
        with Registry(address, login=Login("correct", "ada")) as registry:
            assert registry.check()
            push_image(registry, [os.urandom(5_000_000)], "1.0")
        for login in (None, Login("wrong", "ada")):
            with Registry(address, login=login) as registry:
                with pytest.raises(LoginError):
                    registry.check()
                with pytest.raises(LoginError):
                    registry.resolve(REPOSITORY, "1.0")
                with pytest.raises(LoginError):
                    registry.exists(REPOSITORY, EMPTY)


def test_tokens_of_our_hub_and_what_they_do_not_cover(hub) -> None:
    with Registry(hub.address, login=Login(hub.token("push:bio/thing"))) as registry:
        assert registry.check()
        push_image(registry, [b"one"], "1.0")
        with pytest.raises(DeniedError):
            push_blob(registry, "bio/other", EMPTY, b"{}")
    with Registry(hub.address) as anyone:
        anyone.resolve(REPOSITORY, "1.0")
        with pytest.raises(LoginError):
            push_blob(anyone, REPOSITORY, Digest.of(b"x"), b"x")
    with Registry(hub.address, login=Login("cops_" + "x" * 209)) as wrong, pytest.raises(LoginError):
        wrong.check()


class TokenRegistry:
    """A registry that gives tokens at a realm, as the specification of Docker's token protocol has it."""

    def __init__(self, realm: str = "", challenge: str = "") -> None:
        self.realm, self.challenge = realm, challenge
        self.given: list[str] = []
        self.expires: int | None = 300

    def __call__(self, asked: Asked) -> None:
        base = f"http://{asked.headers['host']}"
        if asked.path == "/token":
            self.given.append(parse_qs(asked.query).get("scope", [""])[0])
            user = base64.b64decode(asked.headers.get("authorization", "").removeprefix("Basic ")).decode()
            token = f"{user}/{len(self.given)}"
            answer = {"token": base64.b64encode(token.encode()).decode(), "expires_in": self.expires}
            asked.answer(200, json.dumps(answer).encode())
        elif not asked.headers.get("authorization", "").startswith("Bearer "):
            plain = f'Bearer realm="{self.realm or base + "/token"}",service="here",scope="repository:x:pull"'
            asked.answer(401, headers={"WWW-Authenticate": self.challenge or plain})
        else:
            asked.answer(404)


def test_one_token_for_each_scope_is_fetched_once_and_renewed_when_it_ends() -> None:
    answers = TokenRegistry()
    with serving(answers) as server, Registry(server.url, login=Login("pw", "ada")) as registry:
        for _ in range(3):
            registry.exists("a/b", EMPTY)
            registry.exists("a/b", EMPTY, push=True)
        registry.exists("a/c", EMPTY)
        assert answers.given == ["repository:a/b:pull", "repository:a/b:pull,push", "repository:a/c:pull"]
        assert [p for p in server.paths() if p == "/token"] == ["/token"] * 3
        sent = [one.headers.get("authorization", "") for one in server.asked if one.path == "/token"]
        assert set(sent) == {Login("pw", "ada").basic}


def test_several_challenges_in_one_header() -> None:
    answers = TokenRegistry()
    with serving(answers) as server, Registry(server.url, login=Login("pw", "ada")) as registry:
        answers.challenge = f'Basic realm="x, y", Negotiate, bearer service="s",realm="{server.url}/token"'
        assert not registry.exists("a/b", EMPTY)
        assert answers.given == ["repository:a/b:pull"]


@pytest.mark.parametrize(
    "realm",
    ["http://hub.example.org/token", "http://192.0.2.1/token", "file:///etc/passwd", "", "https://", "http://["],
)
def test_a_password_is_never_sent_in_the_open(realm: str) -> None:
    answers = TokenRegistry(challenge=f'Bearer realm="{realm}",service="x"')
    with serving(answers) as server, Registry(server.url, login=Login("pw", "ada")) as registry:
        with pytest.raises((NetworkError, LoginError)):
            registry.exists("a/b", EMPTY)
        with pytest.raises((NetworkError, LoginError)):
            registry.check()


def test_the_challenge_of_another_host_is_not_obeyed() -> None:
    """A blob may lie elsewhere; whoever keeps it there must not get our password by asking for it."""
    thief = TokenRegistry()
    with serving(thief) as there:

        def redirect(asked: Asked) -> None:
            asked.answer(307, headers={"Location": f"{there.url}{asked.path}"})

        with serving(redirect) as here, Registry(here.url, login=Login("pw", "ada")) as registry:
            with pytest.raises(LoginError):
                registry.exists("a/b", EMPTY)
            with pytest.raises(LoginError):
                registry.read("a/b", EMPTY, 100)
        assert thief.given == []
        assert not any("authorization" in one.headers for one in there.asked)


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b'{"token": 3}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}', b'{"token":""}']
)
def test_a_token_that_is_none(answer: bytes) -> None:
    def odd(asked: Asked) -> None:
        realm = f'Bearer realm="http://{asked.headers["host"]}/token"'
        asked.answer(200, answer) if asked.path == "/token" else asked.answer(401, headers={"WWW-Authenticate": realm})

    with serving(odd) as server, Registry(server.url) as registry, pytest.raises(NetworkError):
        registry.resolve("a/b", "1")


class LyingRegistry:
    """Answers every manifest, blob and list of referrers with what a test sets."""

    def __init__(self) -> None:
        self.body, self.headers, self.status = b"", dict[str, str](), 200

    def __call__(self, asked: Asked) -> None:
        asked.answer(self.status, self.body, self.headers)


def test_content_is_checked_against_the_digest_by_which_it_was_asked_for(tmp_path: Path) -> None:
    lies = LyingRegistry()
    with serving(lies) as server, Registry(server.url, pause=0.001) as registry:
        lies.body = b'{"schemaVersion": 2}'
        with pytest.raises(FormatError):
            registry.resolve("a/b", str(EMPTY))
        with pytest.raises(FormatError):
            registry.read("a/b", EMPTY, 100)
        with pytest.raises(FormatError):
            registry.blob("a/b", Descriptor(EMPTY, "", 100), tmp_path / "x")
        with pytest.raises(LimitError):
            registry.blob("a/b", Descriptor(EMPTY, "", 3), tmp_path / "x")
        lies.headers = {"Docker-Content-Digest": str(EMPTY)}
        with pytest.raises(FormatError):
            registry.resolve("a/b", "1.0")
        lies.headers = {"Docker-Content-Digest": "nonsense"}
        with pytest.raises(FormatError):
            registry.resolve("a/b", "1.0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"manifests": 3}',
        b'{"manifests": [3]}',
        b'{"manifests": [{}]}',
        b'{"manifests": [{"digest": "x", "size": 1}]}',
        b'{"manifests": [{"digest": "sha256:%s", "size": -1}]}' % (b"0" * 64),
    ],
)
def test_a_list_of_referrers_that_is_none(body: bytes) -> None:
    lies = LyingRegistry()
    lies.body = body
    with serving(lies) as server, Registry(server.url) as registry, pytest.raises(FormatError):
        registry.referrers("a/b", EMPTY)


def test_a_manifest_that_is_too_large_is_not_read() -> None:
    lies = LyingRegistry()
    lies.body = b" " * (LIMITS.manifest_bytes + 1)
    with serving(lies) as server, Registry(server.url) as registry, pytest.raises(LimitError):
        registry.resolve("a/b", "1")


def test_pages_of_referrers_are_followed_on_the_same_host_only_and_end() -> None:
    entry = {"mediaType": oci.MANIFEST, "size": 1, "artifactType": "x"}
    links = {"/v2/a/b/referrers/" + str(EMPTY): "?page=2"}

    def paged(asked: Asked) -> None:
        number = int(asked.query.removeprefix("page=") or 1)
        digest = str(Digest.of(str(number).encode()))
        body = json.dumps({"schemaVersion": 2, "manifests": [entry | {"digest": digest}]}).encode()
        link = following(number)
        asked.answer(200, body, {"Link": f'<{link}>; rel="next"'} if link else {})

    following = {1: "?page=2", 2: f"/v2/a/b/referrers/{EMPTY}?page=3"}.get
    with serving(paged) as server, Registry(server.url) as registry:
        assert len(registry.referrers("a/b", EMPTY)) == 3
        following = {1: "http://hub.example.org/"}.get
        with pytest.raises(NetworkError):
            registry.referrers("a/b", EMPTY)
        following = lambda number: f"?page={number + 1}"  # noqa: E731
        with pytest.raises(LimitError):
            registry.referrers("a/b", EMPTY)
    assert links


class Uploads:
    """A registry that takes uploads, keeps what came before a break, and breaks as often as a test says."""

    def __init__(self, *, breaks: int = 0, keeps: bool = True, after: int = 3_000_000) -> None:
        self.breaks, self.keeps, self.after = breaks, keeps, after
        self.data, self.received, self.stored, self.begun = bytearray(), 0, dict[str, bytes](), 0
        self.lock = threading.Lock()

    def __call__(self, asked: Asked) -> None:
        if asked.method == "HEAD":
            asked.answer(200 if asked.path.rpartition("/")[2] in self.stored else 404)
        elif asked.method == "POST":
            self.data, self.begun = bytearray(), self.begun + 1
            asked.answer(202, headers={"Location": f"/upload/{self.begun}?state=a%20b"})
        elif asked.path != f"/upload/{self.begun}" or not asked.query.startswith("state=a%20b"):
            asked.answer(404)
        elif asked.method == "GET":
            with self.lock:
                there = f"0-{max(len(self.data) - 1, 0)}"
            asked.answer(
                204 if self.keeps else 404, headers={"Range": there, "Location": asked.path + "?" + asked.query}
            )
        else:
            self.receive(asked)

    def receive(self, asked: Asked) -> None:
        with self.lock:
            left = int(asked.headers["content-length"])
            if left:
                assert int(asked.headers.get("content-range", "0-").partition("-")[0]) == len(self.data)
            if self.breaks and left > self.after:
                self.breaks -= 1
                self.data += asked.handler.rfile.read(self.after)
                self.received += self.after
                asked.cut()
                return
            self.data += asked.handler.rfile.read(left)
            self.received += left
        if asked.method == "PATCH":
            asked.answer(202, headers={"Location": asked.path + "?" + asked.query})
            return
        digest = parse_qs(asked.query)["digest"][0]
        if str(Digest.of(bytes(self.data))) != digest:
            asked.answer(400)
            return
        self.stored[digest] = bytes(self.data)
        asked.answer(201)


@pytest.mark.parametrize("keeps", [True, False])
def test_an_upload_that_breaks_goes_on_or_begins_again(tmp_path: Path, keeps: bool) -> None:
    data = os.urandom(12_000_000)
    (tmp_path / "source").write_bytes(data)
    uploads = Uploads(breaks=2, keeps=keeps)
    with serving(uploads) as server, Registry(server.url, pause=0.01) as registry:
        push_blob(registry, "a/b", Digest.of(data), tmp_path / "source")
    assert list(uploads.stored.values()) == [data]
    assert uploads.begun == (1 if keeps else 3)
    if keeps:
        assert uploads.received == len(data), "nothing was sent twice"


def test_an_upload_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    data = os.urandom(12_000_000)
    uploads = Uploads(breaks=1000, keeps=False)
    with serving(uploads) as server, Registry(server.url, pause=0.001) as registry, pytest.raises(NetworkError):
        push_blob(registry, "a/b", Digest.of(data), data)
    assert uploads.begun < 8


def test_an_upload_that_goes_elsewhere_takes_no_password_with_it() -> None:
    elsewhere = Uploads()
    with serving(elsewhere) as there:

        def here(asked: Asked) -> None:
            if not asked.headers.get("authorization"):
                asked.answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            elif asked.method == "POST":
                elsewhere.begun = 1
                asked.answer(202, headers={"Location": f"{there.url}/upload/1?state=a%20b"})
            else:
                asked.answer(404)

        with serving(here) as server, Registry(server.url, login=Login("pw", "ada")) as registry:
            push_blob(registry, "a/b", Digest.of(b"content"), b"content")
        assert elsewhere.stored
        assert not any("authorization" in one.headers for one in there.asked)


@pytest.mark.parametrize("location", ["", "http://[", "ftp://x/y", "http://h:999999/"])
def test_an_upload_at_no_address(location: str) -> None:
    def odd(asked: Asked) -> None:
        asked.answer(404 if asked.method == "HEAD" else 202, headers={"Location": location})

    with serving(odd) as server, Registry(server.url, pause=0.001) as registry, pytest.raises(NetworkError):
        push_blob(registry, "a/b", Digest.of(b"content"), b"content")


def test_a_version_as_a_tag() -> None:
    assert tag(Reference.parse("a/b:1.0+dfsg")) == "1.0_dfsg"
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag(Reference.parse("a/b:2024-01_x+y+z")))
