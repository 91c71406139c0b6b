"""Write the pages of the reference that the code itself knows: verbs, settings, errors, the recipe, limits.

    python docs/generate.py            write them
    python docs/generate.py --check    exit with 1 if one is not as it would be written

The texts are the help of the verbs and the docstrings; nothing is said twice.
"""

import ast
import importlib
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import msgspec

from computeops import config, errors, limits, recipe
from computeops.cli import VERBS
from computeops.hub import settings as hub_settings_of

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py from the code: change it there. -->\n\n"


def main() -> int:
    """Write or check every page."""
    pages = {"cli": cli(), "settings": settings(), "errors": error_page(), "recipe": recipe_page(), "limits": bounds()}
    pages["hub-settings"] = hub_settings()
    stale = []
    for name, text in pages.items():
        file = REFERENCE / f"{name}.md"
        wanted = _NOTE + text.rstrip() + "\n"
        if "--check" in sys.argv:
            stale += [] if file.exists() and file.read_text() == wanted else [file.name]
        else:
            file.write_text(wanted)
    if stale:
        print(f"not as the code says: {', '.join(stale)}; run: .venv/bin/python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


def cli() -> str:
    """Return the page of all verbs with their arguments, options and examples."""
    lines = [
        "# The command line\n",
        "Every verb knows `--help`. Exit codes are in [errors](errors.md). `computeops --debug VERB ...` shows the",
        "traceback of an error.\n",
    ]
    for name in sorted(VERBS):
        module = importlib.import_module(f"computeops.cli.{VERBS[name]}")
        lines += _command(getattr(module, f"{name}_command"), f"computeops {name}", 2)
    return "\n".join(lines)


def _command(command: click.Command, name: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {name}\n"
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    body, _, example = text.partition("Example:")
    yield body.strip() + "\n"
    if isinstance(command, click.Group):
        for sub in sorted(command.commands.values(), key=lambda one: one.name or ""):
            yield from _command(sub, f"{name} {sub.name}", depth + 1)
        return
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```console\n{name} {usage}\n```\n"
    if example:
        shown = "\n".join(f"$ {line.strip()}" for line in example.strip().splitlines() if line.strip())
        yield f"Example:\n\n```console\n{shown}\n```\n"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | meaning |\n|---|---|"
        for option in options:
            names = ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
            meaning = " ".join((option.help or "").split()).replace("|", "\\|")
            yield f"| {names} | {meaning} |"
        yield ""


def settings() -> str:
    """Return the page of all settings."""
    lines = [
        "# Settings\n",
        "A setting comes from, weakest first: its default, the file `$XDG_CONFIG_HOME/computeops/config.toml` (or the",
        "one that `COMPUTEOPS_CONFIG` names), the environment, the command line. An unknown key in the file is an",
        "error.\n",
        "| key | environment | default | meaning |\n|---|---|---|---|",
    ]
    docs = _field_docs(config.Settings)
    defaults = config.Settings.load({"HOME": "~"})
    for one in fields(config.Settings):
        value = getattr(defaults, one.name)
        shown = f"`{value}`" if value != "" else ""
        lines.append(f"| `{one.name}` | `COMPUTEOPS_{one.name.upper()}` | {shown} | {docs.get(one.name, '')} |")
    lines += ["\n## [sites.NAME]\n", f"{inspect.getdoc(config.Site)}\n", "| key | default | meaning |\n|---|---|---|"]
    docs = _field_docs(config.Site)
    for one in fields(config.Site):
        shown = f"`{one.default}`" if one.default else ""
        lines.append(f"| `{one.name}` | {shown} | {docs.get(one.name, '')} |")
    return "\n".join(lines)


_HUB_TABLES = [
    ("The hub itself", hub_settings_of.Settings),
    ("[[providers]]", hub_settings_of.Provider),
    ("[[ci]]", hub_settings_of.Issuer),
    ("[[retention]]", hub_settings_of.Retention),
    ("[pipelines]", hub_settings_of.Pipelines),
    ("[[proxies]]", hub_settings_of.Proxy),
]


def hub_settings() -> str:
    """Return the page of all settings of a hub."""
    lines = [
        "# Settings of a hub: hub.toml\n",
        "The file `hub.toml` in the folder of the hub (or a link to a file elsewhere) is read when a hub starts and by",
        "every `computeops hub` verb. A hub without one works. An unknown key is an error. Secrets are never in the",
        "file itself.\n",
        "```toml",
        'create_collections = "people"',
        "",
        "[[providers]]",
        'name = "gitlab"',
        'kind = "gitlab"',
        'client_id = "..."                     # of an application with the callback https://HUB/auth/callback/gitlab',
        'client_secret_file = "gitlab.secret"  # mode 0600, beside hub.toml',
        "```\n",
    ]
    for title, kind in _HUB_TABLES:
        lines += [f"## {title}\n", inspect.cleandoc(kind.__doc__ or "") + "\n"]
        lines.append("| key | default | meaning |\n|---|---|---|")
        docs = _field_docs(kind)
        for one in msgspec.structs.fields(kind):
            plain = isinstance(one.default, (str, int))
            default = f"`{json.dumps(one.default)}`" if plain and one.default != "" else ""
            if one.required:
                default = "needed"
            said = docs.get(one.name, f"Tables of their own, `[[{one.name}]]`.")
            if isinstance(one.default, msgspec.Struct):
                said = f"A table of its own, `[{one.name}]`."
            lines.append(f"| `{one.name}` | {default} | {said.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def error_page() -> str:
    """Return the page of all classes of errors."""
    lines = [
        "# Errors and exit codes\n",
        "Every error says what happened, with the value, and on a second line what to do next. The exit code tells its",
        "class; over HTTP it is the status.\n",
        "| exit code | class | HTTP status | meaning |\n|---|---|---|---|",
        "| 0 | | | all went well |",
        f'| {errors.CHECK_FAILED} | | | a check ran and its verdict is "failed" |',
        f"| {errors.INTERRUPTED} | | | interrupted (Ctrl-C) |",
        "| 70 | | | a bug of computeops |",
    ]
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ComputeOpsError)]
    lines += [
        f"| {kind.exit_code} | {kind.__name__} | {kind.status} | {' '.join((kind.__doc__ or '').split())} |"
        for kind in sorted(kinds, key=lambda one: one.exit_code)
    ]
    lines.append("\n`run`, `exec` and `shell` exit as the program in the container does.")
    return "\n".join(lines)


def bounds() -> str:
    """Return the page of the bounds on what comes from outside."""
    lines = [
        "# Limits\n",
        "What comes from outside is read up to these bounds; beyond them the error is LimitError.\n",
        "| limit | value | of what |\n|---|---|---|",
    ]
    docs = _field_docs(limits.Limits)
    lines += [
        f"| `{one.name}` | {getattr(limits.LIMITS, one.name):,} | {docs.get(one.name, '')} |"
        for one in fields(limits.Limits)
    ]
    return "\n".join(lines)


_TABLES = [
    ("[package]", recipe.Package),
    ("[[maintainers]]", recipe.Maintainer),
    ("[[sources]]: a file on the web", recipe.UrlSource),
    ("[[sources]]: a git commit", recipe.GitSource),
    ("[[sources]]: a file or folder beside the recipe", recipe.PathSource),
    ("[[sources]]: a Debian source package", recipe.DebianSource),
    ("[[sources]]: a Python source distribution", recipe.PypiSource),
    ("[build]", recipe.Build),
    ("[run]", recipe.Run),
    ("[[variants]]", recipe.Variant),
    ("[requires]", recipe.Requires),
    ("[[tests]]", recipe.Test),
]


def recipe_page() -> str:
    """Return the page of all keys of a recipe."""
    lines = [
        "# The recipe: computeops.toml\n",
        "A recipe is a TOML file beside its build file. An unknown key is an error. `computeops lint` lists every",
        "problem with its line; `computeops schema` prints a JSON schema for editors.\n",
    ]
    for title, kind in _TABLES:
        lines += [f"## {title}\n", inspect.cleandoc(kind.__doc__ or "") + "\n"]
        lines.append("| key | needed | value |\n|---|---|---|")
        docs = _field_docs(kind)
        for one in msgspec.structs.fields(kind):
            value = ". ".join(part for part in (_wanted(one.type), docs.get(one.name, "")) if part)
            lines.append(f"| `{one.name}` | {'yes' if one.required else ''} | {value.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def _wanted(kind: Any) -> str:
    if kind is bool:
        return "true or false"
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return f"a list, each {_wanted(inner)}" if _wanted(inner) else "a list of tables"
    for meta in getattr(kind, "__metadata__", ()):
        if meta.description:
            example = f", for example `{meta.examples[0]}`" if meta.examples else ""
            return f"{meta.description}{example}"
    if get_origin(kind) is not None:
        return next((text for text in map(_wanted, get_args(kind)) if text), "")
    return ""


def _field_docs(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a class, which Python itself does not keep."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    found: dict[str, str] = {}
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


if __name__ == "__main__":
    sys.exit(main())
