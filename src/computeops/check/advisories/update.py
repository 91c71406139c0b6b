"""Feeds into the index: each is fetched and read for itself, and of one that fails the old content stays.

What a mirror holds, below its address or folder; the public addresses are in `_PUBLIC`:

    osv/PyPI/all.zip, osv/PyPI/modified_id.csv     as in the OSV export, also without `osv/`
    debian/tracker.json                            Debian's security tracker
    alpine/v3.20/main.json                         Alpine's secdb
    kev.json, epss.csv.gz                          facts about vulnerabilities
"""

import email.utils
import fcntl
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from computeops.check.advisories import alpine, bounded, debian, facts, osv
from computeops.check.advisories.index import Feed, Writer, writing
from computeops.check.advisories.model import Advisory
from computeops.errors import ComputeOpsError, ConflictError, FormatError, NetworkError, NotFoundError, UsageError
from computeops.http import Session, download
from computeops.limits import LIMITS

Progress = Callable[[str], None]

FEEDS = (
    *(
        f"osv/{one}"
        for one in ("Debian", "Ubuntu", "Alpine", "AlmaLinux", "Rocky Linux", "Red Hat", "SUSE", "openSUSE", "PyPI")
    ),
    "debian",
    "kev",
    "epss",
)
"""What an update loads where nothing is chosen."""
_PUBLIC = {
    "osv": "https://storage.googleapis.com/osv-vulnerabilities/{rest}/all.zip",
    "debian": "https://security-tracker.debian.org/tracker/data/json",
    "alpine": "https://secdb.alpinelinux.org/{rest}.json",
    "kev": "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
    "epss": "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
}
_MIRRORED = {
    "osv": ("osv/{rest}/all.zip", "{rest}/all.zip"),
    "debian": ("debian/tracker.json",),
    "alpine": ("alpine/{rest}.json",),
    "kev": ("kev.json",),
    "epss": ("epss.csv.gz",),
}
_NAME = re.compile(r"osv/[A-Za-z][\w. -]{0,40}|debian|alpine/(?:v\d+\.\d+|edge)/(?:main|community)|kev|epss")
_FAULTY_SHARE = 0.01
_SHRUNK_SHARE = 0.5
_DELTA_MOST = 2000
_CHANGES_BYTES = 256 * 1024 * 1024
_MODIFIED = re.compile(r"(?:199|2\d\d)\d-\d\d-\d\dT[0-9:.]{8,20}Z")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the update of one feed ended."""

    feed: str
    done: str
    """`loaded`, `changed` (a delta), `unchanged` or `refused`."""
    records: int = 0
    why: str = ""
    """Why it was refused; the index keeps what it had."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A file of a feed that is here."""

    file: Path
    feed: Feed


def update(
    path: Path,
    names: Sequence[str] = (),
    *,
    mirror: str = "",
    now: int,
    full: bool = False,
    progress: Progress = lambda _: None,
) -> Sequence[Outcome]:
    """Bring the feeds called `names` in the index at `path` up to date, and return how each ended.

    Args:
        path: the index; it is made if there is none.
        names: of feeds; none: those of the mirror folder, or else `FEEDS`.
        mirror: address or folder of a mirror; empty: the public addresses.
        now: seconds since 1970.
        full: load what did not change too, and accept that a feed lost most of its records.
        progress: told which feed is being read.

    Raises:
        UsageError: there is no such feed; ConflictError: another update runs.
        NetworkError: no feed at all could be loaded; StorageError: the index cannot be written.
    """
    source = _Source(mirror)
    chosen = list(dict.fromkeys(names)) or source.feeds()
    for name in chosen:
        if not _NAME.fullmatch(name) or ".." in name:
            raise UsageError(
                f"no feed is called {name[:80]!r}", hint="feeds are osv/ECOSYSTEM, debian, alpine/v3.20/main, kev, epss"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path), Session() as session, tempfile.TemporaryDirectory(dir=path.parent, prefix=".feed-") as work:
        source.session, source.folder = session, Path(work)
        with writing(path) as writer:
            outcomes = [_one(writer, source, name, now=now, full=full, progress=progress) for name in chosen]
            if all(one.done == "refused" for one in outcomes):
                first = outcomes[0].why if outcomes else "there are no feeds"
                raise NetworkError(f"no feed could be loaded, the index is as it was: {first}")
        return outcomes


def _one(writer: Writer, source: "_Source", name: str, *, now: int, full: bool, progress: Progress) -> Outcome:
    progress(f"{name}: asking")
    known = writer.feeds().get(name, Feed(name=name, origin=""))
    try:
        fetched = source.fetch(name, replace(known, tag="") if full else known)
        if fetched is None:
            with writer.feed(name):
                writer.describe(replace(known, checked=now))
            return Outcome(name, "unchanged", known.records)
        progress(f"{name}: reading")
        with writer.feed(name) as number:
            made = _load(writer, number, fetched, now)
            _plausible(made, known, full=full)
            writer.describe(replace(made, checked=now))
        return Outcome(name, "loaded", made.records)
    except ComputeOpsError as error:
        return Outcome(name, "refused", known.records, error.message)
    except OSError as error:
        return Outcome(name, "refused", known.records, f"{error.strerror or error}")


def _load(writer: Writer, number: int, fetched: _Fetched, now: int) -> Feed:
    """Write the records of a feed and return what is known of it now."""
    kind, name = fetched.feed.name.partition("/")[0], fetched.file.name
    if kind == "kev":
        data = bounded.whole(fetched.file)
        return replace(fetched.feed, records=writer.exploited(facts.exploited(data, name)))
    if kind == "epss":
        data = bounded.whole(fetched.file)
        return replace(fetched.feed, records=writer.likely(facts.likely(data, name)))
    writer.clear(number)
    counted = _Counted(now)
    reader = {"osv": _osv, "debian": _tracker, "alpine": _secdb}[kind]
    writer.add(number, counted.good(reader(fetched.file)))
    return replace(fetched.feed, records=counted.records, faulty=counted.faulty, newest=counted.newest)


class _Counted:
    """Counts the records of a feed on their way."""

    def __init__(self, now: int) -> None:
        self.records, self.faulty, self.newest = 0, 0, ""
        self._tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 86400))

    def good(self, found: Iterable[Advisory | FormatError | None]) -> Iterator[Advisory]:
        """Yield the advisories; None stands for a record that is right and says nothing."""
        for one in found:
            self.records += 1
            if self.records > LIMITS.advisories:
                raise FormatError(f"more than {LIMITS.advisories} records")
            if isinstance(one, FormatError):
                self.faulty += 1
            elif one is not None:
                # Dates of the year 1 and of the future occur.
                if self.newest < one.modified < self._tomorrow and _MODIFIED.fullmatch(one.modified):
                    self.newest = one.modified
                yield one


def _osv(file: Path) -> Iterator[Advisory | FormatError | None]:
    for _, data in bounded.members(file, ".json"):
        try:
            yield osv.read(data)[1]
        except FormatError as error:
            yield error


def _tracker(file: Path) -> Iterator[Advisory | FormatError]:
    for one in debian.read(bounded.whole(file), file.name):
        yield FormatError("an entry that cannot be read") if one is None else one


def _secdb(file: Path) -> Iterator[Advisory | FormatError]:
    for one in alpine.read(bounded.whole(file), file.name):
        yield FormatError("an entry that cannot be read") if one is None else one


def _plausible(made: Feed, known: Feed, *, full: bool) -> None:
    """Refuse a feed whose format changed, or of which only a part is there."""
    if made.records == 0:
        raise FormatError(f"{made.name} has no records")
    if made.faulty > max(made.records * _FAULTY_SHARE, 1):
        raise FormatError(f"{made.faulty} of {made.records} records of {made.name} cannot be read: its format changed")
    if not full and made.records < known.records * _SHRUNK_SHARE:
        raise FormatError(
            f"{made.name} has {made.records} records, and had {known.records}: is it only a part?",
            hint="if it is right, load it with --full",
        )


class _Source:
    """Where feeds come from: the public addresses, a mirror on the web, or a folder."""

    def __init__(self, mirror: str) -> None:
        self._address = mirror.rstrip("/") if urlsplit(mirror).scheme in {"http", "https"} else ""
        self._top = Path(mirror) if mirror and not self._address else None
        if self._top is not None and not self._top.is_dir():
            raise NotFoundError(f"there is no folder {mirror}", hint="--from names a folder or an address of feeds")
        self.session = Session()
        self.folder = Path()

    def feeds(self) -> list[str]:
        """Return what the folder has, or the default."""
        if self._top is None:
            return list(FEEDS)
        found = [
            f"osv/{one.parent.name}" for glob in ("osv/*/all.zip", "*/all.zip") for one in sorted(self._top.glob(glob))
        ]
        found += [f"alpine/{one.parent.name}/{one.stem}" for one in sorted(self._top.glob("alpine/*/*.json"))]
        others = {"debian": "debian/tracker.json", "kev": "kev.json", "epss": "epss.csv.gz"}
        found += [name for name, place in others.items() if (self._top / place).is_file()]
        if not found:
            raise NotFoundError(
                f"there are no feeds in {self._top}",
                hint="a feed is ECOSYSTEM/all.zip, debian/tracker.json, kev.json ...",
            )
        return found

    def fetch(self, name: str, known: Feed) -> _Fetched | None:
        """Return the file of a feed, or None if it did not change since `known`."""
        kind, _, rest = name.partition("/")
        if self._top is None:
            template = f"{self._address}/{_MIRRORED[kind][0]}" if self._address else _PUBLIC[kind]
            return self._download(template.format(rest=quote(rest)), known)
        places = [self._top / one.format(rest=rest) for one in _MIRRORED[kind]]
        file = next((one for one in places if one.is_file()), None)
        if file is None:
            raise NotFoundError(f"{self._top} has no {places[0].relative_to(self._top)}")
        status = file.stat()
        tag = f"{status.st_size}-{status.st_mtime_ns}"
        if known.tag == tag and known.origin == str(file):
            return None
        return _Fetched(file, replace(known, origin=str(file), tag=tag, published=int(status.st_mtime)))

    def _download(self, url: str, known: Feed) -> _Fetched | None:
        told = self.session.request("HEAD", url).headers
        tag = told.get("etag", "") or told.get("last-modified", "")
        if tag and tag == known.tag and url == known.origin:
            return None
        file = self.folder / re.sub(r"[^\w.-]+", "-", known.name + "-" + url.rpartition("/")[2])
        download(url, file, limit_bytes=LIMITS.feed_bytes, session=self.session)
        return _Fetched(file, replace(known, origin=url, tag=tag, published=_time(told.get("last-modified", ""))))


def _time(text: str) -> int:
    """Return the time of an HTTP header, 0 if it says none."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) if text else 0
    except (ValueError, TypeError, OverflowError):
        return 0


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one update at a time write the index at `path`.

    Raises:
        ConflictError: another one runs.
    """
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"another update of {path} runs", hint="wait for its end") from None
        yield
