"""Trusted publishing: a CI job proves to a hub which project it is of, and gets a short token; CI keeps no secret.

GitLab gives a job its ID token in a variable that `id_tokens` names
(https://docs.gitlab.com/ci/secrets/id_token_authentication/); GitHub gives one to whoever in the job asks
(https://docs.github.com/actions/reference/security/oidc).
"""

import json
from collections.abc import Mapping
from urllib.parse import quote

from computeops.errors import LoginError, NetworkError
from computeops.http import Session

_ANSWER_BYTES = 256 * 1024
_ASK_URL, _ASK_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


def id_token(environ: Mapping[str, str], variable: str, audience: str, session: Session) -> str:
    """Return this job's ID token for `audience`: what `variable` holds, or what GitHub gives; "" if there is none.

    Raises:
        NetworkError: GitHub gives none though it said that it would.
    """
    if token := environ.get(variable, "").strip():
        return token
    address, secret = environ.get(_ASK_URL, ""), environ.get(_ASK_TOKEN, "")
    if not (address and secret):
        return ""
    headers = {"Authorization": f"Bearer {secret}"}
    answer = session.request("GET", f"{address}&audience={quote(audience, safe='')}", headers=headers).expect(200)
    found = answer.json()
    if not isinstance(found, dict) or not isinstance(found.get("value"), str):
        raise NetworkError("GitHub gave no ID token", hint="does the job have `permissions: id-token: write`?")
    return str(found["value"])


def push_token(base: str, token: str, repository: str, session: Session) -> str:
    """Return the token that the hub at `base` gives to the job of the ID token `token`, to push to `repository`.

    Raises:
        LoginError, DeniedError: the hub does not know the job's project, or not for this repository.
    """
    body = json.dumps({"token": token, "repository": repository}).encode()
    headers = {"Content-Type": "application/json"}
    answer = session.request("POST", f"{base}/auth/publish", headers=headers, body=body, limit_bytes=_ANSWER_BYTES)
    found = answer.expect(200).json()
    if not isinstance(found, dict) or not isinstance(found.get("token"), str):
        raise LoginError(f"{base} gave no token to this job")
    return str(found["token"])
