"""A blob as an HTTP answer, whole or a range of it, as fast as the server can: ASGI without a framework between."""

import re
from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping

from starlette.types import Scope, Send

from computeops.hub.state import header
from computeops.hub.storage import Storage, blob_key
from computeops.model import Digest

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


async def send_bytes(scope: Scope, send: Send, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
    """Answer with `body`; to HEAD with its length only."""
    length = {} if status == 204 else {"content-length": str(len(body))}
    await _start(send, status, {**length, **headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def send_blob(
    scope: Scope, send: Send, storage: Storage, digest: Digest, size: int, headers: Mapping[str, str]
) -> None:
    """Answer GET or HEAD with the blob of `size` bytes, or the range of it that was asked for.

    Where the storage sends readers to itself, the answer to GET is its address.
    """
    key = blob_key(digest)
    headers = {"accept-ranges": "bytes", **headers}
    if scope["method"] != "HEAD" and (address := await to_thread(storage.address, key)):
        await send_bytes(scope, send, 307, {"location": address, "cache-control": "no-store"})
        return
    asked = header(scope, b"range")
    if not asked or (part := _range(asked, size)) is None:
        await _start(send, 200, {"content-length": str(size), **headers})
        await _part(scope, send, storage.stream(key, 0, size))
        return
    begin, end = part
    if begin >= end:
        await send_bytes(scope, send, 416, {"content-range": f"bytes */{size}"})
        return
    named = {"content-length": str(end - begin), "content-range": f"bytes {begin}-{end - 1}/{size}"}
    await _start(send, 206, {**named, **headers})
    await _part(scope, send, storage.stream(key, begin, end))


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """Return begin and end of the range; empty if it cannot be satisfied; None: answer with the whole file."""
    match = _RANGE.fullmatch(asked.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None  # several ranges, or another unit
    if not match[1]:
        return max(0, size - int(match[2])), size
    begin = int(match[1])
    return begin, min(size, int(match[2]) + 1) if match[2] else size


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _part(scope: Scope, send: Send, chunks: AsyncIterator[bytes]) -> None:
    if scope["method"] != "HEAD":
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
