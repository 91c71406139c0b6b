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


FAMILIES = {
    "Make a release": ("new", "lint", "lock", "build", "test", "sbom", "scan", "sign", "rebuild", "schema"),
    "Share it": ("login", "logout", "push", "pull", "search", "show", "deposit", "pipeline", "ci"),
    "Run it": ("run", "exec", "shell", "fit", "submit", "jobs", "logs", "cancel"),
    "Look into an image, trust it": ("inspect", "verify", "convert", "key", "advisories"),
    "Care for a machine or a hub": ("host", "engines", "prepare", "hub"),
}
"""The verbs as `computeops --help` shows them."""
LAUNCHES = ("exec", "run", "shell")
"""Verbs that become a container: they start without click (`computeops.cli.launch`)."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        code = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  every class is told in its own way
        from computeops.cli.root import outcome

        code = outcome(error, debug=False)
    sys.exit(code)


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:  # the one thing that scripts ask often and that needs no parser
        print(f"computeops {__version__}")
        return 0
    if argv[:1] and argv[0] in LAUNCHES:
        from computeops.cli.launch import launch

        return launch(argv[0], argv[1:])
    import gc

    from computeops.cli.root import call

    gc.set_threshold(50_000)  # images have many entries, and none of them is garbage: looking for it cost a twentieth
    return call(argv)
