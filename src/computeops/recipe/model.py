"""The nouns of a recipe: the documentation of the format, of which `schema` makes a JSON schema for editors."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct, field

from computeops.errors import NotFoundError, did_you_mean
from computeops.recipe.texts import (
    Address,
    BuilderName,
    Commit,
    Constraint,
    Cpu,
    DebianPackage,
    DebianVersion,
    Doi,
    Email,
    GitAddress,
    Gpu,
    Inside,
    License,
    Line,
    Name,
    Orcid,
    Program,
    PythonPackage,
    Script,
    Sha256,
    Snapshot,
    Suite,
    Variables,
    Version,
    WebAddress,
)

FILE_NAME = "computeops.toml"
BUILDERS = ("debian", "dockerfile", "apptainer", "python", "conda", "guix", "spack")
"""The builders that come with ComputeOps."""
ON_DEBIAN = ("debian", "python", "conda", "spack")
"""Those that begin with packages of Debian."""
BESIDE = {"guix": ("channels.scm",)}
"""What a builder reads beside its build file, where it is there."""


class Package(Struct, frozen=True, kw_only=True):
    """What the release is; names follow CodeMeta and CITATION.cff where they have a word."""

    name: Name
    version: Version
    summary: Line
    license: License
    """SPDX expression; its grammar is checked, not whether SPDX lists each identifier."""
    homepage: WebAddress = ""
    domains: tuple[Name, ...] = ()
    citation: Doi = ""


class Maintainer(Struct, frozen=True, kw_only=True):
    """Who answers for the release."""

    name: Line
    email: Email = ""
    orcid: Orcid = ""


class Source(Struct, frozen=True):
    """One input that is archived with the release, so that it can be rebuilt from zero."""


class UrlSource(Source, frozen=True, kw_only=True):
    """A file on the web, pinned by its digest."""

    url: Address
    sha256: Sha256


class GitSource(Source, frozen=True, kw_only=True):
    """One commit of a git repository, archived as a tar file."""

    git: GitAddress
    commit: Commit


class PathSource(Source, frozen=True, kw_only=True):
    """A file or folder beside the recipe; a folder is archived as a tar file."""

    path: Inside
    sha256: Sha256 = ""


class DebianSource(Source, frozen=True, kw_only=True):
    """A Debian source package: its .dsc and tar files."""

    debian: DebianPackage
    version: DebianVersion


class PypiSource(Source, frozen=True, kw_only=True):
    """The source distribution of a Python package."""

    pypi: PythonPackage
    version: Version


SOURCES: Mapping[str, type[Source]] = {
    "url": UrlSource,
    "git": GitSource,
    "path": PathSource,
    "debian": DebianSource,
    "pypi": PypiSource,
}


class Build(Struct, frozen=True, kw_only=True):
    """How the root filesystem is made."""

    builder: BuilderName
    file: Inside = ""
    """Definition file, Dockerfile or build.sh; `debian` needs none."""
    suite: Suite = ""
    """`debian`: the release of Debian."""
    components: tuple[Suite, ...] = ("main",)
    """`debian`: the parts of the archive to take packages from."""
    packages: tuple[DebianPackage, ...] = ()
    """`debian`: what the image has, beside Debian's essential packages."""
    build_packages: tuple[DebianPackage, ...] = ()
    """`debian`: what build.sh needs; removed again after it."""
    snapshot: Snapshot = ""
    """`debian`: the time at which the archive is looked at; empty: now, and the lock file keeps what was found."""
    network: bool = False
    """Whether the build file may use the network; what it fetches is then not pinned."""


class Run(Struct, frozen=True, kw_only=True):
    """What the image does when it is run."""

    command: Annotated[tuple[Script, ...], Meta(description="a list of texts", examples=['["samtools"]'])] = ()
    programs: tuple[Program, ...] = ()
    """Other programs of the image that may be named first on the command line."""
    env: Variables = field(default_factory=dict)


class Variant(Struct, frozen=True, kw_only=True):
    """One target of the release."""

    name: Name
    cpu: Cpu = ""
    gpu: Gpu = ""
    """The GPU that it was made for; wins over `gpu` of [requires]."""
    driver: Constraint = ""
    """The versions of that GPU's driver; wins over `driver` of [requires]."""
    options: Variables = field(default_factory=dict)
    """Environment of build.sh, build arguments of a Dockerfile or definition file."""


class Requires(Struct, frozen=True, kw_only=True):
    """What the host must have."""

    gpu: Gpu = ""
    driver: Constraint = ""
    mpi: Constraint = ""
    x11: bool = False


class Test(Struct, frozen=True, kw_only=True):
    """A command that is run inside the image and must succeed; the same tests validate it at a site."""

    name: Line
    run: Script
    """Shell text."""
    expect: Script = ""
    """Text that the output must contain."""
    expect_exit: Annotated[int, Meta(ge=0, le=255, description="an exit code from 0 to 255", examples=[0])] = 0
    timeout: Annotated[int, Meta(ge=1, le=86400, description="a number of seconds from 1 to 86400", examples=[300])] = (
        300
    )


class Recipe(Struct, frozen=True, kw_only=True):
    """A whole computeops.toml."""

    package: Package
    build: Build
    maintainers: tuple[Maintainer, ...] = ()
    sources: tuple[Source, ...] = ()
    run: Run = field(default_factory=Run)
    variants: tuple[Variant, ...] = ()
    requires: Requires = field(default_factory=Requires)
    tests: tuple[Test, ...] = ()

    def variant(self, name: str) -> Variant | None:
        """Return the variant called `name`; None for "", the generic one.

        Raises:
            NotFoundError: there is no such variant.
        """
        if not name:
            return None
        for one in self.variants:
            if one.name == name:
                return one
        known = [one.name for one in self.variants]
        raise NotFoundError(
            f"the recipe has no variant {name!r}{did_you_mean(name, known)}",
            hint=f"there are: {', '.join(known)}" if known else "it has no variants",
        )
