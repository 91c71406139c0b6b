"""Pull-through caches: repositories below a prefix of the settings come from another registry, and stay.

A manifest is fetched when it is first asked for; a blob too, if a known manifest names it. All is checked against
its digest. A tag is compared with the registry again after a time. While the registry does not answer, what is here is
what there is: for a moment nobody else waits for it. Requests go to the hosts of the settings and to no others whatever
the registry says, in threads of their own: a slow registry slows nobody but its readers.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.types import Scope

from computeops.errors import (
    ConflictError,
    DeniedError,
    FormatError,
    LimitError,
    LoginError,
    NetworkError,
    NotFoundError,
)
from computeops.hub import names
from computeops.hub.copying import Copying
from computeops.hub.manifests import users
from computeops.hub.settings import Proxy
from computeops.hub.state import Hub
from computeops.image import oci
from computeops.model import Digest
from computeops.store.credentials import Credentials
from computeops.store.oci import Descriptor, Registry

_THREADS = 16
_DOWN_SECONDS = 15.0  # how long a registry that did not answer is not asked
_PAUSE = 0.2
_REMEMBERED = 100_000


class Proxies:
    """All pull-through caches of one hub; each function does nothing for repositories that are below none."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._upstreams = {f"{one.prefix}/": _Upstream(hub, one) for one in hub.settings.proxies}
        self._under_way: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "proxy") if self._upstreams else None

    def refuse(self, repository: str) -> None:
        """Refuse a push.

        Raises:
            DeniedError: the repository is the cache of another registry.
        """
        if found := self._of(repository):
            raise DeniedError(f"{repository} is a copy of what is at {found.base}", hint="push it there")

    async def manifest(self, scope: Scope, repository: str, reference: str) -> None:
        """See to it that the manifest is here and, if `reference` is a tag, that it is the right one.

        Raises:
            NetworkError: it is not here, and the registry does not answer.
        """
        if found := self._admitted(scope, repository):
            await self._run((repository, reference), lambda: found.manifest(repository, reference))

    async def blob(self, scope: Scope, repository: str, digest: Digest) -> None:
        """See to it that a blob is here that a manifest which is here names.

        Raises:
            NetworkError: it is not here, and the registry does not answer.
        """
        if found := self._admitted(scope, repository):
            await self._run((repository, f"blob {digest}"), lambda: found.blob(repository, digest))

    async def referrers(self, scope: Scope, repository: str, digest: Digest) -> None:
        """See to it that what refers to a manifest that is here is here too, as far as the registry answers."""
        if found := self._admitted(scope, repository):
            await self._run((repository, f"about {digest}"), lambda: found.referrers(repository, digest))

    def _of(self, repository: str) -> "_Upstream | None":
        return next((one for prefix, one in self._upstreams.items() if repository.startswith(prefix)), None)

    def _admitted(self, scope: Scope, repository: str) -> "_Upstream | None":
        """Return from where the repository comes, to a caller who may know of it."""
        upstream = self._of(repository)
        if upstream is None or not names.REPOSITORY.fullmatch(repository) or len(repository) > names.LENGTH:
            return None
        caller = self._hub.caller(scope)
        known = self._hub.database.repository(repository)
        sees = caller.sees(known) if known else upstream.public or caller.may("pull", repository)
        return upstream if sees else None

    async def _run(self, key: tuple[str, str], work: Callable[[], None]) -> None:
        """Do what several may wait for, once."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().run_in_executor(self._pool, work)
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        await asyncio.shield(task)  # who goes away does not stop it for the others

    def _done(self, key: tuple[str, str], task: "asyncio.Future[None]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # perhaps nobody is left who waits for it


class _Upstream:
    """One registry behind a prefix; used by several threads."""

    def __init__(self, hub: Hub, settings: Proxy) -> None:
        self._hub, self._settings = hub, settings
        self._prefix, self.public = f"{settings.prefix}/", settings.public
        file = hub.data / settings.credentials
        known = Credentials(file, [file]) if settings.credentials else None
        self._registry = Registry(settings.registry, known, pause=_PAUSE, hosts=frozenset(settings.hosts))
        self.base = self._registry.base
        self._checked: dict[tuple[str, str], float] = {}
        self._down_until = 0.0

    def manifest(self, name: str, reference: str) -> None:
        tag, key = ":" not in reference, (name, reference)
        if tag and not names.TAG.fullmatch(reference):
            return
        here = self._here(name, reference)
        if here and not (tag and self._is_due(key)):
            return
        try:
            self._asked(lambda: self._fetch(name, reference, tag=tag))
            self._remember(key)
        except (NotFoundError, ConflictError):  # gone there, or a release here: what is here stays
            self._remember(key)
        except NetworkError:
            if not here:
                raise

    def blob(self, name: str, digest: Digest) -> None:
        found = self._hub.database.repository(name)
        if found is None or self._hub.database.linked(found, str(digest)) is not None:
            return
        for manifest in users(self._hub.database, found, [str(digest)])[:1]:
            row = self._hub.database.manifest(found, manifest)
            what = _described(row.body, digest) if row else None
            if what is not None:
                self._asked(partial(self._copying(name).blob, what))

    def referrers(self, name: str, digest: Digest) -> None:
        key = (name, f"referrers of {digest}")
        if not self._here(name, str(digest)) or not self._is_due(key):
            return
        try:
            self._asked(lambda: self._copying(name).referrers(digest))
        except (NotFoundError, NetworkError):
            return
        self._remember(key)

    def _fetch(self, name: str, reference: str, *, tag: bool) -> None:
        copying = self._copying(name)
        digest = self._registry.digest_of(copying.source, reference)
        if digest is None:
            raise NotFoundError(f"{self.base} has no {copying.source}:{reference[:200]}")
        if tag:
            copying.tag(reference, digest)
        else:
            copying.manifest(digest)

    def _copying(self, name: str) -> Copying:
        source = name.removeprefix(self._prefix)
        if self._settings.below:
            source = f"{self._settings.below}/{source}"
        work = self._hub.data / "proxy"
        work.mkdir(mode=0o700, exist_ok=True)
        return Copying(self._hub, self._registry, source, name, work, public=self.public, sparse=True)

    def _here(self, name: str, reference: str) -> bool:
        found = self._hub.database.repository(name)
        return found is not None and self._hub.database.manifest(found, reference) is not None

    def _asked(self, work: Callable[[], object]) -> None:
        """Do what asks the registry, unless it did not answer a moment ago."""
        if time.monotonic() < self._down_until:
            raise NetworkError(f"{self.base} does not answer", hint="try again in a minute")
        try:
            work()
        except NetworkError:
            self._down_until = time.monotonic() + _DOWN_SECONDS
            raise
        except (LoginError, DeniedError, FormatError, LimitError) as error:  # its fault, not that of who asked us
            raise NetworkError(error.message, hint="ask the hub's operator") from error

    def _is_due(self, key: tuple[str, str]) -> bool:
        return time.monotonic() - self._checked.get(key, float("-inf")) > self._settings.fresh_minutes * 60

    def _remember(self, key: tuple[str, str]) -> None:
        if len(self._checked) >= _REMEMBERED:
            self._checked.clear()
        self._checked[key] = time.monotonic()


def _described(manifest: bytes, digest: Digest) -> Descriptor | None:
    """Return what a manifest says of a blob that it names."""
    document = oci.document(manifest)
    for one in (document.get("config"), *oci.items(document, "layers")):
        if isinstance(one, dict) and one.get("digest") == str(digest):
            return Descriptor.read(one)
    return None
