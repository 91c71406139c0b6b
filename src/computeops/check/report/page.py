"""A scan as one HTML page without anything from elsewhere, for people without a terminal."""

from collections.abc import Iterator
from html import escape

from computeops.check.findings import Finding, Scan
from computeops.check.report.document import moment
from computeops.check.report.link import address

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8885; }
td small { display: block; opacity: .75; }
.verdict { font-size: 1.4rem; font-weight: 600; }
.critical, .high { color: #c22; font-weight: 600; } .medium { color: #b60; } .low, .negligible { opacity: .8; }
@media (prefers-color-scheme: dark) { .critical, .high { color: #f77; } .medium { color: #fb5; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(scan: Scan, name: str) -> str:
    """Return the page; every text that came from outside is escaped."""
    return "\n".join(_lines(scan, name)) + "\n"


def _lines(scan: Scan, name: str) -> Iterator[str]:
    title = escape(f"Scan of {name}")
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
    yield f"<h1>{title}</h1>"
    counted = ", ".join(f"{count} {word}" for word, count in scan.counts.items() if count) or "no findings"
    yield f'<p class="verdict">{escape(str(scan.verdict))}: {counted}</p>'
    system = escape(scan.system.title or scan.system.distro)
    image = escape(str(scan.subjects["image"]))
    yield f"<p>{scan.packages} packages of {system}, {moment(scan.time)}; <code>{image}</code></p>"
    yield from _list("Not judged", [f"{one.kind}: {one.what}: {one.why}" for one in scan.gaps])
    yield from _list("Too old", list(scan.stale))
    yield from _list("Warnings", list(scan.warnings))
    yield from _table("Findings", scan.counting, reason=False)
    yield from _table("What does not count", scan.suppressed, reason=True)
    feeds = [f"{one.name}: {one.records} records, {moment(one.published) or 'of an unknown day'}" for one in scan.feeds]
    yield from _list("Advisories", feeds)
    yield "</body></html>"


def _list(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"<h2>{title}</h2><ul>"
        yield from (f"<li>{escape(line)}</li>" for line in lines)
        yield "</ul>"


def _table(title: str, findings: tuple[Finding, ...], *, reason: bool) -> Iterator[str]:
    if not findings:
        return
    yield f"<h2>{title}</h2><table><thead><tr><th>Severity</th><th>Vulnerability</th><th>Package</th>"
    yield f"<th>Fixed in</th><th>{'Reason' if reason else ''}</th></tr></thead><tbody>"
    for one in findings:
        score = f"<small>{one.score:.1f}</small>" if one.score is not None else ""
        known = "exploited" if one.exploited else ""
        note = (
            f"{one.suppressed} ({one.suppressed_by})"
            if reason
            else " ".join(part for part in (known, one.note) if part)
        )
        link = f'<a href="{escape(address(one.id))}" rel="noreferrer">{escape(one.id)}</a>'
        fix = one.fixed or f"no fix ({one.state.word})"
        yield (
            f'<tr><td class="{escape(one.severity)}">{escape(one.severity)}{score}</td>'
            f"<td>{link}<small>{escape(one.summary)}</small></td>"
            f"<td>{escape(one.package.name)}<small>{escape(one.package.version)}</small></td>"
            f"<td>{escape(fix)}</td><td>{escape(note)}</td></tr>"
        )
    yield "</tbody></table>"
