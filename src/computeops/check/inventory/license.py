"""Licences as packages write them, turned into SPDX expressions (SPDX 2.3, annex D).

The identifiers are those of SPDX License List 3.28.0: `spdx-3.28.0.txt` has the licences and, after an empty line, the
exceptions. What SPDX has no identifier for becomes a LicenseRef made of the name that the package uses, so that
nothing that a package says is lost and nothing is made up.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from computeops.spdx import license_fault

LIST_VERSION = "3.28"
_LIST = Path(__file__).with_name("spdx-3.28.0.txt")
_LONGEST_NAME = 80
_LONGEST_EXPRESSION = 4000

# Names that mean exactly one licence. "BSD" or "GPL" alone do not, and stay what they are.
_ALIASES = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",  # Debian's common-licenses/Artistic
    "asl 2.0": "Apache-2.0",
    "boost": "BSL-1.0",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "expat": "MIT",
    "expat license": "MIT",
    "mit license": "MIT",
    "the mit license": "MIT",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0": "MPL-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "mplv2.0": "MPL-2.0",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense": "Unlicense",
    "the unlicense (unlicense)": "Unlicense",
    "zpl 2.1": "ZPL-2.1",
}
_GNU = re.compile(
    r"(?:gnu )?(?P<name>agpl|lgpl|gpl|gfdl|(?:affero |lesser |library )?general public license)"
    r"[ -]?v?(?P<version>[123](?:\.\d)?)(?:\.0)?(?P<later>\+| or later| or newer|-or-later)?(?P<only>-only| only)?"
    r"(?: \([al]?gpl ?v?[\d.]+\+?\))?"
)
_GNU_NAMES = {
    "affero general public license": "AGPL",
    "lesser general public license": "LGPL",
    "library general public license": "LGPL",
    "general public license": "GPL",
}
_WORD = re.compile(r"(\s*[()]\s*|\s+(?:and|or|with)\s+|\s*[,;&]+\s*)", re.IGNORECASE)


def expression(text: str) -> str:
    """Return the SPDX expression that `text` means; "" if it is none and no short name either."""
    text = " ".join(text.split())
    if not text or len(text) > _LONGEST_EXPRESSION or text.lower() in {"unknown", "none", "noassertion", "other"}:
        return ""
    if known := _known(text):
        return known
    words = [word.strip() for word in _WORD.split(text) if word.strip()]
    made = " ".join(_exceptions([_word(word) for word in words]))
    if not license_fault(made):
        return made
    return _reference(text) if len(text) <= _LONGEST_NAME else ""


def all_of(texts: Iterable[str]) -> str:
    """Return the expression that says that each of `texts` applies to some part of the package."""
    parts = sorted({made for text in texts if (made := expression(text))})
    if len(parts) > 1:
        parts = [f"({part})" if " OR " in part else part for part in parts]
    made = " AND ".join(parts)
    return made if len(made) <= _LONGEST_EXPRESSION else ""


def references(spdx: str) -> list[str]:
    """Return every LicenseRef in an expression."""
    return sorted(set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", spdx)))


@functools.cache
def _identifiers() -> tuple[dict[str, str], dict[str, str]]:
    """Licences and exceptions: lower case to the spelling of the list."""
    licenses, exceptions = _LIST.read_text(encoding="ascii").split("\n\n")
    return {one.lower(): one for one in licenses.split()}, {one.lower(): one for one in exceptions.split()}


def _known(name: str) -> str:
    """Return the SPDX identifier of one licence, or ""."""
    lower = name.lower()
    licenses = _identifiers()[0]
    if (gnu := _GNU.fullmatch(lower)) is not None:
        stem = _GNU_NAMES.get(gnu["name"], gnu["name"].upper())
        version = gnu["version"] if "." in gnu["version"] else f"{gnu['version']}.0"
        which = "-or-later" if gnu["later"] else "-only"
        return licenses.get(f"{stem}-{version}{which}".lower(), "")
    if lower in licenses:
        return licenses[lower]
    return _ALIASES.get(lower, "")


def _word(word: str) -> str:
    if word in {"(", ")"} or word.upper() in {"AND", "OR", "WITH"}:
        return word.upper()
    if not word.strip(",;& "):
        return "AND"
    exceptions = _identifiers()[1]
    if word.startswith("LicenseRef-"):
        return _reference(word.removeprefix("LicenseRef-"))
    return _known(word) or exceptions.get(word.lower()) or _reference(word)


def _exceptions(words: list[str]) -> list[str]:
    """Keep `L WITH E` where the list has the exception E, else make one LicenseRef of the three words."""
    known = set(_identifiers()[1].values())
    made: list[str] = []
    for word in words:
        if len(made) >= 2 and made[-1] == "WITH" and word not in known:
            base = made[-2].removeprefix("LicenseRef-")
            made[-2:] = [_reference(f"{base} with {word.removeprefix('LicenseRef-')}")]
        else:
            made.append(word)
    return made


def _reference(name: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:_LONGEST_NAME]
    return f"LicenseRef-{clean}" if clean else ""
