"""The recipe around a source: a computeops.toml of what was found and answered, and a build.sh where it has none."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from computeops import recipe
from computeops.recipe import FILE_NAME, ON_DEBIAN

BUILD_FILE = "computeops-build.sh"
_SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~%:@-]{0,250}")
_OURS = frozenset({FILE_NAME, "computeops.lock", BUILD_FILE})
_HEAD = """\
#!/bin/sh
# Written for a deposit: folders among the sources are tar files here.
set -eu
mkdir /tmp/source
for one in *; do
    case $one in *.tar) tar -xf "$one" -C /tmp/source ;; *) cp -r "$one" /tmp/source/ ;; esac
done
cd /tmp/source
"""
_SYSTEMS = {
    "cmake": "cmake -B /tmp/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr/local\n"
    'cmake --build /tmp/build -j "$(nproc)"\ncmake --install /tmp/build\n',
    "autotools": "[ -x configure ] || autoreconf -i\n./configure --prefix=/usr/local\n"
    'make -j "$(nproc)"\nmake install\n',
    "make": 'make -j "$(nproc)"\nmake install PREFIX=/usr/local prefix=/usr/local\n',
}
_TAIL = "cd /\nrm -rf /tmp/source /tmp/build\n"
_TOOLS = {
    "cmake": "cmake g++ make",
    "autotools": "autoconf automake gcc g++ libtool make",
    "make": "gcc g++ make",
}


def write(name: str, values: Mapping[str, str], tops: Sequence[str]) -> dict[str, bytes]:
    """Return name and content of the files that make a recipe of a source whose first level has the names `tops`.

    Raises:
        RecipeError: what was answered does not make a recipe.
    """
    values, files = dict(values), dict[str, bytes]()
    system = "" if values.get("file") else values.get("system", "")
    if values["builder"] == "debian" and system:
        values["file"] = BUILD_FILE
        values["build_packages"] = f"{_TOOLS[system]} {values.get('build_packages', '')}".strip()
        files[BUILD_FILE] = f"{_HEAD}{_SYSTEMS[system]}{_TAIL}".encode()
    files[FILE_NAME] = "".join(_lines(name, values, tops)).encode()
    recipe.parse(files[FILE_NAME])
    return files


def _lines(name: str, values: Mapping[str, str], tops: Sequence[str]) -> Iterator[str]:
    yield "[package]\n" + _text("name", name)
    for key in ("version", "summary", "license", "homepage", "citation"):
        yield _text(key, values.get(key, ""))
    yield _list("domains", values.get("domains", ""))
    if values.get("maintainer"):
        yield "\n[[maintainers]]\n" + "".join(_maintainer(values["maintainer"]))
    for top in tops:
        if top not in _OURS and _SOURCE_NAME.fullmatch(top):
            yield "\n[[sources]]\n" + _text("path", top)
    on_debian = values["builder"] in ON_DEBIAN
    yield "\n[build]\n" + _text("builder", values["builder"]) + _text("file", values.get("file", ""))
    if on_debian:
        yield _text("suite", values.get("suite") or "bookworm") + _list("packages", values.get("packages", ""))
        yield _list("build_packages", values.get("build_packages", "")) if values.get("file") else ""
    if values.get("command"):
        yield "\n[run]\n" + _list("command", values["command"])
    if values.get("test"):
        yield "\n[[tests]]\n" + _text("name", "works") + _text("run", values["test"])
        yield _text("expect", values.get("expect", ""))


def _maintainer(text: str) -> Iterator[str]:
    name, *more = (part.strip() for part in text.split(";"))
    yield _text("name", name)
    for part in more[:2]:
        yield _text("email" if "@" in part else "orcid", part)


def _text(key: str, value: str) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}\n" if value else ""


def _list(key: str, value: str) -> str:
    words = [one for one in re.split(r"[\s,]+", value) if one]
    return f"{key} = {json.dumps(words, ensure_ascii=False)}\n" if words else ""
