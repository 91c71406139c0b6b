"""The verbs of hubs and registries: login, logout, push, pull, search, show."""

import sys
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from computeops import config
from computeops.check.kinds import short
from computeops.cli.output import Progress, dry_run_option, emit, json_option, table
from computeops.config import Settings
from computeops.errors import UsageError
from computeops.model import Reference
from computeops.store.credentials import Credentials, Login, base_url
from computeops.store.oci import Registry

_TOKEN_BYTES = 16 * 1024
_REFERENCE = click.argument("reference")
_HUB_HINT = "write it in front, for example hub.example.org/bio/samtools:1.21, or set COMPUTEOPS_HUB"
_HUB = click.option("--hub", default=None, help="The hub to ask; default: the setting `hub`.")


@click.command()
@click.argument("hub", required=False)
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--user", default="", help="User name, for registries that want a password.")
@click.option("--oidc-token-env", default="", help="In CI: the variable that has the job's OIDC token.")
@click.option("--for", "repository", default="", help="With --oidc-token-env: the repository that the job pushes to.")
@click.pass_obj
def login_command(
    settings: Settings, hub: str | None, user: str, oidc_token_env: str, repository: str, *, token_stdin: bool
) -> None:
    """Check a token against HUB and store it.

    The token is read from a prompt or from standard input, never from the command line, where others could see it. A CI
    job that a maintainer bound to a collection needs none: it shows its OIDC token, and may push for 15 minutes.

    Example: computeops login hub.example.org
    """
    where = address(settings, hub)
    if oidc_token_env or repository:
        token = _ci_token(where, oidc_token_env, repository)
    elif token_stdin:
        token = _read_token()
    else:
        token = click.prompt("Password" if user else "Token", hide_input=True, err=True)
    login = Login(token.strip(), user)
    login.check()
    with Registry(where, login=login) as there:
        proven = there.check()
    _credentials(settings).set(where, login.secret, user=user)
    said = "" if proven else " (it lets in anyone, so this proves nothing)"
    click.echo(f"logged in to {base_url(where)}{said}")


@click.command()
@click.argument("hub", required=False)
@click.pass_obj
def logout_command(settings: Settings, hub: str | None) -> None:
    """Forget the token of HUB.

    Example: computeops logout hub.example.org
    """
    where = address(settings, hub)
    gone = _credentials(settings).remove(where)
    click.echo(f"logged out of {base_url(where)}" if gone else f"was not logged in to {base_url(where)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@_REFERENCE
@dry_run_option
@json_option
@click.pass_obj
def push_command(settings: Settings, file: Path, reference: str, *, dry_run: bool, as_json: bool) -> None:
    """Publish the release of FILE (a .sif or .oci) as REFERENCE: image, recipe, sources and evidence.

    Example: computeops push samtools-1.21.sif hub.example.org/bio/samtools:1.21
    """
    from computeops import pipeline
    from computeops.store.publish import PARTS
    from computeops.store.release import Release

    wanted, release = named(settings, reference), Release.beside(file)
    if dry_run:
        parts = {part: list(release.files(part)) for part in (*PARTS, "evidence")}
        images = [str(path) for path in (release.sif, release.layout) if path.exists()]
        lines = [*images, *(f"{part}/{name}" for part, names in parts.items() for name in names)]
        emit({"reference": str(wanted), "images": images, **parts}, "\n".join(lines), as_json=as_json)
        return
    progress = Progress()
    with registry(settings, wanted.hub) as there:
        digest = pipeline.publish(file, wanted, there, settings, progress)
    progress.done()
    emit({"reference": str(wanted), "manifest": str(digest)}, f"{wanted}\n  manifest {digest}", as_json=as_json)


@click.command()
@_REFERENCE
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--arch", default="", help="Architecture, as OCI calls it: amd64, arm64 ...; default: this machine's.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--policy", type=click.Path(path_type=Path), help="File of the policy that must hold.")
@click.option("--untrusted", is_flag=True, help="Take the image though nobody you know vouches for it.")
@dry_run_option
@json_option
@click.pass_obj
def pull_command(
    settings: Settings,
    reference: str,
    file: Path | None,
    arch: str,
    policy: Path | None,
    *,
    force: bool,
    untrusted: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch REFERENCE into FILE: a .sif (default NAME-VERSION.sif), an .oci layout or a .tar of one.

    FILE appears only if the evidence about it satisfies the policy; the default asks for provenance signed by a key
    that you know (`computeops key import`), and for no failed test.

    Example: computeops pull hub.example.org/bio/samtools:1.21
    """
    from computeops import pipeline
    from computeops.store.fetch import find

    wanted = named(settings, reference)
    into = file or Path(f"{wanted.name}-{wanted.version or _short(wanted)}.sif")
    chosen = replace(settings, policy=str(policy)) if policy else settings
    with registry(settings, wanted.hub) as there:
        if dry_run:
            digest = find(wanted, there, arch=arch or pipeline.architecture()).manifest.digest
            emit({"file": str(into), "manifest": str(digest)}, f"{into}\n  manifest {digest}", as_json=as_json)
            return
        progress = Progress()
        image = pipeline.pull(wanted, into, there, chosen, progress, arch=arch, force=force, untrusted=untrusted)
        progress.done()
    digests = {name: str(digest) for name, digest in image.subjects.items()}
    lines = [str(into), *(f"  {name:9}{digest}" for name, digest in digests.items())]
    emit({"file": str(into), "digests": digests}, "\n".join(lines), as_json=as_json)


@click.command()
@click.argument("words", nargs=-1)
@_HUB
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many at most.")
@json_option
@click.pass_obj
def search_command(settings: Settings, words: tuple[str, ...], hub: str | None, limit: int, *, as_json: bool) -> None:
    """List the releases of a hub that have all WORDS in their name, summary or domains.

    Example: computeops search --hub hub.example.org alignment
    """
    from computeops.store import catalogue

    with registry(settings, address(settings, hub)) as there:
        page = catalogue.search(there, " ".join(words), limit=limit)
    rows = [(plain(one.reference), plain(one.arch), _size(one.size), plain(one.summary)) for one in page.releases]
    text = table(("REFERENCE", "ARCH", "SIZE", "SUMMARY"), rows) if rows else "nothing found"
    text += "\nthere are more: raise --limit, or search for more words" if page.next else ""
    emit([asdict(one) for one in page.releases], text, as_json=as_json)


@click.command()
@_REFERENCE
@json_option
@click.pass_obj
def show_command(settings: Settings, reference: str, *, as_json: bool) -> None:
    """Show what a hub knows of REFERENCE: what it is, its evidence, and how to get it.

    The evidence is as the hub tells it; `computeops pull` verifies it.

    Example: computeops show hub.example.org/bio/samtools:1.21
    """
    from computeops.store import catalogue

    wanted = named(settings, reference)
    with registry(settings, wanted.hub) as there:
        found = catalogue.show(there, wanted)
    facts = [
        ("version", found.version),
        ("variant", found.variant),
        ("summary", found.summary),
        ("licence", found.license),
        ("domains", ", ".join(found.domains)),
        ("homepage", str(found.about.get("homepage") or "")),
        ("citation", str(found.about.get("citation") or "")),
        ("arch", found.arch),
        ("size", _size(found.size)),
        ("image", found.image),
        ("manifest", found.manifest),
        ("versions", ", ".join(found.versions)),
        ("variants", ", ".join(sorted({one.variant for one in found.variants} - {""}))),
        ("recipe", ", ".join(found.recipe)),
        ("sources", ", ".join(one.name for one in found.sources)),
    ]
    lines = [plain(found.reference), *(f"  {name:10}{plain(value)}" for name, value in facts if value)]
    for one in found.evidence:
        verdict = {True: "passed", False: "FAILED", None: ""}[one.passed]
        about = plain(f"counts for nothing: {one.fault}" if one.fault else one.words)
        by = plain(", ".join(one.signers)) or "nobody"
        lines.append(f"  evidence  {short(one.kind):11}{verdict:7} by {by}" + (f" ({about})" if about else ""))
    lines += ["", "To run it:", *(f"  {plain(line)}" for line in found.commands.values())]
    emit(asdict(found), "\n".join(lines), as_json=as_json)


def _credentials(settings: Settings) -> Credentials:
    return Credentials(settings.credentials, config.other_credentials(config.environment()))


def registry(settings: Settings, hub: str) -> Registry:
    """Return the registry at `hub`, with what we know to log in there."""
    return Registry(hub, _credentials(settings))


def address(settings: Settings, given: str | None) -> str:
    """Return the hub that was named, or the one of the settings.

    Raises:
        UsageError: there is none.
    """
    hub = given or settings.hub
    if not hub:
        raise UsageError("which hub?", hint="name it, or set COMPUTEOPS_HUB or `hub` in the settings")
    return hub


def named(settings: Settings, text: str) -> Reference:
    """Read a reference; one without a hub is in the hub of the settings."""
    found = Reference.parse(text)
    if not (found.hub or settings.hub):
        raise UsageError(f"in which hub is {text}?", hint=_HUB_HINT)
    return found if found.hub else replace(found, hub=settings.hub)


def _ci_token(hub: str, variable: str, repository: str) -> str:
    """Return the push token that the hub gives for the OIDC token in an environment variable."""
    from computeops.store.trusted import push_token

    if not (variable and repository):
        raise UsageError("--oidc-token-env and --for belong together", hint="--for bio/samtools names what is pushed")
    found = config.environment().get(variable, "").strip()
    if not found:
        raise UsageError(f"the variable {variable} is not set", hint="give the CI job an ID token for this hub")
    return push_token(base_url(hub), found, repository)


def _read_token() -> str:
    data = sys.stdin.buffer.read(_TOKEN_BYTES + 1)
    if len(data) > _TOKEN_BYTES:
        raise UsageError(f"a token of more than {_TOKEN_BYTES} bytes")
    return data.decode("ascii", "replace")


def _short(reference: Reference) -> str:
    return reference.digest.short if reference.digest else "latest"


def _size(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB" if size else ""


def plain(text: Any) -> str:
    """Return text from a hub as one line that cannot steer the terminal."""
    return "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else " " for c in str(text))[:2000].strip()
