"""What `computeops engines` shows: the engines under seven criteria, as text, Markdown, JSON and a page."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from computeops import engine
from computeops.cli.output import table
from computeops.engine import judge
from computeops.engine.criteria import CRITERIA, KNOWN, Judged, known

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


def _recommended(judged: Sequence[Judged]) -> str:
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
    return "\n".join([*lines, "", _recommended(judged)])


def as_markdown(judged: Sequence[Judged]) -> str:
    """Return the table and what was seen, for a page of the documentation."""
    lines = ["| engine | " + " | ".join(_SHORT.values()).lower() + " | start |", "|---" * (len(_SHORT) + 2) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(judged)]
    for one in judged:
        if one.tried:
            lines += ["", f"**{one.engine}**, tried:", ""]
            lines += [f"- {verdict.criterion}, {verdict.mark}: {verdict.evidence}" for verdict in one.verdicts]
    return "\n".join([*lines, "", f"On this machine: {_recommended(judged)}."])


def write_page(file: Path, judged: Sequence[Judged]) -> None:
    """Write a page that needs nothing else to `file`; it appears whole.

    Raises:
        StorageError: it cannot be written.
    """
    from computeops.http import whole_file

    with whole_file(file) as target:
        target.write(page(judged).encode())


def page(judged: Sequence[Judged]) -> str:
    """Return the page."""
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in CRITERIA.values())
    rows = "".join(_page_row(one) for one in judged)
    return _PAGE.format(head=head, rows=rows, recommended=html.escape(_recommended(judged)))


def _page_row(one: Judged) -> str:
    cells = "".join(
        f'<td class="{verdict.mark.replace(" ", "-")}"><b>{verdict.mark}</b><br>{html.escape(verdict.evidence)}'
        + (f"<br><small>{verdict.seconds:.2f} s</small>" if one.tried else "")
        + "</td>"
        for verdict in one.verdicts
    )
    where = f"starts in {_start(one)}" if one.tried else f"from its manual: {one.reason}"
    kind = "tried" if one.tried else "known"
    title = f'<th scope="row">{html.escape(one.engine)}<br><small>{html.escape(where)}</small></th>'
    return f'<tr class="{kind}">{title}{cells}</tr>\n'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Container engines by seven criteria</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.45 system-ui, sans-serif; margin: 2rem; color: #1b1f24; background: #fff }}
table {{ border-collapse: collapse; font-size: .85rem }}
th, td {{ border: 1px solid #c9d1d9; padding: .4rem .5rem; text-align: left; vertical-align: top }}
thead th {{ background: #f3f5f7 }}
.yes {{ background: #e3f5e8 }} .partly {{ background: #fdf3d3 }} .no {{ background: #fbe3e1 }}
.known {{ opacity: .75 }}
</style></head><body>
<h1>Container engines by seven criteria</h1>
<p>Each criterion was tried on this machine; pale rows are what manuals say of engines that could not be tried.</p>
<p><strong>{recommended}.</strong></p>
<table><thead><tr><th scope="col">Engine</th>{head}</tr></thead><tbody>
{rows}</tbody></table></body></html>
"""
