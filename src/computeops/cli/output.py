"""How verbs speak: JSON for machines, text for people, progress on a terminal and silence in a pipe."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from computeops.config import environment

_NEWS_SECONDS = 5.0
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
    """Steps with their times on standard error: one line that changes, or a line each where a terminal cannot do that.

    One line per step in a pipe is too much, so nothing there.
    """

    def __init__(self) -> None:
        self._visible = sys.stderr is not None and sys.stderr.isatty()
        self._began = time.monotonic()
        self._last = ("", 0.0)

    def __call__(self, message: str) -> None:
        """Say what is being done now."""
        if not self._visible:
            return
        # a step may be a line that a program of a build printed
        said = "".join(character if character.isprintable() else " " for character in message)
        text = f"[{time.monotonic() - self._began:5.1f} s] {said}"[: shutil.get_terminal_size().columns - 1]
        if _moves():
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        elif self._is_news(said):
            click.echo(text, err=True)

    def _is_news(self, said: str) -> bool:
        """Whether `said` is another step than the last, or a number in it has grown for some seconds."""
        step, now = re.sub(r"[0-9]+", "", said), time.monotonic()
        if step == self._last[0] and now < self._last[1] + _NEWS_SECONDS:
            return False
        self._last = (step, now)
        return True

    def done(self) -> None:
        """Clear the line."""
        clear_line()


def clear_line() -> None:
    """Take away the line of progress that may stand on the terminal."""
    if sys.stderr is not None and sys.stderr.isatty() and _moves():
        click.echo("\r\x1b[K", err=True, nl=False)


def _moves() -> bool:
    return environment().get("TERM", "dumb") != "dumb"
