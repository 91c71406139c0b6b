"""An identity provider on loopback: OpenID Connect with PKCE, GitHub's OAuth 2, and the tokens of CI jobs.

It is real (it checks client, code, redirect address and verifier, and signs with keys of its own) and can be told to
lie as an attacker would: what is put into `claims` replaces what it would say, `key` signs in place of its own.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "the-hub", "s3cret:with/odd chars"


class IdentityProvider:
    """Where people and CI jobs get their tokens from."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys = [RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})]
        self.user: dict[str, Any] = {"sub": "u-1", "preferred_username": "Ada.Lovelace", "name": "Ada Lovelace"}
        self.claims: dict[str, Any] = {}
        self.key: Any = None
        self.algorithm = "RS256"
        self.in_userinfo = False
        self.methods = ["client_secret_basic"]
        self.asked: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()

    def sign(self, claims: dict[str, Any]) -> str:
        key = self.key or self.keys[-1]
        header = {"alg": self.algorithm, **({"kid": key.kid} if getattr(key, "kid", None) else {})}
        return jwt.encode(header, claims, key, algorithms=[self.algorithm])

    def ci_token(self, audience: str, **claims: Any) -> str:
        """The ID token of a CI job."""
        now = int(time.time())
        told = {"iss": self.issuer, "aud": audience, "sub": "job", "iat": now, "nbf": now, "exp": now + 300}
        return self.sign({name: value for name, value in {**told, **claims}.items() if value is not None})

    def authorize(self, asked: dict[str, str]) -> str:
        assert (asked["client_id"], asked["response_type"]) == (CLIENT, "code")
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?" + urllib.parse.urlencode({"code": code, "state": asked["state"]})

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        if authorization:
            pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            client, secret = (urllib.parse.unquote_plus(part) for part in pair.split(":", 1))
        if (client, secret) != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        begun = self.codes.pop(form["code"], None)
        verifier = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        if begun is None or begun["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if verifier.rstrip("=") != begun["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        token = secrets.token_hex(8)
        self.tokens.add(token)
        now = int(time.time())
        told = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": begun.get("nonce")}
        told |= {"sub": self.user["sub"]} if self.in_userinfo else self.user
        given = {"access_token": token, "token_type": "Bearer", "id_token": self.sign({**told, **self.claims})}
        return 200, given

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        """What a GET to an endpoint for programs says."""
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/jwks",
                "token_endpoint_auth_methods_supported": self.methods,
            }
        if path == "/jwks":
            return 200, KeySet(self.keys).as_dict(private=False)
        if authorization.removeprefix("Bearer ") not in self.tokens:
            return 401, {}
        if path == "/userinfo":
            return 200, self.user
        if path == "/api/user":
            return 200, {"id": 583231, "login": "octocat", "name": "The Octocat"}
        return 404, {}


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """Serve one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            provider.asked.append(parts.path)
            if parts.path in {"/authorize", "/login/oauth/authorize"}:
                self.send_response(302)
                self.send_header("Location", provider.authorize(dict(urllib.parse.parse_qsl(parts.query))))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.say(*provider.answer(parts.path, self.headers.get("Authorization", "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            provider.asked.append(self.path)
            form = dict(urllib.parse.parse_qsl(body))
            self.say(*provider.redeem(form, self.headers.get("Authorization", "")))

        def say(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = IdentityProvider(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
