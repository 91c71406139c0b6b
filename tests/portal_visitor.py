"""A browser without pictures: pages, forms as our own pages send them, sign-in at a provider."""

import re
import urllib.request
from html import unescape
from typing import Any

from starlette.testclient import TestClient


class Visitor(TestClient):
    """Somebody who visits the portal with a cookie jar of their own."""

    def form(self, path: str, **fields: str) -> Any:
        """Send the form at `path` as the page that has it would."""
        return self.post(path, data={"form": self.signature(), **fields}, follow_redirects=False)

    def signature(self) -> str:
        found = re.search(r'name="form" value="([^"]+)"', self.get("/auth/tokens").text)
        assert found
        return unescape(found[1])

    def sign_in(self, provider: str = "lab", onward: str = "/") -> Any:
        """Go to the provider, come back, and return the answer to that."""
        return self.get(self.to_provider(provider, onward), follow_redirects=False)

    def to_provider(self, provider: str = "lab", onward: str = "/") -> str:
        """Go to the provider; return the address that it sends the browser back to."""
        sent = self.get(f"/auth/login/{provider}", params={"next": onward}, follow_redirects=False)
        assert sent.status_code == 303, sent.text
        request = urllib.request.Request(sent.headers["location"])
        opener = urllib.request.build_opener(_Stay)
        try:
            opener.open(request, timeout=10)
        except urllib.error.HTTPError as answer:
            answer.close()
            return answer.headers["Location"]
        raise AssertionError("the provider did not send the browser back")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
