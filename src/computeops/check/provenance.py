"""What an image was built from and how: SLSA Provenance v1 (https://slsa.dev/spec/v1.0/provenance)."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from computeops import __version__
from computeops.check import kinds
from computeops.model import Digest, Evidence, Image
from computeops.recipe import FILE_NAME, Recipe

BUILD_TYPE = "https://computeops.org/build/v1"


class Material(Protocol):
    """One pinned input of a build; `computeops.build.model.Material` is one."""

    @property
    def name(self) -> str:
        """File name."""
        ...

    @property
    def uri(self) -> str:
        """Where it was taken from."""
        ...

    @property
    def digest(self) -> Digest:
        """What it must be."""
        ...

    @property
    def role(self) -> str:
        """`source`, `package`, `base` or `file`."""
        ...


def provenance(
    image: Image,
    recipe: Recipe,
    materials: Sequence[Material],
    *,
    variant: str,
    started: float,
    finished: float,
    builder_id: str,
    parameters: Mapping[str, Any],
    recipe_digest: Digest | None = None,
) -> Evidence:
    """Return evidence of one build.

    Args:
        image: what was built.
        recipe: its recipe.
        materials: every input of the lock.
        variant: name of the variant, "" for the generic one.
        started: seconds since 1970.
        finished: seconds since 1970.
        builder_id: URI of who built it: a hub's worker, or a person's own machine.
        parameters: what the builder chose by itself: writer, epoch ...
        recipe_digest: `recipe.digest` of the recipe's folder, where it is known.
    """
    named: dict[str, Any] = {"name": recipe.package.name, "version": recipe.package.version}
    inputs = [_dependency(one) for one in materials]
    if recipe_digest:
        named["digest"] = _digest(recipe_digest)
        inputs.insert(0, {"name": FILE_NAME, "digest": _digest(recipe_digest), "annotations": {"role": "recipe"}})
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"recipe": named, "variant": variant},
        "internalParameters": dict(parameters),
        "resolvedDependencies": inputs,
    }
    times = {"startedOn": _time(started), "finishedOn": _time(finished)}
    # The same build told twice has the same id, another build of the same recipe another one.
    invocation = uuid.uuid5(uuid.NAMESPACE_URL, f"{builder_id} {image.id} {recipe_digest} {started!r} {finished!r}")
    details = {
        "builder": {"id": builder_id, "version": {"computeops": __version__}},
        "metadata": {"invocationId": f"urn:uuid:{invocation}", **times},
    }
    return Evidence(kinds.PROVENANCE, image.subjects, {"buildDefinition": definition, "runDetails": details})


def _dependency(material: Material) -> dict[str, Any]:
    return {
        "name": material.name,
        "uri": _public(material.uri),
        "digest": _digest(material.digest),
        "annotations": {"role": material.role},
    }


def _public(uri: str) -> str:
    """Return `uri` without user name and password: evidence is for everybody's eyes."""
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)) if at and user else uri


def _digest(digest: Digest) -> dict[str, str]:
    return {digest.algorithm: digest.hex}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
