"""Chromium as a person uses it, driven by the WebDriver protocol."""

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shelf import until

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
        self._do(xpath, "click", {})

    def fill(self, xpath: str, text: str) -> None:
        self._do(xpath, "clear", {})
        self._do(xpath, "value", {"text": text})

    def choose(self, xpath: str, file: Path) -> None:
        """Choose a file for an upload."""
        self._do(xpath, "value", {"text": str(file)})

    def text(self, xpath: str) -> str:
        return self._do(xpath, "text")

    def _do(self, xpath: str, deed: str, body: dict[str, Any] | None = None) -> Any:
        """Do something to an element; a page that comes anew by itself may just have replaced it."""
        for _ in range(10):
            with suppress(urllib.error.HTTPError):
                return self._ask(f"/element/{self.find(xpath)}/{deed}", body)
        raise AssertionError(f"{self.address} does not let us {deed} {xpath}")

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


@contextmanager
def browsing() -> Iterator[Browser]:
    """Give a browser of its own, which nobody is signed in with."""
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
