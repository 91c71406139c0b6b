"""The verb `ci`: the pipeline files of a repository, and the pipeline itself on any runner."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from computeops import __version__
from computeops import recipe as recipes
from computeops.ci import templates
from computeops.cli.output import dry_run_option, emit, json_option
from computeops.config import Settings, environment
from computeops.errors import FormatError, NotFoundError, UsageError
from computeops.limits import LIMITS
from computeops.model import Reference
from computeops.store.credentials import base_url

_SEVERITIES = ("critical", "high", "medium", "low", "unknown", "never")
_ACCEPTED = ("stale", "unscannable", "nothing")
_KEY = "ci"
"""Name of the signing key for the time of the run."""


@click.group()
def ci_command() -> None:
    """Run the whole pipeline of a recipe in one process, or write the pipeline files of GitLab or GitHub.

    Example: computeops ci run examples/samtools --reports reports
    """


@ci_command.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--for", "service", type=click.Choice(sorted(templates.FILES)), required=True, help="Who runs it.")
@click.option("--recipe", default="", metavar="DIR", help="Folder of the recipe inside FOLDER; default: FOLDER itself.")
@click.option("--push", "release", metavar="REF", required=True, help="HUB/COLLECTION/NAME that tags are published as.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
def _init(folder: Path, service: str, recipe: str, release: str, *, force: bool, as_json: bool) -> None:
    """Write the pipeline files for the repository in FOLDER.

    Example: computeops ci init --for gitlab --push hub.example.org/bio/samtools
    """
    reference = Reference.parse(release)
    if not reference.hub or reference.version or reference.digest:
        raise UsageError(
            f"{release}: a pipeline publishes one release after the other",
            hint="write HUB/COLLECTION/NAME without a version: it is the recipe's",
        )
    inside = Path(recipe or ".")
    if inside.is_absolute() or ".." in inside.parts:
        raise UsageError(f"{recipe} is not inside {folder}")
    recipes.load(folder / inside)  # a pipeline for a recipe that is wrong would only fail later
    hub = base_url(reference.hub)
    found = templates.files(service, folder=str(inside), release=release, hub=hub, version=__version__)
    templates.write(folder, found, force=force)
    paths = [str(folder / path) for path in found]
    emit({"files": paths}, "\n".join([*paths, "commit them, with computeops.lock"]), as_json=as_json)


@ci_command.command("run")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--push", "push", metavar="REF", default="", help="Publish as HUB/COLLECTION/NAME, all variants or none.")
@click.option(
    "--key-env",
    metavar="NAME",
    default="",
    help="Variable with the secret of the signing key, or the path of its file; default: the setting `key`.",
)
@click.option(
    "--token-env",
    metavar="NAME",
    default="COMPUTEOPS_TOKEN",
    show_default=True,
    help="Variable with a token of the hub, or the path of its file.",
)
@click.option(
    "--id-token-env",
    metavar="NAME",
    default="COMPUTEOPS_ID_TOKEN",
    show_default=True,
    help="Variable with the ID token of the job, for trusted publishing; on GitHub it is asked for.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("built"), show_default=True, help="For images.")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="For JUnit XML, CycloneDX and summary.json.",
)
@click.option(
    "--fail-on",
    type=click.Choice(_SEVERITIES),
    default="never",
    show_default=True,
    help="Publish nothing with a known vulnerability so severe; needs an index of advisories.",
)
@click.option(
    "--accept",
    type=click.Choice(_ACCEPTED),
    default="nothing",
    show_default=True,
    help="Let this verdict pass --fail-on: stale advisories, or packages that nobody can judge.",
)
@click.pass_obj
def _run(
    settings: Settings,
    folder: Path,
    push: str,
    key_env: str,
    token_env: str,
    id_token_env: str,
    out: Path,
    reports: Path,
    fail_on: str,
    accept: str,
) -> int:
    """Lint, check the lock, build every variant, test, list and scan what is inside, sign, and publish.

    It needs no Docker daemon and no privileged container, only user namespaces. Secrets come from variables or files,
    never from the command line. Exits as `build`, `test` and `push` do: with 13 if a test failed.

    Example: computeops ci run --push hub.example.org/bio/samtools --key-env COMPUTEOPS_SIGNING_KEY
    """
    from computeops.cli.ci_run import Order, Run

    environ = environment()
    reference = Reference.parse(push) if push else None
    if fail_on != "never" and not settings.advisories.exists():
        raise NotFoundError(
            f"--fail-on {fail_on}, and there is no index of advisories at {settings.advisories}",
            hint="`computeops advisories update` makes one",
        )
    with _signing(settings, secret(environ, key_env)) as chosen:
        if reference and not chosen.key:
            raise UsageError(
                "nothing is published that nobody signed",
                hint="name the variable with the secret of a key: --key-env NAME",
            )
        order = Order(
            folder=folder,
            push=reference,
            out=out,
            reports=reports,
            fail_on="" if fail_on == "never" else fail_on,
            accept=accept,
            token=secret(environ, token_env) if reference and environ.get(token_env) else "",
            id_token_variable=id_token_env,
        )
        return Run(order, chosen, environ).go()


@ci_command.command("deploy")
@click.argument("to")
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Of the run that published.",
)
@click.option("--force", is_flag=True, help="Replace files with another image.")
@dry_run_option
@json_option
@click.pass_obj
def _deploy(settings: Settings, to: str, reports: Path, *, force: bool, dry_run: bool, as_json: bool) -> None:
    """Bring what `ci run` published TO a folder, or by rsync to HOST:FOLDER, on a runner of the site.

    Each image is fetched from the hub by the digest that the run reported, and appears only if the keys that this
    runner knows vouch for it. What is there already is left alone.

    Example: computeops ci deploy /cvmfs/images.example.org/bio --reports reports
    """
    from computeops.cli import ci_deploy

    images = ci_deploy.published(reports)
    files = [f"{to.rstrip('/')}/{one.file}" for one in images]
    if not dry_run and ci_deploy.REMOTE.match(to):
        ci_deploy.send(settings, images, to, force=force)
    elif not dry_run:
        ci_deploy.deploy(settings, images, Path(to), force=force)
    pairs = [(file, str(one.reference)) for file, one in zip(files, images, strict=True)]
    emit(
        [{"file": file, "reference": reference} for file, reference in pairs],
        "\n".join(f"{file}  {reference}" for file, reference in pairs),
        as_json=as_json,
    )


def secret(environ: Mapping[str, str], variable: str) -> str:
    """Return the secret in `variable`, or in the file that it names, as GitLab gives variables of type File.

    Raises:
        UsageError: the variable is not set, or too long.
        NotFoundError: it names a file that cannot be read.
    """
    if not variable:
        return ""
    text = environ.get(variable, "")
    if not text.strip():
        raise UsageError(
            f"the variable {variable} is not set",
            hint="in GitLab, protected variables are given to jobs of protected branches and tags only",
        )
    if "\n" not in text and text.startswith("/"):
        try:
            with Path(text).open("rb") as file:
                text = file.read(LIMITS.key_bytes + 1).decode("ascii", "replace")
        except OSError as error:
            raise NotFoundError(f"cannot read the file that {variable} names: {error.strerror}") from None
    if len(text) > LIMITS.key_bytes:
        raise UsageError(f"{variable} holds more than {LIMITS.key_bytes} bytes")
    return text.strip() + "\n" if "\n" in text.strip() else text.strip()


@contextmanager
def _signing(settings: Settings, key: str) -> Iterator[Settings]:
    """Give settings with `key` as the one that signs, in a keyring of its own that is gone afterwards."""
    from computeops.sign.keyring import Keyring

    if not key:
        if settings.key:
            Keyring(settings.keys).own(settings.key)  # better said before a long build than after it
        yield settings
        return
    settings.tmp.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=settings.tmp, prefix="computeops-keys-"))  # mode 0700
    try:
        try:
            Keyring(folder).restore(_KEY, key.encode())
        except FormatError as error:
            hint = f"copy the file {settings.keys}/NAME/secret of a key that `computeops key new NAME` made"
            raise UsageError(f"the variable of --key-env holds no secret key: {error.message}", hint=hint) from None
        yield replace(settings, keys=folder, key=_KEY)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
