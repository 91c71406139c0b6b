"""Where feeds come from: their public addresses, a mirror on the web, or a folder.

What a mirror holds, below its address or folder:

    osv/PyPI/all.zip, osv/PyPI/modified_id.csv, osv/PyPI/ID.json     as in the OSV export, also without `osv/`
    debian/tracker.json                                              Debian's security tracker
    alpine/v3.20/main.json                                           Alpine's secdb
    redhat/vex.tar.zst                                               Red Hat's VEX documents
    names/conda-forge.json                                           what conda's packages are called in PyPI
    kev.json, epss.csv.gz                                            facts about vulnerabilities
"""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from computeops.check.advisories.index import Feed
from computeops.errors import ComputeOpsError, FormatError, NotFoundError
from computeops.http import Session
from computeops.http.download import download
from computeops.limits import LIMITS

FEEDS = (
    *(
        f"osv/{one}"
        for one in (
            *("Debian", "Ubuntu", "Alpine", "AlmaLinux", "Rocky Linux", "Red Hat", "SUSE", "openSUSE", "openEuler"),
            *("PyPI", "npm", "Go", "crates.io", "Maven", "CRAN", "Bioconductor", "Julia", "Hackage"),
        )
    ),
    "debian",
    "names/conda-forge",
    "names/bioconda",
    "kev",
    "epss",
)
"""What an update loads where nothing is chosen; `redhat` is some hundred MB, and OSV has Red Hat's updates, too."""
_PUBLIC = {
    "osv": "https://storage.googleapis.com/osv-vulnerabilities/{rest}/all.zip",
    "debian": "https://security-tracker.debian.org/tracker/data/json",
    "alpine": "https://secdb.alpinelinux.org/{rest}.json",
    "redhat": "https://security.access.redhat.com/data/csaf/v2/vex/{rest}",
    "names": "https://raw.githubusercontent.com/prefix-dev/parselmouth/main/files/v0/{rest}/compressed_mapping.json",
    "kev": "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
    "epss": "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
}
_MIRRORED = {
    "osv": ("osv/{rest}/all.zip", "{rest}/all.zip"),
    "debian": ("debian/tracker.json",),
    "alpine": ("alpine/{rest}.json",),
    "redhat": ("redhat/vex.tar.zst",),
    "names": ("names/{rest}.json", "names/{rest}.json.gz"),
    "kev": ("kev.json",),
    "epss": ("epss.csv.gz",),
}
_ALL, _CHANGES = "all.zip", "modified_id.csv"
_MOST_CHANGES = 2000
_CHANGES_BYTES = 256 * 1024 * 1024
_ARCHIVE = re.compile(r"csaf_vex_[\d-]{8,10}\.tar\.zst")
_ROW = re.compile(r"(\d{4}-\d\d-\d\dT[0-9:.]{8,20}Z),([\w.:+-]{1,200})")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A feed that changed: its file, or only what changed in it."""

    feed: Feed
    file: Path | None
    """The whole feed; None: only `changes`."""
    changes: Mapping[str, bytes]
    """Id to record, of those that changed."""


class Mirror:
    """Fetches feeds from one place."""

    def __init__(self, where: str, session: Session, folder: Path) -> None:
        """Take feeds from `where`, an address or a folder, or "" for the public addresses; downloads go to `folder`.

        Raises:
            NotFoundError: there is no such folder.
        """
        self._address = where.rstrip("/") if urlsplit(where).scheme in {"http", "https"} else ""
        self._top = Path(where) if where and not self._address else None
        if self._top is not None and not self._top.is_dir():
            raise NotFoundError(f"there is no folder {where}", hint="--from names a folder or an address of feeds")
        self._session, self._folder = session, folder

    def feeds(self) -> list[str]:
        """Return what the folder has, or the usual feeds.

        Raises:
            NotFoundError: the folder has none.
        """
        if self._top is None:
            return list(FEEDS)
        zips = [one for glob in ("osv/*/all.zip", "*/all.zip") for one in sorted(self._top.glob(glob))]
        found = [f"osv/{one.parent.name}" for one in zips]
        found += [f"alpine/{one.parent.name}/{one.stem}" for one in sorted(self._top.glob("alpine/*/*.json"))]
        found += [f"names/{one.name.partition('.')[0]}" for one in sorted(self._top.glob("names/*.json*"))]
        others = {
            "debian": "debian/tracker.json",
            "redhat": "redhat/vex.tar.zst",
            "kev": "kev.json",
            "epss": "epss.csv.gz",
        }
        found += [name for name, place in others.items() if (self._top / place).is_file()]
        if not found:
            hint = "a feed is ECOSYSTEM/all.zip, debian/tracker.json, kev.json ..."
            raise NotFoundError(f"there are no feeds in {self._top}", hint=hint)
        return found

    def fetch(self, known: Feed, *, full: bool) -> Fetched | None:
        """Return what is new in a feed since `known`, or None; with `full` the whole feed, whether it changed or not.

        Raises:
            ComputeOpsError: it cannot be had.
        """
        kind, _, rest = known.name.partition("/")
        if self._top is not None:
            file = self._found(kind, rest)
            status = file.stat()
            feed = replace(known, origin=str(file), tag=f"{status.st_size}-{status.st_mtime_ns}")
            feed = replace(feed, published=int(status.st_mtime))
        else:
            template = f"{self._address}/{_MIRRORED[kind][0]}" if self._address else _PUBLIC[kind]
            url = template.format(rest=quote(rest))
            if kind == "redhat" and not self._address:
                url += self._newest_archive(url)
            told = self._session.request("HEAD", url).headers
            tag = told.get("etag", "") or told.get("last-modified", "")
            feed = replace(known, origin=url, tag=tag, published=_time(told.get("last-modified", "")))
        if not full and feed.tag and (feed.tag, feed.origin) == (known.tag, known.origin):
            return None
        if kind == "osv" and not full and known.newest and (changes := self._changes(feed)) is not None:
            return Fetched(feed, None, changes)
        return Fetched(feed, self._get(feed.origin, LIMITS.feed_bytes), {})

    def _newest_archive(self, folder: str) -> str:
        """Return the name of Red Hat's newest archive: a file beside it says it."""
        said = (
            self._session.request("GET", f"{folder}archive_latest.txt")
            .expect(200)
            .body.decode(errors="replace")
            .strip()
        )
        if not _ARCHIVE.fullmatch(said):
            raise FormatError(f"{folder}archive_latest.txt names no archive: {said[:80]!r}")
        return said

    def _found(self, kind: str, rest: str) -> Path:
        assert self._top is not None
        places = [self._top / one.format(rest=rest) for one in _MIRRORED[kind]]
        file = next((one for one in places if one.is_file()), None)
        if file is None:
            raise NotFoundError(f"{self._top} has no {places[0].relative_to(self._top)}")
        return file

    def _changes(self, feed: Feed) -> Mapping[str, bytes] | None:
        """Return the records that changed since the newest that is known; None if the whole feed is the shorter way."""
        folder = feed.origin.removesuffix(_ALL)
        try:
            names = _changed(self._get(folder + _CHANGES, _CHANGES_BYTES), feed.newest)
            if names is None:
                return None
            return {
                name: self._get(f"{folder}{name}.json", LIMITS.advisory_bytes).read_bytes()
                for name in dict.fromkeys(names)
            }
        except (ComputeOpsError, OSError):
            return None  # a mirror need not have the list, nor every record by itself

    def _get(self, origin: str, limit: int) -> Path:
        if self._top is not None:
            return Path(origin)
        file = self._folder / re.sub(r"[^\w.-]+", "-", origin)[-120:]
        download(origin, file, limit_bytes=limit, session=self._session)
        return file


def _changed(file: Path, since: str) -> list[str] | None:
    """Return the ids in a list of changes, the last first, down to the time `since`; None if they are too many."""
    found: list[str] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            row = _ROW.fullmatch(line.strip()[:300])
            if row is None:
                raise FormatError(f"not a change: {line[:80]!r}")
            if row[1] < since:
                return found
            found.append(row[2])
            if len(found) > _MOST_CHANGES:
                return None
    return None  # the list does not reach back so far


def _time(text: str) -> int:
    """Return the time of an HTTP header, 0 if it says none."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) if text else 0
    except (ValueError, TypeError, OverflowError):
        return 0
