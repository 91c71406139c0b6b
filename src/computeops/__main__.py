"""`python -m computeops` is the `computeops` command."""

from computeops.cli import main

main()
