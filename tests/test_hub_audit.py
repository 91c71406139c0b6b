"""The audit log: every write with who, what, when, from where and the result; added to and nothing else; no secrets."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from computeops.hub import audit
from computeops.hub.db import Database
from conftest import RunningHub
from raw_http import Caller
from test_hub_registry import manifest, push, push_blob
from test_hub_roles import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "hub")
    with made.client:
        yield made


def lines(house: House, **asked: Any) -> list[audit.Entry]:
    return audit.lines(house.database, limit=1000, **asked)


def test_what_is_pushed_and_deleted(hub: RunningHub) -> None:
    ada = Caller(hub.address, hub.token("delete:bio/*", name="ada"))
    before = int(time.time())
    push(ada, "/v2/bio/x", "1", manifest(ada, "/v2/bio/x", b"layer"))
    assert ada("DELETE", "/v2/bio/x/manifests/1").status == 202
    assert ada("PUT", "/v2/geo/x/manifests/1", b"{}").status == 403
    database = Database.in_folder(hub.data)
    found = audit.lines(database, limit=100, who="ada")
    database.close()
    said = [(one.action, one.target, one.status) for one in reversed(found)]
    assert ("PUT", "/v2/bio/x/manifests/1", 201) in said
    assert said[-2:] == [("DELETE", "/v2/bio/x/manifests/1", 202), ("PUT", "/v2/geo/x/manifests/1", 403)]
    assert all(one.address == "127.0.0.1" and one.token and one.at >= before for one in found if one.address)


def test_steps_of_an_upload_are_no_lines_but_what_is_stored_is(hub: RunningHub) -> None:
    ada = Caller(hub.address, hub.token("push:bio/*", name="ada"))
    push_blob(ada, "/v2/bio/x", b"data")
    place = ada("POST", "/v2/bio/x/blobs/uploads/", b"").headers["location"]
    ada("PATCH", place, b"more")
    ada("DELETE", place)
    database = Database.in_folder(hub.data)
    stored = [one for one in audit.lines(database, limit=100, who="ada") if "/blobs/" in one.target]
    database.close()
    assert len(stored) == 1
    assert stored[0].status == 201


def test_what_strangers_try_does_not_fill_it(house: House) -> None:
    count = len(lines(house))
    for method, path in (("POST", "/v2/open/tool/blobs/uploads/"), ("DELETE", "/v1/images/open/tool:1"), ("PUT", "/x")):
        house("nobody", method, path, b"")
        house("cops_" + "a" * 209, method, path, b"")
    assert len(lines(house)) == count


def test_reading_is_no_line(house: House) -> None:
    count = len(lines(house))
    for path in ("/", "/v2/open/tool/tags/list", "/api/v1/search?q=x", "/auth/tokens", "/auth/token"):
        house("owner", "GET", path)
    assert len(lines(house)) == count


def test_managing(house: House) -> None:
    house("owner", "PUT", "/api/v1/collections/open/members/stranger", {"role": "reader"})
    secret = house("owner", "POST", "/api/v1/collections/open/tokens", {"name": "bot", "actions": ["push"]}).json()
    url = "https://example.org/hook?key=hidden-in-the-address"
    house("owner", "POST", "/api/v1/collections/open/webhooks", {"url": url})
    house("reader", "DELETE", "/api/v1/collections/open/members/stranger")
    found = [(one.who, one.action, one.target, one.status) for one in reversed(lines(house))]
    assert found == [
        ("owner", "PUT role=reader", "/api/v1/collections/open/members/stranger", 204),
        ("owner", "POST name=bot actions=['push'] days=365", "/api/v1/collections/open/tokens", 201),
        ("owner", "POST url=https://example.org/hook", "/api/v1/collections/open/webhooks", 201),
        ("reader", "DELETE", "/api/v1/collections/open/members/stranger", 403),
    ]
    told = json.dumps([str(one) for one in lines(house)])
    assert secret["secret"] not in told
    assert "hidden" not in told


def test_it_is_only_added_to(house: House) -> None:
    house("owner", "PUT", "/api/v1/collections/open/members/stranger", {"role": "reader"})
    for statement in (sa.update(audit.audit).values(who="nobody"), sa.delete(audit.audit)):
        with pytest.raises(sa.exc.DatabaseError, match="only added to"), house.database.write() as connection:
            connection.execute(statement)
    assert lines(house)[0].who == "owner"


def test_no_write_is_answered_without_its_line(house: House) -> None:
    with house.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the log is full'); END"
        )
    answer = house("owner", "PUT", "/api/v1/collections/open/members/stranger", {"role": "reader"})
    assert answer.status_code == 500
    assert "full" not in answer.text


def test_names_cannot_steer_a_terminal_or_make_lines(house: House) -> None:
    audit.record(house.database, audit.Entry(who="a\x1b[31m\nroot", action="x\r\ny", target="\u2028" * 900))
    entry = lines(house)[0]
    assert (entry.who, entry.action, len(entry.target)) == ("a [31m root", "x  y", 500)


def test_pages_of_it(house: House) -> None:
    for number in range(120):
        audit.record(house.database, audit.Entry(who="ada", action="x", target=f"/t/{number:03}"))
    audit.record(house.database, audit.Entry(who="<script>", action="<b>", target="/100%"))
    first = house("admin", "GET", "/auth/audit").text
    assert "/t/119" in first
    assert "/t/005" not in first
    assert "<script>" not in first
    following = first.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert "/t/005" in house("admin", "GET", following).text
    assert "/t/007" in house("admin", "GET", "/auth/audit?target=t/007").text
    assert "/t/007" not in house("admin", "GET", "/auth/audit?target=%25").text
    told = house("admin", "GET", "/api/v1/audit?limit=2&who=ada").json()
    assert [one["target"] for one in told] == ["/t/119", "/t/118"]
    more = house("admin", "GET", f"/api/v1/audit?limit=1&who=ada&before={told[-1]['id']}").json()
    assert more[0]["target"] == "/t/117"
    assert house("admin", "GET", "/api/v1/audit?limit=x").status_code == 400


def test_commands_on_the_hubs_machine(hub: RunningHub) -> None:
    def hubctl(*argv: str) -> str:
        command = [sys.executable, "-m", "computeops", "hub", *argv, "--data", str(hub.data)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    token = hubctl("user", "add", "ada", "--admin")
    assert Caller(hub.address, token).get("/api/v1/user").json["administrator"] is True
    hubctl("user", "set", "ada", "--no-admin", "--expert", "technical:*")
    assert Caller(hub.address, token).get("/api/v1/user").json["administrator"] is False
    (person,) = json.loads(hubctl("user", "list", "--json"))
    assert person["experts"] == {"technical": ["*"]}
    listed = json.loads(hubctl("token", "list", "--json"))
    assert [(one["kind"], one["owner"]) for one in listed] == [("personal", "ada")]
    hubctl("token", "revoke", str(listed[0]["id"]))
    assert Caller(hub.address, token).get("/api/v1/user").status == 401
    hubctl("collection", "bio", "--private")
    hubctl("member", "set", "bio", "ada", "owner")
    assert "owner" in hubctl("member", "list", "bio")
    number = hubctl("publisher", "add", "bio", "--issuer", "https://gitlab.com", "--project", "lab/x")
    assert "lab/x" in hubctl("publisher", "list", "bio")
    hubctl("publisher", "remove", "bio", number)
    assert hubctl("webhook", "add", "bio", "https://example.org/hook").startswith("whsec_")
    assert "nothing told" in hubctl("webhook", "list", "bio")
    hubctl("webhook", "remove", "bio", "1")
    again = hubctl("user", "token", "ada")
    assert Caller(hub.address, again).get("/api/v1/user").json["collections"] == {"bio": "owner"}
    told = [json.loads(one) for one in hubctl("audit", "--json").splitlines()]
    assert {"add user as administrator", "set member ada owner", "add webhook 1 https://example.org/hook"} <= {
        one["action"] for one in told
    }
    assert all("on the hub's machine" in one["who"] for one in told)
    assert token not in json.dumps(told)
    assert "add user" in hubctl("audit", "--target", "ada")
