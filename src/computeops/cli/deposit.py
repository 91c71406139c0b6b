"""The verb `deposit`: give a hub a source to keep, and let it become a release."""

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from computeops.cli.output import Progress, emit, json_option
from computeops.cli.pipeline import followed, outcome
from computeops.cli.store import named, plain, registry
from computeops.config import Settings
from computeops.errors import UsageError

if TYPE_CHECKING:
    from computeops.store.deposits import Deposit, Question
    from computeops.store.oci import Registry

_WEB = re.compile(r"https?://\S+")


@click.command()
@click.argument("source", default=".")
@click.option("--for", "release", metavar="REF", required=True, help="HUB/COLLECTION/NAME that it becomes.")
@click.option("--ref", default="", help="SOURCE is a git repository: its tag, or the 40 hex digits of a commit.")
@click.option("--set", "settings_", metavar="KEY=VALUE", multiple=True, help="Answer a question; may be repeated.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: what is missing is an error.")
@click.option("--keep", is_flag=True, help="Only let the hub keep it; start nothing.")
@click.option("--follow", "-f", is_flag=True, help="Print the log of its pipeline until that has ended.")
@json_option
@click.pass_obj
def deposit_command(
    settings: Settings,
    source: str,
    release: str,
    ref: str,
    settings_: tuple[str, ...],
    *,
    yes: bool,
    keep: bool,
    follow: bool,
    as_json: bool,
) -> int:
    """Give a hub the sources of a release: a folder, an archive, its address, or a git repository with --ref.

    The hub keeps them by their content, reads codemeta.json, CITATION.cff, the licence and the build files in them, and
    asks for what these do not say; then its workers build, test, sign and publish. With --follow, exits with 13 if that
    fails.

    Example: computeops deposit samtools-1.21.tar.bz2 --for hub.example.org/bio/samtools --follow
    """
    from computeops.store import deposits

    reference, answers = named(settings, release), _answers(settings_)
    if reference.version or reference.digest:
        raise UsageError(f"{release}: the version is the source's", hint="write HUB/COLLECTION/NAME")
    with registry(settings, reference.hub) as there:
        kept = _kept(there, reference.repository, source, ref)
        if not as_json:
            click.echo(_said(kept))
        if not (yes or keep or as_json) and sys.stdin.isatty():
            answers |= _asked(kept, answers)
        if keep:
            emit(msgspec.to_builtins(kept), "nothing is started: without --keep it becomes a release", as_json=as_json)
            return 0
        _require(kept, answers)
        made = deposits.release(there, kept.id, answers)
        if not follow:
            data = {"deposit": msgspec.to_builtins(kept), "pipeline": msgspec.to_builtins(made)}
            emit(data, f"pipeline {made.id}: {made.state}", as_json=as_json)
            return 0
        return outcome(followed(settings, reference.hub, made.id, quiet=as_json), as_json=as_json)


def _answers(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise UsageError(f"--set {one[:80]!r}: not KEY=VALUE", hint="for example --set license=MIT")
        found[key.strip()] = value.strip()
    return found


def _kept(there: "Registry", repository: str, source: str, ref: str) -> "Deposit":
    from computeops.store import deposits

    progress = Progress()
    try:
        if ref:
            progress("the hub fetches the commit")
            return deposits.git(there, repository, source, ref)
        if _WEB.fullmatch(source):
            progress("fetching")
            return deposits.fetch(there, repository, source)
        progress("sending the source")
        path = Path(source)
        return deposits.send(there, repository, path, path.resolve().name)
    finally:
        progress.done()


def _said(kept: "Deposit") -> str:
    state = "is kept already; it was not stored again" if kept.known else "is kept"
    lines = [f"{plain(kept.origin)} {state}", f"  archive  {kept.archive}", f"  source   {kept.tree}"]
    found = [one for one in kept.questions if one.value]
    width = max((len(one.key) for one in found), default=0)
    lines += [f"  {one.key:{width}}  {plain(one.value)}  ({plain(one.source)})" for one in found]
    return "\n".join(lines)


def _require(kept: "Deposit", answers: dict[str, str]) -> None:
    """Refuse to go on while something is missing that the hub said it needs.

    Raises:
        UsageError: with all of it.
    """
    lacking = [one for one in kept.questions if one.missing and not answers.get(one.key)]
    if lacking:
        said = "; ".join(f"{one.key}: {one.label}" for one in lacking)
        hint = " ".join(f"--set {one.key}={shlex.quote(one.example)}" for one in lacking)
        raise UsageError(f"the source does not say, and nobody answered: {said}", hint=f"add, for example, {hint}")


def _asked(kept: "Deposit", answers: dict[str, str]) -> dict[str, str]:
    """Ask for what is needed and nobody said; an empty answer stays missing."""
    found = {}
    for one in kept.questions:
        if one.missing and one.key not in answers:
            found[one.key] = _prompt(one)
    return {key: value for key, value in found.items() if value}


def _prompt(question: "Question") -> str:
    text: str = click.prompt(f"{question.label} (e.g. {question.example})", default="", show_default=False, err=True)
    return text.strip()
