"""The kinds of text in a recipe: each with its shape, what to call it, and an example for whoever got it wrong."""

from typing import Annotated

from msgspec import Meta

_END = r"$(?!\n)"


def _text(shape: str, what: str, example: str, check: str = "", most: int | None = None) -> Meta:
    """A text of `shape` and at most `most` characters; `check` names a rule that a pattern cannot say."""
    return Meta(
        pattern=rf"^{shape}{_END}", max_length=most, description=what, examples=[example], extra={"check": check}
    )


# What steers a terminal, or makes a text look like another, is in no text: C0 and C1 controls, directions of writing.
_CONTROLS = r"\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff"
_FREE = rf"[^\x00-\x08\x0b-\x1f{_CONTROLS}]*"
Line = Annotated[
    str, _text(rf"(?=.*\S)[^\x00-\x1f{_CONTROLS}]+", "a text of one line", "Tools for sequencing data", most=1000)
]
Script = Annotated[str, _text(_FREE, "a text", "samtools --version")]
Name = Annotated[
    str,
    _text(
        r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*",
        "at most 128 lower case letters, digits and single . _ - between",
        "samtools",
        most=128,
    ),
]
Version = Annotated[str, _text(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", "a text of letters, digits and . _ + -", "1.21")]
License = Annotated[str, _text(r"[A-Za-z0-9.+:() -]+", "an SPDX licence expression", "MIT OR Apache-2.0", "license")]
WebAddress = Annotated[str, _text(r"https?://[!-.0-~][!-~]*", "a web address", "https://www.htslib.org", "address")]
Address = Annotated[
    str,
    _text(
        r"(?:https?|file)://[!-~]+",
        "an https, http or file address",
        "https://example.org/samtools-1.21.tar.bz2",
        "address",
    ),
]
GitAddress = Annotated[
    str,
    _text(
        r"(?:https?|ssh|file)://[!-,.-~][!-~]*",
        "the address of a git repository",
        "https://github.com/samtools/samtools",
        "address",
    ),
]
Sha256 = Annotated[str, _text(r"[0-9a-f]{64}", "64 lower case hex digits", "e3b0c442...")]
Commit = Annotated[str, _text(r"[0-9a-f]{40}", "the 40 hex digits of a commit", "8d1c56f5...")]
Inside = Annotated[
    str,
    _text(
        rf"[^/\x00-\x1f{_CONTROLS}][^\x00-\x1f{_CONTROLS}]*", "a path inside the recipe's folder", "build.sh", "inside"
    ),
]
Email = Annotated[str, _text(r"[!-;=?A-~]+@[!-;=?A-~]+", "an e-mail address", "ada@example.org")]
Orcid = Annotated[str, _text(r"[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]", "an ORCID iD", "0000-0002-1825-0097")]
Doi = Annotated[
    str, _text(r"10\.[0-9]{4,9}/[!-~]+", "a DOI without https://doi.org/ in front", "10.1093/gigascience/giab008")
]
BuilderName = Annotated[str, _text(r"[A-Za-z0-9_.-]+", "the name of a builder", "debian", "builder")]
Suite = Annotated[str, _text(r"[a-z][a-z0-9-]*", "a Debian suite", "bookworm")]
DebianPackage = Annotated[str, _text(r"[a-z0-9][a-z0-9+.-]+", "the name of a Debian package", "libhts3")]
DebianVersion = Annotated[str, _text(r"[0-9][A-Za-z0-9.+:~-]*", "the version of a Debian source package", "1.16.1-1")]
PythonPackage = Annotated[
    str, _text(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "the name of a Python package", "cutadapt")
]
Snapshot = Annotated[str, _text(r"[0-9]{8}T[0-9]{6}Z", "a time as snapshot.debian.org writes it", "20250520T000000Z")]
Cpu = Annotated[str, _text(r"[a-z0-9_]+", "an archspec CPU name", "x86_64_v3")]
Gpu = Annotated[str, _text("(?:nvidia|amd|intel|xilinx)", "nvidia, amd, intel or xilinx", "nvidia")]
Variable = Annotated[str, _text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable", "CFLAGS")]
Variables = Annotated[
    dict[Variable, Script], Meta(description="a table of names and texts", examples=['{ CFLAGS = "-O3" }'])
]
Program = Annotated[
    str, _text(rf"[^\s/\x00-\x1f{_CONTROLS}-][^\s/\x00-\x1f{_CONTROLS}]*", "the name of a program", "samtools")
]
Constraint = Annotated[
    str,
    _text(
        r"[A-Za-z0-9_.-]*(?:(?:>=|<=|==|>|<)[0-9][0-9A-Za-z.]*(?:,(?!$)|$))*",
        "a name, a range of versions, or both",
        "openmpi>=4",
    ),
]
