"""The folder of one pipeline on a worker, and what stands in it.

task.json     the pipeline as the hub gave it, with the lease; for the agent alone
plan.json     what the job is to do, without any secret
source.tar    the archive it begins with
recipe/       what was in it, or in the git repository
out/ tmp/     what is built
steps/*.json  a file for each step that ended, written whole
log           what the steps say
end           the exit code of a job that came to its end
job           the name of the job that does it
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from computeops import config, proc
from computeops.files import whole_file
from computeops.hub.pipelines.words import DONE, Bounds, Source, Step
from computeops.store.release import Release

END = "end"
_T = TypeVar("_T")


class Site(Struct, frozen=True, kw_only=True):
    """What a worker chose for all that it builds: some of its own settings."""

    mirror: str
    pypi: str
    advisories: str
    stale_days: int
    compression: str
    level: int
    engine: str
    epoch: int
    jobs: int

    @property
    def own(self) -> tuple[str, str]:
        """The mirrors that the worker chose, which may be anywhere."""
        return self.mirror, self.pypi


class Plan(Struct, frozen=True, kw_only=True):
    """What a job is to do."""

    kind: str
    repository: str
    source: Source
    bounds: Bounds
    network: bool
    private: bool
    cache: str
    built: str
    """Folder with what was built before."""
    site: Site


class Fault(Struct, frozen=True, kw_only=True):
    """Why a job gave up: the pipeline has failed, and another attempt would not help."""

    step: str
    error: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one pipeline."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Where the source was laid out."""
        return self.path / "recipe"

    @property
    def out(self) -> Path:
        """Where releases are built."""
        return self.path / "out"

    @property
    def log(self) -> Path:
        """What the steps say."""
        return self.path / "log"

    @property
    def source(self) -> Path:
        """The archive that it begins with."""
        return self.path / "source.tar"

    def plan(self) -> Plan:
        """Return what is to be done."""
        return msgspec.json.decode((self.path / "plan.json").read_bytes(), type=Plan)

    def settings(self) -> config.Settings:
        """Return the settings that a step works with: nothing of them comes from an environment."""
        plan = self.plan()
        base = config.Settings.load({"HOME": str(self.path), "TMPDIR": str(self.path / "tmp")})
        site = plan.site
        return replace(
            base,
            cache=Path(plan.cache),
            tmp=self.path / "tmp",
            keys=self.path / "no-keys",
            advisories=Path(site.advisories),
            stale_days=site.stale_days,
            mirror=site.mirror,
            pypi=site.pypi,
            compression=site.compression,
            level=site.level,
            engine=site.engine,
            epoch=site.epoch,
            jobs=site.jobs,
        )

    def write(self, name: str, value: Struct | int) -> None:
        """Write a file of the folder, whole or not at all."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file:
            file.write(msgspec.json.encode(value))

    def read(self, name: str, kind: type[_T]) -> _T | None:
        """Return what such a file says; None: there is none."""
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None

    def steps(self) -> list[Step]:
        """Return the steps that began, in the order in which they did."""
        files = (self.path / "steps").glob("*.json") if (self.path / "steps").is_dir() else ()
        found = [msgspec.json.decode(file.read_bytes(), type=Step) for file in files]
        return sorted(found, key=lambda one: one.began)

    def note(self, step: Step) -> None:
        """Write how far a step is."""
        self.write(f"steps/{step.name.replace('/', '-')}.json", step)

    def has_done(self, name: str) -> bool:
        """Return whether a step ended well."""
        return any(one.name == name and one.state == DONE for one in self.steps())

    def remove(self) -> None:
        """Remove all of it, also what belongs to the other users of a build's box, whom only its root may touch."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            proc.capture(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(self.path)])

    def releases(self) -> Sequence[Release]:
        """Return what was built, in the order of the names."""
        return [Release.beside(path) for path in sorted(self.out.glob("*.sif"))] if self.out.is_dir() else []
