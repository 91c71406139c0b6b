"""What `computeops engines` shows: the engines under seven criteria, as text, Markdown, JSON and a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from computeops import engine
from computeops.cli.output import table
from computeops.engine import judge
from computeops.engine.criteria import KNOWN, Judged, known

_AT_ONCE = 4
"""Engines that are tried at the same time: each mostly waits, for its processes to start."""
_SHORT = {
    "docker": "DOCKER",
    "security": "SECURITY",
    "io": "I/O",
    "scheduler": "SCHEDULER",
    "gpu": "GPU",
    "mobility": "MOBILITY",
    "file": "FILE",
}


def all_engines(cache: Path, environ: Mapping[str, str], progress: Callable[[str], None]) -> list[Judged]:
    """Return every engine, judged where it works here, the best first; then those of which only manuals speak.

    Raises:
        MissingProgramError: the image of the trials cannot be packed.
    """
    with judge.material(environ) as shared, ThreadPoolExecutor(_AT_ONCE) as pool:
        last_first = [*reversed(engine.names())]  # those that start slowest: the others fill the gaps
        futures = [pool.submit(_judged, name, shared, cache) for name in last_first]
        found = []
        for name, future in zip(last_first, futures, strict=True):
            progress(f"trying {name}")
            found.append(future.result())
        progress("measuring starts")  # alone, for what else runs would slow it
        tried = [judge.start(one, shared, cache) for one in found if one.tried]
    tried.sort(key=lambda one: (-one.points, one.start_seconds))
    others = [known(name, "there is no plugin for it") for name in KNOWN if name not in engine.names()]
    return [*tried, *(one for one in found if not one.tried), *others]


def _judged(name: str, shared: judge.Material, cache: Path) -> Judged:
    why = engine.reason(name, cache)
    return known(name, why) if why else judge.judge(name, shared, cache)


def facts(one: Judged) -> dict[str, Any]:
    """Return an engine as an object of JSON."""
    return {
        "engine": one.engine,
        "works": one.tried,
        "reason": one.reason,
        "start_seconds": round(one.start_seconds, 4) if one.tried else None,
        "criteria": {verdict.criterion: asdict(verdict) for verdict in one.verdicts},
    }


def _rows(judged: Sequence[Judged]) -> Iterator[list[str]]:
    for one in judged:
        yield [one.engine, *(str(verdict.mark) for verdict in one.verdicts), _start(one)]


def _start(one: Judged) -> str:
    return f"{one.start_seconds * 1000:.0f} ms" if one.tried else "not here"


def recommended(judged: Sequence[Judged]) -> str:
    """Return which engine meets most criteria here, and which starts fastest."""
    tried = [one for one in judged if one.tried]
    if not tried:
        return "no engine works here; install one, for example: apt-get install apptainer"
    fastest = min(tried, key=lambda one: one.start_seconds)
    most = tried[0]
    both = f"{most.engine} meets most, and starts fastest"
    return both if fastest is most else f"{most.engine} meets most; {fastest.engine} starts fastest"


def as_text(judged: Sequence[Judged]) -> str:
    """Return the table, then what was seen, then the recommendation."""
    lines = [table(["ENGINE", *_SHORT.values(), "START"], list(_rows(judged)))]
    for one in judged:
        lines += ["", f"{one.engine}: {'tried here' if one.tried else 'from its manual; ' + one.reason}"]
        lines += [f"  {verdict.criterion:9} {verdict.mark:9} {verdict.evidence}" for verdict in one.verdicts]
    return "\n".join([*lines, "", recommended(judged)])


def as_markdown(judged: Sequence[Judged]) -> str:
    """Return the table and what was seen, for a page of the documentation."""
    lines = ["| engine | " + " | ".join(_SHORT.values()).lower() + " | start |", "|---" * (len(_SHORT) + 2) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(judged)]
    for one in judged:
        if one.tried:
            lines += ["", f"**{one.engine}**, tried:", ""]
            lines += [f"- {verdict.criterion}, {verdict.mark}: {verdict.evidence}" for verdict in one.verdicts]
    return "\n".join([*lines, "", f"On this machine: {recommended(judged)}."])


def write_page(file: Path, judged: Sequence[Judged]) -> None:
    """Write a page that needs nothing else to `file`; it appears whole.

    Raises:
        StorageError: it cannot be written.
    """
    from computeops.cli.judgement_page import page
    from computeops.files import whole_file

    with whole_file(file) as target:
        target.write(page(judged, recommended(judged)).encode())
