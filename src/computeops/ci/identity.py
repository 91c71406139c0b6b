"""The ID token of a CI job, by which a hub that trusts its project gives it a short token to push; CI keeps no secret.

GitLab gives a job its ID token in a variable that `id_tokens` names
(https://docs.gitlab.com/ci/secrets/id_token_authentication/); GitHub gives one to whoever in the job asks
(https://docs.github.com/actions/reference/security/oidc).
"""

from collections.abc import Mapping
from urllib.parse import quote

from computeops.errors import NetworkError
from computeops.http import Session

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
