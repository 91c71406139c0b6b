"""The inventory of an image as evidence: a software bill of materials in one of the two formats that others read."""

from computeops.check import kinds
from computeops.check.inventory import Inventory
from computeops.model import Evidence, Image


def cyclonedx(image: Image, inventory: Inventory, epoch: int) -> Evidence:
    """Return evidence whose predicate is a CycloneDX 1.6 document; `epoch` is its time, seconds since 1970."""
    from computeops.check.cyclonedx import document

    return Evidence(kinds.CYCLONEDX, image.subjects, document(image, inventory, epoch))


def spdx(image: Image, inventory: Inventory, epoch: int) -> Evidence:
    """Return evidence whose predicate is an SPDX 2.3 document; `epoch` is its time, seconds since 1970."""
    from computeops.check.spdx import document

    return Evidence(kinds.SPDX, image.subjects, document(image, inventory, epoch))
