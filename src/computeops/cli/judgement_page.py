"""The page that `computeops engines --html` writes: one file, with nothing to fetch, for a screen, a phone or paper."""

import html
import os
import platform
from collections.abc import Sequence

from computeops.engine.criteria import CRITERIA, Judged, Mark, Verdict

_SIGNS = {Mark.YES: "✓", Mark.PARTLY: "◐", Mark.NO: "✕", Mark.UNTRIED: "○"}
_MOST = 2 * len(CRITERIA)


def page(judged: Sequence[Judged], recommended: str) -> str:
    """Return the page."""
    tried = [one for one in judged if one.tried]
    others = [one for one in judged if not one.tried]
    slowest = max((one.start_seconds for one in tried), default=0)
    criteria = [title.partition(": ") for title in CRITERIA.values()]
    head = "".join(f'<th scope="col">{_text(name)}<small>{_text(what)}</small></th>' for name, _, what in criteria)
    return _PAGE.format(
        machine=_text(f"{platform.system()} {os.uname().release}, {os.uname().machine}, {os.cpu_count()} CPUs"),
        recommended=_text(recommended[:1].upper() + recommended[1:]),
        count=len(tried),
        others=len(others),
        head=head,
        tried="".join(_row(one, slowest) for one in tried) or _EMPTY,
        known="".join(_row(one, 0) for one in others),
    )


def _row(one: Judged, slowest: float) -> str:
    cells = "".join(_cell(verdict, one) for verdict in one.verdicts)
    if one.tried:
        width = 100 * one.start_seconds / slowest if slowest else 0
        points = f'<span class="points">{one.points}/{_MOST}</span>'
        start = f"starts in {one.start_seconds * 1000:.0f} ms"
        below = f'{points}<span class="start">{start}</span><span class="bar"><i style="width:{width:.0f}%"></i></span>'
    else:
        below = f'<span class="start">as known, not tried: {_text(one.reason)}</span>'
    kind = "tried" if one.tried else "known"
    return f'<tr class="{kind}"><th scope="row"><b>{_text(one.engine)}</b>{below}</th>{cells}</tr>\n'


def _cell(verdict: Verdict, one: Judged) -> str:
    mark = str(verdict.mark).replace(" ", "-")
    seconds = f" <small>{verdict.seconds:.2f} s</small>" if one.tried and verdict.seconds >= 0.005 else ""
    said = _text(verdict.evidence)
    return (
        f'<td class="{mark}"><span class="mark">{_SIGNS[verdict.mark]} {verdict.mark}</span>{seconds}<p>{said}</p></td>'
    )


def _text(text: str) -> str:
    return html.escape(text)


_EMPTY = '<tr><td colspan="8">No engine works here.</td></tr>'
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Container engines by seven criteria</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --ground: #f6f7f9; --paper: #fff; --ink: #1b1f24; --pale: #5b6470; --line: #dfe3e8;
  --yes: #11713a; --yes-ground: #e3f5e8; --partly: #7a5600; --partly-ground: #fdf3d3; --no: #a02018;
  --no-ground: #fbe3e1; --bar: #3465a4 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #14171b; --paper: #1d2127; --ink: #e8eaed; --pale: #a2abb6;
  --line: #343a42; --yes: #7bd69b; --yes-ground: #17301f; --partly: #ecc966; --partly-ground: #332b12; --no: #f39a92;
  --no-ground: #3a1d1b; --bar: #7aa6dc }} }}
* {{ box-sizing: border-box }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 0; color: var(--ink); background: var(--ground) }}
main {{ max-width: 100rem; margin: 0 auto; padding: 2rem 1.5rem 4rem }}
h1 {{ font-size: 1.7rem; margin: 0 }}
h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .6rem }}
.machine {{ color: var(--pale); margin: .2rem 0 1.2rem }}
.advice {{ background: var(--paper); border: 1px solid var(--line); border-left: .35rem solid var(--bar);
  border-radius: .5rem; padding: .9rem 1.1rem; font-size: 1.05rem }}
.legend {{ display: flex; flex-wrap: wrap; gap: .5rem 1.1rem; margin: 1rem 0 0; padding: 0; list-style: none;
  color: var(--pale); font-size: .85rem }}
.wide {{ overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: .5rem }}
table {{ border-collapse: collapse; width: 100%; min-width: 76rem; font-size: .8rem; table-layout: fixed }}
th, td {{ padding: .6rem .65rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }}
tr:last-child > * {{ border-bottom: 0 }}
thead th {{ font-size: .85rem; background: var(--ground) }}
thead small {{ display: block; font-weight: 400; color: var(--pale) }}
tbody th {{ font-weight: 400 }} tbody th b {{ font-size: 1rem; display: block }}
td p {{ margin: .3rem 0 0; overflow-wrap: anywhere }} td small {{ color: var(--pale) }}
.mark {{ font-weight: 600; border-radius: 1rem; padding: .08rem .55rem; white-space: nowrap }}
.yes .mark {{ color: var(--yes); background: var(--yes-ground) }}
.partly .mark {{ color: var(--partly); background: var(--partly-ground) }}
.no .mark {{ color: var(--no); background: var(--no-ground) }}
.not-tried .mark {{ color: var(--pale); background: var(--ground) }}
.points {{ float: right; color: var(--pale) }} .start {{ color: var(--pale) }}
.bar {{ display: block; height: .3rem; margin-top: .35rem; border-radius: 1rem; background: var(--line) }}
.bar i {{ display: block; height: 100%; min-width: .3rem; border-radius: 1rem; background: var(--bar) }}
.known td, .known th {{ color: var(--pale) }} .known .mark {{ font-weight: 400; background: none !important }}
@media print {{ body {{ background: #fff }} .wide {{ border: 0; overflow: visible }} }}
</style></head><body><main>
<h1>Container engines by seven criteria</h1>
<p class="machine">{machine}</p>
<p class="advice"><strong>{recommended}.</strong></p>
<ul class="legend">
<li class="yes"><span class="mark">✓ yes</span> was tried and holds</li>
<li class="partly"><span class="mark">◐ partly</span> with what the text says</li>
<li class="no"><span class="mark">✕ no</span> was tried and does not hold</li>
<li class="not-tried"><span class="mark">○ not tried</span> this machine lacks what the trial needs</li>
</ul>
<h2>Tried on this machine: {count}</h2>
<div class="wide"><table><thead><tr><th scope="col">Engine</th>{head}</tr></thead><tbody>
{tried}</tbody></table></div>
<h2>As known from manuals, not tried here: {others}</h2>
<div class="wide"><table><thead><tr><th scope="col">Engine</th>{head}</tr></thead><tbody>
{known}</tbody></table></div>
</main></body></html>
"""
