"""A release on disk: an image in its forms, and beside it a folder with its recipe, sources and evidence.

samtools-1.21.sif              the image for Apptainer
samtools-1.21.oci/             the same image as an OCI layout
samtools-1.21.release/
    recipe/                    computeops.toml, computeops.lock and the build file
    sources/                   what the recipe names under [[sources]], as it was fetched
    inputs/DIGEST              what else its lock names, by SHA-256: packages, and the parts of base images
    evidence/KIND-DIGEST.dsse.json
"""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from computeops.errors import FormatError, LimitError
from computeops.files import whole_file
from computeops.image import folders
from computeops.limits import LIMITS
from computeops.model import Digest, Signed

_SUFFIXES = (".sif", ".oci", ".oci.tar", ".tar")


@dataclass(frozen=True, slots=True)
class Release:
    """Where the parts of one release lie; any of them may be missing."""

    stem: Path
    """Path of the image without its suffix."""

    @classmethod
    def beside(cls, image: Path) -> Self:
        """Return the release of the image file or layout at `image`."""
        for suffix in _SUFFIXES:
            if image.name.endswith(suffix) and image.name != suffix:
                return cls(image.with_name(image.name.removesuffix(suffix)))
        return cls(image)

    @property
    def sif(self) -> Path:
        """The image as a SIF."""
        return self._named(".sif")

    @property
    def layout(self) -> Path:
        """The image as an OCI layout."""
        return self._named(".oci")

    @property
    def folder(self) -> Path:
        """What is not the image."""
        return self._named(".release")

    def _named(self, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + suffix)

    def files(self, part: str) -> Mapping[str, Path]:
        """Return name and path of the files of `part`, recipe, sources, inputs or evidence, sorted by their names."""
        folder = self.folder / part
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: path for path in found if path.is_file() and not path.name.startswith(".")}

    def evidence(self) -> list[Signed]:
        """Return every envelope of the release, unverified.

        Raises:
            FormatError: a file is no DSSE envelope; LimitError: it is too large.
        """
        return [_envelope(path) for path in self.files("evidence").values()]

    def add_evidence(self, kind: str, signed: Signed) -> Path:
        """Write an envelope; one with the same payload is replaced. `kind`: a word for the file's name."""
        ending = f"-{Digest.of(signed.payload).short}.dsse.json"
        written = self.add("evidence", kind + ending, json.dumps(signed.as_json()).encode())
        for name, path in self.files("evidence").items():
            if name.endswith(ending) and path != written:
                path.unlink()
        return written

    def add(self, part: str, name: str, data: bytes) -> Path:
        """Write a small file of `part`, whole or not at all, and return its path."""
        return self._write(part, name, io.BytesIO(data))

    def add_copy(self, part: str, name: str, source: Path) -> Path:
        """Copy the file `source` to `part`, whole or not at all, and return its path."""
        with source.open("rb") as file:
            return self._write(part, name, file)

    def add_shared(self, part: str, name: str, source: Path) -> Path:
        """Let the file `source`, which nobody writes any more, be one of `part`, and return its path."""
        folders.share(source, self.folder / part / name)
        return self.folder / part / name

    def _write(self, part: str, name: str, data: BinaryIO) -> Path:
        folder = self.folder / part
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / name) as new:
            shutil.copyfileobj(data, new, 1024 * 1024)
        return folder / name


def copy_tree(path: Path, target: Path) -> None:
    """Copy a file or folder of a release; inputs, which nobody writes any more, are shared."""

    def place(source: str, into: str) -> None:
        if Path(source).parent.name == "inputs":
            folders.share(Path(source), Path(into))
        else:
            shutil.copy2(source, into)

    if path.is_dir():
        shutil.copytree(path, target, symlinks=True, copy_function=place)
    else:
        shutil.copy2(path, target)


def _envelope(path: Path) -> Signed:
    if path.stat().st_size > LIMITS.evidence_bytes:
        raise LimitError(f"{path} is larger than {LIMITS.evidence_bytes} bytes")
    try:
        return Signed.from_json(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no evidence: {error}") from error
