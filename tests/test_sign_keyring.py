"""The keyring on disk and the verb `key`: what appears, with which permissions, and what is refused."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from computeops.errors import (
    ConflictError,
    DeniedError,
    FormatError,
    LimitError,
    NotFoundError,
    StorageError,
    UsageError,
)
from computeops.sign.keyring import Key, Keyring

BAD = Path(__file__).parent / "bad/sign/keys"


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_whole_private_and_ours(ring: Keyring) -> None:
    made = ring.new("ada", "Ada Lovelace <ada@example.org>")
    assert ring.names() == ["ada"]
    assert mode(ring.folder) == mode(ring.folder / "ada") == 0o700
    assert {p.name: mode(p) for p in (ring.folder / "ada").iterdir()} == {"public": 0o600, "secret": 0o600}
    own = ring.own("ada")
    assert (own.keyid, own.fingerprint) == (made.keyid, made.fingerprint)
    assert own.user_ids == ("Ada Lovelace <ada@example.org>",)
    assert own.has_secret
    assert own.holds(b"message", own.sign(b"message"))
    assert not own.holds(b"another", own.sign(b"message"))


def test_the_keyid_is_the_fingerprint_that_ssh_shows(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    file = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    public = serialization.load_ssh_public_key(file.with_suffix(".pub").read_bytes())
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, check=True).stdout.decode()
    assert Key.read("x", pem).keyid in shown.split()


def test_what_is_exported_is_public_and_can_be_imported_elsewhere(ring: Keyring, tmp_path: Path) -> None:
    own = ring.new("ada")
    text = ring.export("ada")
    assert b"PRIVATE" not in text
    other = Keyring(tmp_path / "other")
    other.add("author", text)
    (key,) = other.list()
    assert (key.name, key.keyid, key.fingerprint, key.has_secret) == ("author", own.keyid, own.fingerprint, False)
    assert other.export("author") == text
    with pytest.raises(NotFoundError, match="somebody else's"):
        other.own("author")
    with pytest.raises(DeniedError):
        key.sign(b"message")


def test_one_half_is_enough_for_others(ring: Keyring, tmp_path: Path) -> None:
    text = Keyring(tmp_path / "other").new("x").public_text()
    at = text.index(b"-----BEGIN PGP")
    ring.add("pem", text[:at])
    assert ring.get("pem").fingerprint == ""
    ring.remove("pem")
    pgp = ring.add("pgp", text[at:])
    assert pgp.keyid == ""
    assert ring.public() == {pgp.fingerprint: ring.get("pgp")}


def test_nothing_is_overwritten_and_one_key_has_one_name(ring: Keyring, tmp_path: Path) -> None:
    ring.new("ada")
    before = ring.export("ada")
    with pytest.raises(ConflictError):
        ring.new("ada")
    other = Keyring(tmp_path / "other").new("x").public_text()
    with pytest.raises(ConflictError):
        ring.add("ada", other)
    ring.add("bob", other)
    at = other.index(b"-----BEGIN PGP")
    for text in (other, other[:at], other[at:]):
        with pytest.raises(ConflictError, match="'bob'"):
            ring.add("carl", text)
    assert ring.names() == ["ada", "bob"]
    assert ring.export("ada") == before


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a" * 65, "-x", "ä", "a\0"])
def test_a_name_is_never_a_path(ring: Keyring, name: str) -> None:
    for call in (ring.new, ring.get, ring.own, ring.export, ring.remove, lambda n: ring.add(n, b"")):
        with pytest.raises(UsageError):
            call(name)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602])
def test_a_secret_that_others_may_read_is_refused_with_the_cure(ring: Keyring, bits: int) -> None:
    ring.new("ada")
    (ring.folder / "ada/secret").chmod(bits)
    with pytest.raises(StorageError) as caught:
        ring.own("ada")
    assert caught.value.hint == f"chmod -R go-rwx {ring.folder}"
    subprocess.run(caught.value.hint.split(), check=True)
    assert ring.own("ada").has_secret


def test_a_keyring_that_others_may_write_is_not_trusted(ring: Keyring) -> None:
    ring.new("ada")
    for path in (ring.folder, ring.folder / "ada/public"):
        usual = mode(path)
        path.chmod(usual | 0o022)
        with pytest.raises(StorageError, match="others may change"):
            ring.public()
        path.chmod(usual)
    assert len(ring.public()) == 1


def test_links_are_not_followed(ring: Keyring, tmp_path: Path) -> None:
    other = Keyring(tmp_path / "other")
    other.new("evil")
    ring.new("ada")
    (ring.folder / "evil").symlink_to(other.folder / "evil")
    assert ring.names() == ["ada"]
    (ring.folder / "ada/public").unlink()
    (ring.folder / "ada/public").symlink_to(other.folder / "evil/public")
    with pytest.raises(StorageError):
        ring.list()


def test_a_swapped_public_file_is_noticed_before_signing(ring: Keyring) -> None:
    ring.new("ada")
    ring.new("bob")
    (ring.folder / "ada/public").write_bytes((ring.folder / "bob/public").read_bytes())
    with pytest.raises(FormatError, match="does not belong"):
        ring.own("ada")


def test_remove_takes_all_of_it(ring: Keyring) -> None:
    ring.new("ada")
    ring.remove("ada")
    assert list(ring.folder.iterdir()) == []
    with pytest.raises(NotFoundError):
        ring.remove("ada")


def test_secrets_are_in_no_representation(ring: Keyring) -> None:
    ring.new("ada")
    own = ring.own("ada")
    shown = repr(own) + str(own)
    assert "PRIVATE" not in shown
    assert repr(own.secret_certificate)[2:20] not in shown


@pytest.mark.parametrize("file", sorted(BAD.iterdir()), ids=lambda p: p.name)
def test_a_broken_weak_or_secret_key_is_refused(ring: Keyring, file: Path) -> None:
    with pytest.raises(FormatError):
        ring.add("x", file.read_bytes())
    assert ring.names() == []


def test_a_key_is_bounded(ring: Keyring) -> None:
    with pytest.raises(LimitError):
        ring.add("x", b"-----BEGIN" + bytes(300_000))


def test_a_cut_or_changed_key_gives_only_our_errors() -> None:
    text = Key.generate("x").public_text()
    for cut in range(0, len(text), 7):
        for data in (
            text[:cut],
            text[cut:],
            text[:cut] + b"\xff" + text[cut + 1 :],
            text[:cut] + b"A" + text[cut + 1 :],
        ):
            with contextlib.suppress(FormatError):
                Key.read("x", data)


def key_verb(keys: Path, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "COMPUTEOPS_KEYS": str(keys)}
    return subprocess.run(
        [sys.executable, "-m", "computeops", "key", *argv], env=env, input=stdin, capture_output=True, check=False
    )


def test_the_verb_makes_lists_gives_and_trusts(tmp_path: Path) -> None:
    keys, others = tmp_path / "a", tmp_path / "b"
    assert key_verb(keys, "list").stdout == b"no keys\n"
    assert key_verb(keys, "new", "ada", "--user-id", "Ada <ada@example.org>").returncode == 0
    exported = key_verb(keys, "export", "ada").stdout
    done = key_verb(others, "import", "author", "-", stdin=exported)
    assert done.returncode == 0, done.stderr
    (mine,) = json.loads(key_verb(keys, "list", "--json").stdout)
    (theirs,) = json.loads(key_verb(others, "list", "--json").stdout)
    assert (mine["own"], theirs["own"], mine["keyid"]) == (True, False, theirs["keyid"])
    assert mine["user_ids"] == ["Ada <ada@example.org>"]


def test_the_verb_asks_before_a_secret_is_lost(tmp_path: Path) -> None:
    key_verb(tmp_path / "a", "new", "ada")
    refused = key_verb(tmp_path / "a", "remove", "ada", stdin=b"n\n")
    assert refused.returncode == 130
    assert key_verb(tmp_path / "a", "remove", "adda").stderr.startswith(
        b"error: there is no key 'adda' (did you mean 'ada'?)"
    )
    assert key_verb(tmp_path / "a", "remove", "ada", "--yes").returncode == 0
    assert key_verb(tmp_path / "a", "list").stdout == b"no keys\n"
