"""A key: one name with two halves, Ed25519 for evidence (DSSE) and OpenPGP for Apptainer's signatures in SIF files.

Both halves stand in one text, as PEM and as ASCII armor. The ids are always computed from the key itself, never read
from what a file or an envelope says about it.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from computeops.errors import DeniedError, FormatError, LimitError
from computeops.limits import LIMITS

_PEM, _PGP = "PUBLIC KEY", "PGP PUBLIC KEY BLOCK"
_SECRET_PEM, _SECRET_PGP = "PRIVATE KEY", "PGP PRIVATE KEY BLOCK"
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n.*?-----END \1-----[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_RSA_BITS = 2048
_FINGERPRINT_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Key:
    """Somebody's key: always public halves, at least one; the secret halves too where it is our own."""

    name: str
    keyid: str
    """Of the DSSE half: `SHA256:` and the base64 digest of the OpenSSH public key, as Apptainer and ssh write it; or
    "" where there is none."""
    fingerprint: str
    """Of the OpenPGP half's primary key: 40 hex digits, lower case; or "" where there is none."""
    pem: bytes = b""
    """Public DSSE half: Ed25519, or of others ECDSA P-256 or RSA."""
    certificate: bytes = b""
    """Public OpenPGP half, binary."""
    user_ids: tuple[str, ...] = ()
    """Whom the OpenPGP half says it belongs to; nobody has checked that."""
    has_secret: bool = False
    """Whether it is our own: the secret halves exist, though they are read only to sign."""
    secret_pem: bytes = field(default=b"", repr=False)
    secret_certificate: bytes = field(default=b"", repr=False)

    @classmethod
    def generate(cls, name: str, user_id: str = "") -> Self:
        """Make a new key; `user_id` ("Name <mail>") is `name` where it is empty."""
        from pysequoia import CipherSuite, Profile, Tsk

        pair = ed25519.Ed25519PrivateKey.generate()
        secret_pem = pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Version 4 keys: a SIF has room for a fingerprint of 20 bytes, and Apptainer knows no newer ones.
        owned = Tsk.generate(user_id or name, profile=Profile.RFC4880, cipher_suite=CipherSuite.Cv25519)
        return cls.read_secret(name, secret_pem + str(owned).encode())

    @classmethod
    def read(cls, name: str, data: bytes) -> Self:
        """Read the public halves in `data`: PEM, an OpenPGP block, or both; or one binary OpenPGP certificate.

        Raises:
            FormatError: there is none, there is more than one of a kind, or one is broken, weak or secret.
            LimitError: `data` is too large.
        """
        if len(data) > LIMITS.key_bytes:
            raise LimitError(f"a key of {len(data)} bytes; at most {LIMITS.key_bytes} are read")
        if b"-----BEGIN" not in data:
            return cls._public(name, b"", data)
        found = _blocks(data)
        if secret := [kind for kind in found if "PRIVATE" in kind]:
            raise FormatError(
                f"there is a secret key in it ({secret[0]})", hint="give the public key: `computeops key export NAME`"
            )
        if unknown := [kind for kind in found if kind not in {_PEM, _PGP}]:
            raise FormatError(f"{unknown[0]} is not a kind of key that is read here", hint=_HINT)
        return cls._public(name, found.get(_PEM, b""), found.get(_PGP, b""))

    @classmethod
    def read_secret(cls, name: str, data: bytes) -> Self:
        """Read both secret halves, as `secret_text` gives them.

        Raises:
            FormatError: they are not both there, or broken.
        """
        from pysequoia import Tsk

        found = _blocks(data)
        if set(found) != {_SECRET_PEM, _SECRET_PGP}:
            raise FormatError(f"the secret of key {name} does not have its two halves")
        pair = _private(found[_SECRET_PEM])
        try:
            owned = Tsk.from_bytes(found[_SECRET_PGP])
            certificate = bytes(owned.extract_certificate())
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"the OpenPGP half of key {name} is broken: {_first_line(error)}") from None
        pem = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        public = cls._public(name, pem, certificate)
        return cls(
            name,
            public.keyid,
            public.fingerprint,
            public.pem,
            public.certificate,
            public.user_ids,
            True,
            found[_SECRET_PEM],
            bytes(owned),
        )

    @classmethod
    def _public(cls, name: str, pem: bytes, pgp: bytes) -> Self:
        if not pem and not pgp:
            raise FormatError("there is no public key in it", hint=_HINT)
        keyid, normal = "", b""
        if pem:
            known = _load(pem)
            keyid = _keyid(known)
            normal = known.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        fingerprint, certificate, users = _certificate(pgp) if pgp else ("", b"", ())
        return cls(name, keyid, fingerprint, normal, certificate, users)

    @property
    def id(self) -> str:
        """What names the key in a mapping: its keyid, or its fingerprint where it has only an OpenPGP half."""
        return self.keyid or self.fingerprint

    def public_text(self) -> bytes:
        """Return the public halves as one text: PEM, then the armored OpenPGP certificate."""
        from pysequoia import ArmorKind, armor

        armored = armor(self.certificate, ArmorKind.PublicKey).encode() if self.certificate else b""
        return self.pem + armored

    def secret_text(self) -> bytes:
        """Return the secret halves as one text, for the keyring's own file only."""
        from pysequoia import ArmorKind, armor

        return self.secret_pem + armor(self.secret_certificate, ArmorKind.SecretKey).encode()

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`.

        Raises:
            DeniedError: the key is somebody else's.
        """
        if not self.secret_pem:
            raise DeniedError(f"key {self.name} has no secret half here", hint="sign with a key of your own")
        return _private(self.secret_pem).sign(message)

    def holds(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is one of `message` by the DSSE half."""
        if not self.pem:
            return False
        known = _load(self.pem)
        try:
            if isinstance(known, ed25519.Ed25519PublicKey):
                known.verify(signature, message)
            elif isinstance(known, ec.EllipticCurvePublicKey):
                known.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            else:
                known.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


_HINT = "a public key is what `computeops key export`, `apptainer key export` or `openssl pkey -pubout` write"
_PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def _blocks(data: bytes) -> Mapping[str, bytes]:
    """Return kind to text of the PEM and armor blocks in `data`; other text between them is not read."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("a key is a text of ASCII letters, this is not", hint=_HINT) from None
    found: dict[str, bytes] = {}
    for match in _BLOCK.finditer(text):
        if match[1] in found:
            raise FormatError(f"there are two blocks of {match[1]}; a key has one", hint="put each key into its file")
        found[match[1]] = match[0].encode()
    if not found or text.count("-----BEGIN") != len(found):
        raise FormatError("it has no key block with a beginning and an end", hint=_HINT)
    return found


def _load(pem: bytes) -> _PublicKey:
    try:
        known = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(f"not a public key in PEM: {_first_line(error)}", hint=_HINT) from None
    good = (
        isinstance(known, ed25519.Ed25519PublicKey)
        or (isinstance(known, ec.EllipticCurvePublicKey) and isinstance(known.curve, ec.SECP256R1))
        or (isinstance(known, rsa.RSAPublicKey) and known.key_size >= _RSA_BITS)
    )
    if not good:
        raise FormatError(f"keys are Ed25519, ECDSA P-256 or RSA from {_RSA_BITS} bits on; this is another")
    assert isinstance(known, _PublicKey)
    return known


def _private(pem: bytes) -> ed25519.Ed25519PrivateKey:
    try:
        pair = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("the Ed25519 half of the secret key is broken") from None
    if not isinstance(pair, ed25519.Ed25519PrivateKey):
        raise FormatError("the secret key is not Ed25519")
    return pair


def _keyid(known: _PublicKey) -> str:
    line = known.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _certificate(data: bytes) -> tuple[str, bytes, tuple[str, ...]]:
    from pysequoia import Cert
    from pysequoia.packet import PacketPile, Tag

    try:
        tags = [packet.tag for packet in PacketPile.from_bytes(data)]
        found = [
            (str(one.fingerprint).lower(), bytes(one), tuple(str(user) for user in one.user_ids))
            for one in Cert.split_bytes(data)
        ]
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"not an OpenPGP public key: {_first_line(error)}", hint=_HINT) from None
    if Tag.SecretKey in tags or Tag.SecretSubkey in tags:
        raise FormatError("there is a secret OpenPGP key in it", hint=_HINT)
    if len(found) != 1:
        raise FormatError(f"{len(found)} OpenPGP keys in it; a key has one", hint="put each key into its file")
    fingerprint = found[0][0]
    if len(fingerprint) != _FINGERPRINT_LENGTH:
        raise FormatError(f"OpenPGP key {fingerprint} is not of version 4; a SIF has room for no other fingerprint")
    return found[0]


def _first_line(error: Exception) -> str:
    """The message of a library without the backtrace that it adds."""
    return str(error).strip().partition("\n")[0][:200]
