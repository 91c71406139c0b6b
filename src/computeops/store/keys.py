"""Public keys on a hub's key server (HKP), where `apptainer verify` and `apptainer pull` look for them."""

from urllib.parse import urlencode

from computeops.errors import FormatError
from computeops.limits import LIMITS
from computeops.store.oci import Registry


def push(registry: Registry, certificate: str) -> None:
    """Add an ASCII-armored OpenPGP certificate to the key server of the hub behind `registry`.

    Raises:
        FormatError: there is no OpenPGP half in it; LoginError: the hub wants a token.
    """
    if "BEGIN PGP PUBLIC KEY BLOCK" not in certificate:
        raise FormatError("the key has no OpenPGP half, which is what a key server keeps")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    headers |= {"Authorization": registry.login.header} if registry.login else {}
    body = urlencode({"keytext": certificate}).encode()
    answer = registry.session.request(
        "POST", f"{registry.base}/pks/add", headers=headers, body=body, limit_bytes=LIMITS.key_bytes
    )
    answer.expect(200, 201, 202)
