"""The parts of one running hub, given to every door."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from computeops.errors import StorageError, UsageError
from computeops.hub import clock, records, roles
from computeops.hub.auth import ANYONE, Auth, Caller, share_key
from computeops.hub.blobs import Blobs, Upload
from computeops.hub.db import Database
from computeops.hub.making import Making
from computeops.hub.settings import DEFAULT, Secrets, Settings
from computeops.hub.settings import in_folder as settings_in
from computeops.hub.storage import open_storage
from computeops.hub.storage.folder import Folder
from computeops.model import Digest

_COLLECTION = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Hub:
    """What the doors share."""

    data: Path
    """The folder with everything that the hub keeps."""
    base: str
    """The address that the world knows, `https://csan.example.org`; empty: the one that each request was sent to."""
    database: Database
    blobs: Blobs
    auth: Auth
    making: Making
    settings: Settings = DEFAULT
    secrets: Secrets = field(default_factory=Secrets)

    @classmethod
    def open(
        cls,
        data: Path,
        *,
        base: str = "",
        settings: Settings | None = None,
        secrets: Secrets | None = None,
        rebuilding: bool = False,
    ) -> Self:
        """Open the hub in the folder `data`, or begin one there; only its owner may read it.

        `settings`: by default what hub.toml in that folder says. `rebuilding`: the index is about to be made anew.

        Raises:
            StorageError: the index is empty, but the storage is not; or a newer hub made it.
        """
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = settings or settings_in(data)
        clock.steady(data)
        storage = open_storage(data, settings.storage, settings.storage_options, redirect=settings.storage_redirect)
        database, blobs = Database.in_folder(data, settings.database, storage), Blobs(storage, Folder(data))
        if not rebuilding and database.is_empty() and records.any_repository(storage):
            database.close()
            raise StorageError(
                "the index of this hub is empty, but its storage has repositories",
                hint=f"make it anew: computeops hub reindex --data {data}; accounts and tokens come back from a backup",
            )
        if settings.database:
            share_key(database, data)
        making = Making(blobs.work, database, blobs)
        auth = Auth(database, data, people_create=settings.create_collections == "people")
        return cls(data, base.rstrip("/"), database, blobs, auth, making, settings, secrets or Secrets())

    def finish(self, upload: Upload, repository: str, digest: Digest) -> None:
        """Make the upload the blob `digest` of `repository`, durably; it ends in any case.

        Raises:
            FormatError: its content has another digest.
            ConflictError: another request is adding to it; then it goes on.
        """
        with upload.claimed():
            try:
                size = self.blobs.publish(upload, digest)
                found = self.database.create_repository(repository)
                self.database.link(found, str(digest), size, lambda: self.blobs.publish(upload, digest))
            finally:
                self.blobs.forget(upload)

    def set_public(self, collection: str, *, public: bool) -> None:
        """Make `collection` public or private, also before anything is pushed to it.

        Raises:
            UsageError: no collection can be called so.
        """
        if not _COLLECTION.fullmatch(collection):
            raise UsageError(f"not a collection: {collection!r}", hint="write it in lower case, for example bio")
        self.database.set_public(collection, public=public)

    def set_quota(self, collection: str, quota: int | None) -> None:
        """Let `collection` hold at most `quota` bytes; None: as much as there is.

        Raises:
            UsageError: no collection can be called so.
        """
        if not _COLLECTION.fullmatch(collection):
            raise UsageError(f"not a collection: {collection!r}", hint="write it in lower case, for example bio")
        self.database.set_quota(collection, quota)

    def require_room(self, repository: str, size: int) -> None:
        """Refuse `size` bytes more in `repository` before they are sent.

        Raises:
            StorageError: its collection may not hold so much, or the disk cannot.
        """
        left = self.database.room(repository)
        if left is not None and (left <= 0 or left < size):
            collection = repository.rpartition("/")[0]
            raise StorageError(
                f"the collection {collection} has room for {max(0, left)} bytes more",
                hint="delete what is not needed, or ask the operator of the hub for more",
            )
        if not self.settings.storage and size > shutil.disk_usage(self.data).free:
            raise StorageError("the hub has no room for this file", hint="ask its operator")

    def url(self, scope: Mapping[str, Any]) -> str:
        """Return the hub's address as the sender of the request with this ASGI `scope` can reach it, without a `/`."""
        return self.base or f"{scope['scheme']}://{header(scope, b'host')}"

    def admit(self, caller: Caller, action: str, repository: str) -> bool:
        """Return whether `caller` may `action` on `repository`; whoever so begins a collection becomes its owner."""
        public = self.settings.new_collections == "public"
        return roles.admit(self.database, caller, action, repository, public=public)

    def caller(self, scope: Mapping[str, Any]) -> Caller:
        """Return who sent the request with this ASGI `scope`.

        Raises:
            LoginError: a token that is wrong, expired or revoked.
        """
        authorization = header(scope, b"authorization")
        return self.auth.caller(authorization) if authorization else ANYONE


def header(scope: Mapping[str, Any], name: bytes) -> str:
    """Return the first header `name` (in lower case) of the request with this ASGI `scope`; empty without one."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
