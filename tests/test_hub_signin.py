"""Signing in: at a provider of each kind, with a token, and every way in which somebody else could."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from computeops.hub import accounts
from computeops.hub.app import create_app
from computeops.hub.db import Database
from computeops.hub.settings import Provider, Secrets, Settings
from computeops.hub.signin import local
from identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider
from portal_visitor import Visitor

BASE = "https://hub.example.org"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database.in_folder(tmp_path / "hub")
    yield found
    found.close()


Open = Callable[..., Visitor]


@pytest.fixture
def visit(tmp_path: Path, provider: IdentityProvider) -> Iterator[Open]:
    (tmp_path / "hub").mkdir(mode=0o700)
    named = Provider(name="lab", client_id=CLIENT, issuer=provider.issuer, title="The laboratory")
    other = Provider(name="other", client_id=CLIENT, issuer="https://other.example.org")
    github = Provider(
        name="github", kind="github", client_id=CLIENT, issuer=provider.issuer, api=f"{provider.issuer}/api"
    )
    settings = Settings(providers=(named, other, github))
    app = create_app(tmp_path / "hub", base=BASE, settings=settings, secrets=Secrets({"lab": SECRET, "github": SECRET}))
    opened: list[TestClient] = []

    def visitor() -> Visitor:
        opened.append(Visitor(app, base_url=BASE))
        return opened[-1]

    with Visitor(app, base_url=BASE):  # the hub runs as long as this
        yield visitor


@pytest.fixture
def visitor(visit: Open) -> Visitor:
    return visit()


def name(visitor: TestClient) -> str:
    """Whom the hub takes the visitor for."""
    page = visitor.get("/auth/tokens").text
    return page.partition("<bdi>")[2].partition("</bdi>")[0] if "You are <strong>" in page else ""


class TestAtAProvider:
    def test_who_comes_gets_an_account(self, visitor: Visitor, database: Database) -> None:
        assert "The laboratory" in visitor.get("/auth/tokens").text
        answer = visitor.sign_in(onward="/auth/tokens")
        assert (answer.status_code, answer.headers["location"]) == (303, "/auth/tokens")
        cookie = next(c for c in answer.headers.get_list("set-cookie") if "session" in c).lower()
        assert all(word in cookie for word in ("__host-", "httponly", "samesite=lax", "secure", "path=/"))
        assert name(visitor) == "ada-lovelace"
        person = accounts.find(database, "ada-lovelace")
        assert (person.title, person.administrator, person.active) == ("Ada Lovelace", False, True)

    def test_the_same_person_comes_back(self, visit: Open, database: Database, provider: IdentityProvider) -> None:
        visit().sign_in()
        provider.user["preferred_username"] = "lovelace"  # renamed there
        again = visit()
        again.sign_in()
        assert name(again) == "ada-lovelace"
        assert len(accounts.everybody(database)) == 1

    def test_a_namesake_is_somebody_else(self, visit: Open, database: Database, provider: IdentityProvider) -> None:
        accounts.add(database, "ada-lovelace", administrator=True)
        visitor = visit()
        visitor.sign_in()
        assert name(visitor) == "ada-lovelace-2"
        assert not accounts.find(database, "ada-lovelace-2").administrator
        third = visit()
        third.sign_in("github")
        assert name(third) == "octocat"

    def test_the_same_subject_at_another_provider_is_somebody_else(
        self, visit: Open, database: Database, provider: IdentityProvider
    ) -> None:
        accounts.signed_in(database, issuer="https://other.example.org", subject="u-1", login="boss", title="")
        visitor = visit()
        visitor.sign_in()
        assert name(visitor) == "ada-lovelace"

    def test_the_name_may_be_in_userinfo_only(self, visitor: Visitor, provider: IdentityProvider) -> None:
        provider.in_userinfo = True
        visitor.sign_in()
        assert name(visitor) == "ada-lovelace"

    def test_a_client_may_have_to_post_its_secret(self, visitor: Visitor, provider: IdentityProvider) -> None:
        provider.methods = ["client_secret_post"]
        visitor.sign_in()
        assert name(visitor) == "ada-lovelace"

    def test_new_keys_of_the_provider_are_fetched(
        self, visit: Open, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visit().sign_in()
        provider.keys.append(RSAKey.generate_key(2048, {"kid": "2", "use": "sig"}))
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        again = visit()
        again.sign_in()
        assert name(again) == "ada-lovelace"

    def test_signing_out_ends_also_a_copied_cookie(self, visit: Open) -> None:
        visitor, thief = visit(), visit()
        visitor.sign_in()
        thief.cookies.update(visitor.cookies)
        assert name(thief) == "ada-lovelace"
        assert visitor.form("/auth/logout").status_code == 303
        assert name(visitor) == name(thief) == ""

    def test_a_closed_account_is_out_at_once(self, visitor: Visitor, database: Database) -> None:
        visitor.sign_in()
        accounts.change(database, "ada-lovelace", active=False)
        assert name(visitor) == ""
        assert visitor.sign_in().status_code == 403

    def test_the_cookie_of_a_browser_is_no_token(self, visitor: Visitor) -> None:
        visitor.sign_in()
        secret = next(value for key, value in visitor.cookies.items() if "session" in key)
        visitor.cookies.clear()
        for path in ("/api/v1/user", "/v2/", "/auth/token"):
            assert visitor.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code == 401


class TestAttacks:
    """Nobody but the browser that began is signed in, and only by a genuine token of that provider."""

    def refused(self, visitor: Visitor, answer: Any, *statuses: int) -> None:
        assert answer.status_code in (statuses or (401, 403))
        assert not any("session=" in one for one in answer.headers.get_list("set-cookie"))
        assert name(visitor) == ""

    def test_login_csrf_by_a_link(self, visit: Open) -> None:
        """The attacker's code, sent to a victim, would sign the victim in as the attacker."""
        attacker, victim = visit(), visit()
        link = attacker.to_provider()
        self.refused(victim, victim.get(link, follow_redirects=False))
        victim.to_provider()  # also in the middle of a sign-in of their own
        self.refused(victim, victim.get(link, follow_redirects=False))

    def test_login_csrf_by_a_form(self, visit: Open, database: Database, tmp_path: Path) -> None:
        from computeops.hub.auth import Auth, Scope

        token = Auth(database, tmp_path / "hub").issue("attacker", [Scope.parse("pull:*")], days=1)
        attacker, victim = visit(), visit()
        signature = attacker.signature()
        for form in ({"token": token}, {"token": token, "form": ""}, {"token": token, "form": signature}):
            self.refused(victim, victim.post("/auth/login", data=form, follow_redirects=False), 403)
        victim.get("/auth/tokens")
        self.refused(victim, victim.post("/auth/login", data={"token": token, "form": signature}), 403)
        own = {"token": token, "form": victim.signature()}
        cross = victim.post("/auth/login", data=own, headers={"Sec-Fetch-Site": "cross-site"})
        self.refused(victim, cross, 403)
        assert victim.post("/auth/login", data=own, follow_redirects=False).status_code == 303

    def test_a_code_is_good_once(self, visit: Open) -> None:
        visitor = visit()
        link = visitor.to_provider()
        assert visitor.get(link, follow_redirects=False).status_code == 303
        visitor.form("/auth/logout")
        self.refused(visitor, visitor.get(link, follow_redirects=False))

    def test_the_code_of_another_sign_in(self, visitor: Visitor) -> None:
        first, second = visitor.to_provider(), visitor.to_provider()
        code = first.partition("code=")[2].partition("&")[0]
        mixed = second.replace(second.partition("code=")[2].partition("&")[0], code)
        self.refused(visitor, visitor.get(mixed, follow_redirects=False))  # PKCE: the verifier is of the second

    @pytest.mark.parametrize("change", ["", "x", "0" * 43])
    def test_a_forged_state(self, visitor: Visitor, change: str) -> None:
        link = visitor.to_provider()
        state = link.partition("state=")[2]
        self.refused(visitor, visitor.get(link.replace(state, change), follow_redirects=False))

    def test_a_forged_cookie(self, visitor: Visitor) -> None:
        link = visitor.to_provider()
        kept = next(value for key, value in visitor.cookies.items() if "login" in key)
        text, _, signature = kept.rpartition(".")
        for forged in ("", "x", f"{text}.", f"{text[:-4]}.{signature}", f"x{kept}", f"{text}.{'0' * 64}"):
            visitor.cookies.clear()
            headers = {"Cookie": f"__Host-computeops_login={forged}"}
            self.refused(visitor, visitor.get(link, headers=headers, follow_redirects=False))

    def test_a_sign_in_that_took_too_long(self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        link = visitor.to_provider()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 601)
        self.refused(visitor, visitor.get(link, follow_redirects=False))

    def test_another_provider_answers(self, visitor: Visitor) -> None:
        link = visitor.to_provider()
        self.refused(visitor, visitor.get(link.replace("/callback/lab", "/callback/other"), follow_redirects=False))
        link = visitor.to_provider()
        self.refused(visitor, visitor.get(f"{link}&iss=https://other.example.org", follow_redirects=False))

    def test_the_provider_says_no(self, visitor: Visitor) -> None:
        link = visitor.to_provider()
        state = link.partition("state=")[2]
        answer = visitor.get(
            f"/auth/callback/lab?error=access_denied%3Cscript%3E&state={state}", follow_redirects=False
        )
        self.refused(visitor, answer, 401)
        assert "<script>" not in answer.text

    @pytest.mark.parametrize(
        "claims",
        [
            {"nonce": "another"},
            {"nonce": None},
            {"aud": "another-client"},
            {"aud": ["another-client"]},
            {"aud": None},
            {"aud": [CLIENT, "another"], "azp": "another"},
            {"iss": "https://evil.example.org"},
            {"iss": None},
            {"exp": 1},
            {"exp": None},
            {"exp": "9999999999"},
            {"iat": 9_999_999_999},
            {"iat": None},
            {"nbf": 9_999_999_999},
            {"sub": ""},
            {"sub": None},
            {"sub": 7},
        ],
    )
    def test_a_token_that_does_not_hold(
        self, visitor: Visitor, provider: IdentityProvider, claims: dict[str, Any]
    ) -> None:
        provider.claims = claims
        self.refused(visitor, visitor.sign_in(), 401)

    def test_a_token_signed_by_somebody_else(self, visitor: Visitor, provider: IdentityProvider) -> None:
        provider.key = RSAKey.generate_key(2048, {"kid": "1"})
        self.refused(visitor, visitor.sign_in(), 401)

    def test_a_token_signed_with_what_everybody_can_read(self, visitor: Visitor, provider: IdentityProvider) -> None:
        genuine, pem = provider.sign, provider.keys[0].as_pem(private=False)

        def with_public_key(claims: dict[str, Any]) -> str:
            text = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ." + genuine(claims).split(".")[1]
            made = hmac.new(pem, text.encode(), hashlib.sha256).digest()
            return f"{text}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"

        provider.sign = with_public_key  # type: ignore[method-assign]  an attacker's provider
        self.refused(visitor, visitor.sign_in(), 401)

    def test_a_token_without_signature(self, visitor: Visitor, provider: IdentityProvider) -> None:
        genuine = provider.sign

        def unsigned(claims: dict[str, Any]) -> str:
            return "eyJhbGciOiJub25lIn0." + genuine(claims).split(".")[1] + "."

        provider.sign = unsigned  # type: ignore[method-assign]  an attacker's provider
        self.refused(visitor, visitor.sign_in(), 401)

    def test_forged_tokens_do_not_flood_the_provider(self, visitor: Visitor, provider: IdentityProvider) -> None:
        provider.key = RSAKey.generate_key(2048, {"kid": "unknown"})
        for _ in range(5):
            visitor.sign_in()
        assert provider.asked.count("/jwks") <= 2

    @pytest.mark.parametrize(
        "place",
        [
            "//evil.example.org",
            "https://evil.example.org",
            "/\\evil.example.org",
            "/%5cevil.example.org",
            "\\\\evil",
            "javascript:alert(1)",
            "/x\r\nSet-Cookie: a=b",
            "/\t/evil.example.org",
            "///evil",
            "evil",
            "",
            "/" + "x" * 3000,
        ],
    )
    def test_open_redirects(self, visitor: Visitor, place: str) -> None:
        assert local(place) == "/"
        answer = visitor.sign_in(onward=place)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")

    def test_a_path_of_the_hub_is_kept(self) -> None:
        assert local("/bio/samtools/1.21?arch=arm64") == "/bio/samtools/1.21?arch=arm64"

    def test_an_unknown_provider(self, visitor: Visitor) -> None:
        for path in ("/auth/login/none", "/auth/callback/none?code=x&state=y"):
            assert visitor.get(path).status_code == 404

    def test_a_provider_that_is_down(self, visitor: Visitor) -> None:
        assert visitor.get("/auth/login/other", follow_redirects=False).status_code == 502

    def test_secrets_are_in_no_page_and_no_text(self, visitor: Visitor) -> None:
        visitor.sign_in()
        assert SECRET not in visitor.get("/auth/tokens").text
        assert SECRET not in repr(Secrets({"lab": SECRET}))


class TestForms:
    """CSRF: no form works without the signature of the session that sends it."""

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("/auth/tokens", {"do": "new", "name": "x", "action": "push", "pattern": "*", "days": "9"}),
            ("/auth/tokens", {"do": "revoke", "token": "1"}),
            ("/auth/collections/bio", {"do": "set member", "person": "mallory", "role": "owner"}),
            ("/auth/collections/bio", {"do": "visibility", "public": "yes"}),
            ("/auth/logout", {}),
        ],
    )
    def test_without_or_with_a_foreign_signature(self, visit: Open, path: str, fields: dict[str, str]) -> None:
        visitor, attacker = visit(), visit()
        visitor.sign_in()
        for signature in (None, "", "x", attacker.signature()):
            form = fields if signature is None else {**fields, "form": signature}
            assert visitor.post(path, data=form, follow_redirects=False).status_code == 403
        assert name(visitor) == "ada-lovelace"

    def test_personal_tokens_on_the_page(self, visitor: Visitor) -> None:
        visitor.sign_in()
        page = visitor.form("/auth/tokens", do="new", name="laptop", action="pull", pattern="bio/*", days="9")
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        token = page.text.partition('<pre class="secret" tabindex="0"><code>')[2].partition("<")[0]
        assert len(token) >= 200
        own = {"Authorization": f"Bearer {token}"}
        said = visitor.get("/api/v1/user", headers=own).json()
        assert (said["name"], said["scopes"]) == ("ada-lovelace", ["pull:bio/*"])
        assert token not in visitor.get("/auth/tokens").text
        (entry,) = visitor.get("/api/v1/tokens", headers=own).json()
        assert visitor.form("/auth/tokens", do="revoke", token=str(entry["id"])).status_code == 303
        assert visitor.get("/api/v1/user", headers=own).status_code == 401

    def test_a_token_is_not_revoked_by_another_person(self, visit: Open, provider: IdentityProvider) -> None:
        visitor = visit()
        visitor.sign_in()
        visitor.form("/auth/tokens", do="new", name="laptop", action="pull", pattern="*", days="9")
        provider.user = {"sub": "u-2", "preferred_username": "mallory"}
        mallory = visit()
        mallory.sign_in()
        for number in range(1, 9):
            assert mallory.form("/auth/tokens", do="revoke", token=str(number)).status_code == 404
        assert name(visitor) == "ada-lovelace"
        assert "laptop" in visitor.get("/auth/tokens").text
