"""Which licence a text is: by its SPDX tag, or by sentences that only one licence has."""

import re
from pathlib import Path

from computeops.spdx import license_fault

_BYTES = 128 * 1024
_NAMES = re.compile(r"(?:licen[cs]e|copying|unlicense)(?:[.-].*)?", re.IGNORECASE)
_TAG = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]+)")
_KNOWN = (
    # the first whose sentences are all there; those that contain others come first
    ("AGPL-3.0-only", ("gnu affero general public license version 3",)),
    ("LGPL-3.0-only", ("gnu lesser general public license version 3",)),
    ("LGPL-2.1-only", ("gnu lesser general public license version 2.1",)),
    ("GPL-3.0-only", ("gnu general public license version 3, 29 june 2007",)),
    ("GPL-2.0-only", ("gnu general public license version 2, june 1991",)),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("EPL-2.0", ("eclipse public license - v 2.0",)),
    ("EUPL-1.2", ("european union public licence v. 1.2",)),
    ("Apache-2.0", ("apache license version 2.0, january 2004",)),
    ("BSL-1.0", ("boost software license - version 1.0",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("MIT", ("permission is hereby granted, free of charge", "substantial portions of the software")),
    ("BSD-3-Clause", ("redistributions in binary form must reproduce", "neither the name")),
    ("BSD-3-Clause", ("redistributions in binary form must reproduce", "may not be used to endorse")),
    ("BSD-2-Clause", ("redistributions in binary form must reproduce", "redistributions of source code must retain")),
    ("Zlib", ("this notice may not be removed or altered from any source distribution",)),
)
_HEAD_CHARS = 4000


def find(folder: Path) -> tuple[str, str]:
    """Return the SPDX expression of the licence files in a folder and the name of the first; empty where none is known.

    Several files of different licences, or the folder `LICENSES` of REUSE, are joined by AND.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not _NAMES.fullmatch(path.name):
            continue
        if path.is_file() and (known := identify(_text(path))):
            found.setdefault(known, path.name)
    reuse = folder / "LICENSES"
    if not found and reuse.is_dir() and not reuse.is_symlink():
        names = sorted(one.stem for one in reuse.glob("*.txt"))[:10]
        found = {one: "LICENSES" for one in names if not license_fault(one)}
    ids = sorted(found)
    return (" AND ".join(ids), found[ids[0]]) if ids else ("", "")


def identify(text: str) -> str:
    """Return the SPDX expression of a text, or an empty text.

    A copy of the GPL does not say whether a later version may be chosen: the answer is the one that allows less.
    """
    tag = _TAG.search(text)
    if tag and not license_fault(tag[1].strip()):
        return tag[1].strip()
    plain = " ".join(re.sub(r"[*#\"'`]", " ", text.lower()).split())
    head = plain[:_HEAD_CHARS]  # of long licences the title is enough: others name them further down
    for name, sentences in _KNOWN:
        if all(sentence in (head if len(sentences) == 1 else plain) for sentence in sentences):
            return name
    return ""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_BYTES).decode(errors="replace")
