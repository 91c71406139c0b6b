"""The nouns, in the order of the flow: Digest, Reference, Image, Evidence, Signed, Policy.

Frozen values without behaviour beyond their own syntax. `Recipe` lives in `computeops.recipe`, because only it needs a
parser with messages for people.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from computeops.errors import FormatError, UsageError

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex` of some bytes (OCI image-spec 1.1, descriptor.md, "Digests")."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<64 hex>` or `sha512:<128 hex>`.

        Raises:
            FormatError: anything else.
        """
        match = _DIGEST.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
            raise FormatError(f"not a digest: {text[:160]!r}", hint="a digest is sha256:<64 hex digits>")
        return cls(match[1], match[2])

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Return the digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<version>[A-Za-z0-9_][A-Za-z0-9._+-]{{0,127}}))?(?:@(?P<digest>\S+))?"
)
_HUB = re.compile(
    r"(?P<hub>(?:https?://)?(?:localhost|[A-Za-z0-9.-]*\.[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]{1,5})?)/(?P<rest>.+)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """`[hub/]collection/name[:version][@sha256:...]`, the name of a release in a hub."""

    collection: str
    name: str
    version: str = ""
    digest: Digest | None = None
    hub: str = ""
    """Host and port, with a leading `http://` only where the user wrote it; empty: the default hub."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference as users type it.

        Raises:
            UsageError: it does not follow the grammar.
        """
        hub, rest = "", text
        if (match := _HUB.fullmatch(text)) is not None:
            hub, rest = match["hub"], match["rest"]
        found = _REFERENCE.fullmatch(rest)
        if found is None or "/" not in found["path"] or len(found["path"]) > 255:
            raise UsageError(
                f"not a reference: {text!r}",
                hint="write [hub/]collection/name[:version][@sha256:...] in lower case, for example bio/samtools:1.21",
            )
        collection, _, name = found["path"].rpartition("/")
        digest = Digest.parse(found["digest"]) if found["digest"] else None
        return cls(collection, name, found["version"] or "", digest, hub)

    @property
    def repository(self) -> str:
        """`collection/name`, the repository's name in the OCI registry."""
        return f"{self.collection}/{self.name}"

    @property
    def target(self) -> str:
        """The digest if there is one, else the version, else `latest`: what a registry resolves."""
        return str(self.digest) if self.digest else self.version or "latest"

    def at(self, digest: Digest) -> Self:
        """Return this reference pinned to the OCI manifest `digest`."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        text = f"{self.hub}/{self.repository}" if self.hub else self.repository
        text += f":{self.version}" if self.version else ""
        return text + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class Image:
    """A built root filesystem in one of its forms on disk, and every digest known of it.

    The identity is `id`, the digest of the OCI config; the OCI manifest and the SIF file are encodings of it.
    """

    path: Path
    """The .sif file, the OCI layout folder or the OCI archive."""
    form: str
    """`sif`, `oci` (layout folder) or `oci-archive`."""
    id: Digest
    manifest: Digest | None = None
    """Digest of the OCI manifest, where known."""
    sif: Digest | None = None
    """Digest of the SIF file as it was published, without signatures that were added later; where known."""
    arch: str = ""
    """OCI architecture: amd64, arm64 ..."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    proven: bool = False
    """Whether `id` was computed from the content here, not only read from the file that claims it."""

    @property
    def subjects(self) -> Mapping[str, Digest]:
        """The names and digests that evidence about this image lists."""
        known = {"image": self.id, "manifest": self.manifest, "sif": self.sif}
        return {name: digest for name, digest in known.items() if digest is not None}


IN_TOTO_STATEMENT = "https://in-toto.io/Statement/v1"
IN_TOTO_PAYLOAD = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing known about an image: an in-toto Statement v1 (https://in-toto.io/Statement/v1)."""

    kind: str
    """Predicate type: a URI."""
    subjects: Mapping[str, Digest]
    """Name to digest; at least the image ID under `image`."""
    predicate: Mapping[str, Any]

    @property
    def passed(self) -> bool | None:
        """The verdict, for kinds that have one (in-toto Test Result's `result`); None for the others."""
        result = self.predicate.get("result")
        return None if result is None else result in ("PASSED", "WARNED")  # a tuple: JSON lists have no hash


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a DSSE envelope."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol 1.0): evidence with its signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...] = ()

    @property
    def message(self) -> bytes:
        """The bytes that are signed: DSSE pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def as_json(self) -> dict[str, Any]:
        """Return the envelope as its JSON object."""
        return {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [{"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read the JSON object of an envelope; the signatures are not checked here.

        Raises:
            FormatError: it is not a DSSE envelope.
        """
        try:
            signatures = tuple(
                Signature(str(s.get("keyid", "")), base64.b64decode(s["sig"], validate=True))
                for s in data["signatures"]
            )
            return cls(base64.b64decode(data["payload"], validate=True), str(data["payloadType"]), signatures)
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            raise FormatError(f"not a DSSE envelope: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Policy:
    """What evidence an image must have before it is used or published. An empty policy never holds."""

    passed: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Kind of evidence to the number of different signers who must have signed a passing one."""
    none_failed: frozenset[str] = frozenset()
    """Kinds of which no validly signed "failed" may exist: one honest failure cannot be outvoted."""
    keys: frozenset[str] = frozenset()
    """Key ids whose signatures count; empty: every key of the keyring."""
