"""The OCI registry: distribution-spec 1.1 (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md).

Reads of manifests and blobs are the hub's hot path and go from the ASGI scope to the answer without a framework.
`end-1` ... are the specification's own names of the endpoints.
"""

import re
from asyncio import to_thread
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError, StorageError
from computeops.hub import catalogue, lists, manifests, names, receive, sifs, webhooks
from computeops.hub.auth import challenge
from computeops.hub.blobs import Upload
from computeops.hub.call import Call, digest_of, unsupported
from computeops.hub.db import Repository
from computeops.hub.manifests import Manifest
from computeops.hub.oci_error import OciError
from computeops.hub.proxy import Proxies
from computeops.hub.send import send_blob, send_bytes
from computeops.hub.state import Hub, header
from computeops.hub.vulnerabilities import gates
from computeops.limits import LIMITS
from computeops.model import Digest

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<door>manifests|blobs|referrers|tags)/(?P<rest>.+)", re.DOTALL)
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?")
_UPLOADS = "uploads/"
_PAGE = 1000
_FILTERED = "artifactType"


class Registry:
    """The ASGI application under `/v2/`."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._proxies = hub, Proxies(hub)
        self._doors: dict[str, Callable[[Call], Awaitable[None]]] = {
            "manifests": self._manifests,
            "blobs": self._blobs,
            "referrers": self._referrers,
            "tags": self._tags,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        match = _PATH.fullmatch(path)
        if match is not None:
            await self._doors[match["door"]](Call(scope, receive, send, match["name"], match["rest"]))
        elif path in {"/v2", "/v2/"}:
            await self._ping(scope, send)
        elif path == "/v2/_catalog" and scope["method"] in {"GET", "HEAD"}:
            await lists.repositories(self._hub, Call(scope, receive, send, "", ""))
        else:
            raise OciError("NAME_UNKNOWN", 404, "no such endpoint")

    async def _ping(self, scope: Scope, send: Send) -> None:
        """end-1. Who says nothing is asked for a token: else clients with a password would never send it."""
        self._hub.caller(scope)
        if not header(scope, b"authorization"):
            raise self._unauthorized(scope)
        headers = {"content-type": "application/json", "docker-distribution-api-version": "registry/2.0"}
        await send_bytes(scope, send, 200, headers, b"{}")

    # who may

    def _readable(self, call: Call) -> Repository:
        """Return the repository, for the eyes of a caller who may read it; nobody else learns whether it exists."""
        caller = self._hub.caller(call.scope)
        database = self._hub.database
        found = database.remember(("repository", call.name), lambda: database.repository(call.name))
        if found is not None and caller.sees(found):
            return found
        if not header(call.scope, b"authorization"):
            raise self._unauthorized(call.scope, call.name)
        raise OciError("NAME_UNKNOWN", 404, f"no repository {call.name[: names.LENGTH]}")

    def _require(self, call: Call, action: str) -> None:
        """Refuse a caller who may not `action`, and names that no repository can have."""
        if not names.REPOSITORY.fullmatch(call.name) or len(call.name) > names.LENGTH:
            raise OciError("NAME_INVALID", 400, "a repository is called collection/name, in lower case")
        if call.name.partition("/")[0] in names.RESERVED:
            raise OciError("NAME_INVALID", 400, f"the hub keeps the name {call.name.partition('/')[0]!r} for itself")
        if action == "push":
            self._proxies.refuse(call.name)
        caller = self._hub.caller(call.scope)
        if self._hub.admit(caller, action, call.name):
            return
        if not caller.name:
            raise self._unauthorized(call.scope, call.name, f"pull,{action}")
        raise OciError("DENIED", 403, f"{caller.name} may not {action} to {call.name}")

    def _unauthorized(self, scope: Scope, name: str = "", actions: str = "pull") -> OciError:
        asked = challenge(self._hub.url(scope), name if names.REPOSITORY.fullmatch(name) else "", actions)
        return OciError("UNAUTHORIZED", 401, "a token is needed", headers={"WWW-Authenticate": asked})

    # manifests

    async def _manifests(self, call: Call) -> None:
        if call.method in {"GET", "HEAD"}:
            await self._get_manifest(call)
        elif call.method == "PUT":
            await self._put_manifest(call)
        elif call.method == "DELETE":
            await self._delete_manifest(call)
        else:
            raise unsupported(call)

    async def _get_manifest(self, call: Call) -> None:
        """end-3."""
        await self._proxies.manifest(call.scope, call.name, call.rest.removesuffix(sifs.SUFFIX))
        repository, reference = self._readable(call), call.rest
        database = self._hub.database

        def find() -> tuple[dict[str, str], bytes] | None:
            row = database.manifest(repository, reference)
            return None if row is None else (_manifest_headers(row.media_type, row.digest), row.body)

        found = database.remember(("manifest", repository.id, reference), find, _weight)
        if found is None and reference.endswith(sifs.SUFFIX):
            found = await self._sif_manifest(repository, reference.removesuffix(sifs.SUFFIX))
        if found is None:
            raise OciError("MANIFEST_UNKNOWN", 404, f"{call.name} has no manifest {reference[:200]!r}")
        headers, body = found
        gates.require_open(database, self._hub.caller(call.scope), repository, headers["docker-content-digest"])
        if header(call.scope, b"if-none-match") == headers["etag"]:
            await call.answer(304, {"etag": headers["etag"], "docker-content-digest": headers["docker-content-digest"]})
        else:
            await call.answer(200, headers, body)

    async def _sif_manifest(self, repository: Repository, tag: str) -> tuple[dict[str, str], bytes]:
        try:
            row = await sifs.find(self._hub, repository, tag)
        except NotFoundError as error:
            raise OciError("MANIFEST_UNKNOWN", 404, error.message) from error
        return _manifest_headers(row.media_type, row.digest), row.body

    async def _put_manifest(self, call: Call) -> None:
        """end-7."""
        self._require(call, "push")
        try:
            expected = Digest.parse(call.rest) if ":" in call.rest else None
        except FormatError as error:
            raise OciError("DIGEST_INVALID", 400, error.message) from error
        tagged = tuple(call.query("tag")) if expected else (call.rest,)
        if not all(names.TAG.fullmatch(name) for name in tagged):
            raise OciError("MANIFEST_INVALID", 400, "a tag has 1 to 128 letters, digits, _ . and -")
        try:
            body = await receive.whole(call.receive, LIMITS.manifest_bytes)
        except LimitError as error:
            raise OciError("SIZE_INVALID", 413, error.message) from error
        digest = Digest.of(body, expected.algorithm if expected else "sha256")
        if expected not in {None, digest}:
            raise OciError("DIGEST_INVALID", 400, f"the manifest is {digest}, not {expected}")
        manifest = Manifest.read(body, digest, header(call.scope, b"content-type"))
        repository = await to_thread(self._store, call.name, manifest, tagged)
        headers = {"location": f"/v2/{call.name}/manifests/{digest}", "docker-content-digest": str(digest)}
        if manifest.subject:
            headers["oci-subject"] = manifest.subject
        if expected and tagged:
            headers["oci-tag"] = ", ".join(tagged)
        for name in tagged or ("",):
            await to_thread(catalogue.manifest_pushed, self._hub, repository, str(digest), name)
            await to_thread(webhooks.announce, self._hub, repository, str(digest), name)
        await call.answer(201, headers)

    def _store(self, name: str, manifest: Manifest, tagged: tuple[str, ...]) -> Repository:
        repository = self._hub.database.create_repository(name)
        manifests.put(self._hub.database, repository, manifest, tagged)
        return repository

    async def _delete_manifest(self, call: Call) -> None:
        """end-9: by digest the manifest and its tags, by tag the tag only."""
        self._require(call, "delete")
        repository, by_digest = self._readable(call), ":" in call.rest
        delete = manifests.delete if by_digest else manifests.untag
        if not await to_thread(delete, self._hub.database, repository, call.rest):
            raise OciError("MANIFEST_UNKNOWN", 404, f"{call.name} has no manifest {call.rest[:200]!r}")
        digest, tag = (call.rest, "") if by_digest else ("", call.rest)
        await to_thread(catalogue.removed, self._hub, repository, digest, tag)
        await call.answer(202)

    # blobs

    async def _blobs(self, call: Call) -> None:
        if call.rest == _UPLOADS or call.rest == _UPLOADS[:-1]:
            await self._begin(call)
        elif call.rest.startswith(_UPLOADS):
            await self._upload(call)
        elif call.method in {"GET", "HEAD"}:
            await self._get_blob(call)
        elif call.method == "DELETE":
            await self._delete_blob(call)
        else:
            raise unsupported(call)

    async def _get_blob(self, call: Call) -> None:
        """end-2."""
        repository, digest = self._readable(call), digest_of(call.rest)
        database = self._hub.database
        await self._proxies.blob(call.scope, call.name, digest)
        size = database.remember(("blob", repository.id, call.rest), lambda: database.linked(repository, call.rest))
        if size is None:
            raise OciError("BLOB_UNKNOWN", 404, f"{call.name} has no blob {digest}")
        gates.require_open(database, self._hub.caller(call.scope), repository, call.rest)
        headers = {
            "content-type": "application/octet-stream",
            "docker-content-digest": call.rest,
            "etag": f'"{call.rest}"',
            "cache-control": "max-age=31536000, immutable" if repository.public else "private",
            "x-content-type-options": "nosniff",
        }
        await send_blob(call.scope, call.send, self._hub.blobs.storage, digest, size, headers)

    async def _delete_blob(self, call: Call) -> None:
        """end-10."""
        self._require(call, "delete")
        digest = str(digest_of(call.rest))
        if not await to_thread(manifests.unlink, self._hub.database, self._readable(call), digest):
            raise OciError("BLOB_UNKNOWN", 404, f"{call.name} has no blob {digest}")
        await call.answer(202)

    async def _begin(self, call: Call) -> None:
        """end-4a, end-4b, end-11: begin an upload, send a whole blob, or mount one from another repository."""
        if call.method != "POST":
            raise unsupported(call)
        self._require(call, "push")
        if mount := call.one("mount"):
            digest = digest_of(mount)
            if await to_thread(self._mount, call, digest):
                await call.answer(201, _blob_headers(call.name, digest))
                return
        await self._require_room(call)
        whole = digest_of(call.one("digest")) if call.query("digest") else None
        upload = await to_thread(self._hub.blobs.begin, call.name)
        if whole:
            await self._append(call, upload)
            await self._finish(call, upload, whole)
        else:
            await call.answer(202, _upload_headers(call.name, upload))

    def _mount(self, call: Call, digest: Digest) -> bool:
        """Link the blob if a repository that the caller may read has it."""
        caller, database = self._hub.caller(call.scope), self._hub.database
        visible = [one for one in database.holders(str(digest)) if caller.sees(one)]
        size = self._hub.blobs.size(digest)
        if not visible or size is None:
            return False
        database.link(database.create_repository(call.name), str(digest), size)
        return True

    async def _upload(self, call: Call) -> None:
        """end-5, end-6, end-13, and the cancellation of an upload."""
        self._require(call, "push")
        try:
            upload = self._hub.blobs.upload(call.rest.removeprefix(_UPLOADS), call.name)
        except NotFoundError as error:
            raise OciError("BLOB_UPLOAD_UNKNOWN", 404, error.message) from error
        try:
            await self._continue(call, upload)
        except ConflictError as error:
            raise OciError("BLOB_UPLOAD_INVALID", 409, error.message) from error

    async def _continue(self, call: Call, upload: Upload) -> None:
        if call.method == "GET":
            await call.answer(204, _upload_headers(call.name, upload))
        elif call.method == "DELETE":
            await to_thread(self._hub.blobs.cancel, upload)
            await call.answer(204)
        elif call.method == "PATCH":
            await self._append(call, upload)
            await call.answer(202, _upload_headers(call.name, upload))
        elif call.method == "PUT":
            digest = digest_of(call.one("digest"))
            await self._append(call, upload)
            await self._finish(call, upload, digest)
        else:
            raise unsupported(call)

    async def _append(self, call: Call, upload: Upload) -> None:
        if asked := header(call.scope, b"content-range"):
            match = _CONTENT_RANGE.fullmatch(asked)
            if match is None or int(match[1]) != upload.offset:
                state = _upload_headers(call.name, upload)
                raise OciError("BLOB_UPLOAD_INVALID", 416, f"the next byte is {upload.offset}", headers=state)
        await self._require_room(call, upload.offset)
        try:
            await upload.append(receive.chunks(call.receive))
        except LimitError as error:
            raise OciError("SIZE_INVALID", 413, error.message) from error

    async def _require_room(self, call: Call, there: int = 0) -> None:
        """Refuse what its collection, or the disk, has no room for, before it is sent."""
        length = header(call.scope, b"content-length")
        size = there + (int(length) if length.isascii() and length.isdigit() else 0)
        try:
            await to_thread(self._hub.require_room, call.name, size)
        except StorageError as error:
            raise OciError("DENIED", error.status, error.message) from error

    async def _finish(self, call: Call, upload: Upload, digest: Digest) -> None:
        try:
            await to_thread(self._hub.finish, upload, call.name, digest)
        except FormatError as error:
            raise OciError("DIGEST_INVALID", 400, error.message) from error
        await call.answer(201, _blob_headers(call.name, digest))

    # lists

    async def _tags(self, call: Call) -> None:
        if call.rest != "list" or call.method not in {"GET", "HEAD"}:
            raise unsupported(call)
        await lists.tags(self._hub, call, self._readable(call))

    async def _referrers(self, call: Call) -> None:
        """Never 404, so that a client knows that the hub can list them."""
        if call.method not in {"GET", "HEAD"}:
            raise unsupported(call)
        digest = digest_of(call.rest)
        await self._proxies.referrers(call.scope, call.name, digest)
        try:
            repository = self._readable(call)
        except OciError as error:
            if error.status == 401:
                raise
            repository = None
        await lists.referrers(self._hub, call, repository, digest)


def _manifest_headers(media_type: str, digest: str) -> dict[str, str]:
    return {
        "content-type": media_type,
        "docker-content-digest": digest,
        "etag": f'"{digest}"',
        "x-content-type-options": "nosniff",
    }


def _weight(found: tuple[dict[str, str], bytes] | None) -> int:
    return 1024 + (len(found[1]) if found else 0)


def _blob_headers(name: str, digest: Digest) -> dict[str, str]:
    return {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": str(digest)}


def _upload_headers(name: str, upload: Upload) -> dict[str, str]:
    return {
        "location": f"/v2/{name}/blobs/{_UPLOADS}{upload.id}",
        "range": f"0-{max(0, upload.offset - 1)}",
        "docker-upload-uuid": upload.id,
    }
