"""The registry's lists: tags, referrers and repositories."""

from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from computeops.hub import search
from computeops.hub.call import Call
from computeops.hub.db import Repository
from computeops.hub.oci_error import OciError
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.model import Digest

_PAGE = 1000
_FILTERED = "artifactType"


async def tags(hub: Hub, call: Call, repository: Repository) -> None:
    """Answer with the tags of `repository`, in pages (end-8a, end-8b)."""
    limit = _limit(call)
    found = hub.database.tags(repository, after=call.one("last"), limit=limit + 1)
    await _page(call, f"/v2/{call.name}/tags/list", found, limit, {"name": call.name, "tags": found[:limit]})


async def repositories(hub: Hub, call: Call) -> None:
    """Answer with the repositories that the caller may read: not of the specification, but asked by many clients."""
    limit, caller = _limit(call), hub.caller(call.scope)
    found = search.repositories_of(hub.database, caller, after=call.one("last"), limit=limit + 1)
    await _page(call, "/v2/_catalog", found, limit, {"repositories": found[:limit]})


async def _page(call: Call, path: str, found: list[str], limit: int, body: dict[str, Any]) -> None:
    headers = {"content-type": "application/json"}
    if limit and len(found) > limit:
        headers["link"] = f'<{path}?n={limit}&last={quote(found[limit - 1])}>; rel="next"'
    await call.answer(200, headers, oci.canonical(body))


async def referrers(hub: Hub, call: Call, repository: Repository | None, digest: Digest) -> None:
    """Answer with what refers to `digest` in `repository`, which may not exist (end-12a, end-12b)."""
    found = hub.database.referrers(repository, str(digest)) if repository else []
    wanted = call.one(_FILTERED)
    headers = {"content-type": oci.INDEX} | ({"oci-filters-applied": _FILTERED} if wanted else {})
    listed = [_described(row) for row in found if wanted in {"", row.artifact_type}]
    await call.answer(200, headers, oci.canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}))


def _described(row: sa.Row[Any]) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": row.media_type, "digest": row.digest, "size": len(row.body)}
    if row.artifact_type:
        found["artifactType"] = row.artifact_type
    if row.annotations:
        found["annotations"] = row.annotations
    return found


def _limit(call: Call) -> int:
    asked = call.one("n")
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 10):
        raise OciError("UNSUPPORTED", 400, f"n is a number, not {asked[:40]!r}")
    return min(int(asked), _PAGE) if asked else _PAGE
