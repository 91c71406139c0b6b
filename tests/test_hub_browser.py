"""A person, a real browser (Chromium), a real OpenID Connect provider (oidc-provider-mock), and the hub between them."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import RunningHub
from raw_http import Caller
from shelf import until

pytestmark = pytest.mark.browser
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """Chromium, driven by the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

    def __init__(self, port: int) -> None:
        self._session = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}
        self._session += "/" + self._ask("", {"capabilities": wanted})["sessionId"]

    def _ask(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._session + path, data, {"Content-Type": "application/json"})
        request.method = method or ("GET" if body is None else "POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self._ask("/url", {"url": address})

    @property
    def address(self) -> str:
        return self._ask("/url")

    @property
    def source(self) -> str:
        return self._ask("/source")

    def find(self, xpath: str) -> str:
        """Return the element, once the page has it: a click answers before the next page is there."""
        found: list[dict[str, str]] = []

        def there() -> bool:
            found.extend(self._ask("/elements", {"using": "xpath", "value": xpath}))
            return bool(found)

        assert until(30, there), f"{self.address} has no {xpath}"
        return found[0][_ELEMENT]

    def click(self, xpath: str) -> None:
        self._ask(f"/element/{self.find(xpath)}/click", {})

    def fill(self, xpath: str, text: str) -> None:
        element = self.find(xpath)
        self._ask(f"/element/{element}/clear", {})
        self._ask(f"/element/{element}/value", {"text": text})

    def text(self, xpath: str) -> str:
        return self._ask(f"/element/{self.find(xpath)}/text")

    def cookies(self) -> list[dict[str, Any]]:
        return self._ask("/cookie")

    def close(self) -> None:
        self._ask("", method="DELETE")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


@pytest.fixture
def browser() -> Iterator[Browser]:
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(20, lambda: answers(f"http://127.0.0.1:{port}/status"))
        made = Browser(port)
        yield made
        made.close()
    finally:
        driver.terminate()
        driver.wait(10)


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
