"""What a source says of itself, in the files that people already write, for the recipe around it.

The first that says something wins: CodeMeta, CITATION.cff, the metadata of its language, its build system, its name.
Nothing is run; what is not the text that a recipe may have there is as if it were not there.
"""

import configparser
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from computeops import build as builders
from computeops.hub.deposits import licences
from computeops.hub.deposits.fields import FIELDS, fault
from computeops.limits import LIMITS
from computeops.recipe import BUILDERS

Said = Iterator[tuple[str, Any]]
_ORCID = re.compile(r"[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]")
_DOI = re.compile(r"10\.[0-9]{4,9}/[!-~]+")
_ENDS = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2|txz|zip)$")
_VERSION = re.compile(r"(?:^|[-_/]|\bv)v?([0-9]+(?:\.[0-9A-Za-z]+)*(?:[-+.](?:rc|alpha|beta|post)[0-9.]*)?)$")
_SYSTEMS = (("CMakeLists.txt", "cmake"), ("configure", "autotools"), ("configure.ac", "autotools"))
_LAST = ("python",)
"""Builders whose file often lies in what another builds; the others are asked before."""
_MAKE = ("Makefile", "GNUmakefile", "makefile")


def read(folder: Path, name: str) -> dict[str, tuple[str, str]]:
    """Return key of the recipe to what is said for it and where; `name` is that of the archive or the tag."""
    found: dict[str, tuple[str, str]] = {}
    for file, reader in _READERS.items():
        path = folder / file
        if path.is_file() and not path.is_symlink():
            _take(found, file, _tolerant(reader, path))
    _take(found, *_licence(folder))
    _take(found, *_build(folder))
    version = _VERSION.search(_ENDS.sub("", name))
    _take(found, name, iter([("version", version[1])] if version else []))
    return found


def _take(found: dict[str, tuple[str, str]], where: str, said: Said) -> None:
    for key, value in said:
        text = " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
        if text and key in FIELDS and key not in found and not fault(key, text):
            found[key] = (text, where[:200])


def _tolerant(reader: Callable[[str], Said], path: Path) -> Said:
    """Yield what a reader finds until the file turns out to be something else."""
    with path.open("rb") as file:
        data = file.read(LIMITS.recipe_bytes + 1)
    if len(data) > LIMITS.recipe_bytes:
        return
    try:
        yield from reader(data.decode(errors="replace"))
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, configparser.Error):
        return


def _licence(folder: Path) -> tuple[str, Said]:
    found, where = licences.find(folder)
    return where, iter([("license", found)] if found else [])


def _build(folder: Path) -> tuple[str, Said]:
    """Tell how it is built: by a build file that lies in it as it is, or by what its build system is known to want."""
    # a spack.yaml alone builds nothing: Spack itself is a source that only people can choose
    for one in sorted(set(BUILDERS) - {"debian", "spack"}, key=lambda name: (name in _LAST, name)):
        if (file := builders.find(one).detect(folder)) and _is_buildable(folder / file):
            return file, iter([("builder", one), ("file", file)])
    for file, system in _SYSTEMS:
        if (folder / file).is_file():
            return file, iter([("builder", "debian"), ("system", system)])
    for file in _MAKE:
        if (folder / file).is_file():
            return file, iter([("builder", "debian"), ("system", "make")])
    if (folder / "build.sh").is_file():
        return "build.sh", iter([("builder", "debian"), ("file", "build.sh")])
    return "", iter([])


def _is_buildable(file: Path) -> bool:
    """Whether a pyproject.toml is of a project, and not only the settings of some tools."""
    return file.name != "pyproject.toml" or "[project]" in file.read_text(errors="replace")[: LIMITS.recipe_bytes]


# the files


def _codemeta(text: str) -> Said:
    """Read codemeta.json (CodeMeta 2.0 and 3.0)."""
    data = json.loads(text)
    yield "version", data.get("softwareVersion") or data.get("version")
    yield "summary", _first_sentence(data.get("description"))
    yield "license", _spdx(data.get("license"))
    yield "homepage", data.get("url") or data.get("codeRepository")
    for key in ("referencePublication", "identifier"):
        yield "citation", _doi(data.get(key))
    for key in ("maintainer", "author"):
        yield from _person(data.get(key))


def _citation(text: str) -> Said:
    """Read CITATION.cff (1.2.0)."""
    import yaml  # type: ignore[import-untyped]  # no stubs: they would be one more dependency

    try:
        data = yaml.load(text, yaml.BaseLoader)  # noqa: S506  all is text: 1.10 stays so; it makes no other objects
    except yaml.YAMLError:
        return
    yield "version", data.get("version")
    yield "summary", _first_sentence(data.get("abstract")) or data.get("title")
    yield "license", _spdx(data.get("license"))
    yield "homepage", data.get("url") or data.get("repository-code")
    yield "citation", _doi(data.get("doi")) or _doi((data.get("preferred-citation") or {}).get("doi"))
    for one in (*(data.get("contact") or ()), *(data.get("authors") or ())):
        yield from _person({**one, "givenName": one.get("given-names"), "familyName": one.get("family-names")})


def _pyproject(text: str) -> Said:
    """Read [project] of pyproject.toml (PEP 621, PEP 639)."""
    project = tomllib.loads(text).get("project", {})
    yield "version", project.get("version")
    yield "summary", project.get("description")
    yield "license", _spdx(project.get("license"))
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    yield "homepage", urls.get("homepage") or urls.get("repository") or urls.get("source")
    for one in (*project.get("maintainers", ()), *project.get("authors", ())):
        yield from _person(one)
    yield "command", next(iter(project.get("scripts", {})), "")


def _setup_cfg(text: str) -> Said:
    """Read [metadata] of setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    data = dict(parser["metadata"]) if parser.has_section("metadata") else {}
    yield "version", data.get("version")
    yield "summary", data.get("description")
    yield "license", _spdx(data.get("license"))
    yield "homepage", data.get("url")
    yield from _person({"name": data.get("author"), "email": data.get("author_email")})


def _cmake(text: str) -> Said:
    """Read project() of CMakeLists.txt."""
    call = re.search(r"^\s*project\s*\(([^)]{0,4000})\)", text, re.IGNORECASE | re.MULTILINE)
    inside = call[1] if call else ""
    for key, word in (("version", "VERSION"), ("summary", "DESCRIPTION"), ("homepage", "HOMEPAGE_URL")):
        said = re.search(rf"\b{word}\s+(?:\"([^\"]*)\"|(\S+))", inside)
        yield key, (said[1] or said[2]) if said else ""


def _autoconf(text: str) -> Said:
    """Read AC_INIT of configure.ac."""
    call = re.search(r"^\s*AC_INIT\s*\(([^)]{0,4000})\)", text, re.MULTILINE)
    words = [word.strip().strip("[]") for word in call[1].split(",")] if call else []
    yield "version", words[1] if len(words) > 1 else ""
    yield "homepage", words[4] if len(words) > 4 else ""


def _cargo(text: str) -> Said:
    """Read [package] of Cargo.toml."""
    package = tomllib.loads(text).get("package", {})
    for key, word in (("version", "version"), ("summary", "description"), ("homepage", "homepage")):
        yield key, package.get(word)
    yield "license", _spdx(package.get("license"))


def _npm(text: str) -> Said:
    """Read package.json."""
    data = json.loads(text)
    for key, word in (("version", "version"), ("summary", "description"), ("homepage", "homepage")):
        yield key, data.get(word)
    yield "license", _spdx(data.get("license"))


def _r(text: str) -> Said:
    """Read DESCRIPTION of an R package."""
    data = dict(re.findall(r"^([A-Za-z@]+):\s*(.+)$", text, re.MULTILINE))
    for key, word in (("version", "Version"), ("summary", "Title"), ("homepage", "URL")):
        yield key, data.get(word)


_READERS: Mapping[str, Callable[[str], Said]] = {
    "codemeta.json": _codemeta,
    "CITATION.cff": _citation,
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "Cargo.toml": _cargo,
    "package.json": _npm,
    "DESCRIPTION": _r,
    "CMakeLists.txt": _cmake,
    "configure.ac": _autoconf,
}


# what is said in more than one way


def _first_sentence(text: Any) -> str:
    one = " ".join(text.split()) if isinstance(text, str) else ""
    return one if len(one) <= 200 else re.split(r"(?<=[.!?]) ", one)[0]


def _spdx(said: Any) -> str:
    """Return the expression of a licence that is named by its identifier, by its address, or by its text."""
    if isinstance(said, list):
        return " OR ".join(filter(None, (_spdx(one) for one in said[:10])))
    if isinstance(said, dict):
        said = said.get("@id") or said.get("url") or said.get("text") or said.get("name") or ""
    text = str(said or "").strip()
    if "spdx.org/licenses/" in text:
        return re.sub(r"\.(?:html|json)$", "", text.rstrip("/").rpartition("/")[2])
    return text if len(text) < 200 and "\n" not in text else licences.identify(text)


def _doi(said: Any) -> str:
    if isinstance(said, list | dict):
        parts = said if isinstance(said, list) else [said.get("@id"), said.get("identifier"), said.get("value")]
        return next(filter(None, (_doi(one) for one in parts[:10])), "")
    found = _DOI.search(said) if isinstance(said, str) else None
    return found[0] if found else ""


def _person(said: Any) -> Said:
    """Yield name, address and ORCID of the first person; all of one, so that they do not become another's."""
    one = said[0] if isinstance(said, list) and said else said
    if not isinstance(one, dict):
        return
    parts = [one.get("givenName"), one.get("familyName")]
    name = " ".join(part for part in parts if isinstance(part, str)) or one.get("name")
    if not isinstance(name, str) or not name.strip():
        return
    email, orcid = one.get("email"), _ORCID.search(str(one.get("@id") or one.get("orcid") or ""))
    host = urlsplit(f"//{email}").hostname if isinstance(email, str) else None
    yield "maintainer", "; ".join(filter(None, (name, email if host else "", orcid[0] if orcid else "")))
