"""The command line: argv -> settings -> verb -> text. The only place that prints and exits.

A verb is a click command in a module of this folder, imported only when it is called, so that `computeops exec` starts
without what `computeops build` needs.
"""

import sys

from computeops import __version__

VERBS = {
    "advisories": "advisories",
    "build": "recipe",
    "cancel": "jobs",
    "ci": "ci",
    "convert": "image",
    "deposit": "deposit",
    "engines": "run",
    "exec": "run",
    "fit": "host",
    "host": "host",
    "hub": "hub",
    "inspect": "image",
    "jobs": "jobs",
    "key": "key",
    "lint": "recipe",
    "lock": "recipe",
    "login": "store",
    "logout": "store",
    "logs": "jobs",
    "new": "recipe",
    "prepare": "run",
    "pipeline": "pipeline",
    "pull": "store",
    "push": "store",
    "rebuild": "evidence",
    "run": "run",
    "sbom": "evidence",
    "scan": "scan",
    "schema": "recipe",
    "search": "store",
    "shell": "run",
    "show": "store",
    "sign": "evidence",
    "submit": "submit",
    "test": "evidence",
    "verify": "evidence",
}
"""Verb to the module of `computeops.cli` that holds it, as a click command of the same name with `_command` behind."""


LAUNCHES = ("exec", "run", "shell")
"""Verbs that become a container: they start without click (`computeops.cli.launch`)."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] == ["--version"]:  # the one thing that scripts ask often and that needs no parser
        print(f"computeops {__version__}")
        sys.exit(0)
    if sys.argv[1:2] and sys.argv[1] in LAUNCHES:
        sys.exit(_launch(sys.argv[1], sys.argv[2:]))
    import gc

    from computeops.cli.root import call

    gc.set_threshold(50_000)  # images have many entries, and none of them is garbage: looking for it cost a twentieth
    sys.exit(call(sys.argv[1:]))


def _launch(verb: str, words: list[str]) -> int:
    from computeops.cli.launch import launch

    try:
        return launch(verb, words)
    except BaseException as error:  # noqa: BLE001  told as those of every other verb are
        from computeops.cli.root import outcome

        return outcome(error, debug=False)
