"""The single gate: each way in which evidence may look like enough and is not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.check import kinds
from computeops.errors import FormatError, PolicyError, TrustError, UsageError
from computeops.model import Digest, Evidence, Image, Policy, Signature, Signed
from computeops.sign import dsse, policy
from computeops.sign.key import Key
from computeops.sign.policy import RELEASE, trust

TEST, PROVENANCE, SPDX = policy.WORDS["test"], policy.WORDS["provenance"], policy.WORDS["spdx"]
ADA, BOB, EVE = Key.generate("ada"), Key.generate("bob"), Key.generate("eve")
KEYS = {key.keyid: Key.read(key.name, key.public_text()) for key in (ADA, BOB)}
ID, MANIFEST, SIF, OTHER = (Digest.of(name) for name in (b"id", b"manifest", b"sif", b"other"))
IMAGE = Image(Path("x.sif"), "sif", ID, MANIFEST, SIF, proven=True)


def evidence(kind: str, result: object = None, subjects: Mapping[str, Digest] | None = None) -> Evidence:
    return Evidence(kind, subjects or IMAGE.subjects, {} if result is None else {"result": result})


def signed(one: Evidence, *keys: Key) -> Signed:
    envelope = dsse.sign(one, keys[0])
    for key in keys[1:]:
        envelope = dsse.add_signature(envelope, key)
    return envelope


BUILT = signed(evidence(PROVENANCE), ADA)
PASSED, FAILED = evidence(TEST, "PASSED"), evidence(TEST, "FAILED")


def asks(kind: str, number: int) -> Policy:
    return Policy(passed={kind: number})


def test_what_a_release_needs() -> None:
    found = trust(IMAGE, [BUILT, signed(PASSED, ADA)], KEYS, RELEASE)
    assert [(one.evidence.kind, one.signers) for one in found] == [(PROVENANCE, {ADA.keyid}), (TEST, {ADA.keyid})]
    with pytest.raises(PolicyError, match="provenance: there is none beside the image"):
        trust(IMAGE, [signed(PASSED, ADA)], KEYS, RELEASE)


@pytest.mark.parametrize(
    "empty",
    [Policy(), Policy(none_failed=frozenset({TEST})), Policy(passed={TEST: 0}), Policy(passed={TEST: 1, SPDX: 0})],
)
def test_an_empty_policy_never_holds(empty: Policy) -> None:
    for given_ in ([], [BUILT, signed(PASSED, ADA, BOB)]):
        with pytest.raises(PolicyError, match="never holds"):
            trust(IMAGE, given_, KEYS, empty)


def test_without_evidence_or_keys_nothing_holds() -> None:
    with pytest.raises(PolicyError):
        trust(IMAGE, [], KEYS, RELEASE)
    with pytest.raises(PolicyError):
        trust(IMAGE, [BUILT], {}, RELEASE)


def test_strangers_count_for_nothing_for_good_or_bad() -> None:
    by_eve = signed(evidence(PROVENANCE), EVE)
    with pytest.raises(PolicyError):
        trust(IMAGE, [by_eve], KEYS, RELEASE)
    found = trust(IMAGE, [BUILT, by_eve, signed(FAILED, EVE)], KEYS, RELEASE)
    assert [bool(one.signers) for one in found] == [True, False, False]


def test_rubbish_beside_good_evidence_is_refused() -> None:
    with pytest.raises(FormatError):
        trust(IMAGE, [BUILT, Signed(b"{}", "application/vnd.in-toto+json")], KEYS, RELEASE)


def test_a_forged_signature_beside_good_ones_is_refused() -> None:
    forged = replace(BUILT, signatures=(*BUILT.signatures, Signature(BOB.keyid, EVE.sign(BUILT.message))))
    with pytest.raises(TrustError, match="in the name of key bob"):
        trust(IMAGE, [forged], KEYS, RELEASE)


def test_evidence_of_another_image_is_refused_even_beside_enough() -> None:
    stolen = signed(evidence(PROVENANCE, subjects={"image": OTHER, "manifest": OTHER, "sif": OTHER}), ADA)
    for given_ in ([stolen], [BUILT, stolen]):
        with pytest.raises(TrustError, match="is about image"):
            trust(IMAGE, given_, KEYS, RELEASE)


def test_an_image_in_another_form_keeps_its_evidence() -> None:
    """The image ID decides; manifest and SIF differ with the compressor."""
    repacked = Image(Path("y"), "oci", ID, OTHER, None, proven=True)
    assert trust(repacked, [BUILT], KEYS, RELEASE)
    assert trust(Image(Path("y.sif"), "sif", ID, None, OTHER, proven=True), [BUILT], KEYS, RELEASE)


def test_a_sif_that_lies_about_its_id_profits_from_nothing() -> None:
    """A SIF carries an OCI config and manifest; what they say counts only after it was computed from the content."""
    liar = Image(Path("evil.sif"), "sif", ID, MANIFEST, OTHER, proven=False)
    with pytest.raises(TrustError, match="is about sif"):
        trust(liar, [BUILT], KEYS, RELEASE)
    without = signed(evidence(PROVENANCE, subjects={"image": ID, "manifest": MANIFEST}), ADA)
    for one in (liar, replace(liar, sif=None)):
        with pytest.raises(TrustError, match="not about this image"):
            trust(one, [without], KEYS, RELEASE)
    # Its manifest stays a claim when the ID was proven: a SIF contains no OCI layers to compute it from.
    proven = Image(Path("evil.sif"), "sif", OTHER, MANIFEST, OTHER, proven=True)
    only_manifest = signed(evidence(PROVENANCE, subjects={"manifest": MANIFEST}), ADA)
    with pytest.raises(TrustError, match="not about this image"):
        trust(proven, [only_manifest], KEYS, RELEASE)


def test_an_oci_image_whose_config_is_of_another_profits_from_nothing() -> None:
    liar = Image(Path("evil"), "oci", ID, OTHER, None, proven=False)
    with pytest.raises(TrustError, match="is about manifest"):
        trust(liar, [BUILT], KEYS, RELEASE)
    assert trust(replace(liar, manifest=MANIFEST), [BUILT], KEYS, RELEASE)


def test_what_is_about_an_image_is_told_without_signatures() -> None:
    """To add a signature, it must be known what one signs, not who signed before."""
    by_eve = signed(PASSED, EVE)
    assert policy.about(IMAGE, [BUILT, by_eve]) == (evidence(PROVENANCE), PASSED)
    with pytest.raises(TrustError, match="is about image"):
        policy.about(replace(IMAGE, id=OTHER), [BUILT])
    assert policy.about(IMAGE, []) == ()


def test_what_a_file_only_claims_is_not_signed() -> None:
    """Testing an evil SIF that borrowed a good image's ID must not give the good image a passing test, or the reverse."""
    claimed = replace(IMAGE, proven=False)
    assert policy.narrowed(claimed, PASSED).subjects == {"sif": SIF}
    assert policy.narrowed(IMAGE, PASSED).subjects == {"image": ID, "sif": SIF}
    assert policy.narrowed(replace(claimed, form="oci"), PASSED).subjects == {"manifest": MANIFEST}
    with pytest.raises(TrustError, match=r"no digest of x\.sif"):
        policy.narrowed(replace(claimed, sif=OTHER), PASSED)


def test_one_statement_vouches_for_one_image() -> None:
    many = signed(evidence(PROVENANCE, subjects={**IMAGE.subjects, "also": OTHER}), ADA)
    with pytest.raises(TrustError, match="'also'"):
        trust(IMAGE, [many], KEYS, RELEASE)


def test_a_weaker_name_does_not_save_a_statement_about_another_image() -> None:
    mixed = signed(evidence(PROVENANCE, subjects={"image": OTHER, "sif": SIF}), ADA)
    with pytest.raises(TrustError, match="is about image"):
        trust(IMAGE, [mixed], KEYS, RELEASE)


def test_one_honest_failure_is_not_outvoted() -> None:
    """In any order, also where the failure is by a key whose passing tests would not count."""
    passes = [signed(PASSED, ADA, BOB), signed(evidence(TEST, "PASSED"), ADA), BUILT]
    only_ada = replace(RELEASE, keys=frozenset({ADA.keyid}))
    for chosen in (RELEASE, only_ada):
        for given_ in ([*passes, signed(FAILED, BOB)], [signed(FAILED, BOB), *passes]):
            with pytest.raises(PolicyError, match=r"test: failed, says bob \(SHA256:"):
                trust(IMAGE, given_, KEYS, chosen)
    assert trust(IMAGE, passes, KEYS, only_ada)


@pytest.mark.parametrize("result", ["FAILED", "passed", "", 1, True, [], ["PASSED"], {"PASSED": 1}])
def test_what_is_not_a_pass_is_a_failure(result: object) -> None:
    with pytest.raises(PolicyError, match="failed, says ada"):
        trust(IMAGE, [BUILT, signed(evidence(TEST, result), ADA)], KEYS, RELEASE)


def test_a_test_without_a_verdict_did_not_pass() -> None:
    with pytest.raises(PolicyError):
        trust(IMAGE, [signed(evidence(TEST), ADA)], KEYS, asks(TEST, 1))
    assert trust(IMAGE, [signed(evidence(SPDX), ADA)], KEYS, asks(SPDX, 1))


def test_a_failed_one_does_not_count_as_passed() -> None:
    with pytest.raises(PolicyError):
        trust(IMAGE, [signed(FAILED, ADA)], KEYS, asks(TEST, 1))


def test_signers_are_different_keys() -> None:
    two = asks(TEST, 2)
    again = signed(replace(PASSED, predicate={"result": "WARNED"}), ADA)
    doubled = signed(PASSED, ADA)
    doubled = replace(doubled, signatures=doubled.signatures * 3)
    names = {**KEYS, "second": replace(KEYS[ADA.keyid], name="ada2"), "": KEYS[ADA.keyid]}
    for given_ in ([signed(PASSED, ADA), again], [doubled], [doubled, again, signed(PASSED, ADA, EVE)]):
        with pytest.raises(PolicyError, match="signed by 1 known keys, by ada"):
            trust(IMAGE, given_, {**names, ADA.keyid: KEYS[ADA.keyid]}, two)
    for given_ in ([signed(PASSED, ADA, BOB)], [signed(PASSED, ADA), signed(PASSED, BOB)]):
        assert trust(IMAGE, given_, KEYS, two)


def test_only_the_keys_of_the_policy_pass() -> None:
    only_bob = replace(RELEASE, keys=frozenset({BOB.keyid}))
    with pytest.raises(PolicyError):
        trust(IMAGE, [BUILT], KEYS, only_bob)
    assert trust(IMAGE, [signed(evidence(PROVENANCE), ADA, BOB)], KEYS, only_bob)


ENVELOPES = [
    signed(evidence(kind, result), *keys)
    for kind, result in ((PROVENANCE, None), (TEST, "PASSED"), (TEST, "FAILED"), (TEST, None))
    for keys in ((ADA,), (BOB,), (EVE,), (ADA, BOB))
]


@given(st.lists(st.sampled_from(ENVELOPES), max_size=6), st.integers(1, 3))
def test_more_evidence_of_failure_or_by_strangers_never_helps(given_: list[Signed], wanted: int) -> None:
    """Whatever holds with a failure or a stranger's envelope added held without it."""
    chosen = replace(RELEASE, passed={PROVENANCE: 1, TEST: wanted})

    def holds(envelopes: list[Signed]) -> bool:
        try:
            return bool(trust(IMAGE, envelopes, KEYS, chosen))
        except PolicyError:
            return False

    for worse in (signed(FAILED, ADA), signed(PASSED, EVE), signed(evidence(TEST), BOB)):
        assert holds(given_) or not holds([*given_, worse])
    assert not holds([*given_, signed(FAILED, BOB)])


def test_the_words_are_those_of_the_checks() -> None:
    assert {word: uri for word, uri in policy.WORDS.items() if kinds.short(uri) != word} == {}
    assert set(policy.WORDS.values()) == {
        kinds.TEST,
        kinds.PROVENANCE,
        kinds.CYCLONEDX,
        kinds.SPDX,
        kinds.VULNS,
        kinds.REBUILD,
    }


def test_a_policy_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        f'keys = ["{ADA.keyid}"]\nnone_failed = ["test"]\n[passed]\nprovenance = 1\n"https://example.org/review/v1" = 2\n'
    )
    assert policy.load(file) == Policy(
        passed={PROVENANCE: 1, "https://example.org/review/v1": 2},
        none_failed=frozenset({TEST}),
        keys=frozenset({ADA.keyid}),
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", r"\[passed\] is empty"),
        ("[passed]", r"\[passed\] is empty"),
        ('none_failed = ["test"]', r"\[passed\] is empty"),
        ("passed = 1", r"\[passed\] is empty"),
        ("[pased]\ntest = 1", "unknown key 'pased' .did you mean 'passed'"),
        ("[passed]\ntset = 1", "unknown kind of evidence 'tset' .did you mean 'test'"),
        ("[passed]\ntest = 0", "passed.test must be a number"),
        ("[passed]\ntest = true", "passed.test must be a number"),
        ('[passed]\ntest = "1"', "passed.test must be a number"),
        ("[passed]\ntest = 1.0", "passed.test must be a number"),
        (f'[passed]\ntest = 2\n"{TEST}" = 1', "twice"),
        ('none_failed = "test"\n[passed]\ntest = 1', "none_failed must be a list"),
        ('none_failed = ["tests"]\n[passed]\ntest = 1', "unknown kind of evidence 'tests'"),
        ('keys = ["ada"]\n[passed]\ntest = 1', "not a keyid"),
        ("keys = [1]\n[passed]\ntest = 1", "keys must be a list"),
        ("[passed", "not TOML"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_reason(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=part):
        policy.load(file)


def test_an_unreadable_policy_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        policy.load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError):
        policy.load(tmp_path / "binary.toml")
