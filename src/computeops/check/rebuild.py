"""The verdict of a rebuild: is the image what its recipe says?

A kind of evidence of our own, `https://computeops.org/evidence/rebuild/v1`. Its predicate:

    result       PASSED if the image IDs are equal, else FAILED
    identical    which of image, manifest and sif are equal; the two others depend on the writer too
    rebuilt      the digests of the rebuild
    differences  the first paths that differ, each with `path`, `what` and `detail`
    more         whether there are further ones
    host         what it was rebuilt on
"""

from collections.abc import Iterable, Mapping
from itertools import islice

from computeops.check import kinds
from computeops.image.compare import Difference
from computeops.model import Evidence, Image

_SHOWN = 100


def verdict(image: Image, rebuilt: Image, found: Iterable[Difference], *, host: Mapping[str, str]) -> Evidence:
    """Return the evidence about `image` that `rebuilt`, made from its recipe alone, gives.

    Args:
        image: what was published.
        rebuilt: what came out now.
        found: the differences of their trees; not asked for where the image IDs are equal.
        host: what it was rebuilt on: program to version.
    """
    equal = image.id == rebuilt.id
    ours, theirs = image.subjects, rebuilt.subjects
    listed = [] if equal else list(islice(found, _SHOWN + 1))
    predicate = {
        "result": "PASSED" if equal else "FAILED",
        "identical": {name: ours[name] == theirs[name] for name in sorted(ours.keys() & theirs.keys())},
        "rebuilt": {name: str(digest) for name, digest in sorted(theirs.items())},
        "differences": [{"path": one.path, "what": one.what, "detail": one.detail} for one in listed[:_SHOWN]],
        "more": len(listed) > _SHOWN,
        "host": dict(host),
    }
    return Evidence(kinds.REBUILD, image.subjects, predicate)
