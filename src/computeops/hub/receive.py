"""The body of a request, in chunks or whole, from senders that may be slow, silent or endless."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from computeops.errors import LimitError
from computeops.limits import LIMITS


async def chunks(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises:
        ClientDisconnect: the sender went away, or said nothing for `LIMITS.http_seconds`.
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(LIMITS.http_seconds):
                message = await receive()
        except TimeoutError:
            raise ClientDisconnect from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk


async def whole(receive: Receive, limit_bytes: int) -> bytes:
    """Return the body.

    Raises:
        LimitError: it is larger than `limit_bytes`.
        ClientDisconnect: as `chunks`.
    """
    data = bytearray()
    async for chunk in chunks(receive):
        data += chunk
        if len(data) > limit_bytes:
            raise LimitError(f"the request has more than {limit_bytes} bytes")
    return bytes(data)
