"""Files above 64 MiB as Library clients push them: in parts, one after the other, each to an address of its own.

The parts are the bytes of one upload in their order, so the hash runs along, and a part that was cut off cannot be
mistaken for a whole one: the next does not begin where it should.
"""

from asyncio import to_thread
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from computeops.errors import ConflictError, LimitError, NotFoundError, UsageError
from computeops.hub import receive, shelf
from computeops.hub.blobs import Upload
from computeops.hub.library_call import completed, data, require, sent_json, text_of
from computeops.hub.state import Hub
from computeops.limits import MIB
from computeops.model import Digest

PART_BYTES = 64 * MIB
_MAX_PARTS = 10_000
_PLACE = "/v2/imagefile/{image}/"


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    door = Multipart(hub)
    return [
        Route(f"{_PLACE}_multipart", door.begin, methods=["POST"]),
        Route(f"{_PLACE}_multipart", door.address, methods=["PUT"]),
        Route(f"{_PLACE}_multipart_complete", door.complete, methods=["PUT"]),
        Route(f"{_PLACE}_multipart_abort", door.abort, methods=["PUT"]),
        Route(f"{_PLACE}{{upload}}/{{part:int}}", door.receive, methods=["PUT"]),
    ]


class Multipart:
    """The requests of one push, in the order in which they come."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def begin(self, request: Request) -> Response:
        """Say how the file is to be cut; too few parts would cut off its end in silence."""
        repository, _ = self._image(request, push=True)
        size = (await sent_json(request)).get("filesize")
        await to_thread(shelf.require_room, self._hub, repository, size)
        assert isinstance(size, int)
        parts = -(-size // PART_BYTES)
        if parts > _MAX_PARTS:
            raise LimitError(f"a file of {size} bytes is too large to be pushed in parts")
        upload = await to_thread(self._hub.blobs.begin, repository)
        said = {"uploadID": upload.id, "totalParts": parts, "partSize": PART_BYTES}
        return data(said | {"options": {"s3compliant": "true"}})

    def _image(self, request: Request, *, push: bool) -> tuple[str, Digest]:
        repository, digest = shelf.image_of(request.path_params["image"])
        if push:
            require(self._hub, request, "push", repository)
        return repository, digest

    async def address(self, request: Request) -> Response:
        """Give the address of one part; it cannot be guessed and needs no token."""
        repository, _ = self._image(request, push=True)
        sent = await sent_json(request)
        upload, number = self._hub.blobs.upload(text_of(sent, "uploadID"), repository), sent.get("partNumber")
        if not isinstance(number, int) or not 1 <= number <= _MAX_PARTS:
            raise UsageError(f"not the number of a part: {str(number)[:40]}")
        place = f"{self._hub.url(request.scope)}/v2/imagefile/{request.path_params['image']}/{upload.id}/{number}"
        return data({"presignedURL": place})

    async def receive(self, request: Request) -> Response:
        """Take one part; clients give its `ETag` back when all are there."""
        repository, _ = self._image(request, push=False)
        upload, number = self._hub.blobs.upload(request.path_params["upload"], repository), request.path_params["part"]
        if upload.offset != (number - 1) * PART_BYTES:
            raise ConflictError(f"part {number} does not begin at byte {upload.offset}", hint="push again")
        await upload.append(_at_most(PART_BYTES, receive.chunks(request.receive)))
        return Response(status_code=200, headers={"ETag": _token(upload, number)})

    async def complete(self, request: Request) -> Response:
        """Make the parts the file: it is durable when this answers."""
        repository, digest = self._image(request, push=True)
        sent = await sent_json(request)
        try:
            upload = self._hub.blobs.upload(text_of(sent, "uploadID"), repository)
        except NotFoundError:
            if not await to_thread(shelf.has, self._hub, repository, digest):  # else only the answer was lost
                raise
        else:
            _check(upload, sent.get("completedParts"))
            await to_thread(self._hub.finish, upload, repository, digest)
        return data(await to_thread(completed, self._hub, repository))

    async def abort(self, request: Request) -> Response:
        """Forget the parts."""
        repository, _ = self._image(request, push=True)
        upload = self._hub.blobs.upload(text_of(await sent_json(request), "uploadID"), repository)
        await to_thread(self._hub.blobs.cancel, upload)
        return data({})


def _token(upload: Upload, number: int) -> str:
    return f'"{upload.id}-{number}"'


def _check(upload: Upload, parts: object) -> None:
    """Refuse a list that is not all parts in their order."""
    count = -(-upload.offset // PART_BYTES)
    expected = [{"partNumber": number, "token": _token(upload, number)} for number in range(1, count + 1)]
    if parts != expected:
        raise UsageError(f"the parts that were sent are not the {count} that are here", hint="push again")


async def _at_most(limit: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        limit -= len(chunk)
        if limit < 0:
            raise LimitError(f"a part has at most {PART_BYTES} bytes")
        yield chunk
