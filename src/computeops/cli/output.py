"""How verbs speak: JSON for machines, text for people, progress on a terminal and silence in a pipe."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(command: _F) -> _F:
    """Add `--json` to a verb: one JSON document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document for machines.")(command)


def dry_run_option(command: _F) -> _F:
    """Add `--dry-run` to a verb: print what would be done and do nothing."""
    return click.option("--dry-run", is_flag=True, help="Print what would be done, do nothing.")(command)


def emit(data: Any, text: str, *, as_json: bool) -> None:
    """Print `data` as JSON, or `text`."""
    click.echo(json.dumps(data, indent=2, default=str) if as_json else text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return `rows` in aligned columns under `head`."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    return "\n".join(lines)


class Progress:
    """Steps with their times on standard error; one line per step in a pipe is too much, so nothing there."""

    def __init__(self) -> None:
        self._visible = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, message: str) -> None:
        """Say what is being done now."""
        if not self._visible:
            return
        self._shown = True
        text = f"[{time.monotonic() - self._began:5.1f} s] {message}"[:100]
        click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def done(self) -> None:
        """Clear the line."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
