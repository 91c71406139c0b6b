"""The verbs of containers as click shows them: run, exec, shell, prepare, engines; `computeops.cli.launch` starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from computeops.cli import launch
from computeops.cli.output import Progress, emit, json_option
from computeops.config import Settings, environment
from computeops.errors import UsageError


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
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--again", is_flag=True, help="Make trees that are there anew.")
@json_option
@click.pass_obj
def prepare_command(settings: Settings, images: Sequence[str], *, again: bool, as_json: bool) -> None:
    """Unpack IMAGE for all users of this machine, into the folder that the setting `shared` names.

    For administrators: only trees of root, or of those in `shared_owners`, are believed.

    Example: computeops prepare samtools.sif
    """
    from computeops import engine, pipeline

    if (shared := launch.shared(settings)) is None:
        raise UsageError("no shared folder is set", hint="set COMPUTEOPS_SHARED, or `shared` in the settings")
    done = {}
    for name in images:
        image = launch.locate(name, settings, environment()).path
        pipeline.admit(image, settings)
        done[name] = str(engine.prepare(image, shared, settings.cache_bytes, again=again))
    emit(done, "\n".join(done.values()), as_json=as_json)


@click.command()
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with the table to a file.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@json_option
@click.pass_obj
def engines_command(settings: Settings, html: Path | None, *, markdown: bool, as_json: bool) -> None:
    """Judge the container engines of this machine by seven criteria, each of them tried.

    Of engines that are not installed it says what their manuals do, marked as such.

    Example: computeops engines --html engines.html
    """
    from computeops.cli import judgement

    progress = Progress()
    judged = judgement.all_engines(settings.cache, environment(), progress)
    progress.done()
    if html:
        judgement.write_page(html, judged)
    text = judgement.as_markdown(judged) if markdown else judgement.as_text(judged)
    emit([judgement.facts(one) for one in judged], text, as_json=as_json)
