"""Trusted publishing, the client's side: the OIDC token of a CI job for a short push token of a hub."""

import json

from computeops.errors import NetworkError
from computeops.http import Session
from computeops.limits import LIMITS


def push_token(base: str, oidc_token: str, repository: str) -> str:
    """Return a token that may push to `repository` of the hub at `base` for a quarter of an hour.

    Raises:
        LoginError: the hub does not accept the token of the job.
        DeniedError: nobody bound the job's project to this repository.
        NetworkError: the hub does not answer, or not as it must.
    """
    body = json.dumps({"token": oidc_token, "repository": repository}).encode()
    headers = {"Content-Type": "application/json"}
    with Session() as session:
        answer = session.request(
            "POST", f"{base}/auth/publish", headers=headers, body=body, limit_bytes=LIMITS.token_answer_bytes
        )
    found = answer.expect(200).json()
    token = found.get("token") if isinstance(found, dict) else None
    if not isinstance(token, str):
        raise NetworkError(f"{base} gave no token")
    return token
