"""Feeds into the index: each is fetched and read for itself, and of one that fails the old content stays."""

import fcntl
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from computeops.check.advisories import alpine, bounded, debian, facts, names, osv, redhat
from computeops.check.advisories.index import Feed, Writer, writing
from computeops.check.advisories.mirror import Fetched, Mirror
from computeops.check.advisories.model import Advisory
from computeops.errors import ComputeOpsError, ConflictError, FormatError, NetworkError, UsageError
from computeops.http import Session
from computeops.limits import LIMITS

Progress = Callable[[str], None]

_NAME = re.compile(
    r"osv/[A-Za-z][\w. -]{0,40}|debian|redhat|alpine/(?:v\d+\.\d+|edge)/(?:main|community)|names/[\w-]{1,40}|kev|epss"
)
_FAULTY_SHARE = 0.01
_SHRUNK_SHARE = 0.5
_MODIFIED = re.compile(r"(?:199|2\d\d)\d-\d\d-\d\dT[0-9:.]{8,20}Z")
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the update of one feed ended."""

    feed: str
    done: str
    """`loaded`, `changed` (only what is new was loaded), `unchanged` or `refused`."""
    records: int = 0
    why: str = ""
    """Why it was refused; the index keeps what it had."""


def update(
    path: Path,
    wanted: Sequence[str] = (),
    *,
    mirror: str = "",
    now: int,
    full: bool = False,
    progress: Progress = lambda _: None,
) -> Sequence[Outcome]:
    """Bring the feeds called `wanted` in the index at `path` up to date, and return how each ended.

    Args:
        path: the index; it is made if there is none.
        wanted: names of feeds; none: those of the mirror folder, or else `mirror.FEEDS`.
        mirror: address or folder of a mirror; empty: the public addresses.
        now: seconds since 1970.
        full: load what did not change too, and accept that a feed lost most of its records.
        progress: told which feed is being read.

    Raises:
        UsageError: there is no such feed; ConflictError: another update runs.
        NetworkError: no feed at all could be loaded; StorageError: the index cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path), Session() as session, tempfile.TemporaryDirectory(dir=path.parent, prefix=".feed-") as work:
        source = Mirror(mirror, session, Path(work))
        chosen = list(dict.fromkeys(wanted)) or source.feeds()
        for name in chosen:
            if not _NAME.fullmatch(name) or ".." in name:
                hint = "feeds are osv/ECOSYSTEM, debian, redhat, alpine/v3.20/main, names/conda-forge, kev and epss"
                raise UsageError(f"no feed is called {name[:80]!r}", hint=hint)
        with writing(path) as writer:
            outcomes = [_one(writer, source, name, now=now, full=full, progress=progress) for name in chosen]
            if all(one.done == "refused" for one in outcomes):
                raise NetworkError(f"no feed could be loaded, the index is as it was: {outcomes[0].why}")
        return outcomes


def _one(writer: Writer, source: Mirror, name: str, *, now: int, full: bool, progress: Progress) -> Outcome:
    progress(f"{name}: asking")
    known = writer.feeds().get(name, Feed(name=name, origin=""))
    try:
        fetched = source.fetch(known, full=full)
        progress(f"{name}: reading")
        with writer.feed(name) as number:
            if fetched is None:
                made, done = known, "unchanged"
            elif fetched.file is None:
                made, done = _change(writer, number, fetched, now), "changed"
            else:
                before = writer.count(number)
                made, done = _load(writer, number, fetched.feed, fetched.file, now), "loaded"
                _plausible(made, known, (before, writer.count(number)), full=full)
            writer.describe(replace(made, checked=now))
        return Outcome(name, done, made.records)
    except ComputeOpsError as error:
        return Outcome(name, "refused", known.records, error.message)
    except OSError as error:
        return Outcome(name, "refused", known.records, f"{error.strerror or error}")


def _load(writer: Writer, number: int, feed: Feed, file: Path, now: int) -> Feed:
    """Write the records of a feed and return what is known of it now."""
    kind = feed.name.partition("/")[0]
    if kind == "kev":
        return replace(feed, records=writer.exploited(facts.exploited(bounded.whole(file), file.name)))
    if kind == "epss":
        return replace(feed, records=writer.likely(facts.likely(bounded.whole(file), file.name)))
    if kind == "names":
        channel = feed.name.partition("/")[2]
        return replace(feed, records=writer.named(channel, names.read(bounded.whole(file), file.name)))
    writer.clear(number)
    counted = _Counted(now)
    writer.add(number, counted.good(_READERS[kind](file)))
    return replace(feed, records=counted.records, faulty=counted.faulty, newest=counted.newest)


def _change(writer: Writer, number: int, fetched: Fetched, now: int) -> Feed:
    """Write only the records that changed; those that were withdrawn go."""
    counted, added = _Counted(now), 0
    for name, data in fetched.changes.items():
        id_, advisory = osv.read(data)
        if id_ != name:
            raise FormatError(f"the record of {name[:80]} says that it is {id_[:80]}")
        added += not writer.remove(number, name)
        writer.add(number, counted.good([advisory]))
    feed = fetched.feed
    return replace(feed, records=feed.records + added, newest=max(feed.newest, counted.newest))


class _Counted:
    """Counts the records of a feed on their way."""

    def __init__(self, now: int) -> None:
        self.records, self.faulty, self.newest = 0, 0, ""
        self._tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + _DAY))

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


def _vex(file: Path) -> Iterator[Advisory | FormatError | None]:
    for data in redhat.members(file):
        try:
            found = redhat.read(data)
        except FormatError as error:
            yield error
        else:
            yield from found or (None,)


_READERS: Mapping[str, Callable[[Path], Iterator[Advisory | FormatError | None]]] = {
    "osv": _osv,
    "debian": _tracker,
    "alpine": _secdb,
    "redhat": _vex,
}


def _plausible(made: Feed, known: Feed, said: tuple[int, int], *, full: bool) -> None:
    """Refuse a feed whose format changed, or of which only a part is there; `said`: advisories before and now."""
    if made.records == 0:
        raise FormatError(f"{made.name} has no records")
    if made.faulty > max(made.records * _FAULTY_SHARE, 1) or made.faulty == made.records:
        raise FormatError(f"{made.faulty} of {made.records} records of {made.name} cannot be read: its format changed")
    for before, now, what in ((known.records, made.records, "records"), (*said, "advisories about packages")):
        if not full and now < before * _SHRUNK_SHARE:
            raise FormatError(
                f"{made.name} has {now} {what}, and had {before}: its format changed, or it is only a part;"
                " if it is right, load it with --full"
            )


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
