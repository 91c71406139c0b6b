"""What Debian's packages say in their own changelogs that they repaired (Debian Policy 4.4), as a feed of advisories.

For those who reach their Debian mirror and nothing else: an image of today says what is wrong with one of yesterday. It
knows only what was repaired, and no severity.
"""

import email.utils
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from computeops.check.versions import deb
from computeops.errors import NotFoundError
from computeops.files import whole_file
from computeops.image.tree import Kind, Tree
from computeops.limits import LIMITS

_PLACE = re.compile(r"usr/share/doc/[^/]+/changelog(?:\.Debian)?\.gz")
_HEAD = re.compile(r"([a-z0-9][a-z0-9+.-]+) \(([^\s()]+)\) [^;]*;.*")
_TRAILER = re.compile(r" -- .*>  (.*)")
_CVE = re.compile(r"CVE-\d{4}-\d{4,19}")
_LONGEST = 1000


def write(tree: Tree, ecosystem: str, mirror: Path) -> int:
    """Write what the packages of `tree` repaired into the folder `mirror` as the OSV export has it; return how much.

    Raises:
        NotFoundError: it has no changelogs; FormatError, LimitError: it cannot be read.
    """
    records: dict[str, dict[str, Any]] = {}
    for one in _changelogs(tree):
        records.update({made["id"]: made for made in _records(one, ecosystem)})
    if not records:
        raise NotFoundError("the image has no changelogs of Debian's packages", hint="a slim image has none")
    file = mirror / f"osv/{ecosystem.partition(':')[0]}/all.zip"
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in sorted(records.items()):
            archive.writestr(f"{name}.json", json.dumps(record))
    return len(records)


def _changelogs(tree: Tree) -> Iterator[str]:
    for entry, data in tree.items():
        if entry.kind is Kind.FILE and _PLACE.fullmatch(entry.path) and entry.size <= LIMITS.advisory_bytes:
            unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the head of gzip
            try:
                yield unpacked.decompress(b"".join(data), LIMITS.advisory_bytes).decode(errors="replace")
            except zlib.error:
                continue  # one broken text hides no other


def _records(text: str, ecosystem: str) -> Iterator[dict[str, Any]]:
    """Yield a record for each version that names what it repaired."""
    source = version = newest = fixed = ""
    cves: dict[str, None] = {}
    for line in text.splitlines():
        short = line[:_LONGEST]
        if match := _HEAD.fullmatch(short):
            (source, version), cves = match.groups(), {}
            newest = newest or version
            # `1.0-2~deb12u1` is a rebuild of 1.0-2: what that repaired is in it.
            fixed = min(version, newest, key=deb.key)
        elif (match := _TRAILER.fullmatch(short)) and cves and version:
            yield _record((source, version), fixed, list(cves), _moment(match[1]), ecosystem)
            version = ""
        else:
            cves |= dict.fromkeys(_CVE.findall(short))


def _record(name: tuple[str, str], fixed: str, cves: list[str], moment: str, ecosystem: str) -> dict[str, Any]:
    source, version = name
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = {
        "package": {"ecosystem": ecosystem, "name": source},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {
        "id": f"CHANGELOG-{source}-{version}".replace("/", "-"),
        "modified": moment,
        "summary": f"the changelog of {source} {version}",
        "upstream": cves,
        "affected": [affected],
    }


def _moment(text: str) -> str:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return "1970-01-01T00:00:00Z"
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
