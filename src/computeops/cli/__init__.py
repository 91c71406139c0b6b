"""The command line: argv -> settings -> verb -> text. The only place that prints and exits.

A verb is a click command in a module of this folder, imported only when it is called, so that `computeops exec` starts
without what `computeops build` needs.
"""

import sys

from computeops import __version__

VERBS = {
    "build": "recipe",
    "hub": "hub",
    "key": "key",
    "lint": "recipe",
    "lock": "recipe",
    "login": "store",
    "logout": "store",
    "pull": "store",
    "push": "store",
    "schema": "recipe",
    "search": "store",
    "show": "store",
}
"""Verb to the module of `computeops.cli` that holds it, as a click command of the same name with `_command` behind."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] == ["--version"]:  # the one thing that scripts ask often and that needs no parser
        print(f"computeops {__version__}")
        sys.exit(0)
    from computeops.cli.root import call

    sys.exit(call(sys.argv[1:]))
