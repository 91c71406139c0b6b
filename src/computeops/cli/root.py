"""The root command: finds the verb, catches the errors of ours, prints them and gives the exit code."""

import errno
import importlib
import os
from collections.abc import Sequence
from typing import Any

import click

from computeops import __version__
from computeops.cli import FAMILIES, VERBS
from computeops.cli.output import clear_line
from computeops.config import Settings, environment
from computeops.errors import (
    INTERRUPTED,
    NO_ROOM,
    ComputeOpsError,
    NotFoundError,
    StorageError,
    UsageError,
    did_you_mean,
)

_BUG = 70  # EX_SOFTWARE of sysexits.h


class _Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"computeops.cli.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for family, verbs in FAMILIES.items():
            commands = {name: self.get_command(ctx, name) for name in verbs}
            rows = [(name, one.get_short_help_str(limit=200)) for name, one in commands.items() if one]
            with formatter.section(family):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            ctx.fail(f"no such verb: {args[0]!r}{did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="computeops", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def root(ctx: click.Context, /, **_options: Any) -> None:
    """Scientific applications as reproducible, proven containers: build, prove, share, run anywhere."""
    ctx.obj = Settings.load(environment())


def call(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; every failure is one message on standard error."""
    debug = "--debug" in argv
    try:
        code = root.main(args=list(argv), prog_name="computeops", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  every class is told in its own way
        return outcome(error, debug=debug)
    return code if isinstance(code, int) else 0


def outcome(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong on standard error and return the exit code."""
    clear_line()
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.ClickException():
            return _tell(_usage(error), debug=debug)
        case KeyboardInterrupt() | click.Abort():
            click.echo("interrupted", err=True)
            return INTERRUPTED
        case BrokenPipeError() | SystemExit():  # click makes the one of the other
            _drop_output()  # its reader went away: not worth a word
            return 0
        case ComputeOpsError():
            return _tell(error, debug=debug)
        case OSError():
            return _tell(_storage(error), debug=debug)
        case UnicodeEncodeError():
            return _tell(UsageError(f"not a text in UTF-8: {str(error.object)[:100]!r}"), debug=debug)
        case Exception() if not debug:
            click.echo(f"error: this is a bug of computeops: {type(error).__name__}: {error}", err=True)
            click.echo("hint: run it again as `computeops --debug ...` and report what it prints", err=True)
            return _BUG
    raise error


def _tell(error: ComputeOpsError, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code


def _usage(error: click.ClickException) -> UsageError:
    """Return the error of a command line as ours are told."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    said = error.format_message().rstrip(".")
    hint = f"{context.command_path} --help lists arguments and options" if context else ""
    return UsageError(said[:1].lower() + said[1:], hint=hint)


def _storage(error: OSError) -> ComputeOpsError:
    where = f": {error.filename}" if error.filename else ""
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{error.strerror}{where}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        _drop_output()  # it may be what found no room, and Python would try once more at its end
        return StorageError(f"{error.strerror}{where}", hint=NO_ROOM)
    return StorageError(f"{error.strerror or error}{where}")


def _drop_output() -> None:
    """Let what is not yet written to standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
