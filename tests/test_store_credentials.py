"""Logins: our file, and those of Podman, Docker and Apptainer as these programs write them."""

import base64
import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from computeops.config import other_credentials
from computeops.errors import FormatError, LoginError, UsageError
from computeops.store.credentials import Credentials, Login, base_url
from servers import docker_registry

CORRECT = "ada:$2y$05$abcdefghijklmnopqrstuuSSgfZSwfwKPbBZRnD5O0VgRw2zVgiZC\n"  # of the password "correct"


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("hub.example.org", "https://hub.example.org"),
        ("https://Hub.Example.org/", "https://hub.example.org"),
        ("http://hub.example.org:8080", "http://hub.example.org:8080"),
        ("hub:5000", "https://hub:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.77", "http://127.0.0.77"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://127.0.0.1:1", "https://127.0.0.1:1"),
        ("127.0.0.1.example.org", "https://127.0.0.1.example.org"),
        ("docker.io", "https://registry-1.docker.io"),
    ],
)
def test_http_only_where_it_was_written_or_on_this_machine(written: str, base: str) -> None:
    assert base_url(written) == base


@pytest.mark.parametrize(
    "written", ["", "ftp://x", "http://", "a b", "x:0", "x:99999", "x:y", "user:pw@host", "host/path", "http://[::1"]
)
def test_what_is_no_hub(written: str) -> None:
    with pytest.raises(UsageError):
        base_url(written)


def test_a_login_is_kept_for_its_address_only_and_hidden_from_others(tmp_path: Path) -> None:
    known = Credentials(tmp_path / "deeper/credentials.json")
    assert known.get("hub.example.org") == ""
    known.set("hub.example.org", "token-1")
    known.set("http://127.0.0.1:5000", "token-2", user="ada")
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
    assert Credentials(known.path).login("https://hub.example.org") == Login("token-1")
    assert Credentials(known.path).login("127.0.0.1:5000") == Login("token-2", "ada")
    for other in ("http://hub.example.org", "hub.example.org:8443", "sub.hub.example.org", "127.0.0.1"):
        assert known.get(other) == ""
    assert known.remove("hub.example.org")
    assert not known.remove("hub.example.org")
    assert known.get("hub.example.org") == ""
    assert [path.name for path in known.path.parent.iterdir()] == ["credentials.json"]


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    known = Credentials(tmp_path / "credentials.json")
    known.set("hub", "token")
    known.path.chmod(0o640)
    with pytest.raises(LoginError) as caught:
        known.get("hub")
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hubs": 3}', "[" * 100_000])
def test_a_broken_file_is_told(tmp_path: Path, text: str) -> None:
    known = Credentials(tmp_path / "credentials.json")
    known.path.write_text(text)
    known.path.chmod(0o600)
    with pytest.raises(FormatError):
        known.get("hub")


@pytest.mark.parametrize("token", ["", "a\nb", "a\r\nX-Header: y", "\x00", "tökén"])
def test_what_can_be_no_token(tmp_path: Path, token: str) -> None:
    with pytest.raises(UsageError):
        Credentials(tmp_path / "credentials.json").set("hub", token)
    assert list(tmp_path.iterdir()) == []


def test_logins_at_the_same_time_lose_none(tmp_path: Path) -> None:
    def one(number: int) -> None:
        Credentials(tmp_path / "credentials.json").set(f"hub{number}:1", f"token{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(20)))
    known = Credentials(tmp_path / "credentials.json")
    assert [known.get(f"hub{number}:1") for number in range(20)] == [f"token{number}" for number in range(20)]


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(Login("secret", "ada"))


def docker(tmp_path: Path, auths: object) -> Credentials:
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    return Credentials(tmp_path / "credentials.json", [tmp_path / "missing.json", tmp_path / "config.json"])


def test_logins_of_docker_are_for_https_and_this_machine(tmp_path: Path) -> None:
    auth = {"auth": base64.b64encode(b"ada:pass:word").decode()}
    known = docker(tmp_path, {"hub.example.org": auth, "https://index.docker.io/v1/": auth, "localhost:5000": auth})
    for hub in ("hub.example.org", "docker.io", "localhost:5000"):
        assert known.login(hub) == Login("pass:word", "ada")
    for hub in ("http://hub.example.org", "example.org", "hub.example.org:443"):
        assert known.login(hub) is None
    known.set("hub.example.org", "ours")
    assert known.get("hub.example.org") == "ours"


@pytest.mark.parametrize(
    "auths", [3, [], {"hub": 3}, {"hub": {}}, {"hub": {"auth": "!"}}, {"hub": {"auth": 3}}, {"hub": {"auth": "YTo="}}]
)
def test_an_odd_file_of_docker_holds_nothing(tmp_path: Path, auths: object) -> None:
    assert docker(tmp_path, auths).login("hub") is None


def test_the_keyring_is_asked_by_the_helper_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin/docker-credential-box"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread -r server\n[ "$1 $server" = "get hub.example.org" ] || { echo "not found"; exit 1; }\n'
        'echo \'{"ServerURL": "hub.example.org", "Username": "ada", "Secret": "from the box"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    for settings in (
        {"auths": {"hub.example.org": {}, "other.example.org": {}}, "credsStore": "box"},
        {"credHelpers": {"hub.example.org": "box", "other.example.org": "box"}},
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        known = Credentials(tmp_path / "credentials.json", [tmp_path / "config.json"])
        assert known.login("hub.example.org") == Login("from the box", "ada")
        assert known.login("other.example.org") is None
        assert known.login("never.example.org") is None
    for wrong in ("missing", "../box", 3):
        (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"hub.example.org": wrong}}))
        assert known.login("hub.example.org") is None


REMOTE = """Active: hub
Remotes:
    first:
        URI: other.example.org
        Token: token-of-other
        System: false
    hub:
        URI: //hub.example.org:8080
        Token: token-of-hub
        Keyservers:
            - URI: https://keys.example.org
    last:
        Token: token-of-nobody
        URI: third.example.org
    none:
        URI: fourth.example.org
"""


def test_tokens_of_apptainer(tmp_path: Path) -> None:
    (tmp_path / "remote.yaml").write_text(REMOTE)
    known = Credentials(tmp_path / "credentials.json", [tmp_path / "remote.yaml"])
    assert known.get("hub.example.org:8080") == "token-of-hub"
    assert known.get("other.example.org") == "token-of-other"
    for hub in ("third.example.org", "fourth.example.org", "keys.example.org", "hub.example.org"):
        assert known.get(hub) == ""


@pytest.mark.apptainer
def test_what_the_real_apptainer_remembers(tmp_path: Path, scientist, hub) -> None:
    """`apptainer remote add` wants a hub on port 80; what it writes is read all the same."""
    token = hub.token("push:bio/*")
    (scientist.home / "token").write_text(token)
    scientist.run(["apptainer", "remote", "add", "--no-login", "mine", "https://hub.example.org"])
    file = scientist.home / ".apptainer/remote.yaml"
    file.write_text(file.read_text().replace("URI: hub.example.org", f"URI: hub.example.org\n        Token: {token}"))
    listed = scientist.run(["apptainer", "remote", "list"]).stdout.decode()
    assert "hub.example.org" in listed
    known = Credentials(tmp_path / "x.json", other_credentials({"HOME": str(scientist.home)}))
    assert known.get("hub.example.org") == token


@pytest.mark.skopeo
@pytest.mark.registry
def test_what_the_real_skopeo_remembers(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", CORRECT) as address:
        environ = {**os.environ, "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        argv = ["skopeo", "login", "--tls-verify=false", "--username=ada", "--password-stdin", address]
        subprocess.run(argv, env=environ, input=b"correct", capture_output=True, check=True)
        known = Credentials(tmp_path / "x.json", other_credentials(environ))
        assert known.login(address) == Login("correct", "ada")
