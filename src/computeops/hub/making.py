"""A SIF made by the hub for an image that was pushed without one: once, then kept beside the image as if pushed.

One is made at a time, in a thread of its own, so that the hub answers others meanwhile. What cannot be made is not
tried again until the hub restarts: whoever asks costs nothing.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from computeops.config import EPOCH_DEFAULT
from computeops.errors import ComputeOpsError, NotFoundError
from computeops.hub import manifests
from computeops.hub.blobs import Blobs
from computeops.hub.db import Database, Repository
from computeops.hub.manifests import Manifest
from computeops.image import oci
from computeops.model import Digest

EMPTY = b"{}"
"""The config of a SIF artifact."""
CONFIG = "application/vnd.sylabs.sif.config.v1+json"
_FAILURES = 10_000


class Making:
    """The workshop of one hub."""

    def __init__(self, folder: Path, database: Database, blobs: Blobs) -> None:
        self._folder, self._database, self._blobs = folder, database, blobs
        self._bench = ThreadPoolExecutor(1, thread_name_prefix="sif")
        self._failures: dict[str, str] = {}

    async def sif(self, repository: Repository, image: sa.Row[Any]) -> sa.Row[Any]:
        """Return the manifest of the SIF of the manifest `image`, made now if it is not there.

        Raises:
            NotFoundError: it cannot be made.
        """
        return await asyncio.get_running_loop().run_in_executor(self._bench, self._sif, repository, image)

    def _sif(self, repository: Repository, image: sa.Row[Any]) -> sa.Row[Any]:
        for row in self._database.referrers(repository, image.digest):
            if row.artifact_type == oci.SIF_ARTIFACT:
                return row
        if image.digest not in self._failures:
            try:
                return self._make(repository, image)
            except ComputeOpsError as error:
                if len(self._failures) < _FAILURES:
                    self._failures[image.digest] = error.message
                raise NotFoundError(f"{repository.name} has no SIF, and none can be made: {error.message}") from error
        raise NotFoundError(f"{repository.name} has no SIF, and none can be made: {self._failures[image.digest]}")

    def _make(self, repository: Repository, image: sa.Row[Any]) -> sa.Row[Any]:
        from computeops.image import convert

        folder = self._folder / secrets.token_hex(16)
        try:
            self.lay_out(folder / "image", image)
            sif = folder / "image.sif"
            convert.convert(folder / "image", sif, writer=convert.Writer(threads=1), epoch=EPOCH_DEFAULT, tmp=folder)
            with sif.open("rb") as file:
                digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
            size = sif.stat().st_size
            self._blobs.take(sif, digest)
            self._database.link(repository, str(digest), size, lambda: self._blobs.take(sif, digest))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._blobs.put(EMPTY, Digest.of(EMPTY))
        self._database.link(repository, str(Digest.of(EMPTY)), len(EMPTY), self._put_empty)
        body = _manifest(image, digest, size)
        manifests.put(self._database, repository, Manifest.read(body, Digest.of(body), ""), ())
        made = self._database.manifest(repository, str(Digest.of(body)))
        assert made is not None
        return made

    def _put_empty(self) -> None:
        self._blobs.put(EMPTY, Digest.of(EMPTY))

    def lay_out(self, layout: Path, image: sa.Row[Any]) -> None:
        """Make an image layout of `image` without copying anything."""
        manifest = Manifest.read(image.body, Digest.parse(image.digest), image.media_type)
        for part in {part.digest for part in manifest.parts}:
            digest = Digest.parse(part)
            target = layout / "blobs" / digest.algorithm / digest.hex
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._blobs.file(digest) as file:  # the same disk: nothing is copied
                os.link(file, target)
        own = layout / "blobs" / manifest.digest.algorithm / manifest.digest.hex
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_bytes(image.body)
        entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body)}
        (layout / "index.json").write_bytes(oci.canonical({"schemaVersion": 2, "manifests": [entry]}))
        (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')


def _manifest(image: sa.Row[Any], digest: Digest, size: int) -> bytes:
    layer = {
        "mediaType": oci.SIF_ARTIFACT,
        "digest": str(digest),
        "size": size,
        "annotations": {"org.opencontainers.image.title": "image.sif"},
    }
    subject = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body)}
    return oci.canonical(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": oci.SIF_ARTIFACT,
            "config": oci.descriptor(CONFIG, EMPTY),
            "layers": [layer],
            "subject": subject,
        }
    )
