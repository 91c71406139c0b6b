"""The verbs of containers as click shows them: run, exec, shell and engines. `computeops.cli.launch` does the work."""

from typing import Any

import click

from computeops import engine
from computeops.cli import launch
from computeops.cli.output import emit, json_option, table
from computeops.config import Settings


class _Launch(click.Command):
    """A verb whose words `launch` reads: the options here are for --help and for the completion of shells."""

    def __init__(self, name: str, text: str) -> None:
        options = [click.Option([name_], metavar=form, help=what) for name_, (form, what) in launch.VALUES.items()]
        flags = [click.Option([name_], is_flag=True, help=what) for name_, what in launch.FLAGS.items()]
        words = click.Argument(["words"], nargs=-1, metavar="IMAGE [--] [ARGS]...")
        super().__init__(name, params=[*options, *flags, words], help=text)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] and args[0] in launch.HELP:
            return super().parse_args(ctx, args)
        ctx.meta["words"] = args
        return []

    def invoke(self, ctx: click.Context) -> Any:
        return launch.launch(self.name or "", ctx.meta["words"])


run_command = _Launch(
    "run",
    """Run the command of IMAGE with ARGS.

    Example: computeops run --bind /data samtools.sif sort -o out.bam in.sam
    """,
)
exec_command = _Launch(
    "exec",
    """Run a program in IMAGE: the first of ARGS, with the others.

    Example: computeops exec samtools.sif python3 -c 'print(1)'
    """,
)
shell_command = _Launch(
    "shell",
    """Open a shell in IMAGE.

    Example: computeops shell samtools.sif
    """,
)


@click.command()
@json_option
@click.pass_obj
def engines_command(_settings: Settings, *, as_json: bool) -> None:
    """List the container engines and which of them work on this machine.

    Example: computeops engines
    """
    reasons = {name: engine.available(name) for name in engine.names()}
    rows = [[name, "works" if not why else f"no: {why}"] for name, why in reasons.items()]
    data = [{"engine": name, "works": not why, "reason": why} for name, why in reasons.items()]
    emit(data, table(["ENGINE", "HERE"], rows), as_json=as_json)
