"""Pipelines without a worker: who may start one, whose turn it is, and what a worker or a stranger cannot do."""

import base64
import hashlib
import hmac
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from computeops import __version__
from computeops.check import kinds
from computeops.hub.app import create_app
from computeops.hub.pipelines import hooks, start, timer, work
from computeops.hub.pipelines.machine import machine
from computeops.hub.pipelines.tables import pipelines, rebuilds_wanted
from computeops.hub.pipelines.words import Source
from computeops.hub.settings import Pipelines, Settings
from computeops.hub.vulnerabilities.tables import rebuild_requests
from computeops.image import oci
from computeops.model import Digest, Evidence
from computeops.sign import dsse
from computeops.sign.key import Key
from shelf import RECIPE, Shelf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT = "https://git.example.org/lab/tool"


def archive(version: str = "1.0", *, lock: bool = True, more: str = "") -> bytes:
    """Return a recipe's folder as a tar file."""
    text = RECIPE.format(name="tool", version=version, summary="A tool", license="MIT", domains="[]", more=more)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (("computeops.toml", text), ("computeops.lock", "{}")):
            if name == "computeops.toml" or lock:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
    return data.getvalue()


class Desk:
    """A hub in this process with two workers."""

    def __init__(self, folder: Path, keys: list[Key]) -> None:
        self.settings = Settings(pipelines=Pipelines(at_once=2, waiting=50, rebuild_days=30, git=("*.example.org",)))
        self.shelf = Shelf(folder)
        self.client = TestClient(create_app(folder, settings=self.settings))
        self.hub = self.shelf.hub.open(folder, settings=self.settings)
        self.token = self.shelf.token("push:*")
        self.keys = keys
        self.workers = [work.add(self.hub, name, days=1) for name in ("one", "two")]

    def post(self, path: str, body: Any, token: str = "") -> Any:
        return self.client.post(path, json=body, headers={"Authorization": f"Bearer {token or self.token}"})

    def get(self, path: str, token: str = "") -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {token or self.token}"})

    def start(self, repository: str, version: str = "1.0", **more: Any) -> Any:
        digest = self.shelf.blob(repository, archive(version, **more))["digest"]
        return self.post("/api/v1/pipelines", {"repository": repository, "archive": digest})

    def take(self, worker: int = 0, **more: Any) -> Any:
        public = self.keys[worker].pem.decode()
        answer = self.post("/api/v1/work/take", {"key": public, **more}, self.workers[worker])
        return answer.json() if answer.status_code == 200 else answer.status_code

    def report(self, task: Any, worker: int = 0, **said: Any) -> Any:
        return self.post(f"/api/v1/work/{task['id']}", {"lease": task["lease"], **said}, self.workers[worker])

    def state(self, number: int) -> Any:
        return self.get(f"/api/v1/pipelines/{number}").json()

    def set(self, number: int, **new: Any) -> None:
        with self.hub.database.write() as connection:
            connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))

    def pushed(self, repository: str, version: str, key: Key | None, **wrong: Any) -> dict[str, str]:
        """Push an image as a worker does, with its provenance signed by `key`; return what it reports."""
        manifest = self.shelf.image(repository, content=version)
        found = self.hub.database.repository(repository)
        assert found is not None
        row = self.hub.database.manifest(found, manifest)
        assert row is not None
        image = str(wrong.get("image") or oci.document(row.body)["config"]["digest"])
        about = {"image": Digest.parse(image), "manifest": Digest.parse(manifest)}
        evidence = Evidence(kinds.PROVENANCE, about, {})
        if key is not None:
            signed = dsse.sign(evidence, key)
            files = {"provenance.dsse.json": json.dumps(signed.as_json()).encode()}
            self.shelf.artifact(repository, manifest, oci.EVIDENCE_ARTIFACT, files)
        return {"variant": "", "version": version, "manifest": manifest, "image": image}


@pytest.fixture(scope="module")
def keys() -> list[Key]:
    return [Key.generate(name) for name in ("one", "two")]


@pytest.fixture
def desk(tmp_path: Path, keys: list[Key]) -> Iterator[Desk]:
    made = Desk(tmp_path / "hub", keys)
    with made.client:
        yield made
    made.hub.database.close()


def test_collections_have_turns(desk: Desk) -> None:
    for number in range(4):
        assert desk.start("many/tool", f"{number}.0").status_code == 201
    desk.start("few/tool")
    desk.start("other/tool")
    taken = [desk.take() for _ in range(4)]
    assert [one["repository"] for one in taken] == ["few/tool", "many/tool", "other/tool", "many/tool"]
    assert desk.take() == 204  # no more of one collection at the same time
    desk.report(taken[1], failed=True, error="no")
    assert desk.take()["repository"] == "many/tool"
    assert desk.state(4)["ahead"] == 0


def test_who_lost_its_lease_can_do_nothing_more(desk: Desk) -> None:
    desk.start("bio/tool")
    first = desk.take(0)
    token = desk.post(f"/api/v1/work/{first['id']}/pass", {"lease": first["lease"]}, desk.workers[0]).json()["token"]
    uploads = "/v2/bio/tool/blobs/uploads/"
    assert desk.post(uploads, {}, token).status_code == 202
    assert desk.post("/v2/foo/tool/blobs/uploads/", {}, token).status_code in {401, 403}
    step = {"name": "fetch", "state": "running", "began": 1}
    assert desk.report(first, steps=[step], log=base64.b64encode(b"one\n").decode()).json()["log_at"] == 4
    desk.set(first["id"], lease_until=1)
    second = desk.take(1)
    assert (second["id"], second["log_bytes"]) == (first["id"], 4)
    assert desk.post(uploads, {}, token).status_code == 401
    assert desk.report(first, failed=True).status_code == 409
    assert desk.report(second, worker=0).status_code == 409  # a lease is of one worker
    done = {"name": "fetch", "state": "done", "began": 2}
    desk.report(second, worker=1, steps=[done])
    desk.report(second, worker=1, steps=[{**done, "began": 9, "state": "running"}])
    assert [(one["state"], one["began"]) for one in desk.state(first["id"])["steps"]] == [("done", 2)]
    for _ in range(2):  # the third worker that is lost is the last
        desk.set(first["id"], lease_until=1)
        desk.take(0)
    assert desk.state(first["id"])["state"] == "failed"


def test_a_worker_that_lies_publishes_nothing(desk: Desk, keys: list[Key]) -> None:
    other = "sha256:" + "0" * 64
    for number, made in enumerate(
        (
            lambda: desk.pushed("lie/tool", "1", None),  # signed by nobody
            lambda: desk.pushed("lie/tool", "2", keys[1]),  # signed by another worker
            lambda: desk.pushed("lie/tool", "3", keys[0], image=other),  # about another image
            lambda: desk.pushed("lie/tool", "4", keys[0]) | {"manifest": other},  # not pushed
        ),
        1,
    ):
        desk.start("lie/tool", f"{number}")
        task = desk.take()
        reply = desk.report(task, publish=True, made=[made()]).json()
        assert (reply["state"], reply["ending"]) == ("failed", True), number
        assert desk.state(task["id"])["error"]
    assert desk.get("/v2/lie/tool/tags/list").json()["tags"] == []
    desk.start("lie/tool", "5")
    task, made = desk.take(), desk.pushed("lie/tool", "5", keys[0])
    assert desk.report(task, publish=True, made=[made]).json()["state"] == "succeeded"
    assert desk.report(task, publish=True, made=[made]).json()["state"] == "succeeded"  # the answer was lost
    assert desk.get("/v2/lie/tool/tags/list").json()["tags"] == ["5"]


def test_two_workers_that_differ_publish_nothing(desk: Desk, keys: list[Key]) -> None:
    manager = desk.shelf.token("manage:*")
    header = {"Authorization": f"Bearer {manager}"}
    desk.client.put("/api/v1/collections/two", json={"public": True}, headers=header)
    assert desk.client.put("/api/v1/collections/two/rebuilds", json={"rebuilds": 1}, headers=header).status_code == 204
    desk.start("two/tool", "1")
    task, made = desk.take(), desk.pushed("two/tool", "1", keys[0])
    assert desk.report(task, publish=True, made=[made]).json()["state"] == "proving"
    assert desk.take() == 204  # who built it is no second opinion
    assert desk.take(1)["kind"] == "rebuild"
    about = {"image": Digest.parse(made["image"]), "manifest": Digest.parse(made["manifest"])}

    def says(key: Key, *, identical: bool) -> str:
        evidence = Evidence(kinds.REBUILD, about, {"result": "PASSED" if identical else "FAILED", "differences": []})
        files = {"rebuild.dsse.json": json.dumps(dsse.sign(evidence, key).as_json()).encode()}
        desk.shelf.artifact("two/tool", made["manifest"], oci.EVIDENCE_ARTIFACT, files)
        timer.look(desk.hub, int(time.time()))
        return str(desk.state(task["id"])["state"])

    assert says(Key.generate("stranger"), identical=True) == "proving"
    assert says(keys[0], identical=True) == "proving"
    assert says(keys[1], identical=False) == "failed"
    assert "got another image" in desk.state(task["id"])["error"]
    assert desk.get("/v2/two/tool/tags/list").json()["tags"] == []


def test_all_variants_are_published_or_none(desk: Desk, keys: list[Key]) -> None:
    desk.shelf.release("pair/tool", "1-b")
    desk.start("pair/tool", "1")
    made = [desk.pushed("pair/tool", version, keys[0]) for version in ("1-a", "1-b")]
    assert desk.report(desk.take(), publish=True, made=made).json()["state"] == "failed"
    assert desk.get("/v2/pair/tool/tags/list").json()["tags"] == ["1-b"]


def test_only_workers_and_never_the_hubs_own_user(desk: Desk) -> None:
    desk.start("bio/tool")
    assert desk.take(0, machine=machine(), uid=os.geteuid()) == 403
    assert desk.take(0, machine=machine(), uid=os.geteuid() + 1)["id"] == 1
    assert desk.post("/api/v1/work/take", {"key": "x"}).status_code == 401
    desk.keys = desk.keys[::-1]
    assert desk.take(0) == 403  # a worker has one key for ever
    assert desk.get("/api/v1/workers", desk.workers[0]).status_code == 403
    assert desk.get("/api/v1/pipelines", desk.workers[0]).json() == []
    work.remove(desk.hub, "one")
    assert desk.take(0) == 401


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"archive": "sha256:" + "1" * 64}, 404),
        ({"archive": "sha256:1"}, 422),
        ({"git": GIT, "commit": "main"}, 400),
        ({"git": "https://git.other.org/x", "commit": COMMIT}, 400),
        ({"git": "file:///etc", "commit": COMMIT}, 400),
        ({"git": "ssh://git.example.org/x", "commit": COMMIT}, 400),
        ({"git": "https://127.0.0.1/x", "commit": COMMIT}, 400),
        ({"git": "https://user:pw@git.example.org/x", "commit": COMMIT}, 400),
        ({"git": "-upload-pack=x", "commit": COMMIT}, 400),
        ({"git": GIT, "commit": COMMIT, "folder": "../.."}, 400),
        ({"git": GIT, "commit": COMMIT, "archive": "sha256:" + "1" * 64}, 400),
        ({"git": GIT, "commit": COMMIT}, 201),
    ],
)
def test_what_a_pipeline_begins_with(desk: Desk, asked: dict[str, str], status: int) -> None:
    answer = desk.post("/api/v1/pipelines", {"repository": "bio/tool", **asked})
    assert answer.status_code == status, answer.text


def test_hostile_archives_are_refused_before_anybody_unpacks_them(desk: Desk) -> None:
    def ask(data: bytes) -> Any:
        digest = desk.shelf.blob("bad/tool", data)["digest"]
        return desk.post("/api/v1/pipelines", {"repository": "bad/tool", "archive": digest})

    assert ask(b"not a tar").status_code == 422
    assert ask(archive()[:700]).status_code == 422
    assert ask(archive(more="unknown = 1")).status_code == 422
    info = tarfile.TarInfo("computeops.toml")
    info.size = 1 << 40
    assert ask(info.tobuf() + b"x" * 512).status_code == 413


def test_one_version_is_built_from_one_source(desk: Desk, keys: list[Key]) -> None:
    first = desk.start("bio/tool").json()
    assert desk.start("bio/tool").json() == first
    second = desk.start("bio/tool", more="\n# another")
    assert second.status_code == 409
    desk.report(desk.take(), publish=True, locked=True, made=[desk.pushed("bio/tool", "1.0", keys[0])])
    assert desk.start("bio/tool", more="\n# another").status_code == 409  # it is a release now
    again = desk.start("bio/tool").json()
    assert again["state"] == "succeeded"
    assert desk.state(again["id"])["answered_by"] == first["id"]
    desk.set(first["id"], builder=f"not {__version__}")
    desk.set(again["id"], builder=f"not {__version__}")
    assert desk.start("bio/tool").json()["state"] == "waiting"  # another version of the program may build another image


def test_others_see_nothing_and_change_nothing(desk: Desk) -> None:
    number = desk.start("bio/tool").json()["id"]
    foreign = desk.shelf.token("push:other/*")
    assert desk.get(f"/api/v1/pipelines/{number}", foreign).status_code == 404
    assert desk.get("/api/v1/pipelines", foreign).json() == []
    assert desk.post(f"/api/v1/pipelines/{number}/cancel", None, foreign).status_code == 404
    reader = desk.shelf.token("pull:bio/*")
    assert desk.post(f"/api/v1/pipelines/{number}/cancel", None, reader).status_code == 403
    assert desk.client.get("/api/v1/pipelines").status_code == 401
    page = desk.get("/-/pipelines").text
    assert f'<a href="/-/pipelines/{number}">build {number}</a>' in page
    shown = desk.get(f"/-/pipelines/{number}")
    assert (shown.status_code, shown.headers["refresh"]) == (200, "3")
    assert desk.get(f"/-/pipelines/{number}", foreign).status_code == 404
    assert desk.post(f"/api/v1/pipelines/{number}/cancel", None).json()["state"] == "cancelled"
    assert "refresh" not in desk.get(f"/-/pipelines/{number}").headers
    assert desk.post(f"/api/v1/pipelines/{number}/retry", None).json()["state"] == "waiting"


def test_releases_are_rebuilt_after_their_time_and_when_somebody_wants_it(desk: Desk) -> None:
    manifest = desk.shelf.release("old/tool", "1.0")
    now = int(time.time())
    assert timer.look(desk.hub, now) == 0
    assert timer.look(desk.hub, now + 31 * 86400) == 1
    assert timer.look(desk.hub, now + 31 * 86400) == 0  # it is under way
    listed = desk.get("/api/v1/pipelines?repository=old/tool").json()
    assert [(one["kind"], one["version"], one["asked_by"]) for one in listed] == [
        ("rebuild", manifest, "the hub: its time")
    ]
    other = desk.shelf.release("new/tool", "1.0")
    timer.want(desk.hub, "new/tool", other, "its compiler had a fault")
    timer.want(desk.hub, "new/tool", "sha256:" + "2" * 64, "gone meanwhile")
    assert timer.look(desk.hub, now) == 1
    with desk.hub.database.read() as connection:
        assert connection.execute(sa.select(rebuilds_wanted)).first() is None


def test_a_release_that_another_build_would_repair_is_rebuilt_once(desk: Desk) -> None:
    manifest = desk.shelf.release("sick/tool", "1.0")
    asked = {"collection": "sick", "repository": "sick/tool", "tag": "1.0", "digest": manifest, "created": 1}
    found = {"findings": [{"id": "CVE-2026-0001"}]}
    with desk.hub.database.write() as connection:
        connection.execute(sa.insert(rebuild_requests).values(**asked, reason=found))
    now = int(time.time())
    assert [timer.look(desk.hub, now) for _ in range(2)] == [1, 0]
    listed = desk.get("/api/v1/pipelines?repository=sick/tool").json()
    assert [(one["kind"], one["version"], one["asked_by"]) for one in listed] == [
        ("rebuild", manifest, "the hub: repairs CVE-2026-0001")
    ]
    with desk.hub.database.read() as connection:
        assert connection.scalar(sa.select(rebuild_requests.c.taken)) is not None


# webhooks in


class Forge:
    """GitLab or GitHub, as far as a hub hears of them."""

    def __init__(self, desk: Desk, kind: str, *, ref: str = "refs/tags/v*") -> None:
        self.desk, self.kind = desk, kind
        made = hooks.add(desk.hub, "bio", "bio/tool", kind, GIT, ref, "sub/folder", added_by="ada")
        self.path, self.secret = f"/hooks/{made.id}", made.secret

    def body(self, ref: str = "refs/tags/v1", commit: str | None = COMMIT, **more: Any) -> bytes:
        said: dict[str, Any] = {"ref": ref, "after": "f" * 40, **more}
        said |= (
            {"head_commit": {"id": commit} if commit else None} if self.kind == "github" else {"checkout_sha": commit}
        )
        return json.dumps(said).encode()

    def headers(self, body: bytes, secret: str = "") -> dict[str, str]:
        secret = secret or self.secret
        if self.kind == "github":
            made = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            return {"x-github-event": "push", "x-hub-signature-256": f"sha256={made}"}
        return {"x-gitlab-event": "Tag Push Hook", "x-gitlab-token": secret}

    def send(self, body: bytes, **headers: str) -> Any:
        sent = {**self.headers(body), **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.desk.client.post(self.path, content=body, headers=sent)


@pytest.mark.parametrize("kind", ["gitlab", "github"])
def test_a_push_starts_a_pipeline_of_the_one_repository_that_it_is_bound_to(desk: Desk, kind: str) -> None:
    forge = Forge(desk, kind)
    lie = {"repository": {"clone_url": "https://evil.example.org/x", "git_http_url": "https://evil.example.org/x"}}
    answer = forge.send(forge.body(**lie))
    assert answer.status_code == 202, answer.text
    found = desk.state(answer.json()["pipeline"])
    assert found["repository"] == "bio/tool"
    assert found["source"] == {"git": GIT, "commit": COMMIT, "folder": "sub/folder"}
    assert forge.send(forge.body(**lie)).json() == {"ignored": "this came before"}
    assert "ignored" in forge.send(forge.body("refs/heads/main")).json()
    assert "ignored" in forge.send(forge.body(commit=None)).json()  # a tag was deleted
    event = {"x_github_event": "issues"} if kind == "github" else {"x_gitlab_event": "Issue Hook"}
    assert "ignored" in forge.send(forge.body(), **event).json()
    assert len(desk.get("/api/v1/pipelines").json()) == 1


@pytest.mark.parametrize("kind", ["gitlab", "github"])
def test_a_forged_event_is_refused(desk: Desk, kind: str) -> None:
    forge, other = Forge(desk, kind), Forge(desk, kind)
    body = forge.body()
    wrong: list[Any] = [
        forge.headers(body, other.secret),
        forge.headers(body, "x"),
        {name: value for name, value in forge.headers(body).items() if name.endswith("event")},
        {**forge.headers(body), "x-hub-signature-256": "sha256="},
        {"x-gitlab-event": "Tag Push Hook", "x-gitlab-token": "é".encode()},
    ]
    wrong += [forge.headers(b"{}")] if kind == "github" else []
    for headers in wrong:
        assert desk.client.post(forge.path, content=body, headers=headers).status_code == 403
    unknown = desk.client.post("/hooks/999", content=body, headers=forge.headers(body))
    assert (unknown.status_code, unknown.text) == (403, desk.client.post(forge.path, content=body).text)
    assert desk.get("/api/v1/pipelines").json() == []


def test_gitlabs_signed_events_are_too_old_after_five_minutes(desk: Desk) -> None:
    forge = Forge(desk, "gitlab")
    body = forge.body()

    def send(at: int) -> int:
        key = base64.b64decode(forge.secret.removeprefix("whsec_"))
        made = base64.b64encode(hmac.new(key, f"id.{at}.".encode() + body, hashlib.sha256).digest()).decode()
        headers = {"x-gitlab-event": "Push Hook", "webhook-id": "id", "webhook-timestamp": str(at)}
        headers["webhook-signature"] = f"v1,{made}"
        return int(desk.client.post(forge.path, content=body, headers=headers).status_code)

    assert send(int(time.time()) - 310) == 403
    assert send(int(time.time()) + 360) == 403
    assert send(int(time.time())) == 202


def test_hooks_are_bound_by_maintainers(desk: Desk) -> None:
    manager = desk.shelf.token("manage:*")
    desk.shelf.release("bio/tool", "0.1")
    asked = {"repository": "bio/tool", "kind": "github", "git": GIT}
    path = "/api/v1/collections/bio/hooks"
    assert desk.post(path, asked).status_code == 403
    given = desk.post(path, asked, manager)
    assert given.status_code == 201, given.text
    assert "secret" not in desk.get(path, manager).json()[0]
    for wrong in ({"kind": "gitea"}, {"git": "http://127.0.0.1/"}, {"ref": "v1"}, {"repository": "other/tool"}):
        assert desk.post(path, {**asked, **wrong}, manager).status_code == 400
    number = desk.get(path, manager).json()[0]["id"]
    gone = desk.client.delete(f"{path}/{number}", headers={"Authorization": f"Bearer {manager}"})
    assert (gone.status_code, desk.get(path, manager).json()) == (204, [])


def test_a_full_queue_says_so(desk: Desk) -> None:
    for number in range(50):
        start.start(desk.hub, "full/tool", Source(git=GIT, commit=f"{number:040x}"), asked_by="ada")
    answer = desk.post("/api/v1/pipelines", {"repository": "full/tool", "git": GIT, "commit": COMMIT})
    assert (answer.status_code, "wait already" in answer.text) == (409, True)
