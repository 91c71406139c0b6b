"""DSSE envelopes: canonical writing, strict reading, and that nothing but what was signed verifies."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import DeniedError, FormatError, LimitError, TrustError
from computeops.limits import LIMITS
from computeops.model import IN_TOTO_PAYLOAD, Digest, Evidence, Signature, Signed
from computeops.sign import dsse
from computeops.sign.key import Key

BAD = Path(__file__).parent / "bad/sign/envelopes"
KIND = "https://in-toto.io/attestation/test-result/v0.1"
ADA, BOB = Key.generate("ada"), Key.generate("bob")
KEYS = {ADA.keyid: ADA, BOB.keyid: BOB}
ONE = Evidence(KIND, {"sif": Digest.of(b"s"), "image": Digest.of(b"i")}, {"result": "PASSED"})


def public(*keys: Key) -> Mapping[str, Key]:
    return {key.keyid: Key.read(key.name, key.public_text()) for key in keys}


def test_a_statement_is_canonical_and_as_in_toto_writes_it() -> None:
    payload = dsse.statement(ONE)
    assert payload == dsse.statement(replace(ONE, subjects=dict(reversed(ONE.subjects.items()))))
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "image", "digest": {"sha256": Digest.of(b"i").hex}},
            {"name": "sif", "digest": {"sha256": Digest.of(b"s").hex}},
        ],
        "predicateType": KIND,
        "predicate": {"result": "PASSED"},
    }
    assert b" " not in payload


def test_equal_evidence_gives_equal_bytes_and_signatures() -> None:
    assert dsse.sign(ONE, ADA) == dsse.sign(ONE, ADA)


def test_what_is_signed_verifies_with_the_public_half_alone() -> None:
    signed = dsse.sign(ONE, ADA)
    assert dsse.verify(signed, public(ADA)) == (ONE, {ADA.keyid})
    assert dsse.verify(Signed.from_json(json.loads(json.dumps(signed.as_json()))), public(ADA, BOB))[1] == {ADA.keyid}


def test_several_people_sign_one_envelope() -> None:
    both = dsse.add_signature(dsse.sign(ONE, ADA), BOB)
    assert dsse.verify(both, public(ADA, BOB))[1] == {ADA.keyid, BOB.keyid}
    assert dsse.verify(both, public(BOB))[1] == {BOB.keyid}
    assert dsse.add_signature(both, BOB) == both
    assert len(dsse.add_signature(both, ADA).signatures) == 2


def test_strangers_sign_for_nothing() -> None:
    for signed in (dsse.sign(ONE, BOB), Signed(dsse.statement(ONE), IN_TOTO_PAYLOAD)):
        with pytest.raises(TrustError, match="no key of these is known"):
            dsse.verify(signed, public(ADA))
        assert dsse.signers(signed, public(ADA)) == frozenset()


def test_a_signature_in_a_known_name_that_does_not_hold_is_an_error_whatever_else_is_there() -> None:
    good = dsse.sign(ONE, ADA)
    forged = Signature(ADA.keyid, BOB.sign(good.message))
    for signatures in ((forged,), (*good.signatures, forged), (forged, *good.signatures), (Signature(ADA.keyid, b""),)):
        with pytest.raises(TrustError, match="in the name of key ada"):
            dsse.verify(replace(good, signatures=signatures), public(ADA))


def test_one_key_is_one_signer_however_often_it_stands_there() -> None:
    good = dsse.sign(ONE, ADA)
    assert dsse.signers(replace(good, signatures=good.signatures * 5), public(ADA)) == {ADA.keyid}
    # The keyring given under wrong ids changes nothing: ids are computed from the keys.
    again = {"x": ADA, "y": replace(ADA, name="other"), BOB.keyid: ADA}
    assert dsse.signers(good, again) == {ADA.keyid}
    assert dsse.signers(dsse.sign(ONE, BOB), again) == frozenset()


def test_the_payload_type_is_signed_too() -> None:
    good = dsse.sign(ONE, ADA)
    moved = replace(good, payload_type="application/vnd.sylabs.sif-metadata+json")
    with pytest.raises(FormatError):
        dsse.verify(moved, public(ADA))
    with pytest.raises(TrustError):
        dsse.signers(moved, public(ADA))


@given(st.data())
def test_no_changed_byte_verifies(data: st.DataObject) -> None:
    good = dsse.sign(ONE, ADA)
    where = data.draw(st.sampled_from(["payload", "signature"]))
    bytes_ = bytearray(good.payload if where == "payload" else good.signatures[0].sig)
    at = data.draw(st.integers(0, len(bytes_) - 1))
    bytes_[at] ^= data.draw(st.integers(1, 255))
    if where == "payload":
        bad = replace(good, payload=bytes(bytes_))
    else:
        bad = replace(good, signatures=(Signature(ADA.keyid, bytes(bytes_)),))
    with pytest.raises(TrustError):
        dsse.signers(bad, KEYS)
    with pytest.raises((TrustError, FormatError)):
        dsse.verify(bad, KEYS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXT = st.text(st.characters(codec="utf-8"))


@given(
    subjects=st.dictionaries(
        TEXT.filter(lambda t: t != "" and t.isprintable()), st.binary().map(Digest.of), min_size=1, max_size=5
    ),
    predicate=st.dictionaries(
        TEXT, st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists, max_leaves=5), max_size=5
    ),
)
def test_what_is_written_is_read_back(subjects: dict[str, Digest], predicate: dict[str, object]) -> None:
    evidence = Evidence(KIND, subjects, predicate)
    assert dsse.read(dsse.sign(evidence, ADA)) == evidence


@given(JSON)
def test_any_json_is_an_envelope_or_a_format_error(data: object) -> None:
    try:
        dsse.read(Signed.from_json(data))
    except FormatError:
        return
    raise AssertionError("random JSON was taken for evidence")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "_type": st.just("https://in-toto.io/Statement/v1") | JSON,
            "predicateType": st.just(KIND) | JSON,
            "subject": st.lists(
                st.fixed_dictionaries(
                    {}, optional={"name": st.just("image") | JSON, "digest": JSON | st.just({"sha256": "0" * 64})}
                ),
                max_size=3,
            )
            | JSON,
            "predicate": st.fixed_dictionaries({"result": JSON}) | JSON,
        },
    )
)
def test_a_statement_of_any_shape_is_read_or_refused(data: dict[str, object]) -> None:
    try:
        evidence = dsse.read_statement(json.dumps(data).encode())
    except FormatError:
        return
    assert evidence.subjects
    assert evidence.passed in (True, False, None)


@given(st.binary())
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        dsse.read_statement(data)


@pytest.mark.parametrize("file", sorted(BAD.iterdir()), ids=lambda p: p.stem)
def test_a_stored_broken_statement_is_refused_before_and_after_it_is_signed(file: Path) -> None:
    broken = Signed.from_json(json.loads(file.read_text()))
    signed = dsse.add_signature(broken, ADA)
    for envelope in (broken, signed):
        with pytest.raises((FormatError, LimitError)):
            dsse.verify(envelope, public(ADA))


def test_what_cannot_be_read_again_is_not_signed() -> None:
    for bad in (
        replace(ONE, subjects={}),
        replace(ONE, kind="test"),
        replace(ONE, predicate={"result": float("nan")}),
        replace(ONE, predicate={"x": {1, 2}}),
        replace(ONE, predicate={"x": "\ud800"}),
        replace(ONE, subjects={"a\nb": Digest.of(b"")}),
    ):
        with pytest.raises(FormatError):
            dsse.sign(bad, ADA)
    with pytest.raises(DeniedError):
        dsse.sign(ONE, Key.read("ada", ADA.public_text()))


def test_signatures_are_bounded() -> None:
    many = Signed(
        dsse.statement(ONE), IN_TOTO_PAYLOAD, tuple(Signature(f"x{n}", b"") for n in range(LIMITS.signatures))
    )
    with pytest.raises(LimitError):
        dsse.add_signature(many, ADA)
    with pytest.raises(LimitError):
        dsse.verify(replace(many, signatures=(*many.signatures, Signature("y", b""))), KEYS)


def test_others_may_sign_with_other_kinds_of_keys() -> None:
    curve, old = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    envelope = Signed(dsse.statement(ONE), IN_TOTO_PAYLOAD)
    made = (
        (curve, curve.sign(envelope.message, ec.ECDSA(hashes.SHA256()))),
        (old, old.sign(envelope.message, padding.PKCS1v15(), hashes.SHA256())),
    )
    for pair, signature in made:
        pem = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        key = Key.read("x", pem)
        assert dsse.verify(replace(envelope, signatures=(Signature(key.keyid, signature),)), {"x": key})[1] == {
            key.keyid
        }
        for bad in (signature[:-1], b"", signature[::-1]):
            with pytest.raises(TrustError):
                dsse.verify(replace(envelope, signatures=(Signature(key.keyid, bad),)), {"x": key})


def test_a_statement_of_another_writer_is_read() -> None:
    """Spaces, key order, more digests per subject, keys of a later version: in-toto allows these."""
    text = """{ "predicate": {"result": "FAILED"}, "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
      "subject": [{"digest": {"gitCommit": "1", "sha256": "%s"}, "name": "image", "uri": "x"}], "note": 1,
      "_type": "https://in-toto.io/Statement/v1" }"""
    evidence = dsse.read_statement((text % Digest.of(b"i").hex).encode())
    assert evidence == Evidence(KIND, {"image": Digest.of(b"i")}, {"result": "FAILED"})
    assert evidence.passed is False


def test_base64_is_read_strictly() -> None:
    good = dsse.sign(ONE, ADA).as_json()
    for payload in (good["payload"] + "\n", "*" + good["payload"], good["payload"][:-1] + "é", 5, None):
        with pytest.raises(FormatError):
            Signed.from_json({**good, "payload": payload})
    assert base64.b64decode(good["payload"]) == dsse.statement(ONE)
