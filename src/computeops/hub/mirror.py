"""A copy of collections of another hub, or of repositories of any registry, in this hub; run again, it is updated.

Nothing here is deleted or overwritten: a release stays what it is, and what the source no longer has stays here.
"""

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from computeops.errors import ComputeOpsError, ConflictError, LoginError, NetworkError, NotFoundError, StorageError
from computeops.hub import names
from computeops.hub.copying import Copying, Tally
from computeops.hub.state import Hub
from computeops.store import listing
from computeops.store.oci import Registry

_FALLBACK = re.compile(r"sha(256|512)-[0-9a-f]{64,128}")  # how registries before 1.1 list referrers
_FAULTS = 1000


@dataclass(slots=True)
class Report:
    """What a run did."""

    repositories: int = 0
    copied: Tally = field(default_factory=Tally)
    faults: list[str] = field(default_factory=list)
    """What could not be copied, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is mirrored, of all that the source has."""

    collections: Sequence[str] = ()
    """With the collections below them; empty: all."""
    repositories: Sequence[str] = ()
    """These alone, though the source may not list them."""
    into: str = ""
    """Collection of this hub below which all of it is put."""

    def of(self, registry: Registry) -> Iterator[str]:
        """Yield the repositories of the source that are wanted.

        Raises:
            NotFoundError: the source does not say what it has.
        """
        if self.repositories:
            yield from self.repositories
            return
        for name in listing.repositories(registry):
            if not self.collections or any(name.startswith(f"{one.strip('/')}/") for one in self.collections):
                yield name

    def target(self, name: str) -> str:
        """Return what a repository of the source is called here.

        Raises:
            UsageError: no repository can be called so.
        """
        found = f"{self.into.strip('/')}/{name}" if self.into else name
        names.require(found)
        return found


def mirror(hub: Hub, registry: Registry, wanted: Wanted, *, told: Callable[[str], None]) -> Report:
    """Copy what is wanted and not here yet, and return what was done; `told` hears what is copied next.

    Raises:
        NetworkError, LoginError: the source does not answer, or not us; a further run goes on from there.
        NotFoundError: the source does not say what it has, or has nothing that is wanted.
        ConflictError: another mirror of this hub is running.
    """
    report, public = Report(), hub.settings.new_collections == "public"
    with _alone(hub) as work:
        for name in wanted.of(registry):
            report.repositories += 1
            with _noted(report, name):
                copying = Copying(
                    hub, registry, name, wanted.target(name), work, public=public, tally=report.copied, told=told
                )
                _repository(copying, report)
    if not report.repositories:
        raise NotFoundError(f"{registry.base} has nothing that is wanted", hint="check the names of the collections")
    return report


def _repository(copying: Copying, report: Report) -> None:
    for tag in listing.tags(copying.registry, copying.source):
        if _FALLBACK.fullmatch(tag):
            continue
        with _noted(report, f"{copying.source}:{tag}"):
            digest = copying.registry.digest_of(copying.source, tag)
            if digest is not None:  # deleted in this moment
                copying.tag(tag, digest)


@contextmanager
def _noted(report: Report, name: str) -> Iterator[None]:
    """Go on after what is wrong with one of many; not after what will be wrong with all."""
    try:
        yield
    except (NetworkError, LoginError, StorageError):
        raise
    except ComputeOpsError as error:
        if len(report.faults) >= _FAULTS:
            raise
        report.faults.append(f"{name[:300]}: {error.message}")


@contextmanager
def _alone(hub: Hub) -> Iterator[Path]:
    """Give a folder for what is on its way, and keep other mirrors away; what a killed one left is removed."""
    work = hub.data / "mirror"
    work.mkdir(mode=0o700, exist_ok=True)
    with (hub.data / "mirror.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("another mirror of this hub is running", hint="wait for its end") from None
        for left in work.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        yield work
