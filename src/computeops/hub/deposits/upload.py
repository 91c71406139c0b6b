"""A file that a browser sends with a form: `multipart/form-data` (RFC 7578), read as it comes and never held whole.

The fields of our form stand before its one file, so that it is known who sends what before a byte of it is stored.
"""

import re
from collections.abc import AsyncIterator, Mapping
from email.message import Message
from urllib.parse import unquote

from computeops.errors import LimitError, UsageError

_HEAD_BYTES = 8 * 1024
_FIELD_BYTES = 16 * 1024
_FIELDS = 20
_END = b"\r\n"


class Form:
    """A form on its way in: first its fields, then the bytes of its file."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        header = Message()
        header["content-type"] = content_type
        boundary = header.get_param("boundary")
        if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
            raise UsageError("not a form with a file", hint="send multipart/form-data")
        self._mark = _END + b"--" + boundary.encode("latin-1", "replace")[:200]
        self._chunks, self._buffer = chunks, bytearray(_END)
        self.name = ""
        """Of the file, as its sender calls it, without folders."""

    async def fields(self) -> Mapping[str, str]:
        """Return what stands before the file.

        Raises:
            UsageError: it is no such form, or has no file; LimitError: it has more than our form.
        """
        found: dict[str, str] = {}
        if (await self._until(self._mark, _HEAD_BYTES)).strip():
            raise self._broken()
        while len(found) < _FIELDS:
            head = (await self._until(_END * 2, _HEAD_BYTES)).decode(errors="replace")
            name, file = re.search(r'\bname="([^"]*)"', head), re.search(r'\bfilename="([^"]*)"', head)
            if name is None:
                raise UsageError("no file was chosen", hint="choose an archive of the sources")
            if file is not None:
                if not file[1]:
                    raise UsageError("no file was chosen", hint="choose an archive of the sources")
                self.name = unquote(file[1]).replace("\\", "/").rpartition("/")[2][:200]
                return found
            found[name[1]] = (await self._until(self._mark, _FIELD_BYTES)).decode(errors="replace")
        raise LimitError(f"a form has at most {_FIELDS} fields")

    async def file(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file.

        Raises:
            UsageError: it was cut off.
        """
        while True:
            at = self._buffer.find(self._mark)
            if at >= 0:
                yield bytes(self._buffer[:at])
                return
            if (sure := len(self._buffer) - len(self._mark)) > 0:  # the end of it may be the beginning of a mark
                yield bytes(self._buffer[:sure])
                del self._buffer[:sure]
            if not await self._more():
                raise self._broken()

    async def _until(self, mark: bytes, most: int) -> bytes:
        """Return what comes before `mark`, and go on behind it."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > most:
                raise LimitError(f"a part of the form has more than {most} bytes")
            if not await self._more():
                raise self._broken()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    async def _more(self) -> bool:
        async for chunk in self._chunks:
            self._buffer += chunk
            return True
        return False

    @staticmethod
    def _broken() -> UsageError:
        return UsageError("the form is broken, or was cut off", hint="send it again")
