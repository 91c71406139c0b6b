"""This machine, or one that was described: what it offers to an image, and whether an image fits it.

`look.look` reads this machine from files, `site.load` a described one; `Needs.of` says what an image asks for, and
`verdict.fit` compares the two. Nothing here starts a process.
"""

from computeops.host.needs import Needs

__all__ = ["Needs"]
