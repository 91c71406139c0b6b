"""Records in JSON: read with every bound, checked field by field, and remembered as short as they are needed."""

import json
import re
from typing import Any

from computeops.check.inventory.content import Content
from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS, MIB

LONGEST = 256
_DOCUMENT_BYTES = 64 * MIB
_VERSION = re.compile(r"[!-~]{1,256}")


def parsed(content: Content, limit: int = _DOCUMENT_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        FormatError: there is none; LimitError: the file has more than `limit` bytes.
    """
    return object_of(content.whole(limit), content.path)


def object_of(data: bytes, path: str) -> dict[str, Any]:
    """Return the JSON object in `data`, the content of `path`.

    Raises:
        FormatError: there is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"/{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"/{path} holds no JSON object")
    return found


def word(value: object) -> str:
    """Return a text of one line and at most 256 characters; "" for anything else."""
    return value.strip() if isinstance(value, str) and len(value) <= LONGEST and value.isprintable() else ""


def named(name: object, version: object, pattern: re.Pattern[str], path: str) -> tuple[str, str]:
    """Return name and version of a package, whose name must be as in `pattern`.

    Raises:
        FormatError: they are not.
    """
    if isinstance(name, str) and isinstance(version, str) and len(name) <= LONGEST:
        version = version.strip()
        if pattern.fullmatch(name) and _VERSION.fullmatch(version):
            return name, version
    raise FormatError(f"/{path} is the record of no package: {str(name)[:80]!r} {str(version)[:80]!r}")


def members(found: object, key: str) -> list[dict[str, Any]]:
    """Return the objects in the list `key` of the object `found`; what is none is left out.

    Raises:
        LimitError: it has more members than packages are read of an image.
    """
    listed = found.get(key) if isinstance(found, dict) else None
    if isinstance(listed, list) and len(listed) > LIMITS.package_records:
        raise LimitError(f"{len(listed)} {key}; at most {LIMITS.package_records} are read")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def packed(*fields: object) -> bytes:
    """Return fields as they are remembered."""
    return json.dumps(fields).encode()


def unpacked(data: bytes) -> Any:
    """Return what `packed` got."""
    return json.loads(data)
