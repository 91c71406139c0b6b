"""What `ci run` published, brought to where a cluster reads it: each image by the digest that the run reported.

The runner is one of the site: whom its keys do not know is refused there, whatever the pipeline says.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from computeops import pipeline, proc
from computeops.cli.output import Progress
from computeops.config import Settings
from computeops.errors import ComputeOpsError, ConflictError, FormatError, NetworkError, NotFoundError
from computeops.image import convert
from computeops.limits import LIMITS
from computeops.model import Digest, Reference

REMOTE = re.compile(r"[\w.@][\w.@-]*:(?!:)", re.ASCII)
"""What a target of rsync on another machine begins with."""


class _Image(msgspec.Struct):
    """What the summary says of one image."""

    reference: str = ""
    manifest: str = ""
    digests: Mapping[str, str] = {}


class _Summary(msgspec.Struct):
    """`summary.json`, as `ci run` wrote it."""

    images: Sequence[_Image] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """An image of the run, in the hub."""

    reference: Reference
    image: Digest
    """What it is, however it is packed."""

    @property
    def file(self) -> str:
        """Return what its file is called."""
        return f"{self.reference.name}-{self.reference.version}.sif"


def published(reports: Path) -> Sequence[Published]:
    """Return the images that the run with these reports published.

    Raises:
        NotFoundError: it published none, or left no reports; FormatError: they are not of `ci run`.
    """
    summary = reports / "summary.json"
    try:
        with summary.open("rb") as file:
            data = file.read(LIMITS.manifest_bytes + 1)
    except OSError as error:
        hint = "it is among the artifacts of the job that published"
        raise NotFoundError(f"cannot read {summary}: {error.strerror}", hint=hint) from None
    if len(data) > LIMITS.manifest_bytes:
        raise FormatError(f"{summary} has more than {LIMITS.manifest_bytes} bytes")
    try:
        found = msgspec.json.decode(data, type=_Summary)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"{summary} is not of `computeops ci run`: {error}") from None
    images = [
        Published(
            replace(Reference.parse(one.reference), digest=Digest.parse(one.manifest)),
            Digest.parse(one.digests.get("image", "")),
        )
        for one in found.images
        if one.manifest and one.reference
    ]
    if not images:
        raise NotFoundError(f"{summary} tells of nothing published", hint="`computeops ci run --push REF` publishes")
    return images


def deploy(settings: Settings, images: Sequence[Published], folder: Path, *, force: bool = False) -> Sequence[Path]:
    """Fetch `images` into `folder` and return their files; one that is there already is left alone.

    Raises:
        ConflictError: a file is there with another image, and `force` is not given; then none is fetched.
        TrustError: the evidence of one does not hold; PolicyError: nobody whom this site knows vouches for it.
    """
    from computeops.cli import store

    wanted = {folder / one.file: one for one in images}
    here = {file for file, one in wanted.items() if file.exists() and _same(file, one)}
    others = [str(file) for file in wanted if file.exists() and file not in here]
    if others and not force:
        raise _conflict(", ".join(others))
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    for file, one in wanted.items():
        if file not in here:
            with store.registry(settings, one.reference.hub) as there:
                pipeline.pull(one.reference, file, there, settings, progress, force=force)
            file.chmod(0o644)  # for all users of the cluster, whatever the umask of the runner
    progress.done()
    return list(wanted)


def send(settings: Settings, images: Sequence[Published], to: str, *, force: bool = False) -> Sequence[str]:
    """Fetch `images`, and send them by rsync to `to`, HOST:FOLDER; return their places there. Each appears whole.

    Raises:
        ConflictError, TrustError, PolicyError: as `deploy`; NetworkError: rsync failed.
    """
    settings.tmp.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.tmp, prefix="computeops-deploy-") as work:
        files = [str(file) for file in deploy(settings, images, Path(work))]
        rsync = ["rsync", "--checksum", "--times", "--chmod=F644"]
        target = ["--", *files, f"{to.rstrip('/')}/"]
        asked = [*rsync, "--dry-run", "--existing", "--itemize-changes", *target]
        others = [line.split()[-1] for line in proc.run(asked, error=NetworkError).splitlines() if line[2:3] == "c"]
        if others and not force:
            raise _conflict(f"{to}: {', '.join(others)}")
        proc.run([*rsync, *target], error=NetworkError)
    return [f"{to.rstrip('/')}/{one.file}" for one in images]


def _conflict(where: str) -> ConflictError:
    return ConflictError(
        f"{where}: another image of that name is there",
        hint="a new version gets a new name; --force replaces it under those who run it",
    )


def _same(file: Path, one: Published) -> bool:
    try:
        return convert.prove(convert.open_image(file)).id == one.image
    except ComputeOpsError:  # half a file, or none of ours
        return False
