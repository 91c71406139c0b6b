"""From another registry into this hub: manifests with all that they consist of, and all that is about them.

Everything is checked against its digest. A tag is set last, so that a release appears with its recipe and evidence or
not at all; whatever was copied before an interruption is found and not fetched again.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from computeops.errors import ConflictError, FormatError, LimitError
from computeops.hub import catalogue, manifests, roles
from computeops.hub.db import Repository
from computeops.hub.manifests import INDEXES, Manifest
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.store.oci import Descriptor, Registry

_DEPTH = 6  # an index of indexes, evidence about evidence ...


@dataclass(slots=True)
class Tally:
    """How much was copied."""

    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Copying:
    """Copies from one repository to another."""

    hub: Hub
    registry: Registry
    source: str
    """Name of the repository in `registry`."""
    target: str
    """Name of the repository in `hub`; it is made with the first that is copied."""
    work: Path
    """A folder on the hub's disk for what is on its way."""
    public: bool = True
    """Whether everybody may see a collection that is made by this; one that is there stays as it is."""
    sparse: bool = False
    """Whether manifests are stored without what they consist of, but for what the catalogue reads."""
    tally: Tally = field(default_factory=Tally)
    told: Callable[[str], None] = _ignore
    """Called with what is copied next."""
    _seen: set[str] = field(default_factory=set)

    def tag(self, name: str, digest: Digest) -> bool:
        """Let the tag `name` mean the manifest `digest`, copied with all that belongs to it; False: it did already.

        Raises:
            ConflictError: the tag is another release here, or was one.
            FormatError, LimitError: something of it is broken or too large.
        """
        repository = self.hub.database.repository(self.target)
        here = self.hub.database.manifest(repository, name) if repository else None
        moved = here is None or here.digest != str(digest)
        if repository and here is not None and moved and catalogue.is_release(self.hub, repository, here.digest):
            raise ConflictError(f"{self.target}:{name} is a release here, and another one at {self.registry.base}")
        self.manifest(digest)
        if moved:
            self._store(self._read(digest), name)
            self.tally.tags += 1
        elif repository is not None:  # killed between the two, a copy before had set the tag and not told the catalogue
            catalogue.manifest_pushed(self.hub, repository, str(digest), name)
        return moved

    def manifest(self, digest: Digest, depth: int = 0) -> None:
        """Copy a manifest, all that it consists of, and all that is about it.

        Raises:
            FormatError, LimitError: something of it is broken or too large.
        """
        if str(digest) in self._seen:
            return
        self._seen.add(str(digest))
        if depth > _DEPTH:
            raise LimitError(f"{self.source}@{digest} is nested more than {_DEPTH} deep")
        found = self._read(digest)
        self._parts(found, depth)
        repository = self.hub.database.repository(self.target)
        if repository is None or not self._has(digest):
            self._store(found)
            self.tally.manifests += 1
        else:  # a copy that was killed between the two had stored it and not told the catalogue
            catalogue.manifest_pushed(self.hub, repository, str(digest))
        if not self.sparse:
            self.referrers(digest, depth)

    def _parts(self, found: Manifest, depth: int) -> None:
        if found.media_type not in INDEXES:
            for number, one in enumerate(_blobs(found)):
                if not self.sparse or (one.size <= LIMITS.evidence_bytes and (found.releasing or number == 0)):
                    self.blob(one)
        elif not self.sparse:
            for part in found.parts:
                self.manifest(Digest.parse(part.digest), depth + 1)

    def referrers(self, digest: Digest, depth: int = 0) -> None:
        """Copy all that is about the manifest `digest`, and what is about that.

        Raises:
            FormatError, LimitError: something of it is broken or too large.
        """
        for referrer in self.registry.referrers(self.source, digest):
            self.manifest(referrer.digest, depth + 1)

    def _has(self, digest: Digest) -> bool:
        repository = self.hub.database.repository(self.target)
        return repository is not None and self.hub.database.manifest(repository, str(digest)) is not None

    def _read(self, digest: Digest) -> Manifest:
        """Return a manifest, from here if it was copied before."""
        repository = self.hub.database.repository(self.target)
        here = self.hub.database.manifest(repository, str(digest)) if repository else None
        if here is not None:
            return Manifest.read(here.body, digest, here.media_type)
        found = self.registry.resolve(self.source, str(digest))
        return Manifest.read(found.body, digest, found.media_type)

    def _store(self, found: Manifest, name: str = "") -> None:
        repository = self._repository()
        manifests.put(self.hub.database, repository, found, (name,) if name else (), sparse=self.sparse)
        catalogue.manifest_pushed(self.hub, repository, str(found.digest), name)

    def _repository(self) -> Repository:
        collection = self.target.rpartition("/")[0]
        if not self.public and not roles.exists(self.hub.database, collection):
            self.hub.set_public(collection, public=False)
        return self.hub.database.create_repository(self.target)

    def blob(self, what: Descriptor) -> None:
        """Copy a blob, unless the hub has it.

        Raises:
            FormatError: it is not what its descriptor says; LimitError: it is larger than the hub takes.
        """
        repository = self.hub.database.repository(self.target)
        if repository is not None and self.hub.database.linked(repository, str(what.digest)) is not None:
            return
        if what.size > LIMITS.file_bytes:
            raise LimitError(f"{what.digest} has {what.size} bytes, the hub takes {LIMITS.file_bytes}")
        if self.hub.blobs.fresh(what.digest, what.size):  # another repository has it
            self.hub.database.link(self._repository(), str(what.digest), what.size)
        else:
            self._fetch(what)

    def _fetch(self, what: Descriptor) -> None:
        self.told(f"{self.target} {what.digest}")
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            file = Path(folder) / "blob"
            self.registry.blob(self.source, what, file)
            size = file.stat().st_size
            if size != what.size:
                raise FormatError(f"{what.digest} has {size} bytes, not {what.size}")
            self.hub.database.link(
                self._repository(), str(what.digest), size, lambda: self.hub.blobs.take(file, what.digest)
            )
        self.tally.blobs += 1
        self.tally.bytes += size


def _blobs(found: Manifest) -> Iterator[Descriptor]:
    """Yield the blobs of an image manifest that are kept with it."""
    document = oci.document(found.body)
    optional = {part.digest for part in found.parts if part.optional}  # layers that may not be distributed
    for one in (document["config"], *oci.items(document, "layers")):
        described = Descriptor.read(one)
        if str(described.digest) not in optional:
            yield described
