"""A hub's folder filled the way pushes fill it: blobs and manifests, then the catalogue is told."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from backends import furnish
from computeops.hub import catalogue, manifests
from computeops.hub.auth import Scope
from computeops.hub.manifests import Manifest
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.model import Digest

TEST = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
VULNS = "https://in-toto.io/attestation/vulns/v0.2"

RECIPE = """\
# {name} as Debian packages it
[package]
name = "{name}"
version = "{version}"
summary = "{summary}"
license = "{license}"
domains = {domains}

[build]
builder = "debian"
suite = "bookworm"
packages = ["busybox"]

[run]
command = ["{name}"]
{more}
"""


class Shelf:
    """A hub, and pushes to it."""

    def __init__(self, folder: Path, *, base: str = "") -> None:
        furnish(folder)
        self.hub = Hub.open(folder, base=base)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.database.close()

    def token(self, *scopes: str) -> str:
        return self.hub.auth.issue("someone", [Scope.parse(one) for one in scopes], days=1)

    def blob(self, repository: str, data: bytes) -> dict[str, Any]:
        """Store a blob; return its size and digest as descriptors have them."""
        digest = Digest.of(data)
        self.hub.blobs.put(data, digest)
        self.hub.database.link(self.hub.database.create_repository(repository), str(digest), len(data))
        return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}

    def push(self, repository: str, document: Mapping[str, Any], tag: str = "") -> str:
        """Store a manifest or index, tag it, tell the catalogue; return its digest."""
        body = oci.canonical(document)
        digest = Digest.of(body)
        manifest = Manifest.read(body, digest, "")
        found = self.hub.database.create_repository(repository)
        manifests.put(self.hub.database, found, manifest, (tag,) if tag else ())
        catalogue.manifest_pushed(self.hub, found, str(digest), tag)
        return str(digest)

    def image(
        self,
        repository: str,
        tag: str = "",
        *,
        arch: str = "amd64",
        labels: Mapping[str, str] | None = None,
        size: int = 1000,
        content: str = "",
    ) -> str:
        """Push an image; return the digest of its manifest."""
        layer = self.blob(repository, f"{repository}:{tag}:{arch}:{content}".encode().ljust(size, b"."))
        config = {
            "architecture": arch,
            "os": "linux",
            "config": {"Labels": dict(labels or {})},
            "rootfs": {"diff_ids": []},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.blob(repository, oci.canonical(config | {"made of": layer})) | {"mediaType": oci.CONFIG},
            "layers": [layer | {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}],
        }
        return self.push(repository, document, tag)

    def index(self, repository: str, tag: str, images: Sequence[str]) -> str:
        found = self.hub.database.create_repository(repository)
        rows = [self.hub.database.manifest(found, digest) for digest in images]
        entries = [{"mediaType": oci.MANIFEST, "digest": row.digest, "size": len(row.body)} for row in rows if row]
        return self.push(repository, {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}, tag)

    def artifact(self, repository: str, subject: str, kind: str, files: Mapping[str, bytes]) -> str:
        """Push what refers to the manifest `subject`; return the digest of its manifest."""
        layers = [
            self.blob(repository, data) | {"annotations": {"org.opencontainers.image.title": name}}
            for name, data in files.items()
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": kind,
            "config": self.blob(repository, b"{}") | {"mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": layers,
            "subject": {"mediaType": oci.MANIFEST, "digest": subject, "size": 1},
        }
        return self.push(repository, document)

    def recipe(self, repository: str, subject: str, text: str | bytes, files: Mapping[str, bytes] | None = None) -> str:
        data = text.encode() if isinstance(text, str) else text
        return self.artifact(repository, subject, oci.RECIPE_ARTIFACT, {"computeops.toml": data, **(files or {})})

    def evidence(
        self,
        repository: str,
        subject: str,
        kind: str,
        predicate: Any,
        *,
        about: str = "",
        signers: Sequence[str] = ("SHA256:abc",),
    ) -> str:
        """Push evidence; `about`: the digest that its statement names, if not `subject`."""
        algorithm, _, value = (about or subject).partition(":")
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "manifest", "digest": {algorithm: value}}],
            "predicateType": kind,
            "predicate": predicate,
        }
        return self.artifact(
            repository,
            subject,
            oci.EVIDENCE_ARTIFACT,
            {"e.dsse.json": envelope(json.dumps(statement).encode(), signers)},
        )

    def release(
        self,
        repository: str,
        version: str,
        *,
        summary: str = "Software",
        license: str = "MIT",  # noqa: A002
        domains: Sequence[str] = (),
        more: str = "",
        **image: Any,
    ) -> str:
        """Push an image with its recipe; return the digest of its manifest."""
        digest = self.image(repository, version, **image)
        name = repository.rpartition("/")[2]
        text = RECIPE.format(
            name=name, version=version, summary=summary, license=license, domains=json.dumps(list(domains)), more=more
        )
        self.recipe(repository, digest, text)
        return digest


def envelope(payload: bytes, signers: Sequence[str] = ("SHA256:abc",)) -> bytes:
    signatures = [{"keyid": keyid, "sig": base64.b64encode(b"signature").decode()} for keyid in signers]
    return json.dumps(
        {
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64.b64encode(payload).decode(),
            "signatures": signatures,
        }
    ).encode()


def until(seconds: float, condition: Any) -> bool:
    """Wait until `condition()` holds; return whether it did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
