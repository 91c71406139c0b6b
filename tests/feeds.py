"""Small feeds of advisories, written as their publishers write them."""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

NOW = 1_795_000_000  # November 2026
DAY = 86400
MODIFIED = "2026-11-17T12:00:00Z"


def osv(
    id_: str,
    ecosystem: str = "Debian:12",
    name: str = "zlib",
    events: Sequence[Mapping[str, str]] = ({"introduced": "0"}, {"fixed": "1:1.2.13.dfsg-1+deb12u1"}),
    **more: Any,
) -> dict[str, Any]:
    """A record of the OSV schema about one package."""
    affected = {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    if "versions" in more:
        affected["versions"] = more.pop("versions")
    return {"id": id_, "modified": MODIFIED, "affected": [affected], **more}


def cyclonedx(*components: Mapping[str, Any]) -> bytes:
    """A bill of materials."""
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}).encode()


def write_zip(file: Path, records: Sequence[Mapping[str, Any]], *, when: int = NOW - DAY) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, record in enumerate(records):
            archive.writestr(f"{record.get('id', number)}.json", json.dumps(record))
    return dated(file, when)


def write(file: Path, content: Any, *, when: int = NOW - DAY) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return dated(file, when)


def dated(file: Path, when: int) -> Path:
    os.utime(file, (when, when))
    return file


def affected_by_the_schema(version: str, entry: Mapping[str, Any]) -> bool:
    """Whether a version of Python's kind is affected, by the pseudocode of the OSV schema, "Evaluation"."""
    own = Version(version)
    if any(one == version or Version(one) == own for one in entry.get("versions", ())):
        return True
    ranges = [one["events"] for one in entry.get("ranges", ()) if one["type"] != "GIT"]
    return any(_in_range(own, sorted(events, key=_place)) for events in ranges)


def _in_range(own: Version, events: Sequence[Mapping[str, str]]) -> bool:
    vulnerable = False
    for event in events:
        ((kind, at),) = event.items()
        if kind == "introduced" and (at == "0" or own >= Version(at)):
            vulnerable = True
        elif (kind == "fixed" and own >= Version(at)) or (kind == "last_affected" and own > Version(at)):
            vulnerable = False
    return vulnerable


def _place(event: Mapping[str, str]) -> Version:
    ((_, at),) = event.items()
    return Version("0.dev0") if at == "0" else Version(at)
