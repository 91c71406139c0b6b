"""Packages of Spack: spec.json beside each, and the database of an installation for those without.

https://spack.readthedocs.io; lib/spack/spack/spec.py and database.py
"""

import re
from collections.abc import Iterator
from typing import Any

from computeops.check.inventory.content import Content
from computeops.check.inventory.model import Files, Found, Package, Records, System, Unread
from computeops.check.inventory.purl import purl
from computeops.check.inventory.record import members, named, packed, parsed, unpacked, word
from computeops.errors import FormatError
from computeops.image.tree import Entry, Kind

KIND = "spack"
_SPEC, _DATABASE = ".spack/spec.json", ".spack-db/index.json"
_PACKAGE = re.compile(r"[a-z0-9_][a-z0-9_-]*")


def wanted(entry: Entry) -> bool:
    """Return whether `entry` is the record of a package, or the database."""
    if not entry.path.endswith((_SPEC, _DATABASE)) or entry.kind is Kind.DIRECTORY:
        return False
    return f"/{entry.path}".endswith((f"/{_SPEC}", f"/{_DATABASE}"))


def kept(content: Content) -> bytes | None:
    """Return name, version, hash and target of each package that is installed.

    Raises:
        FormatError, LimitError: it is broken.
    """
    found = parsed(content)
    if content.path.endswith(_DATABASE):
        return packed(*_installed(found, content.path))
    spec = found.get("spec")
    if isinstance(spec, list):  # before version 2 of the format: a list of objects of one key
        old = spec[0] if spec and isinstance(spec[0], dict) else {}
        nodes = [{"name": name, **node} for name, node in old.items() if isinstance(node, dict)]
    else:
        nodes = members(spec, "nodes")
    if not nodes:
        raise FormatError(f"/{content.path} names no package")
    # The first is the package itself; the others, of which it was made, have records of their own.
    return packed(_node(nodes[0], content.path))


def read(files: Files, system: System, records: Records) -> Iterator[Found | Unread]:
    """Yield every package; of the database those that have no record of their own."""
    del system, records
    seen: set[str] = set()
    for place, data in sorted(files.of(KIND), key=lambda one: one[0].endswith(_DATABASE)):
        for name, version, digest, arch in unpacked(data):
            if digest and digest in seen:
                continue
            seen.add(digest)
            yield Found(
                Package(KIND, name, version, purl(KIND, "", name, version, {"arch": arch, "hash": digest}), place, arch)
            )


def _installed(found: dict[str, Any], path: str) -> Iterator[list[str]]:
    database = found.get("database")
    installs = database.get("installs") if isinstance(database, dict) else None
    if not isinstance(installs, dict):
        raise FormatError(f"/{path} is no database of Spack")
    for one in installs.values():
        spec = one.get("spec") if isinstance(one, dict) else None
        # What Spack found on the system is recorded there; what was removed may still be needed to build others.
        if isinstance(spec, dict) and one.get("installed") is not False and not spec.get("external"):
            if "name" not in spec:  # before version 6 of the database
                name = next(iter(spec), "")
                spec = {"name": name, **(spec[name] if name and isinstance(spec[name], dict) else {})}
            yield _node(spec, path)


def _node(node: dict[str, Any], path: str) -> list[str]:
    name, version = named(node.get("name"), node.get("version"), _PACKAGE, path)
    arch = node.get("arch")
    arch = arch if isinstance(arch, dict) else {}
    target = arch.get("target")
    target = target.get("name") if isinstance(target, dict) else target
    parts = (word(one) for one in (arch.get("platform"), arch.get("platform_os"), target))
    return [name, version, word(node.get("hash")), "-".join(part for part in parts if part)]
