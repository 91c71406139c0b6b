"""Fakes of LSF, PBS Pro and Torque on the PATH: what no package offers."""

import os
import shutil
import tempfile
from pathlib import Path

from schedulers import fake_batch

COMMANDS = {"lsf": ("bsub", "bjobs", "bkill"), "pbs": ("qsub", "qstat", "qdel"), "torque": ("qsub", "qstat", "qdel")}


class Fake:
    """A folder with the commands of one dialect, and one with its jobs."""

    def __init__(self, dialect: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"cops-{dialect}-", dir="/tmp"))
        self.folder.chmod(0o755)
        for command in COMMANDS[dialect]:
            shutil.copy(fake_batch.__file__, self.folder / command)
            (self.folder / command).chmod(0o755)
        (self.folder / "dialect").write_text(dialect)
        jobs = self.folder / "jobs"
        jobs.mkdir()
        jobs.chmod(0o777)
        self.env = {fake_batch.VARIABLE[dialect]: str(jobs), "PATH": f"{self.folder}:{os.environ['PATH']}"}

    def stop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Dialect:
    """Stands where the module of a real scheduler would."""

    def __init__(self, name: str) -> None:
        self.name = name

    def up(self) -> Fake:
        return Fake(self.name)

    def down(self, fake: Fake) -> None:
        fake.stop()


lsf, pbs, torque = Dialect("lsf"), Dialect("pbs"), Dialect("torque")
