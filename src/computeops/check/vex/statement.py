"""The noun of VEX: a Statement about vulnerabilities of products; and which packages a product is."""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote

from computeops.check.advisories.ecosystem import name_of
from computeops.check.inventory import Package

_PURL = re.compile(r"pkg:/*([A-Za-z][A-Za-z0-9.+-]*)/([^@?#]+)(?:@([^?#]*))?(?:\?([^#]*))?(?:#.*)?")
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})")
_IMAGE_TYPES = frozenset({"oci", "docker"})
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Purl:
    """A package URL in any of the dialects that tools write, in its parts."""

    kind: str
    namespace: str
    name: str
    version: str
    source: bool
    """Whether it says that it is a source package (`arch=source`)."""

    @classmethod
    def parse(cls, text: str) -> "Purl | None":
        """Return the parts of a purl, or None if it is none."""
        match = _PURL.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            return None
        path = [unquote(part) for part in match[2].strip("/").split("/")]
        qualifiers = dict(parse_qsl(match[4] or ""))
        namespace, name = "/".join(path[:-1]).lower(), path[-1]
        return cls(
            match[1].lower(), namespace, name, unquote(match[3] or ""), qualifiers.get("arch") in {"source", "src"}
        )

    def fits(self, package: Package) -> bool:
        """Return whether `package` is one that this purl names; parts that it leaves out are any."""
        own = Purl.parse(package.purl)
        if own is None or own.kind != self.kind or (self.namespace and self.namespace != own.namespace):
            return False
        names = {(package.source, package.source_version)} if self.source else {(package.name, package.version)}
        if not self.source:
            # rpm keeps the epoch in a qualifier, and Python's names have many spellings.
            names.add((own.name, own.version))
        wanted = name_of("PyPI", self.name) if self.kind == "pypi" else self.name
        return any(name == wanted and self.version in {"", version} for name, version in names)


@dataclass(frozen=True, slots=True)
class Product:
    """What a statement is about: an image, a package in any image, or a package in one image."""

    image: str = ""
    """Something with the digest of an image in it; empty: any image."""
    package: str = ""
    """A purl, or the name of a package; empty: every package of the image."""

    def fits(self, package: Package, digests: AbstractSet[str]) -> bool:
        """Return whether `package` in the image with `digests` is meant."""
        if self.image and not digests & set(_DIGEST.findall(self.image)):
            return False
        if not self.package:
            return bool(self.image)
        if self.package.startswith("pkg:"):
            purl = Purl.parse(self.package)
            return purl is not None and purl.fits(package)
        return self.package in {package.name, package.source}


def product(text: str, package: str = "") -> Product:
    """Return what an identifier means: an image where it has a digest or is a purl of one, else a package."""
    purl = Purl.parse(text)
    if (purl and purl.kind in _IMAGE_TYPES) or (not purl and _DIGEST.search(text)) or package:
        return Product(unquote(text), package)
    return Product("", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody says of vulnerabilities of products."""

    vulnerabilities: frozenset[str]
    products: tuple[Product, ...]
    quiet: bool
    """Whether it says that the product is not affected, or repaired."""
    reason: str = ""
    justification: str = ""
    """A word of OpenVEX."""
    time: float = 0
    """When it was said, seconds since 1970."""
    until: float | None = None
    """When it ends, seconds since 1970; None: it does not."""
    by: str
    """Name of the file."""

    def is_about(self, package: Package, digests: AbstractSet[str]) -> bool:
        """Return whether it is about `package` in the image with these digests."""
        return any(one.fits(package, digests) for one in self.products)


def seconds(text: object) -> float:
    """Return an RFC 3339 time as seconds since 1970; 0 for what is none."""
    try:
        found = datetime.fromisoformat(str(text))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def words(text: object, limit: int = 500) -> str:
    """Return what somebody wrote as one line of text that can be shown anywhere."""
    line = " ".join(str(text or "")[: 4 * limit].split())[:limit]
    return line if line.isprintable() else "".join(one for one in line if one.isprintable())
