"""Signatures in SIF files: ours read by the real Apptainer, Apptainer's read by us, and every change noticed."""

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from computeops.errors import ComputeOpsError, DeniedError, FormatError, TrustError
from computeops.image import sif
from computeops.model import Signature, Signed
from computeops.sign.key import Key
from computeops.sign.pgp import sign_sif, verify_sif

ADA, BOB = Key.generate("ada", "Ada Lovelace <ada@example.org>"), Key.generate("bob")
PUBLIC = {key.keyid: Key.read(key.name, key.public_text()) for key in (ADA, BOB)}
ONLY_ADA = {ADA.keyid: PUBLIC[ADA.keyid]}
EPOCH = 1_700_000_000
SLOT = 585
"""Bytes of one descriptor."""
PAYLOAD = "application/vnd.sylabs.sif-metadata+json"


def new_sif(file: Path) -> Path:
    """A SIF whose squashfs is only bytes: signatures do not look into it."""
    file.write_bytes(bytes(sif.PARTITION_OFFSET) + b"hsqs" + bytes(range(256)))
    objects = [sif.New(sif.JSON, "oci-config.json", b"{}"), sif.New(sif.GENERIC, "computeops.toml", b"[package]")]
    sif.finish(file, arch="amd64", identity="x", epoch=EPOCH, objects=objects)
    return file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return new_sif(tmp_path / "x.sif")


def test_a_signature_names_its_signer_and_covers_all(image: Path) -> None:
    before = sif.unsigned_digest(image)
    assert verify_sif(image, PUBLIC) == []
    sign_sif(image, ADA, EPOCH)
    (one,) = verify_sif(image, PUBLIC)
    assert (one.signer, one.name, one.form, one.group) == (ADA.fingerprint, "ada", "pgp", 1)
    assert one.objects == {1, 2, 3}
    assert one.complete
    assert one.known
    assert sif.unsigned_digest(image) == before


def test_signing_again_changes_nothing_and_others_add_theirs(image: Path) -> None:
    sign_sif(image, ADA, EPOCH)
    before = image.read_bytes()
    sign_sif(image, ADA, EPOCH)
    assert image.read_bytes() == before
    sign_sif(image, BOB, EPOCH)
    assert [one.name for one in verify_sif(image, PUBLIC)] == ["ada", "bob"]
    assert [(one.name, one.signer) for one in verify_sif(image, ONLY_ADA)] == [
        ("ada", ADA.fingerprint),
        ("", BOB.fingerprint),
    ]


def test_somebody_elses_key_does_not_sign(image: Path) -> None:
    with pytest.raises(DeniedError):
        sign_sif(image, PUBLIC[ADA.keyid], EPOCH)


def test_strangers_are_listed_and_vouch_for_nothing(image: Path) -> None:
    sign_sif(image, BOB, EPOCH)
    (one,) = verify_sif(image, ONLY_ADA)
    assert not one.known


# What a signature leaves open and `Sif.open` need not refuse: counts and times of the header, padded sizes, times of
# change, gaps, its own descriptor. None of it is content, and the digest that evidence names covers it but for counts.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(at=st.integers(0, sif.PARTITION_OFFSET + 400), flip=st.integers(1, 255))
@example(at=0, flip=1)
@example(at=42, flip=1)
@example(at=46, flip=1)
@example(at=48, flip=1)
@example(at=sif.PARTITION_OFFSET, flip=255)
@example(at=sif.TABLE_OFFSET + 8 + 1, flip=1)
def test_a_changed_byte_is_a_bad_signature_or_another_digest(tmp_path: Path, at: int, flip: int) -> None:
    file = new_sif(tmp_path / "x.sif")
    sign_sif(file, ADA, EPOCH)
    good = sif.unsigned_digest(file)
    end = max(one.end for one in sif.Sif.open(file).objects if one.type != sif.SIGNATURE)
    data = bytearray(file.read_bytes())
    content = at if at < end else end - 1
    data[content] ^= flip
    file.write_bytes(data)
    try:
        found = verify_sif(file, PUBLIC)
    except ComputeOpsError:
        return
    covered = [(one.offset, one.end) for one in sif.Sif.open(file).objects if one.type != sif.SIGNATURE]
    assert not any(start <= content < stop for start, stop in covered)
    own_slot, header_counts = range(sif.TABLE_OFFSET + 3 * SLOT, sif.TABLE_OFFSET + 4 * SLOT), range(64, 128)
    assert sif.unsigned_digest(file) != good or content in header_counts or content in own_slot
    assert not found or found[0].complete


def changed(file: Path, at: int, data: bytes) -> Path:
    whole = bytearray(file.read_bytes())
    whole[at : at + len(data)] = data
    file.write_bytes(whole)
    return file


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (5, b"X"),  # the launch script
        (48, b"\0" * 16),  # the UUID
        (sif.PARTITION_OFFSET + 3, b"x"),  # the filesystem
        (sif.TABLE_OFFSET + SLOT, struct.pack("<i", sif.GENERIC)),  # the type of an object
        (sif.TABLE_OFFSET + SLOT + 73, b"X"),  # its name
        (sif.TABLE_OFFSET + SLOT + 9, struct.pack("<I", sif.NO_GROUP | 2)),  # its group
        (sif.TABLE_OFFSET + SLOT + 9, struct.pack("<I", sif.NO_GROUP)),  # no group
        (sif.TABLE_OFFSET + SLOT + 13, struct.pack("<I", 1)),  # its link
        (sif.TABLE_OFFSET + SLOT + 4, b"\0"),  # an object removed
        (sif.TABLE_OFFSET + SLOT + 41, struct.pack("<q", 1)),  # its time
    ],
)
def test_what_is_covered_cannot_be_changed(image: Path, at: int, data: bytes) -> None:
    sign_sif(image, ADA, EPOCH)
    changed(image, at, data)
    with pytest.raises((TrustError, FormatError)):
        verify_sif(image, PUBLIC)


def add(file: Path, data: bytes, fingerprint: str = "00" * 20) -> None:
    sif.add_signature(file, data, bytes.fromhex(fingerprint), EPOCH)


def envelope(message: bytes, *signatures: Signature, kind: str = PAYLOAD) -> bytes:
    return json.dumps(Signed(message, kind, signatures).as_json()).encode()


def by(key: Key, message: bytes) -> Signature:
    return Signature(key.keyid, key.sign(Signed(message, PAYLOAD).message))


def test_a_dsse_envelope_may_hold_several_signatures(image: Path) -> None:
    message = sif.signed_message(sif.Sif.open(image))
    add(image, envelope(message, by(ADA, message), by(BOB, message)))
    assert [(one.form, one.name, one.signer) for one in verify_sif(image, PUBLIC)] == [
        ("dsse", "ada", ADA.keyid),
        ("dsse", "bob", BOB.keyid),
    ]
    assert [one.known for one in verify_sif(image, ONLY_ADA)] == [True, False]


def test_a_dsse_signature_without_a_keyid_finds_its_key(image: Path) -> None:
    message = sif.signed_message(sif.Sif.open(image))
    add(image, envelope(message, Signature("", by(BOB, message).sig)))
    assert [one.name for one in verify_sif(image, PUBLIC)] == ["bob"]
    assert [one.name for one in verify_sif(image, ONLY_ADA)] == [""]


def test_a_forged_signature_is_an_error_also_beside_a_good_one(image: Path, tmp_path: Path) -> None:
    message = sif.signed_message(sif.Sif.open(image))
    sign_sif(image, ADA, EPOCH)
    (real,) = (sif.Sif.open(image).read(one) for one in sif.Sif.open(image).signatures)
    by_bob = new_sif(tmp_path / "bob.sif")
    sign_sif(by_bob, BOB, EPOCH)
    (bobs,) = (sif.Sif.open(by_bob).read(one) for one in sif.Sif.open(by_bob).signatures)
    broken = real.replace(b"\n=", b"\n+", 1)
    for data, fingerprint in (
        (envelope(message, Signature(ADA.keyid, by(BOB, message).sig)), "00" * 20),
        (bobs, ADA.fingerprint),  # Bob's signature in Ada's name
        (broken, ADA.fingerprint),
    ):
        file = shutil.copy(image, tmp_path / "forged.sif")
        add(file, data, fingerprint)
        with pytest.raises((TrustError, FormatError)):
            verify_sif(file, ONLY_ADA)


def test_a_signature_of_another_file_is_no_signature_of_this(image: Path, tmp_path: Path) -> None:
    sign_sif(image, ADA, EPOCH)
    (stolen,) = (sif.Sif.open(image).read(one) for one in sif.Sif.open(image).signatures)
    evil = changed(new_sif(tmp_path / "evil.sif"), sif.PARTITION_OFFSET + 8, b"evil")
    add(evil, stolen, ADA.fingerprint)
    for keys in (PUBLIC, {}):  # whether the key is known or not
        with pytest.raises(TrustError, match="is not what was signed"):
            verify_sif(evil, keys)


def test_part_of_a_file_signed_by_a_known_key_is_not_enough(image: Path) -> None:
    message = json.loads(sif.signed_message(sif.Sif.open(image)))
    part = json.dumps({**message, "objects": message["objects"][:1]}).encode()
    rest = json.dumps({**message, "objects": message["objects"][1:]}).encode()
    add(image, envelope(part, by(ADA, part)))
    with pytest.raises(TrustError, match="object 2 is not signed by a known key"):
        verify_sif(image, PUBLIC)
    assert [one.complete for one in verify_sif(image, {})] == [False]
    add(image, envelope(rest, by(BOB, rest)))
    with pytest.raises(TrustError, match="object 2 is not signed by a known key"):
        verify_sif(image, ONLY_ADA)
    assert [one.complete for one in verify_sif(image, PUBLIC)] == [False, False]


def message_of(image: Path, change: Mapping[str, object]) -> bytes:
    return json.dumps({**json.loads(sif.signed_message(sif.Sif.open(image))), **change}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"header": {"digest": "sha256:0"}},
        {"header": {}},
        {"header": []},
        {"objects": []},
        {"objects": {}},
        {"objects": [5]},
        {"objects": [{"relativeId": -1, "descriptorDigest": "", "objectDigest": ""}]},
        {"objects": [{"relativeId": True, "descriptorDigest": "", "objectDigest": ""}]},
        {"objects": [{"relativeId": 99, "descriptorDigest": "", "objectDigest": ""}]},
        {"objects": [{"relativeId": 0, "descriptorDigest": [], "objectDigest": {}}]},
    ],
)
def test_a_message_of_another_shape_is_refused(image: Path, change: Mapping[str, object]) -> None:
    message = message_of(image, change)
    add(image, envelope(message, by(ADA, message)))
    with pytest.raises((FormatError, TrustError)):
        verify_sif(image, PUBLIC)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 5000,
        b"-----BEGIN PGP SIGNED MESSAGE-----",
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSIFHASH:\n00\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
        envelope(b"{}"),
        envelope(b"{}", Signature(ADA.keyid, b"")),
        envelope(b"{}", Signature("", b""), kind="application/vnd.in-toto+json"),
    ],
)
@pytest.mark.parametrize("fingerprint", ["00" * 20, ADA.fingerprint], ids=["nobody", "Ada"])
def test_rubbish_as_a_signature_is_refused(image: Path, data: bytes, fingerprint: str) -> None:
    add(image, data, fingerprint)
    with pytest.raises((FormatError, TrustError)) as caught:
        verify_sif(image, PUBLIC)
    assert "stack backtrace" not in caught.value.message.lower()


def test_objects_in_other_groups_are_not_signed_in_silence(image: Path) -> None:
    changed(image, sif.TABLE_OFFSET + SLOT + 9, struct.pack("<I", sif.NO_GROUP | 2))
    with pytest.raises(FormatError, match="object 2 is outside group 1"):
        sign_sif(image, ADA, EPOCH)


def test_signing_never_writes_over_an_object(image: Path) -> None:
    before = changed(image, sif.TABLE_OFFSET + 5, struct.pack("<I", 40)).read_bytes()
    with pytest.raises(FormatError, match="is taken"):
        sign_sif(image, ADA, EPOCH)
    assert image.read_bytes() == before


def test_a_file_changed_since_it_was_signed_is_not_signed_again(image: Path) -> None:
    sign_sif(image, ADA, EPOCH)
    changed(image, sif.PARTITION_OFFSET + 8, b"evil")
    with pytest.raises(TrustError):
        sign_sif(image, ADA, EPOCH)


# With the real Apptainer, as an ordinary user.


def fingerprint(text: bytes) -> str:
    found = re.search(r"[0-9A-F]{40}", text.decode())
    assert found
    return found[0].lower()


@pytest.mark.apptainer
def test_the_real_apptainer_accepts_what_we_sign(scientist) -> None:
    file = new_sif(scientist.home / "x.sif")
    sign_sif(file, ADA, EPOCH)
    (scientist.home / "ada.pub").write_bytes(PUBLIC[ADA.keyid].public_text())
    scientist.own(scientist.home)
    assert scientist.run(["apptainer", "verify", "--local", file], check=False).returncode != 0
    scientist.run(["apptainer", "key", "import", "ada.pub"])
    done = scientist.run(["apptainer", "verify", "--local", "--json", file])
    found = [entry["Signer"] for entry in json.loads(done.stdout)["SignerKeys"]]
    assert {entry["Fingerprint"].lower() for entry in found} == {ADA.fingerprint}
    assert {entry["DataCheck"] for entry in found} == {True}
    changed(file, sif.PARTITION_OFFSET + 8, b"evil")
    refused = scientist.run(["apptainer", "verify", "--local", file], check=False)
    assert refused.returncode != 0
    assert b"integrity compromised" in refused.stderr


@pytest.mark.apptainer
@pytest.mark.squashfs
def test_we_sign_what_the_real_apptainer_builds(scientist) -> None:
    (scientist.home / "tree/bin").mkdir(parents=True)
    (scientist.home / "ada.pub").write_bytes(PUBLIC[ADA.keyid].public_text())
    scientist.own(scientist.home)
    scientist.run(["apptainer", "build", "x.sif", "tree"])
    file = scientist.home / "x.sif"
    sign_sif(file, ADA, EPOCH)
    assert [(one.name, one.complete) for one in verify_sif(file, PUBLIC)] == [("ada", True)]
    scientist.run(["apptainer", "key", "import", "ada.pub"])
    scientist.run(["apptainer", "verify", "--local", file])


@pytest.fixture
def signer(scientist) -> Key:
    """A key that the real Apptainer made for the scientist, as it exports it."""
    scientist.own(scientist.home)
    argv = ["apptainer", "key", "newpair", "-N", "Carl", "-E", "c@example.org", "-C", "", "-P", "", "-U=false"]
    scientist.run([*argv, "-b", "2048"])
    scientist.run(["apptainer", "key", "export", "--armor", "carl.asc"], stdin=b"0\n")
    return Key.read("carl", (scientist.home / "carl.asc").read_bytes())


@pytest.mark.apptainer
def test_we_accept_what_the_real_apptainer_signs_with_openpgp(scientist, signer: Key) -> None:
    file = scientist.own(new_sif(scientist.home / "x.sif"))
    scientist.run(["apptainer", "sign", file])
    (one,) = verify_sif(file, {signer.id: signer})
    assert (one.signer, one.name, one.form, one.complete) == (signer.fingerprint, "carl", "pgp", True)
    assert signer.user_ids == ("Carl <c@example.org>",)
    assert verify_sif(file, PUBLIC)[0].known is False
    sign_sif(file, ADA, EPOCH)
    assert [found.name for found in verify_sif(file, {**PUBLIC, signer.id: signer})] == ["carl", "ada"]
    changed(file, sif.PARTITION_OFFSET + 8, b"evil")
    with pytest.raises(TrustError):
        verify_sif(file, {signer.id: signer})


@pytest.mark.apptainer
@pytest.mark.parametrize(
    ("form", "arguments"),
    [
        ("ed25519", ["-algorithm", "ed25519"]),
        ("p256", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("rsa", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ],
)
def test_we_accept_what_the_real_apptainer_signs_with_a_key_file(scientist, form: str, arguments: list[str]) -> None:
    secret, public = scientist.home / f"{form}.pem", scientist.home / f"{form}.pub"
    subprocess.run(["openssl", "genpkey", *arguments, "-out", secret], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True)
    file = new_sif(scientist.home / "x.sif")
    scientist.own(scientist.home)
    scientist.run(["apptainer", "sign", "--key", secret, file])
    key = Key.read(form, public.read_bytes())
    (one,) = verify_sif(file, {key.keyid: key})
    assert (one.signer, one.name, one.form, one.complete) == (key.keyid, form, "dsse", True)
    changed(file, 48, bytes(16))
    with pytest.raises(TrustError, match="the header"):
        verify_sif(file, {key.keyid: key})


@pytest.mark.apptainer
def test_the_real_apptainer_accepts_our_key_in_a_dsse_envelope(scientist) -> None:
    file, public = new_sif(scientist.home / "x.sif"), scientist.home / "ada.pem"
    message = sif.signed_message(sif.Sif.open(file))
    add(file, envelope(message, by(ADA, message), by(BOB, message)))
    public.write_bytes(ADA.pem)
    scientist.own(scientist.home)
    scientist.run(["apptainer", "verify", "--key", public, file])


@pytest.mark.apptainer
def test_groups_and_additions_are_judged_as_apptainer_does(scientist, signer: Key) -> None:
    keys = {signer.id: signer}
    file = scientist.own(new_sif(scientist.home / "x.sif"))
    (scientist.home / "more").write_text("more")

    def by_apptainer() -> bool:
        return scientist.run(["apptainer", "verify", "--local", file], check=False).returncode == 0

    def by_us() -> bool:
        try:
            return all(one.known for one in verify_sif(file, keys))
        except TrustError:
            return False

    scientist.run(["apptainer", "sign", file])
    assert (by_apptainer(), by_us()) == (True, True)
    scientist.run(["apptainer", "sif", "add", file, "more", "--datatype", "6", "--groupid", "2"])
    assert (by_apptainer(), by_us()) == (False, False)
    scientist.run(["apptainer", "sign", "--group-id", "2", file])
    assert (by_apptainer(), by_us()) == (True, True)
    assert [(one.group, one.complete) for one in verify_sif(file, keys)] == [(1, True), (2, True)]
    scientist.run(["apptainer", "sif", "add", file, "more", "--datatype", "6", "--groupid", "1"])
    assert (by_apptainer(), by_us()) == (False, False)


@pytest.mark.apptainer
def test_an_object_without_a_group_is_never_covered(scientist, signer: Key) -> None:
    file = scientist.own(new_sif(scientist.home / "x.sif"))
    (scientist.home / "more").write_text("more")
    scientist.run(["apptainer", "sign", file])
    scientist.run(["apptainer", "sif", "add", file, "more", "--datatype", "6"])
    with pytest.raises(TrustError, match="object 5 is not signed"):
        verify_sif(file, {signer.id: signer})
