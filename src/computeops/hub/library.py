"""The Library API: what Apptainer and SingularityCE speak under library://, at the root of the hub.

Nothing of it is stored for its own sake. An id is the name of what it means, so that creating an entity, a collection
or a container is only the question whether one may; an image is a SIF blob of a repository, and its tags are the
repository's own. `library://a/b/c` is the repository `a/b/c`; `library://library/b/c` is `b/c`, because clients push to
three components only; `library://c` is `library/c`.
"""

from asyncio import to_thread
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from computeops import __version__
from computeops.errors import ComputeOpsError, LoginError, NotFoundError, UsageError
from computeops.hub import manifests, receive, roles, search, shelf, sifs
from computeops.hub.auth import Caller
from computeops.hub.db import Repository
from computeops.hub.library_call import completed, data, refused, require, sent_json, text_of
from computeops.hub.sifs import SifFile
from computeops.hub.state import Hub, header
from computeops.hub.vulnerabilities import gates
from computeops.model import Digest

_API = "2.0.0-alpha.2"  # of the Library API: from this on, tags have an architecture
_ROOT = "library"
_SEARCHED = 50
_MIN_SEARCH = 3


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    library = Library(hub)
    return [
        Route("/assets/config/config.prod.json", library.discover),
        Route("/version", library.version),
        Route("/v1/token-status", library.token_status),
        Route("/v1/rbac/users/current", library.user),
        Route("/v1/oci-redirect", library.no_redirect),
        Route("/v1/search", library.search),
        Route("/v1/entities", library.create, methods=["POST"]),
        Route("/v1/collections", library.create, methods=["POST"]),
        Route("/v1/containers", library.create, methods=["POST"]),
        Route("/v1/entities/{name:path}", library.place),
        Route("/v1/collections/{name:path}", library.place),
        Route("/v1/containers/{name:path}", library.place),
        Route("/v1/images", library.create_image, methods=["POST"]),
        Route("/v1/images/{reference:path}", library.image, methods=["GET"]),
        Route("/v1/images/{reference:path}", library.delete, methods=["DELETE"]),
        Route("/v1/imagefile/{reference:path}", library.download, methods=["GET"]),
        Route("/v1/imagefile/{image}", library.upload_directly, methods=["POST"]),
        Route("/v2/imagefile/{image}", library.upload, methods=["POST"]),
        Route("/v2/imagefile/{image}/_complete", library.complete, methods=["PUT"]),
        Route("/v2/imagefile/{image}/{upload}", library.receive, methods=["PUT"]),
        Route("/v1/tags/{container}", library.tags_without_arch, methods=["GET", "POST"]),
        Route("/v2/tags/{container}", library.tags, methods=["GET", "POST"]),
    ]


class Library:
    """The requests of a Library client, in the order in which it sends them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    # who and where

    async def discover(self, request: Request) -> Response:
        """Say where each service is: a client needs every value to be an object."""
        here = {"uri": self._hub.url(request.scope)}
        said = {"libraryAPI": here | {"registryUri": here["uri"]}, "keystoreAPI": here, "tokenAPI": here}
        return JSONResponse(said, headers={"cache-control": "max-age=300"})

    async def version(self, _request: Request) -> Response:
        """Say which Library API this is."""
        return data({"version": __version__, "apiVersion": _API})

    async def token_status(self, request: Request) -> Response:
        """Say whether a token holds. Clients understand 404 as "not valid", and no other status."""
        try:
            caller = self._hub.caller(request.scope)
        except LoginError as error:
            raise NotFoundError(error.message, hint=error.hint) from error
        if not caller.name:
            raise NotFoundError("no token was sent")
        return data({})

    async def user(self, request: Request) -> Response:
        """Say who the caller is; the secret is what opens the registry: the caller's own token."""
        caller = self._hub.caller(request.scope)
        if not caller.name:
            raise LoginError("no token was sent")
        secret = header(request.scope, b"authorization").partition(" ")[2].strip()
        meta = {"secret": secret}
        return JSONResponse(
            {"username": caller.name, "email": "", "realname": caller.name, "oidc_user_meta": meta},
            headers={"cache-control": "no-store"},
        )

    async def no_redirect(self, _request: Request) -> Response:
        """Send the client back to the plain way: one request, one whole file."""
        raise NotFoundError("this hub takes and serves images directly")

    # pull

    async def image(self, request: Request) -> Response:
        """Describe an image; 404 lets a client that pushes create it."""
        repository, file = await self._find(request)
        return data(await to_thread(self._described, repository, file))

    async def download(self, request: Request) -> Response:
        """Send the client to the registry's blob, which it reads in parallel ranges: 303 and nothing else does that."""
        repository, file = await self._find(request)
        place = f"{self._hub.url(request.scope)}/v2/{repository.name}/blobs/{file.digest}"
        return RedirectResponse(place, 303)

    async def _find(self, request: Request) -> tuple[Repository, SifFile]:
        name, reference = self._reference(request)
        repository = self._visible(self._hub.caller(request.scope), name)
        if isinstance(reference, Digest):  # a hash means one file, whatever ?arch= says
            file = sifs.described(self._hub, repository, reference)
        else:
            row = await sifs.find(self._hub, repository, reference, request.query_params.get("arch", ""))
            file = sifs.file_of(self._hub, repository, row)
        caller = self._hub.caller(request.scope)
        gates.require_open(self._hub.database, caller, repository, str(file.digest))
        return repository, file

    def _reference(self, request: Request) -> tuple[str, Digest | str]:
        """Return the repository and the tag or hash of `a/b/c:tag`."""
        # clients take the host in library://HOST/b/c for a first component, and ask their default remote
        host = self._hub.url(request.scope).partition("://")[2]
        text = request.path_params["reference"].strip("/").removeprefix(f"{host}/")
        name, _, target = text.partition(":")
        return _repository(name), _hash(target) if target.startswith("sha256.") else target or "latest"

    def _visible(self, caller: Caller, name: str) -> Repository:
        found = self._hub.database.repository(name)
        if found is None or not caller.sees(found):
            raise NotFoundError(f"no image {name}")
        return found

    def _described(self, repository: Repository, file: SifFile) -> dict[str, Any]:
        entity, collection, name = _three(repository.name)
        return {
            "id": shelf.identity(f"{repository.name}@{file.digest}"),
            "hash": f"sha256.{file.digest.hex}",
            "size": file.size,
            "uploaded": True,
            "arch": file.arch,
            "signed": file.signed,
            "fingerprints": list(file.fingerprints),
            "container": shelf.identity(repository.name),
            "entityName": entity,
            "collectionName": collection,
            "containerName": name,
            "tags": manifests.names(self._hub.database, repository, str(file.digest)),
        }

    async def search(self, request: Request) -> Response:
        """Find images by words; docker's own search sends `q` instead of `value`."""
        words = request.query_params.get("value", request.query_params.get("q", ""))
        if len(words) < _MIN_SEARCH:
            raise UsageError(f"a search needs {_MIN_SEARCH} characters or more")
        found = await to_thread(self._search, self._hub.caller(request.scope), words)
        archs = [one for one in request.query_params.get("arch", "").split(",") if one]
        signed = request.query_params.get("signed") == "true"
        fitting = [one for one in found if (not archs or one["arch"] in archs) and (one["signed"] or not signed)]
        return data({"entity": [], "collection": [], "container": [], "image": fitting})

    def _search(self, caller: Caller, words: str) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for entry in search.search(self._hub.database, caller, words, limit=_SEARCHED).entries:
            try:
                row = sifs.manifest_of(self._hub, entry.repository, entry.digest, entry.arch)
                file = sifs.file_of(self._hub, entry.repository, row)
            except ComputeOpsError:
                continue  # not every image has a SIF
            described = self._described(entry.repository, file) | {"tags": [entry.tag], "description": entry.summary}
            known = found.setdefault(described["id"], described)
            known["tags"] = sorted({entry.tag, *known["tags"]})
        return list(found.values())

    # push

    async def place(self, request: Request) -> Response:
        """Say whether an entity, a collection or a container is there: where one may push, it always is."""
        name = request.path_params["name"].strip("/")
        caller = self._hub.caller(request.scope)
        if not await to_thread(self._is_place, caller, name):
            raise NotFoundError(f"no {name}")
        return data(_place(name))

    def _is_place(self, caller: Caller, name: str) -> bool:
        repository = self._hub.database.repository(_repository(name)) if "/" in name else None
        return self._may_push(caller, name) or (repository is not None and caller.sees(repository))

    def _may_push(self, caller: Caller, name: str) -> bool:
        """Return whether `caller` may push to the container `name`, or to any in the entity or collection `name`."""
        components = name.split("/")
        if len(components) > 2:
            return roles.allows(self._hub.database, caller, "push", _repository(name))
        above = components[1:] if components[0] == _ROOT else components
        return caller.may_below("push", "".join(f"{one}/" for one in above))

    async def create(self, request: Request) -> Response:
        """Create an entity, a collection or a container: only a question of permission."""
        sent = await sent_json(request)
        parent = next((sent[key] for key in ("entity", "collection") if sent.get(key)), "")
        name = "/".join(one for one in (shelf.name_of(parent) if parent else "", text_of(sent, "name")) if one)
        caller = self._hub.caller(request.scope)
        if not await to_thread(self._may_push, caller, name):
            raise refused(caller, name)
        return data(_place(name), 201)

    async def create_image(self, request: Request) -> Response:
        """Give the id under which a file may be uploaded."""
        sent = await sent_json(request)
        repository = _repository(shelf.name_of(text_of(sent, "container")))
        require(self._hub, request, "push", repository)
        digest = _hash(text_of(sent, "hash"))
        uploaded = await to_thread(shelf.has, self._hub, repository, digest)
        said = {
            "id": shelf.identity(f"{repository}@{digest}"),
            "hash": f"sha256.{digest.hex}",
            "container": text_of(sent, "container"),
            "uploaded": uploaded,
        }
        return data(said, 201)

    async def upload(self, request: Request) -> Response:
        """Give the address to which the file is sent; it cannot be guessed and needs no token."""
        repository, _ = shelf.image_of(request.path_params["image"])
        require(self._hub, request, "push", repository)
        sent = await sent_json(request)
        await to_thread(shelf.require_room, self._hub, repository, sent.get("filesize"))
        upload = await to_thread(self._hub.blobs.begin, repository)
        place = f"{self._hub.url(request.scope)}/v2/imagefile/{request.path_params['image']}/{upload.id}"
        return data({"uploadURL": place})

    async def receive(self, request: Request) -> Response:
        """Take the file: it is durable when this answers 200, and only 200 is understood."""
        repository, digest = shelf.image_of(request.path_params["image"])
        upload = self._hub.blobs.upload(request.path_params["upload"], repository)
        await shelf.receive(self._hub, upload, receive.chunks(request.receive), repository, digest)
        return Response(status_code=200)

    async def upload_directly(self, request: Request) -> Response:
        """Take the file as clients before API 2.0 send it."""
        repository, digest = shelf.image_of(request.path_params["image"])
        require(self._hub, request, "push", repository)
        upload = await to_thread(self._hub.blobs.begin, repository)
        await shelf.receive(self._hub, upload, receive.chunks(request.receive), repository, digest)
        return data({})

    async def complete(self, request: Request) -> Response:
        """Confirm that the file is there."""
        repository, digest = shelf.image_of(request.path_params["image"])
        require(self._hub, request, "push", repository)
        if not await to_thread(shelf.has, self._hub, repository, digest):
            raise UsageError(f"{digest} was not uploaded completely", hint="push it again")
        return data(await to_thread(completed, self._hub, repository))

    async def tags(self, request: Request) -> Response:
        """Tell or set the tags of a container, by architecture."""
        if request.method == "POST":
            await self._tag(request)
        return data(await to_thread(self._tags, request))

    async def tags_without_arch(self, request: Request) -> Response:
        """Tell or set the tags of a container as clients before API 2.0 do."""
        if request.method == "POST":
            await self._tag(request)
        by_arch = await to_thread(self._tags, request)
        return data({tag: image for tags in by_arch.values() for tag, image in tags.items()})

    async def _tag(self, request: Request) -> None:
        repository = _repository(shelf.name_of(request.path_params["container"]))
        require(self._hub, request, "push", repository)
        sent = {key.lower(): value for key, value in (await sent_json(request)).items()}
        owner, digest = shelf.image_of(text_of(sent, "imageid"))
        if owner != repository:
            raise UsageError(f"that image is in {owner}, not in {repository}")
        await to_thread(shelf.tag, self._hub, repository, digest, text_of(sent, "tag"), str(sent.get("arch") or ""))

    def _tags(self, request: Request) -> dict[str, dict[str, str]]:
        name = _repository(shelf.name_of(request.path_params["container"]))
        found = self._hub.database.repository(name)
        caller = self._hub.caller(request.scope)
        if found is None or not caller.sees(found):
            if roles.allows(self._hub.database, caller, "push", name):
                return {}
            raise NotFoundError(f"no container {name}")
        return shelf.tags(self._hub, found)

    async def delete(self, request: Request) -> Response:
        """Delete a tag, or a file by its hash; only 200 is understood."""
        name, reference = self._reference(request)
        require(self._hub, request, "delete", name)
        repository = await to_thread(self._visible, self._hub.caller(request.scope), name)
        await to_thread(shelf.delete, self._hub, repository, reference)
        return data({})


def _repository(name: str) -> str:
    """Return the repository of a name with one to three components."""
    components = [one for one in name.split("/") if one]
    if len(components) == 1:
        return f"{_ROOT}/{name}"
    return "/".join(components[1:] if len(components) > 2 and components[0] == _ROOT else components)


def _three(repository: str) -> tuple[str, str, str]:
    """Return entity, collection and container of a repository: all that clients can print and push to."""
    above, _, name = repository.rpartition("/")
    entity, _, collection = above.rpartition("/")
    return entity or _ROOT, collection, name


def _place(name: str) -> dict[str, Any]:
    identity = shelf.identity(name)
    return {"id": identity, "name": name.rpartition("/")[2], "private": False, "readOnly": False}


def _hash(text: str) -> Digest:
    algorithm, _, value = text.partition(".")
    if algorithm != "sha256":
        raise UsageError(f"not a hash: {text[:100]!r}", hint="write sha256.<64 hex digits>")
    return Digest.parse(f"sha256:{value}")
