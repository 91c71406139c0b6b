"""What a recipe needs to be told: the questions that a source did not answer are asked, in these words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from computeops.recipe import BUILDERS, ON_DEBIAN, texts
from computeops.spdx import license_fault

SYSTEMS = ("cmake", "autotools", "make")
"""Build systems for which a build.sh is written."""
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a deposit."""

    label: str
    example: str
    shape: Any
    """Type of the text in the recipe; of each word, where it is a list."""
    words: bool = False
    needed: bool = False


FIELDS: Mapping[str, Field] = {
    "version": Field("Version", "1.21", texts.Version, needed=True),
    "summary": Field("What it does, in one line", "Tools for sequencing data", texts.Line, needed=True),
    "license": Field("Licence, as an SPDX expression", "MIT OR Apache-2.0", texts.License, needed=True),
    "builder": Field(f"How it is built: {', '.join(BUILDERS)}", "debian", str, needed=True),
    "file": Field("Its build file", "Dockerfile", texts.Inside),
    "system": Field(f"Without one: {', '.join(SYSTEMS)}", "cmake", str),
    "suite": Field("Release of Debian", "bookworm", texts.Suite),
    "packages": Field("Packages of Debian that it needs to run", "zlib1g", texts.DebianPackage, words=True),
    "build_packages": Field("Packages that its build needs", "zlib1g-dev", texts.DebianPackage, words=True),
    "command": Field("The program that the image runs", "samtools", texts.Program),
    "test": Field("A command that shows that it works", "samtools --version", texts.Line),
    "expect": Field("Text that this prints", "samtools 1.21", texts.Line),
    "homepage": Field("Homepage", "https://www.htslib.org", texts.WebAddress),
    "citation": Field("DOI to cite", "10.1093/gigascience/giab008", texts.Doi),
    "domains": Field("Fields of science", "bioinformatics", texts.Name, words=True),
    "maintainer": Field("Who answers for it: name; e-mail; ORCID", "Ada Lovelace; ada@example.org", texts.Line),
}
"""Key to what it is, in the order of the form."""


def fault(key: str, value: str) -> str:
    """Return what is wrong with a text for a key, or an empty text."""
    field = FIELDS[key]
    if len(value) > _MOST:
        return f"must have at most {_MOST} characters"
    if key == "license" and (wrong := license_fault(value)):
        return wrong
    for choices, name in ((BUILDERS, "builder"), (SYSTEMS, "system")):
        if key == name and value not in choices:
            return f"must be one of {', '.join(choices)}"
    for one in re.split(r"[\s,]+", value) if field.words else [value]:
        try:
            msgspec.convert(one, field.shape, strict=True)
        except msgspec.ValidationError:
            return f"must be as {field.example!r}"
    return ""


def missing(values: Mapping[str, str]) -> list[str]:
    """Return the keys that a recipe cannot be written without."""
    wanted = [key for key, field in FIELDS.items() if field.needed and not values.get(key)]
    builder = values.get("builder", "")
    if builder and not values.get("file"):
        if builder not in ON_DEBIAN or builder in {"python", "conda"}:
            wanted.append("file")
        elif not values.get("system") and not values.get("packages"):
            wanted.append("system")
    return wanted
