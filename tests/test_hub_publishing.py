"""Trusted publishing: a CI job gets a short push token for what a maintainer bound its project to, and nothing else."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from computeops.errors import ConflictError, NotFoundError, UsageError
from computeops.hub import publishing
from computeops.hub.app import create_app
from computeops.hub.settings import Issuer, Settings
from computeops.hub.tables import audit, tokens
from conftest import RunningHub
from identity_provider import IdentityProvider, identity_provider
from raw_http import Caller
from shelf import Shelf

AUDIENCE = "https://hub.example.org"
GITLAB = {"project_path": "lab/samtools", "project_id": "42", "ref": "main", "ref_path": "refs/heads/main"}
GITHUB = {"repository": "lab/samtools", "repository_id": "42", "ref": "refs/heads/main", "event_name": "push"}


@pytest.fixture
def ci() -> Iterator[IdentityProvider]:
    with identity_provider() as running:
        yield running


class Desk:
    """A hub that trusts one CI service, and asks of its jobs."""

    def __init__(self, folder: Path, ci: IdentityProvider, kind: Any) -> None:
        self.ci, self.shelf = ci, Shelf(folder)
        settings = Settings(audience=AUDIENCE, ci=(Issuer(issuer=ci.issuer, kind=kind),))
        self.client = TestClient(create_app(folder, settings=settings))
        self.hub = self.shelf.hub.open(folder, settings=settings)
        self.shelf.release("bio/samtools", "1.21")
        self.shelf.release("bio/other", "1")
        self.claims = GITLAB if kind == "gitlab" else GITHUB

    def bind(self, *, project: str = "lab/samtools", ref: str = "", repository: str = "") -> publishing.Publisher:
        return publishing.add(
            self.hub, "bio", issuer=self.ci.issuer, project=project, ref=ref, repository=repository, added_by="ada"
        )

    def ask(self, repository: str = "bio/samtools", *, token: str = "", **claims: Any) -> Any:
        sent = token or self.ci.ci_token(claims.pop("aud", AUDIENCE), **{**self.claims, **claims})
        return self.client.post("/auth/publish", json={"token": sent, "repository": repository})

    def push(self, token: str, repository: str) -> int:
        asked = {"Authorization": f"Bearer {token}"}
        return int(self.client.post(f"/v2/{repository}/blobs/uploads/", headers=asked).status_code)


@pytest.fixture(params=["gitlab", "github"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, ci: IdentityProvider) -> Iterator[Desk]:
    made = Desk(tmp_path / "hub", ci, request.param)
    with made.client:
        yield made


@pytest.fixture
def gitlab(tmp_path: Path, ci: IdentityProvider) -> Iterator[Desk]:
    made = Desk(tmp_path / "hub", ci, "gitlab")
    with made.client:
        yield made


def test_a_bound_project_gets_a_token_for_one_repository_and_a_quarter_of_an_hour(desk: Desk) -> None:
    desk.bind(ref="main")
    answer = desk.ask()
    assert answer.status_code == 200, answer.text
    assert (answer.json()["expires_in"], answer.headers["cache-control"]) == (900, "no-store")
    token = answer.json()["token"]
    assert len(token) >= 200
    assert desk.push(token, "bio/samtools") == 202
    assert [desk.push(token, one) for one in ("bio/other", "bio/new", "geo/samtools")] == [403, 403, 403]
    own = {"Authorization": f"Bearer {token}"}
    assert desk.client.delete("/v2/bio/samtools/manifests/1.21", headers=own).status_code == 403
    assert desk.client.get("/api/v1/collections/bio/members", headers=own).status_code == 403
    with desk.hub.database.read() as connection:
        row = connection.execute(sa.select(tokens).where(tokens.c.kind == "ci")).one()
        told = connection.execute(sa.select(audit.c.action).where(audit.c.target == "/auth/publish")).scalar_one()
    assert 890 < row.expires - time.time() <= 900
    assert "push token for bio/samtools to 127.0.0.1/lab/samtools@refs/heads/main" in told


def test_it_ends_with_its_time_and_with_its_publisher(gitlab: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = gitlab.bind()
    first, second = (gitlab.ask().json()["token"] for _ in range(2))
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + 901)
        assert gitlab.push(first, "bio/samtools") == 401
    assert gitlab.push(second, "bio/samtools") == 202
    publishing.remove(gitlab.hub.database, "bio", bound.id)
    assert gitlab.push(second, "bio/samtools") == 401
    assert gitlab.ask().status_code == 403


@pytest.mark.parametrize(
    ("ref", "good", "bad"),
    [
        ("main", "refs/heads/main", "refs/tags/main"),
        ("main", "refs/heads/main", "refs/heads/main2"),
        ("refs/tags/v*", "refs/tags/v1.0", "refs/heads/v1.0"),
        ("release-*", "refs/heads/release-1", "refs/heads/release"),
        ("", "refs/tags/x", "refs/merge-requests/1/head"),
        ("", "refs/heads/x", "refs/pull/1/merge"),
    ],
)
def test_only_from_the_branch_or_tag(desk: Desk, ref: str, good: str, bad: str) -> None:
    desk.bind(ref=ref)
    claim = "ref_path" if "ref_path" in desk.claims else "ref"
    assert desk.ask(**{claim: good}).status_code == 200
    assert desk.ask(**{claim: bad}).status_code == 403


def test_a_pull_request_from_a_fork_may_not_publish(tmp_path: Path, ci: IdentityProvider) -> None:
    desk = Desk(tmp_path / "hub", ci, "github")
    desk.bind()
    assert desk.ask(event_name="pull_request_target").status_code == 403


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://another.example.org"}, 401),
        ({"aud": None}, 401),
        ({"exp": 1}, 401),
        ({"exp": None}, 401),
        ({"nbf": 9_999_999_999}, 401),
        ({"iss": "https://gitlab.com"}, 401),
        ({"iss": "https://evil.example.org"}, 401),
        ({"iss": None}, 401),
        ({"sub": None}, 401),
        ({"project_path": None}, 401),
        ({"project_id": None}, 401),
        ({"ref_path": None}, 401),
        ({"project_path": "lab/samtools2"}, 403),
        ({"project_path": "evil/samtools"}, 403),
        ({"project_path": "lab/sub/samtools"}, 403),
    ],
)
def test_foreign_and_expired_tokens(gitlab: Desk, claims: dict[str, Any], status: int) -> None:
    gitlab.bind()
    answer = gitlab.ask(**claims)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_forged_tokens(gitlab: Desk) -> None:
    gitlab.bind()
    genuine = gitlab.ci.ci_token(AUDIENCE, **GITLAB)
    head, body, signature = genuine.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps(claims | {"project_path": "a/b"}).encode()).decode().rstrip("=")
    gitlab.ci.key = RSAKey.generate_key(2048, {"kid": "1"})
    by_another = gitlab.ci.ci_token(AUDIENCE, **GITLAB)
    unsigned = f"eyJhbGciOiJub25lIn0.{body}."
    for token in (f"{head}.{other}.{signature}", f"{head}.{body}.", by_another, unsigned, "x", "a.b.c", "", "." * 9000):
        assert gitlab.ask(token=token or " ").status_code == 401, token[:50]
    assert gitlab.ask(token=genuine).status_code == 200


def test_bodies_that_are_none(gitlab: Desk) -> None:
    for body in (b"", b"[]", b"{}", b'{"token": 1, "repository": 2}', b"{" * 1000):
        assert gitlab.client.post("/auth/publish", content=body).status_code == 400
    assert gitlab.client.post("/auth/publish", content=b" " * 1_000_000).status_code == 413


def test_a_new_project_with_the_name_of_an_old_one(desk: Desk) -> None:
    desk.bind()
    number = "project_id" if "project_id" in desk.claims else "repository_id"
    assert desk.ask().status_code == 200
    assert desk.ask(**{number: "43"}).status_code == 403
    assert desk.ask().status_code == 200


def test_only_to_the_repository_that_was_bound(gitlab: Desk) -> None:
    gitlab.bind(repository="bio/samtools")
    assert gitlab.ask("bio/samtools").status_code == 200
    for other in ("bio/other", "bio/*", "*", "bio/", "geo/samtools", "bio/samtools/x", "bio/../bio/samtools", ""):
        assert gitlab.ask(other).status_code == 403


def test_it_tells_nobody_which_private_collections_there_are(gitlab: Desk) -> None:
    gitlab.hub.database.set_public("bio", public=False)
    hidden, missing = gitlab.ask("bio/samtools"), gitlab.ask("abc/samtools")
    assert hidden.status_code == missing.status_code == 403
    assert hidden.text.replace("bio/", "abc/") == missing.text


def test_a_hub_without_an_address_says_what_is_missing(tmp_path: Path, ci: IdentityProvider) -> None:
    with TestClient(create_app(tmp_path / "hub")) as client:
        answer = client.post("/auth/publish", json={"token": "x", "repository": "bio/x"})
    assert answer.status_code == 400
    assert "hub.toml" in answer.json()["error"]["hint"]


def test_what_cannot_be_bound(gitlab: Desk) -> None:
    for asked in ({"project": "no-group"}, {"project": "a b/c"}, {"ref": "a b"}, {"repository": "geo/x"}):
        with pytest.raises(UsageError):
            gitlab.bind(**asked)
    with pytest.raises(UsageError, match="does not trust"):
        publishing.add(
            gitlab.hub, "bio", issuer="http://169.254.169.254", project="a/b", ref="", repository="", added_by="x"
        )
    with pytest.raises(NotFoundError):
        publishing.add(gitlab.hub, "none", issuer=gitlab.ci.issuer, project="a/b", ref="", repository="", added_by="x")
    gitlab.bind()
    with pytest.raises(ConflictError):
        gitlab.bind()


def test_a_ci_job_pushes_with_our_command(hub: RunningHub, ci: IdentityProvider, tmp_path: Path) -> None:
    """As a job does it: the hub in a process of its own, its settings in hub.toml, the token in the environment."""
    hub.stop()
    (hub.data / "hub.toml").write_text(
        f'audience = "{AUDIENCE}"\n[[ci]]\nissuer = "{ci.issuer}"\nkind = "gitlab"\n', encoding="utf-8"
    )
    hub.start()

    def computeops(*argv: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), **more}
        argv = (sys.executable, "-m", "computeops", *argv)
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=check)

    computeops("hub", "collection", "bio", "--public", "--data", str(hub.data))
    bind = ["hub", "publisher", "add", "bio", "--issuer", ci.issuer, "--project", "lab/samtools"]
    computeops(*bind, "--ref", "main", "--data", str(hub.data))
    token = ci.ci_token(AUDIENCE, **GITLAB)
    login = ["login", hub.address, "--oidc-token-env", "JOB_TOKEN"]
    said = computeops(*login, "--for", "bio/samtools", JOB_TOKEN=token)
    assert "logged in to" in said.stdout
    kept = json.loads((tmp_path / "config/computeops/credentials.json").read_text())
    (secret,) = re.findall(r"cops_[A-Za-z0-9]+", json.dumps(kept))
    asked = Caller(hub.address, secret)
    assert asked("POST", "/v2/bio/samtools/blobs/uploads/", b"").status == 202
    assert asked("POST", "/v2/bio/other/blobs/uploads/", b"").status == 403
    for wrong, code, text in (
        ([*login, "--for", "geo/x"], 8, "may not publish to geo/x"),
        (login, 2, "belong together"),
        (["login", hub.address, "--oidc-token-env", "NONE", "--for", "bio/x"], 2, "NONE is not set"),
    ):
        done = computeops(*wrong, check=False, JOB_TOKEN=token)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert token not in done.stderr
