"""The key server as Apptainer asks it."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from pysequoia import Cert, Tsk

from conftest import RunningHub
from raw_http import Answer, Caller


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    running = RunningHub(tmp_path_factory.mktemp("keys") / "hub").start()
    yield running
    log = running.log()
    running.stop()
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def ada(shared: RunningHub) -> Caller:
    return Caller(shared.address, shared.token("pull:*", name="ada"))


def new(user: str) -> tuple[Tsk, Cert]:
    secret = Tsk.generate(user_id=user)
    return secret, secret.extract_certificate()


def add(caller: Caller, text: str) -> Answer:
    return caller("POST", "/pks/add", f"keytext={quote(text)}", {"Content-Type": "application/x-www-form-urlencoded"})


def get(caller: Caller, search: str, operation: str = "get") -> Answer:
    return caller.get(f"/pks/lookup?op={operation}&options=mr&exact=on&search={quote(search)}")


def test_there_and_back(ada: Caller, shared: RunningHub) -> None:
    _, cert = new("Ada Lovelace <ada@example.org>")
    assert add(ada, str(cert)).status == 200
    fingerprint = cert.fingerprint
    stranger = Caller(shared.address)
    for digits in (fingerprint, fingerprint[-16:], fingerprint[-8:], fingerprint.upper()):
        found = get(stranger, f"0x{digits}")
        assert found.status == 200
        assert Cert.from_bytes(found.body).fingerprint == fingerprint
        assert found.headers["content-type"].startswith("application/pgp-keys")


def test_a_subkey_leads_to_its_key(ada: Caller) -> None:
    from pysequoia.packet import PacketPile, Tag

    _, cert = new("Sub <sub@example.org>")
    add(ada, str(cert))
    subkeys = [packet for packet in PacketPile.from_bytes(bytes(cert)) if packet.tag == Tag.PublicSubkey]
    assert subkeys
    for packet in subkeys:
        assert Cert.from_bytes(get(ada, f"0x{packet.key_id}").body).fingerprint == cert.fingerprint


def test_zeros_in_front_of_an_id_may_be_missing(ada: Caller) -> None:
    for _ in range(2000):
        _, cert = new("Zero <zero@example.org>")
        if cert.fingerprint[-16] == "0":
            break
    add(ada, str(cert))
    assert get(ada, f"0x{int(cert.fingerprint[-16:], 16):x}").status == 200


def test_index(ada: Caller, shared: RunningHub) -> None:
    _, cert = new("Émilie du Châtelet <emilie@example.org>")
    add(ada, str(cert))
    for search in ("châtelet", "EMILIE@example", f"0x{cert.fingerprint[-16:]}"):
        lines = get(Caller(shared.address), search, "index").body.decode().splitlines()
        assert lines[0] == "info:1:1"
        kind, fingerprint, algorithm, bits, created, _, flags = lines[1].split(":")
        assert (kind, fingerprint, bits, flags) == ("pub", cert.fingerprint.upper(), "256", "")
        assert int(algorithm) > 0
        assert int(created) > 1_700_000_000
        assert lines[2].startswith("uid:%C3%89milie%20du%20Ch%C3%A2telet%20%3Cemilie%40example.org%3E:")


def test_nothing_found(ada: Caller) -> None:
    for operation, search in (("get", "0x" + "0" * 40), ("index", "nobody"), ("index", "%"), ("get", "no hex")):
        assert get(ada, search, operation).status == 404
    for query in ("op=get", "op=delete&search=x", "search=x", "op=index&search=" + "x" * 300):
        assert ada.get(f"/pks/lookup?{query}").status == 400


def test_adding_again_adds_only(ada: Caller) -> None:
    secret, cert = new("Grace <grace@example.org>")
    add(ada, str(cert))
    revoked = Cert.from_bytes(bytes(cert) + bytes(cert.revoke(secret.certifier())))
    assert add(ada, str(revoked)).status == 200
    assert add(ada, str(cert)).status == 200  # the old one takes nothing back
    assert Cert.from_bytes(get(ada, f"0x{cert.fingerprint}").body).is_revoked
    assert get(ada, "grace", "index").body.decode().splitlines()[1].endswith(":r")


def test_a_token_is_needed(shared: RunningHub) -> None:
    _, cert = new("Mallory <mallory@example.org>")
    assert add(Caller(shared.address), str(cert)).status == 401
    assert add(Caller(shared.address, "x"), str(cert)).status == 401
    assert get(Caller(shared.address), "mallory", "index").status == 404


def test_refused(ada: Caller) -> None:
    secret, cert = new("Eve <eve@example.org>")
    _, other = new("Eve <eve2@example.org>")
    from pysequoia import ArmorKind, armor

    two = armor(bytes(cert) + bytes(other), ArmorKind.PublicKey)
    for text in ("", "nonsense", str(cert)[:200], armor(bytes(secret), ArmorKind.SecretKey), two):
        answer = add(ada, text if isinstance(text, str) else text.decode())
        assert answer.status == 422, text
    assert add(ada, "x" * 400_000).status == 413
    assert ada("POST", "/pks/add", b"x" * 2_000_000).status == 413
    assert get(ada, "eve", "index").status == 404
