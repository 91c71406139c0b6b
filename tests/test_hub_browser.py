"""A person, a real browser (Chromium), a real OpenID Connect provider (oidc-provider-mock), and the hub between them."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chromium import Browser, answers, browsing, free_port
from conftest import RunningHub
from raw_http import Caller
from shelf import until

pytestmark = pytest.mark.browser


@pytest.fixture
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@pytest.fixture
def provider() -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    user = json.dumps({"sub": "ada", "name": "Ada Lovelace", "preferred_username": "ada"})
    argv += ["--user-claims", user]
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        assert until(20, lambda: answers(f"{address}/.well-known/openid-configuration"))
        yield address
    finally:
        running.terminate()
        running.wait(10)


def test_a_person_signs_in_makes_a_token_and_pushes(hub: RunningHub, provider: str, browser: Browser) -> None:
    hub.stop()
    (hub.data / "secret").touch(mode=0o600)
    (hub.data / "secret").write_text("a client secret\n")
    (hub.data / "hub.toml").write_text(
        f'create_collections = "people"\n[[providers]]\nname = "lab"\ntitle = "The laboratory"\nclient_id = "hub"\n'
        f'client_secret_file = "secret"\nissuer = "{provider}"\n'
    )
    hub.start()
    browser.open(f"{hub.address}/auth/tokens")
    browser.click("//a[text()='The laboratory']")
    assert browser.address.startswith(provider)
    browser.click("//button[@value='ada']")
    assert until(10, lambda: browser.address == f"{hub.address}/auth/tokens")
    assert "You are" in browser.source
    (session,) = [one for one in browser.cookies() if "session" in one["name"]]
    assert (session["httpOnly"], session["sameSite"]) == (True, "Lax")
    browser.fill("//input[@id='token-name']", "laptop")
    browser.click("//button[text()='Make it']")
    token = browser.text("//pre[@class='secret']")
    assert re.fullmatch(r"cops_[A-Za-z0-9]{200,}", token)
    asked = Caller(hub.address, token)
    assert asked("POST", "/v2/adas/tool/blobs/uploads/", b"").status == 202
    assert asked.get("/api/v1/user").json["collections"] == {"adas": "owner"}
    browser.open(f"{hub.address}/auth/collections/adas")
    browser.click("//button[text()='Make it private']")
    assert until(10, lambda: "Only its members see this collection" in browser.source)
    browser.click("//button[text()='Sign out']")
    assert until(10, lambda: "Sign in" in browser.source)
    browser.open(f"{hub.address}/auth/collections/adas")
    assert "Who are you?" in browser.source


def test_another_site_cannot_send_our_forms(hub: RunningHub, browser: Browser, tmp_path: Any) -> None:
    """CSRF with real cookies in a real browser: the page of an attacker that sends itself."""
    argv = [sys.executable, "-m", "computeops", "hub", "user", "add", "ada", "--data", str(hub.data)]
    token = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    browser.open(f"{hub.address}/auth/tokens")
    browser.fill("//input[@id='token']", token)
    browser.click("//button[contains(., 'Sign in for an hour')]")
    browser.open(f"{hub.address}/auth/tokens")
    assert "You are" in browser.source
    evil = tmp_path / "evil.html"
    evil.write_text(
        f"<!doctype html><form method=post action='{hub.address}/auth/logout'></form>"
        "<script>document.forms[0].submit()</script>"
    )
    browser.open(evil.as_uri())
    assert until(10, lambda: browser.address.startswith(hub.address))
    time.sleep(0.2)
    browser.open(f"{hub.address}/auth/tokens")
    assert "You are" in browser.source
