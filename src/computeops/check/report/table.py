"""A scan as text for people at a terminal."""

from collections.abc import Iterator, Sequence

from computeops.check.findings import Finding, Scan, Verdict

_MARKS = {True: "exploited", False: ""}
_LONGEST = 44


def write(scan: Scan, name: str, *, everything: bool = False) -> str:
    """Return the findings that count, the worst first, and what could not be judged; with `everything`, all."""
    shown = [one for one in scan.counting if everything or one.severity != "negligible"]
    lines = list(_rows([_row(one) for one in shown]))
    if everything:
        lines += [f"  does not count: {one.id} {one.package.name}: {one.suppressed}" for one in scan.suppressed]
    lines += ["", *_remarks(scan), _summary(scan, name)] if lines else [*_remarks(scan), _summary(scan, name)]
    return "\n".join(lines)


def _row(one: Finding) -> tuple[str, ...]:
    fix = one.fixed or f"no fix ({one.state.word})" if one.state else one.fixed or "no fix"
    extra = " ".join(word for word in (_MARKS[bool(one.exploited)], one.note) if word)
    return (one.severity, one.id, one.package.name, one.package.version, fix, extra)


def _rows(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    head = ("severity", "vulnerability", "package", "version", "fixed in", "")
    widths = [min(max(len(row[at]) for row in (head, *rows)), _LONGEST) for at in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _remarks(scan: Scan) -> Iterator[str]:
    for gap in scan.gaps:
        yield f"not judged: {gap.kind}: {gap.what}: {gap.why}"
    yield from (f"stale: {one}" for one in scan.stale)
    yield from (f"warning: {one}" for one in scan.warnings)


def _summary(scan: Scan, name: str) -> str:
    counted = ", ".join(f"{count} {word}" for word, count in scan.counts.items() if count) or "no findings"
    aside = f"; {len(scan.suppressed)} do not count" if scan.suppressed else ""
    verdict = str(scan.verdict)
    partly = " (not all could be judged)" if scan.verdict is Verdict.VULNERABLE and scan.gaps else ""
    system = scan.system.title or scan.system.distro
    return f"{name}: {verdict}{partly}: {counted}{aside}, in {scan.packages} packages of {system}"
