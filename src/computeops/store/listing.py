"""What a registry has: its repositories, and the tags of one, page by page and within bounds.

`_catalog` is not of the specification, but most registries that one runs oneself answer it; Docker Hub does not.
"""

from collections.abc import Iterator

from computeops.errors import FormatError, LimitError, NotFoundError
from computeops.http.addresses import shown
from computeops.limits import LIMITS
from computeops.store.oci import Registry, next_page

_PAGE = 1000
_EMPTY = 10_000  # as what an empty page counts: some are honest, an endless row of them is not


def repositories(registry: Registry) -> Iterator[str]:
    """Yield the names of the repositories that we may see.

    Raises:
        NotFoundError: the registry does not tell; FormatError, LimitError: the list is broken or too long.
    """
    try:
        yield from _names(registry, f"{registry.base}/v2/_catalog?n={_PAGE}", "", "repositories")
    except NotFoundError as error:
        raise NotFoundError(f"{registry.base} does not say what it has", hint="name the repositories") from error


def tags(registry: Registry, repository: str) -> Iterator[str]:
    """Yield the tags of a repository.

    Raises:
        NotFoundError: there is no such repository; FormatError, LimitError: the list is broken or too long.
    """
    yield from _names(registry, f"{registry.base}/v2/{repository}/tags/list?n={_PAGE}", repository, "tags")


def _names(registry: Registry, url: str, repository: str, key: str) -> Iterator[str]:
    count = 0
    while url:
        answer = registry.ask("GET", url, repository, limit_bytes=LIMITS.manifest_bytes).expect(200)
        found = answer.json()
        names = found.get(key) if isinstance(found, dict) else None
        if not isinstance(names or [], list) or not all(isinstance(one, str) for one in names or []):
            raise FormatError(f"{shown(url)} sent a broken list")
        following = next_page(answer)
        count += len(names or []) or _EMPTY
        if count > LIMITS.listed_names:
            raise LimitError(f"{shown(url)} lists more than {LIMITS.listed_names} names")
        yield from names or []
        url = following if following != url else ""
