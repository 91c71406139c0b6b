"""The settings of a hub: strict, with what to write instead, and secrets that nobody else can read."""

import tomllib
from pathlib import Path

import pytest

from computeops.errors import UsageError
from computeops.hub import settings
from computeops.hub.settings import DEFAULT, load, parse, secure

PROVIDER = '[[providers]]\nname = "lab"\nclient_id = "hub"\nissuer = "https://login.example.org"\n'


def read(text: str) -> settings.Settings:
    return parse(tomllib.loads(text), "hub.toml")


def test_a_hub_without_settings(tmp_path: Path) -> None:
    found, secrets = load(tmp_path / "hub.toml", {})
    assert found is DEFAULT
    assert secrets.of("any") == ""
    assert (found.create_collections, found.new_collections) == ("administrators", "public")
    assert [one.kind for one in found.ci] == ["gitlab", "github"]


def test_what_is_set() -> None:
    found = read('create_collections = "people"\naudience = "x"\n' + PROVIDER)
    assert (found.create_collections, found.providers[0].name) == ("people", "lab")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('creat_collections = "people"', "unknown key creat_collections (did you mean 'create_collections'?)"),
        ('create_collections = "all"', "create_collections"),
        ('webhooks_to_private_addresses = "yes"', "webhooks_to_private_addresses"),
        (
            PROVIDER + 'client_secret = "x"',
            "unknown key providers[1].client_secret (did you mean 'client_secret_env'?)",
        ),
        (PROVIDER + PROVIDER, "two providers are called 'lab'"),
        (PROVIDER + 'kind = "ldap"', "providers[1].kind"),
        (PROVIDER.replace("https:", "http:"), "not an https address: http://login.example.org"),
        (PROVIDER.replace('issuer = "https://login.example.org"', ""), "lab has no issuer"),
        (PROVIDER.replace('"lab"', '"La b"'), "providers[1].name"),
        (PROVIDER.replace('client_id = "hub"', ""), "client_id"),
        (PROVIDER + 'client_secret_file = "a"\nclient_secret_env = "B"', "one is enough"),
        ('[[ci]]\nissuer = "http://ci.example.org"\nkind = "gitlab"', "ci: not an https address"),
        ('[[ci]]\nissuer = "https://ci.example.org"', "kind"),
        ("providers = 3", "providers"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.message.startswith("hub.toml: ")
    assert said in caught.value.message


@pytest.mark.parametrize("data", [b"= 1", b"\xff\xfe", b"x" * 2_000_000, b"a = [" * 5000])
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "hub.toml").write_bytes(data)
    with pytest.raises(UsageError):
        load(tmp_path / "hub.toml", {})


def test_a_secret_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(PROVIDER + 'client_secret_file = "secret"')
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "hub.toml", {})
    file = tmp_path / "secret"
    file.write_text(" s3cret\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="others can read") as caught:
        load(tmp_path / "hub.toml", {})
    assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    found, secrets = load(tmp_path / "hub.toml", {})
    assert secrets.of("lab") == "s3cret"
    assert "s3cret" not in repr(found) + repr(secrets)
    file.write_text("\n")
    with pytest.raises(UsageError, match="no secret"):
        load(tmp_path / "hub.toml", {})


def test_a_secret_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(PROVIDER + 'client_secret_env = "LAB_SECRET"')
    assert load(tmp_path / "hub.toml", {"LAB_SECRET": "s3cret"})[1].of("lab") == "s3cret"
    with pytest.raises(UsageError, match="LAB_SECRET"):
        load(tmp_path / "hub.toml", {})


@pytest.mark.parametrize(
    ("address", "is_secure"),
    [
        ("https://example.org", True),
        ("https://example.org:8443/realms/x", True),
        ("http://127.0.0.1:9400", True),
        ("http://localhost", True),
        ("http://example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("https://user@example.org", False),
        ("https://example.org?x=1", False),
        ("https://example.org#x", False),
        ("https://", False),
        ("ftp://example.org", False),
        ("https://[::1", False),
    ],
)
def test_secure_addresses(address: str, is_secure: bool) -> None:
    assert secure(address) is is_secure
