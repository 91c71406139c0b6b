"""The verb `key`: the keyring, with our own keys and those of people we trust."""

from pathlib import Path
from typing import Any

import click

from computeops.cli.output import emit, json_option, table
from computeops.config import Settings
from computeops.errors import UsageError
from computeops.limits import LIMITS
from computeops.sign.keyring import Key, Keyring

_NAME = click.argument("name")


@click.group()
def key_command() -> None:
    """Make, list, give and trust signing keys.

    A key is one name with two halves: Ed25519 for evidence, OpenPGP for what `apptainer verify` checks in a SIF.
    Whatever a key in the keyring signed counts; put only keys there that you got from their owners.

    Example: computeops key new ada
    """


@key_command.command("new")
@_NAME
@click.option("--user-id", default="", metavar="'NAME <MAIL>'", help="Owner in the OpenPGP half; none: NAME.")
@json_option
@click.pass_obj
def _new(settings: Settings, name: str, user_id: str, *, as_json: bool) -> None:
    """Make a key of your own, called NAME; its secret stays in the keyring.

    Example: computeops key new ada --user-id "Ada Lovelace <ada@example.org>"
    """
    key = Keyring(settings.keys).new(name, user_id)
    text = f"{_ids(key)}\ngive others the public key: computeops key export {name} > {name}.pub"
    emit(_facts(key), text, as_json=as_json)


@key_command.command("list")
@json_option
@click.pass_obj
def _list(settings: Settings, *, as_json: bool) -> None:
    """List the keys: your own, and those you trust.

    Example: computeops key list
    """
    keys = Keyring(settings.keys).list()
    rows = [[k.name, "own" if k.has_secret else "trusted", k.keyid or "-", k.fingerprint.upper() or "-"] for k in keys]
    text = table(["NAME", "KIND", "KEYID (evidence)", "FINGERPRINT (OpenPGP)"], rows) if rows else "no keys"
    emit([_facts(key) for key in keys], text, as_json=as_json)


@key_command.command("export")
@_NAME
@click.pass_obj
def _export(settings: Settings, name: str) -> None:
    """Print the public halves of key NAME; `computeops key import` and `apptainer key import` read them.

    Example: computeops key export ada > ada.pub
    """
    click.echo(Keyring(settings.keys).export(name), nl=False)


@key_command.command("import")
@_NAME
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, readable=False))
@json_option
@click.pass_obj
def _import(settings: Settings, name: str, file: Path, *, as_json: bool) -> None:
    """Trust the public key in FILE (-: standard input) under the name NAME.

    Example: computeops key import ada ada.pub
    """
    if file != Path("-") and file.is_dir():
        raise UsageError(f"{file} is a folder, not the file of a public key")
    with click.open_file(str(file), "rb") as opened:
        data = opened.read(LIMITS.key_bytes + 1)
    key = Keyring(settings.keys).add(name, data)
    emit(_facts(key), f"{_ids(key)}\nis trusted; compare it with what its owner says", as_json=as_json)


@key_command.command("push")
@_NAME
@click.argument("hub", required=False)
@click.pass_obj
def _push(settings: Settings, name: str, hub: str | None) -> None:
    """Put the OpenPGP half of key NAME on the key server of HUB, where Apptainer looks for it.

    Example: computeops key push ada hub.example.org
    """
    from computeops.cli import store
    from computeops.store import keys

    key = Keyring(settings.keys).get(name)
    address = store.address(settings, hub)
    with store.registry(settings, address) as there:
        keys.push(there, key.public_text().decode())
    click.echo(f"{key.fingerprint.upper()} is on the key server of {address}")


@key_command.command("remove")
@_NAME
@click.option("--yes", is_flag=True, help="Remove a key of your own without asking.")
@click.pass_obj
def _remove(settings: Settings, name: str, *, yes: bool) -> None:
    """Remove key NAME: trust it no longer, or lose your own.

    Example: computeops key remove ada
    """
    keyring = Keyring(settings.keys)
    if keyring.get(name).has_secret and not yes:
        click.confirm(f"{name} is your own key; nobody can bring its secret back. Remove it?", abort=True, err=True)
    keyring.remove(name)


def _ids(key: Key) -> str:
    lines = [f"{key.name}", f"  keyid        {key.keyid or '-'}", f"  fingerprint  {key.fingerprint.upper() or '-'}"]
    return "\n".join([*lines, *(f"  user id      {user}" for user in key.user_ids)])


def _facts(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "own": key.has_secret,
        "keyid": key.keyid,
        "fingerprint": key.fingerprint,
        "user_ids": list(key.user_ids),
    }
