"""Who may do what: scopes, sessions, the authorisation matrix, and what a stranger can find out about private things."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from computeops.errors import LoginError, StorageError, UsageError
from computeops.hub.auth import ANYONE, Auth, Scope
from computeops.hub.db import Database
from computeops.hub.state import Hub
from computeops.hub.tables import tokens
from computeops.image import oci
from conftest import RunningHub
from raw_http import Caller, basic
from test_hub_registry import manifest, push, push_blob, sha256


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database.in_folder(tmp_path)
    yield found
    found.close()


@pytest.fixture
def auth(database: Database, tmp_path: Path) -> Auth:
    return Auth(database, tmp_path)


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "action", "repository", "allowed"),
        [
            ("push:bio/samtools", "push", "bio/samtools", True),
            ("push:bio/samtools", "pull", "bio/samtools", True),
            ("push:bio/samtools", "delete", "bio/samtools", False),
            ("push:bio/samtools", "push", "bio/samtools2", False),
            ("push:bio/samtools", "push", "bio/samtools/x", False),
            ("push:bio/*", "push", "bio/x/y", True),
            ("push:bio/*", "push", "bio", False),
            ("push:bio/*", "push", "biology/x", False),
            ("pull:*", "pull", "any/thing", True),
            ("pull:*", "push", "any/thing", False),
            ("delete:*", "delete", "any/thing", True),
        ],
    )
    def test_covers(self, scope: str, action: str, repository: str, allowed: bool) -> None:
        assert Scope.parse(scope).allows(action, repository) is allowed

    @pytest.mark.parametrize(
        "text", ["", "push", "push:", "write:bio/*", "push:bio*", "push:**", "push:/bio", "push:Bio/x", "push:a b"]
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            Scope.parse(text)

    @pytest.mark.parametrize(
        ("scope", "prefix", "reaches"),
        [
            ("push:bio/samtools", "bio/", True),
            ("push:bio/samtools", "", True),
            ("push:bio/samtools", "geo/", False),
            ("push:bio/*", "bio/sub/", True),
            ("push:*", "bio/", True),
            ("pull:*", "bio/", False),
            ("push:bio/samtools", "bio/samtools/", False),
        ],
    )
    def test_reaches_below(self, scope: str, prefix: str, reaches: bool) -> None:
        assert Scope.parse(scope).reaches("push", prefix) is reaches


class TestTokens:
    def test_is_long_enough_for_apptainer_and_kept_only_as_a_hash(
        self, auth: Auth, database: Database, tmp_path: Path
    ) -> None:
        token = auth.issue("ada", [Scope.parse("push:bio/*")], days=1)
        assert 200 <= len(token) <= 4096
        caller = auth.caller(f"Bearer {token}")
        assert (caller.name, caller.may("push", "bio/x"), caller.may("push", "geo/x")) == ("ada", True, False)
        database.close()
        assert not any(token.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    @pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "  Bearer   {}  ", "Basic"])
    def test_forms_of_the_header(self, auth: Auth, form: str) -> None:
        token = auth.issue("ada", [Scope.parse("pull:*")], days=1)
        header = basic("whoever", token) if form == "Basic" else form.format(token)
        assert auth.caller(header).name == "ada"

    def test_nobody(self, auth: Auth) -> None:
        assert auth.caller("Bearer ") == ANYONE
        assert auth.caller("") == ANYONE

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer x",
            "Bearer cops_" + "a" * 209,
            "Basic %%%",
            "Basic " + "eA==",
            "Digest abc",
            "Bearer \xff",
            "Basic gICA",
        ],
    )
    def test_refused(self, auth: Auth, header: str) -> None:
        with pytest.raises(LoginError):
            auth.caller(header)

    def test_expired_and_revoked_at_once(self, auth: Auth, database: Database) -> None:
        token = auth.issue("ada", [Scope.parse("pull:*")], days=1)
        session = auth.session(auth.caller(f"Bearer {token}"))
        assert auth.caller(f"Bearer {session}").name == "ada"
        with database.write() as connection:
            connection.execute(sa.update(tokens).values(expires=int(time.time()) - 1))
        for secret in (token, session):
            with pytest.raises(LoginError):
                auth.caller(f"Bearer {secret}")
        with database.write() as connection:
            connection.execute(sa.delete(tokens))
        for secret in (token, session):
            with pytest.raises(LoginError):
                auth.caller(f"Bearer {secret}")

    def test_a_token_is_for_one_to_3650_days(self, auth: Auth) -> None:
        for days in (0, -1, 3651):
            with pytest.raises(UsageError):
                auth.issue("ada", [Scope.parse("pull:*")], days=days)

    def test_a_damaged_key_is_not_used(self, database: Database, tmp_path: Path) -> None:
        (tmp_path / "session.key").write_bytes(b"")
        with pytest.raises(StorageError):
            Auth(database, tmp_path)


class TestSessions:
    def test_forged(self, auth: Auth, database: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
        token = auth.issue("ada", [Scope.parse("delete:*")], days=1)
        session = auth.session(auth.caller(f"Bearer {token}"))
        kind, identity, end, signature = session.split(".")
        foreign = Auth(database, tmp_path_factory.mktemp("foreign")).session(auth.caller(f"Bearer {token}"))
        for forged in (
            f"{kind}.{identity}.{int(end) + 1}.{signature}",
            f"{kind}.{int(identity) + 1}.{end}.{signature}",
            f"{kind}.{identity}.{end}.",
            f"{kind}.{identity}.{end}",
            f"{kind}.0.{end}.{signature}",
            f"{session}0",
            "copss.",
            "copss....",
            foreign,
        ):
            with pytest.raises(LoginError):
                auth.caller(f"Bearer {forged}")

    def test_of_nobody(self, auth: Auth) -> None:
        caller = auth.caller(f"Bearer {auth.session(ANYONE)}")
        assert (caller.name, caller.scopes) == ("", ())

    def test_is_over_after_its_time(self, auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
        session = auth.session(ANYONE)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3601)
        with pytest.raises(LoginError):
            auth.caller(f"Bearer {session}")


def private(hub: RunningHub, collection: str) -> None:
    opened = Hub.open(hub.data)
    opened.set_public(collection, public=False)
    opened.database.close()


class TestMatrix:
    """Every kind of caller against every kind of request, on a public and on a private repository."""

    CALLERS = ("stranger", "reader", "author", "keeper", "elsewhere")

    @pytest.fixture
    def callers(self, hub: RunningHub) -> dict[str, Caller]:
        private(hub, "secret")
        keeper = Caller(hub.address, hub.token("delete:*", name="keeper"))
        for collection in ("open", "secret"):
            assert (
                push(keeper, f"/v2/{collection}/x", "1", manifest(keeper, f"/v2/{collection}/x", b"layer")).status
                == 201
            )
        return {
            "stranger": Caller(hub.address),
            "reader": Caller(hub.address, hub.token("pull:*")),
            "author": Caller(hub.address, hub.token("push:open/*", "push:secret/*")),
            "keeper": keeper,
            "elsewhere": Caller(hub.address, hub.token("delete:other/*")),
        }

    def statuses(self, callers: dict[str, Caller], method: str, path: str, body: bytes | None = None) -> list[int]:
        headers = {"Content-Type": oci.MANIFEST} if "manifests" in path else {}
        return [callers[name](method, path, body, headers).status for name in self.CALLERS]

    def test_reading(self, callers: dict[str, Caller]) -> None:
        for rest in ("manifests/1", f"blobs/{sha256(b'layer')}", "tags/list", f"referrers/{sha256(b'?')}"):
            for method in ("GET", "HEAD"):
                assert self.statuses(callers, method, f"/v2/open/x/{rest}") == [200] * 5
                hidden = [401, 200, 200, 200, 200 if "referrers" in rest else 404]
                assert self.statuses(callers, method, f"/v2/secret/x/{rest}") == hidden

    def test_what_is_private_looks_like_what_is_not_there(self, callers: dict[str, Caller]) -> None:
        for name in ("stranger", "elsewhere"):
            for rest in ("manifests/1", f"blobs/{sha256(b'layer')}", "tags/list", f"referrers/{sha256(b'?')}"):
                there, nowhere = (callers[name].get(f"/v2/{one}/x/{rest}") for one in ("secret", "absent"))
                assert there.status == nowhere.status
                assert there.body.replace(b"secret", b"absent") == nowhere.body
                known = there.headers.get("www-authenticate", "").replace("secret", "absent")
                assert known == nowhere.headers.get("www-authenticate", "")

    def test_the_list_of_repositories_has_what_one_may_read(self, callers: dict[str, Caller]) -> None:
        for name, seen in (("stranger", ["open/x"]), ("elsewhere", ["open/x"]), ("reader", ["open/x", "secret/x"])):
            assert callers[name].get("/v2/_catalog").json == {"repositories": seen}
        page = callers["reader"].get("/v2/_catalog?n=1")
        assert page.json["repositories"] == ["open/x"]
        following = page.headers["link"].partition("<")[2].partition(">")[0]
        assert callers["reader"].get(following).json["repositories"] == ["secret/x"]

    def test_writing(self, callers: dict[str, Caller]) -> None:
        for collection in ("open", "secret"):
            repo = f"/v2/{collection}/x"
            body = manifest(callers["keeper"], repo, b"layer")
            assert self.statuses(callers, "POST", f"{repo}/blobs/uploads/", b"") == [401, 403, 202, 202, 403]
            assert self.statuses(callers, "PUT", f"{repo}/manifests/2", body) == [401, 403, 201, 201, 403]

    def test_deleting(self, callers: dict[str, Caller]) -> None:
        for collection in ("open", "secret"):
            repo = f"/v2/{collection}/x"
            push(callers["keeper"], repo, "2", manifest(callers["keeper"], repo))
            assert self.statuses(callers, "DELETE", f"{repo}/manifests/2") == [401, 403, 403, 202, 403]

    def test_a_blob_of_a_private_repository_cannot_be_mounted_or_read_elsewhere(
        self, callers: dict[str, Caller]
    ) -> None:
        repo = "/v2/secret/x"
        digest = push_blob(callers["keeper"], repo, b"only in private")
        thief = callers["elsewhere"]
        assert thief("POST", f"/v2/other/x/blobs/uploads/?mount={digest}&from=secret/x", b"").status == 202
        assert thief("POST", f"/v2/other/x/blobs/uploads/?mount={digest}", b"").status == 202
        assert thief.get(f"/v2/other/x/blobs/{digest}").status == 404
        assert callers["stranger"].get(f"/v2/open/x/blobs/{digest}").status == 404

    def test_the_other_doors(self, callers: dict[str, Caller]) -> None:
        for path in ("/v1/images/secret/x:1", "/v1/imagefile/secret/x:1", "/v1/containers/secret/x", "/secret/x"):
            assert callers["stranger"].get(path).status == 404, path
        assert b"secret" not in callers["stranger"].get("/api/v1/search?q=x").body
        assert b"secret" not in callers["stranger"].get("/").body
        assert callers["stranger"].get("/api/v1/releases/secret/x").status == 404


class TestTokenEndpoint:
    def test_a_challenge_leads_to_a_session(self, hub: RunningHub) -> None:
        token = hub.token("push:bio/x")
        stranger = Caller(hub.address)
        challenge = stranger("POST", "/v2/bio/x/blobs/uploads/", b"").headers["www-authenticate"]
        assert challenge == (
            f'Bearer realm="{hub.address}/auth/token",service="{hub.host}",scope="repository:bio/x:pull,push"'
        )
        answer = stranger.get(
            "/auth/token?service=x&scope=repository:bio/x:pull,push", Authorization=basic("me", token)
        )
        assert answer.headers["cache-control"] == "no-store"
        session = answer.json["token"]
        assert session == answer.json["access_token"]
        assert Caller(hub.address, session)("POST", "/v2/bio/x/blobs/uploads/", b"").status == 202

    def test_by_form(self, hub: RunningHub) -> None:
        token = hub.token("push:bio/x")
        for form in (
            f"grant_type=password&username=me&password={token}",
            f"grant_type=refresh_token&refresh_token={token}",
        ):
            session = Caller(hub.address)("POST", "/auth/token", form).json["access_token"]
            assert Caller(hub.address, session)("POST", "/v2/bio/x/blobs/uploads/", b"").status == 202
        assert Caller(hub.address)("POST", "/auth/token", "grant_type=password&password=wrong").status == 401
        assert Caller(hub.address)("POST", "/auth/token", "grant_type=device").status == 400
        assert Caller(hub.address)("POST", "/auth/token", b"x" * 100_000).status == 413

    def test_nobody_gets_a_session_that_may_read_what_is_public(self, hub: RunningHub) -> None:
        session = Caller(hub.address).get("/auth/token").json["token"]
        caller = Caller(hub.address, session)
        assert caller.get("/v2/").status == 200
        assert caller("POST", "/v2/bio/x/blobs/uploads/", b"").status == 401

    def test_a_wrong_password_is_never_nobody(self, hub: RunningHub) -> None:
        stranger = Caller(hub.address)
        for path in ("/auth/token", "/v2/", "/v2/bio/x/tags/list"):
            assert stranger.get(path, Authorization=basic("me", "wrong")).status == 401


def test_a_token_given_while_the_hub_runs_holds_at_once(hub: RunningHub) -> None:
    assert Caller(hub.address, "cops_" + "a" * 209).get("/v2/").status == 401
    assert Caller(hub.address, hub.token("push:bio/x")).get("/v2/").status == 200
