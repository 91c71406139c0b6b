"""Who may what in a collection: roles, tokens that never give more, new collections, and every route for every role."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from computeops.errors import ConflictError, NotFoundError, UsageError
from computeops.hub import accounts, app, roles, shelf
from computeops.hub.app import create_app
from computeops.hub.auth import ACTIONS, CI, ROLES, Scope
from computeops.hub.deposits import doors as deposits
from computeops.hub.manage import OPERATIONS
from computeops.hub.pipelines import doors as pipelines
from computeops.hub.settings import Settings
from computeops.hub.vulnerabilities import doors as vulnerabilities
from computeops.sign.key import Key
from shelf import Shelf

PEOPLE = ("stranger", "reader", "contributor", "maintainer", "owner", "admin")


class House:
    """A hub with the public collection `open` and the private one `secret`, and people of each role in both."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.shelf = Shelf(folder)
        self.hub, self.database, self.auth = self.shelf.hub, self.shelf.hub.database, self.shelf.hub.auth
        self.client = TestClient(create_app(folder, settings=settings or Settings()))
        self.tokens: dict[str, str] = {"nobody": ""}
        self.ids: dict[str, int] = {}
        for collection in ("open", "secret"):
            self.shelf.release(f"{collection}/tool", "1")
        self.database.set_public("secret", public=False)
        for name in PEOPLE:
            self.ids[name] = accounts.add(self.database, name, administrator=name == "admin").id
            self.tokens[name] = self.personal(name, "manage:*")
            if name in ROLES:
                for collection in ("open", "secret"):
                    roles.set_member(self.database, collection, name, name)
        self.tokens["robot"] = accounts.robot_token(self.database, self.auth, "secret", "robot", ["push"], 9)
        self.tokens["ci"] = self.auth.grant("ci", [Scope("push", "secret/tool")], seconds=900, kind=CI)
        self.tokens["operator"] = self.auth.issue("root", [Scope.parse("manage:*")], days=1)

    def personal(self, name: str, *scopes: str) -> str:
        found = [Scope.parse(one) for one in scopes]
        return accounts.personal_token(self.database, self.auth, self.ids[name], "test", found, 9)

    def __call__(self, who: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        token = self.tokens.get(who, who)
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        return self.client.request(method, path, content=data, headers=sent | headers, follow_redirects=False)

    def statuses(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, int]:
        return {who: self(who, method, path, body, **headers).status_code for who in self.tokens}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "hub")
    with made.client:
        yield made


def expected(least: str, good: int, *, private: bool, **others: int) -> dict[str, int]:
    """What each gets where `least` is the least role that may; `others` replaces what the rest gets."""
    refused = 404 if private else 403
    found = {"nobody": 401, "stranger": refused, "admin": good, "robot": 403, "ci": 403, "operator": good}
    found |= {role: good if ROLES.index(role) >= ROLES.index(least) else 403 for role in ROLES}
    return found | others


PUBLISHER = {"issuer": "https://gitlab.com", "project": "lab/tool"}
BODIES: Mapping[tuple[str, str], Any] = {
    ("POST", "publishers"): lambda n: PUBLISHER | {"ref": f"b{n}"},
    ("POST", "webhooks"): lambda _: {"url": "https://example.org/hook"},
    ("POST", "tokens"): lambda _: {"name": "x", "actions": ["push"]},
    ("PUT", "members"): lambda _: {"role": "reader"},
    ("PUT", ""): lambda _: {"public": True},
    ("POST", "hooks"): lambda n: {"repository": f"COLLECTION/t{n}", "kind": "gitlab", "git": "https://x.example/a.git"},
    ("PUT", "rebuilds"): lambda _: {"rebuilds": 0},
    ("PUT", "gate"): lambda _: {"action": "warn"},
    ("POST", "passes"): lambda n: {
        "vulnerability": f"CVE-2024-{n:04}",
        "reason": "none of ours",
        "until": int(time.time()) + 9000,
    },
    ("POST", "keys"): lambda n: {"name": f"k{n}", "public": Key.generate(f"k{n}").public_text().decode()},
}
ALL = (*OPERATIONS, *pipelines.OPERATIONS, *vulnerabilities.OPERATIONS, *deposits.OPERATIONS)


def _filled(path: str, collection: str, kind: str) -> str:
    """A path of a route with something in its places."""
    names = {"collection": collection, "person": "stranger", "container": "ID", "image": "ID"}
    names |= dict.fromkeys(("repository", "reference", "name", "path", "target"), collection + kind)
    return re.sub(r"\{([a-z]+)(:[a-z]+)?\}", lambda one: names.get(one[1], "99"), path).replace("ID", "NAME-ID")


def _as_seen(house: House, who: str, method: str, path: str, name: str) -> tuple[int, str, list[str]]:
    """What somebody is answered about the collection `name`, with another word in the place of its name."""
    identity = shelf.identity(f"{name}/tool")
    body = {} if method in {"PUT", "POST"} else None
    answer = house(who, method, path.replace("NAME-ID", identity).replace("NAME", name), body)
    return answer.status_code, answer.text.replace(identity, "ID").replace(name, "NAME"), sorted(answer.headers)


class TestMatrix:
    """Every operation of the JSON API for everyone, on a public and on a private collection."""

    @pytest.mark.parametrize("collection", ["open", "secret"])
    def test_of_a_collection(self, house: House, collection: str) -> None:
        operations = [one for one in ALL if "{collection" in one.path and one.role]
        assert len(operations) > 25
        for operation in operations:
            self._operation(house, operation, collection)

    def _operation(self, house: House, operation: Any, collection: str) -> None:
        private = collection == "secret"
        if operation.method == "DELETE" or "deliveries" in operation.path:
            good = 404  # what is to be deleted is not there, which only those learn who may
        else:
            good = {"GET": 200, "POST": 201, "PUT": 204}[operation.method]
        path = operation.path.replace("{collection:path}", collection).replace("{person}", "nobody-at-all")
        path = re.sub(r"\{[a-z]+\}", "99", path)
        if operation.method == "PUT":
            path = path.replace("nobody-at-all", "stranger")
        body = BODIES.get((operation.method, path.split("/")[5]))
        wanted = expected(operation.role, good, private=private)
        # a token that is bound to another place, or cannot manage, sees no more than it may read
        wanted |= {"ci": 404 if private else 403}
        for number, who in enumerate(house.tokens):
            sent = json.dumps(body(number)).replace("COLLECTION", collection).encode() if body else None
            answer = house(who, operation.method, path, sent)
            assert answer.status_code == wanted[who], (operation, who, answer.text)
            if operation.path.endswith("{person}"):  # nobody gets a role by it
                roles.set_member(house.database, collection, "stranger", "reader")
                roles.remove_member(house.database, collection, "stranger")

    def test_what_is_built_and_kept(self, house: House) -> None:
        """What names its collection in what is sent: only who may push there learns more than that he may not."""
        may = {"contributor", "maintainer", "owner", "admin", "operator"}
        wishes = {
            "/api/v1/pipelines": {"archive": f"sha256:{'0' * 64}"},
            "/api/v1/rebuilds": {"digest": f"sha256:{'0' * 64}"},
            "/api/v1/deposits": {"archive": f"sha256:{'0' * 64}", "name": "x-1.tar.gz"},
        }
        for path, wish in wishes.items():
            for name in ("open", "secret"):
                inside = may | ({"robot", "ci"} if name == "secret" else set())
                found = house.statuses("POST", path, {"repository": f"{name}/tool", **wish})
                assert found == {who: 404 if who in inside else 403 for who in house.tokens} | {"nobody": 401}, path
        for path in ("/api/v1/pipelines", "/api/v1/deposits", "/-/pipelines", "/-/deposits"):
            assert house.statuses("GET", path) == dict.fromkeys(house.tokens, 200) | {"nobody": 401}
        rulers = {who: 200 if who in {"admin", "operator"} else 403 for who in house.tokens} | {"nobody": 401}
        assert house.statuses("GET", "/api/v1/workers") == rulers
        for path in ("/api/v1/work/take", "/api/v1/work/1", "/api/v1/work/1/pass"):  # for workers alone
            assert house.statuses("POST", path, {}) == dict.fromkeys(house.tokens, 401)

    def test_strangers_see_no_difference_between_private_and_not_there(self, house: House) -> None:
        """On every route that names a collection or a repository, with every method it has."""
        house.shelf.release("other/tool", "1")
        house.ids["outsider"] = accounts.add(house.database, "outsider").id
        house.tokens["outsider"] = house.personal("outsider", "manage:*")
        roles.set_member(house.database, "other", "outsider", "owner")
        asked = 0
        for route in app.routes(house.hub):
            for path in {_filled(route.path, "NAME", kind) for kind in ("", "/tool")}:
                for method in sorted(route.methods or ()) if "NAME" in path else ():
                    for who in ("nobody", "stranger", "outsider"):
                        secret, absent = (_as_seen(house, who, method, path, name) for name in ("secret", "absent"))
                        assert secret == absent, (who, method, path)
                        asked += 1
        assert asked > 200

    def test_of_no_collection(self, house: House) -> None:
        everybody = dict.fromkeys(house.tokens, 200) | {"nobody": 401}
        assert house.statuses("GET", "/api/v1/user") == everybody
        people = {who: 200 if who in PEOPLE else 401 for who in house.tokens}
        assert house.statuses("GET", "/api/v1/tokens") == people
        made = {who: 201 if who in PEOPLE else 401 for who in house.tokens}
        assert house.statuses("POST", "/api/v1/tokens", {"name": "x", "scopes": ["pull:*"]}) == made
        gone = {who: 404 if who in PEOPLE else 401 for who in house.tokens}
        assert house.statuses("DELETE", "/api/v1/tokens/999") == gone
        rulers = {who: 200 if who in {"admin", "operator"} else 403 for who in house.tokens} | {"nobody": 401}
        assert house.statuses("GET", "/api/v1/audit") == rulers

    def test_a_collection_itself(self, house: House) -> None:
        for collection in ("open", "secret"):
            found = house.statuses("PUT", f"/api/v1/collections/{collection}", {"public": collection == "open"})
            assert found == {who: 204 if who in {"owner", "admin", "operator"} else 403 for who in house.tokens} | {
                "nobody": 401
            }

    def test_every_operation_is_in_a_test(self) -> None:
        there = {(one.method, one.path) for one in OPERATIONS if "{collection" not in one.path or not one.role}
        assert there == {
            ("GET", "/api/v1/user"),
            ("GET", "/api/v1/tokens"),
            ("POST", "/api/v1/tokens"),
            ("DELETE", "/api/v1/tokens/{token}"),
            ("GET", "/api/v1/audit"),
            ("PUT", "/api/v1/collections/{collection:path}"),
        }

    def test_the_registry(self, house: House) -> None:
        everybody = dict.fromkeys(house.tokens, 200)
        for door in ("/v2/open/tool/tags/list", "/api/v1/releases/open/tool", "/v1/containers/open/tool", "/open/tool"):
            assert house.statuses("GET", door) == everybody
        hidden = everybody | {"nobody": 404, "stranger": 404}
        assert house.statuses("GET", "/v2/secret/tool/tags/list") == hidden | {"nobody": 401}
        for door in ("/api/v1/releases/secret/tool", "/v1/containers/secret/tool", "/secret/tool"):
            assert house.statuses("GET", door) == hidden, door

    def test_pushing(self, house: House) -> None:
        may = {"contributor", "maintainer", "owner", "admin", "operator"}
        for name in ("open", "secret"):
            inside = may if name == "open" else may | {"robot", "ci"}
            wanted = {who: 202 if who in inside else 403 for who in house.tokens} | {"nobody": 401}
            assert house.statuses("POST", f"/v2/{name}/tool/blobs/uploads/", b"") == wanted
            library = {who: 201 if who in inside else 403 for who in house.tokens} | {"nobody": 401}
            image = {"hash": "sha256." + "0" * 64, "container": shelf.identity(f"{name}/tool")}
            assert house.statuses("POST", "/v1/images", image) == library

    def test_deleting(self, house: House) -> None:
        may = {"maintainer", "owner", "admin", "operator"}
        for name in ("open", "secret"):
            wanted = {who: 404 if who in may else 403 for who in house.tokens} | {"nobody": 401}
            assert house.statuses("DELETE", f"/v2/{name}/tool/manifests/none") == wanted

    def test_lists_have_what_one_may_see(self, house: House) -> None:
        for who in house.tokens:
            seen = ["open/tool", "secret/tool"] if who not in {"nobody", "stranger"} else ["open/tool"]
            assert house(who, "GET", "/v2/_catalog").json()["repositories"] == seen, who
            found = house(who, "GET", "/api/v1/search?q=tool").json()["releases"]
            assert sorted(one["collection"] for one in found) == [one.partition("/")[0] for one in seen]

    def test_pages(self, house: House) -> None:
        page = "/auth/collections/secret"
        assert house.statuses("GET", page) == expected("reader", 200, private=True, robot=403, ci=404)
        rulers = {who: 200 if who in {"admin", "operator"} else 403 for who in house.tokens} | {"nobody": 401}
        assert house.statuses("GET", "/auth/audit") == rulers
        assert house.statuses("POST", page, b"do=visibility&public=yes") == dict.fromkeys(house.tokens, 403)


class TestTokens:
    def test_a_token_never_gives_more_than_its_person_has_now(self, house: House) -> None:
        path = "/v2/secret/tool/blobs/uploads/"
        assert house("contributor", "POST", path, b"").status_code == 202
        roles.set_member(house.database, "secret", "contributor", "reader")
        assert house("contributor", "POST", path, b"").status_code == 403
        roles.remove_member(house.database, "secret", "contributor")
        assert house("contributor", "GET", "/v2/secret/tool/tags/list").status_code == 404
        roles.set_member(house.database, "secret", "contributor", "owner")
        assert house("contributor", "POST", path, b"").status_code == 202

    def test_nor_more_than_its_scopes(self, house: House) -> None:
        token = house.personal("owner", "pull:secret/*")
        assert house(token, "GET", "/v2/secret/tool/tags/list").status_code == 200
        assert house(token, "POST", "/v2/secret/tool/blobs/uploads/", b"").status_code == 403
        assert house(token, "POST", "/v2/open/tool/blobs/uploads/", b"").status_code == 403
        assert house(token, "PUT", "/api/v1/collections/secret/members/stranger", {"role": "owner"}).status_code == 403
        token = house.personal("owner", "delete:secret/*")
        assert house(token, "PUT", "/api/v1/collections/secret/members/stranger", {"role": "owner"}).status_code == 403

    @pytest.mark.parametrize(
        ("own", "wanted", "status"),
        [
            ("pull:secret/*", "push:secret/*", 403),
            ("pull:secret/*", "pull:*", 403),
            ("pull:secret/*", "pull:secret/tool", 201),
            ("push:secret/*", "pull:secret/*", 201),
            ("push:*", "manage:*", 403),
            ("push:*", "push:any/*", 201),
            ("push:secret/tool", "push:secret/*", 403),
            ("push:secret/*", "push:secretive/*", 403),
        ],
    )
    def test_nor_makes_a_greater_one(self, house: House, own: str, wanted: str, status: int) -> None:
        answer = house(house.personal("owner", own), "POST", "/api/v1/tokens", {"name": "x", "scopes": [wanted]})
        assert answer.status_code == status

    def test_an_administrators_small_token_is_small(self, house: House) -> None:
        token = house.personal("admin", "pull:open/*")
        assert house(token, "GET", "/v2/secret/tool/tags/list").status_code == 404
        assert house(token, "GET", "/api/v1/audit").status_code == 403
        assert "secret/tool" not in house(token, "GET", "/v2/_catalog").text

    def test_a_session_of_the_token_endpoint_follows_its_person(self, house: House) -> None:
        session = house("contributor", "GET", "/auth/token").json()["token"]
        assert house(session, "POST", "/v2/secret/tool/blobs/uploads/", b"").status_code == 202
        roles.remove_member(house.database, "secret", "contributor")
        assert house(session, "POST", "/v2/secret/tool/blobs/uploads/", b"").status_code == 403
        accounts.change(house.database, "contributor", active=False)
        assert house(session, "GET", "/v2/open/tool/tags/list").status_code == 401

    def test_a_role_holds_in_its_collection_only(self, house: House) -> None:
        house.shelf.release("secret/inner/tool", "1")
        house.database.set_public("secret/inner", public=False)
        for who in ("reader", "owner", "robot"):
            assert house(who, "GET", "/v2/secret/inner/tool/tags/list").status_code == 404
            assert house(who, "POST", "/v2/secret/inner/tool/blobs/uploads/", b"").status_code == 403
        assert house("admin", "GET", "/v2/secret/inner/tool/tags/list").status_code == 200

    def test_wrong_wishes(self, house: House) -> None:
        for body in (
            {"name": "", "scopes": ["pull:*"]},
            {"name": "x\ny", "scopes": ["pull:*"]},
            {"name": "x", "scopes": []},
            {"name": "x", "scopes": ["fly:*"]},
            {"name": "x", "scopes": ["pull:*"], "days": 0},
            {"name": "x", "scopes": ["pull:*"], "days": 9999},
            {"name": "x", "scopes": ["pull:*"], "more": 1},
            {"name": 1},
            [],
        ):
            assert house("owner", "POST", "/api/v1/tokens", body).status_code == 400, body
        assert house("owner", "POST", "/api/v1/tokens", b"{" * 1000).status_code == 400
        assert house("owner", "POST", "/api/v1/tokens", b" " * 70_000).status_code == 413
        robot = {"name": "x", "actions": ["manage"]}
        assert house("owner", "POST", "/api/v1/collections/secret/tokens", robot).status_code == 400


class TestMembers:
    def test_roles_are_given_and_taken(self, house: House) -> None:
        path = "/api/v1/collections/secret/members"
        assert house("owner", "PUT", f"{path}/stranger", {"role": "reader"}).status_code == 204
        assert house("stranger", "GET", "/v2/secret/tool/tags/list").status_code == 200
        found = {one["name"]: one["role"] for one in house("stranger", "GET", path).json()}
        assert found == {"stranger": "reader", **{role: role for role in ROLES}}
        assert house("owner", "DELETE", f"{path}/stranger").status_code == 204
        assert house("stranger", "GET", path).status_code == 404

    def test_a_collection_keeps_an_owner(self, house: House) -> None:
        path = "/api/v1/collections/secret/members/owner"
        assert house("owner", "DELETE", path).status_code == 409
        assert house("owner", "PUT", path, {"role": "reader"}).status_code == 409
        roles.set_member(house.database, "secret", "reader", "owner")
        assert house("owner", "DELETE", path).status_code == 204

    def test_no_such_person_role_or_collection(self, house: House) -> None:
        with pytest.raises(NotFoundError):
            roles.set_member(house.database, "secret", "none", "reader")
        with pytest.raises(NotFoundError):
            roles.set_member(house.database, "none", "reader", "reader")
        with pytest.raises(UsageError, match="did you mean 'owner'"):
            roles.set_member(house.database, "secret", "reader", "owners")

    def test_what_is_private_looks_like_what_is_not_there(self, house: House) -> None:
        for rest in ("members", "publishers", "webhooks", "tokens", "webhooks/1/deliveries"):
            hidden, missing = (
                house("stranger", "GET", f"/api/v1/collections/{c}/{rest}") for c in ("secret", "absent")
            )
            assert (hidden.status_code, hidden.text.replace("secret", "absent")) == (missing.status_code, missing.text)
        hidden, missing = (house("stranger", "GET", f"/auth/collections/{c}") for c in ("secret", "absent"))
        assert hidden.status_code == missing.status_code == 404
        assert hidden.text.replace("secret", "absent") == missing.text


class TestNewCollections:
    def push(self, house: House, who: str, repository: str) -> int:
        return int(house(who, "POST", f"/v2/{repository}/blobs/uploads/", b"").status_code)

    def test_only_administrators_by_default(self, house: House) -> None:
        assert self.push(house, "owner", "fresh/tool") == 403
        assert self.push(house, "admin", "fresh/tool") == 202
        assert roles.of_person(house.database, house.ids["admin"]) == {"fresh": "owner"}

    def test_everybody_where_the_operator_says_so(self, tmp_path: Path) -> None:
        settings = Settings(create_collections="people", new_collections="private")
        house = House(tmp_path / "hub", settings)
        assert self.push(house, "stranger", "fresh/tool") == 202
        assert roles.of_person(house.database, house.ids["stranger"])["fresh"] == "owner"
        assert not roles.is_public(house.database, "fresh")
        assert self.push(house, "reader", "fresh/tool") == 403
        assert self.push(house, "nobody", "newer/tool") == 401
        small = house.personal("stranger", "push:other/*")
        assert self.push(house, small, "newer/tool") == 403
        assert self.push(house, "robot", "newer/tool") == 403

    def test_below_a_collection_its_owners(self, tmp_path: Path) -> None:
        house = House(tmp_path / "hub", Settings(create_collections="people"))
        assert self.push(house, "stranger", "open/sub/tool") == 403
        assert self.push(house, "maintainer", "open/sub/tool") == 403
        assert self.push(house, "owner", "open/sub/tool") == 202
        assert self.push(house, "stranger", "open/sub/deep/tool") == 403

    def test_by_the_library_api(self, tmp_path: Path) -> None:
        house = House(tmp_path / "hub", Settings(create_collections="people"))
        from computeops.hub.shelf import identity

        assert house("stranger", "GET", "/v1/entities/fresh").status_code == 200
        image = {"hash": "sha256." + "0" * 64, "container": identity("fresh/things/tool")}
        assert house("stranger", "POST", "/v1/images", image).status_code == 201
        assert house("reader", "POST", "/v1/images", image).status_code == 403

    def test_by_the_api(self, house: House) -> None:
        assert house("owner", "PUT", "/api/v1/collections/fresh", {"public": False}).status_code == 403
        assert house("admin", "PUT", "/api/v1/collections/fresh", {"public": False}).status_code == 204
        assert house("stranger", "GET", "/api/v1/collections/fresh/members").status_code == 404
        assert house("admin", "PUT", "/api/v1/collections/Fr esh", {"public": False}).status_code == 400


class TestPeople:
    def test_names(self, house: House) -> None:
        for name in ("", "Ada", "a b", "-a", "a/b", "a" * 61, "../x", "ä"):
            with pytest.raises(UsageError):
                accounts.add(house.database, name)
        with pytest.raises(ConflictError):
            accounts.add(house.database, "reader")

    def test_experts(self, house: House) -> None:
        accounts.set_expert(house.database, "reader", "scientific", "genomics", is_one=True)
        accounts.set_expert(house.database, "reader", "technical", "*", is_one=True)
        assert accounts.find(house.database, "reader").experts == {"scientific": ("genomics",), "technical": ("*",)}
        accounts.set_expert(house.database, "reader", "technical", "*", is_one=False)
        assert accounts.find(house.database, "reader").experts == {"scientific": ("genomics",)}
        with pytest.raises(UsageError, match="did you mean 'technical'"):
            accounts.set_expert(house.database, "reader", "techncal", "x", is_one=True)

    def test_actions_and_roles_are_in_order(self) -> None:
        assert ACTIONS == ("pull", "push", "delete", "manage")
        assert ROLES == ("reader", "contributor", "maintainer", "owner")
