"""One pipeline on a worker: its source, its job, its signatures, its publication."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from computeops import pipeline
from computeops.check import kinds
from computeops.errors import ComputeOpsError, ConflictError, NetworkError, NotFoundError
from computeops.hub.pipelines.words import DONE, FAILED, REBUILD, RUNNING, Made, Reply, Report, Step, Task
from computeops.hub.worker.client import Client
from computeops.hub.worker.jobs import Jobs
from computeops.hub.worker.plan import END, Fault, Folder
from computeops.image import convert
from computeops.model import Digest, Reference
from computeops.sign import dsse
from computeops.sign.keyring import Keyring
from computeops.store import fetch as fetching
from computeops.store import publish as publishing
from computeops.store.credentials import Login
from computeops.store.oci import Descriptor, Registry
from computeops.store.release import Release

if TYPE_CHECKING:
    from computeops.hub.worker.agent import Post

_TELL_SECONDS = 1.0
_LOG_BYTES = 512 * 1024
_GLANCE_SECONDS = 0.05


_T = TypeVar("_T")


class _StopError(Exception):
    """The agent is told to end."""


class _GoneError(Exception):
    """The pipeline is not ours any more, or was cancelled."""


class Work:
    """What is done about one pipeline, in a thread of its own."""

    def __init__(
        self, post: "Post", folder: Folder, task: Task, stopping: threading.Event, told: Callable[[str], None]
    ) -> None:
        self._post, self._folder, self._task = post, folder, task
        self._stopping, self._told = stopping, told
        self._client = Client(post.hub, post.token)
        self._jobs = Jobs(post, folder)
        self._log_at = 0
        self._known: dict[str, Step] = {}
        self._next = 0.0

    def go(self) -> None:
        """Bring it to its end, whatever that is; nothing is raised here."""
        try:
            self._do()
            self._forget()
        except _GoneError as gone:
            self._jobs.cancel()
            self._told(f"pipeline {self._task.id}: {gone}")
            self._forget()
        except _StopError:
            pass  # the next agent goes on
        except ComputeOpsError as error:
            self._fail(error.message, error.hint)
        except Exception as error:  # noqa: BLE001  a bug in one pipeline is not the end of the worker
            self._fail(f"this is a bug of the worker: {type(error).__name__}: {error}", "")
        finally:
            self._client.close()

    def _do(self) -> None:
        self._tell()
        if not self._folder.has_done("fetch"):
            self._obtain()
        self._build()
        self._sign()
        self._publish()

    def _obtain(self) -> None:
        """Fetch from the hub what the pipeline begins with: the job has no way to it."""
        task, source = self._task, self._task.source
        if not source.archive and task.kind != REBUILD:
            return
        with self._registry() as registry:
            if source.archive:
                what = Descriptor(Digest.parse(source.archive), "application/octet-stream", task.archive_bytes)
                registry.blob(task.repository, what, self._folder.source)
            else:
                reference = Reference.parse(task.repository).at(Digest.parse(source.image))
                self._folder.out.mkdir(exist_ok=True)
                writer, epoch = pipeline.writer(self._post.settings), self._post.settings.epoch
                fetching.fetch_release(reference, self._folder.out / "image.sif", registry, writer=writer, epoch=epoch)

    def _build(self) -> None:
        """Have the job done, by as many jobs as it takes, and tell what it says meanwhile."""
        while (ended := self._folder.read(END, int)) is None:
            state = self._jobs.state()
            self._tell(force=False)
            if state is not None and state.phase.ended and self._folder.read(END, int) is None:
                self._jobs.again(state)
            if self._stopping.wait(_GLANCE_SECONDS):
                raise _StopError
        if ended:
            fault = self._folder.read("fault.json", Fault) or Fault(step="", error="its job failed and left no word")
            raise ComputeOpsError(fault.error, hint=fault.hint)

    def _sign(self) -> None:
        with self._step("sign") as going:
            if going:
                self._alongside(lambda: self._each(self._signed))

    def _each(self, work: Callable[[Release], _T]) -> list[_T]:
        return [work(one) for one in self._folder.releases()]

    def _signed(self, release: Release) -> None:
        keys = self._post.keys
        if self._task.kind != REBUILD:
            pipeline.sign(release.sif, keys.key, keys)
            return
        signer = Keyring(keys.keys).own(keys.key)
        for one in release.evidence():
            release.add_evidence(kinds.short(dsse.read(one).kind), dsse.add_signature(one, signer))

    def _publish(self) -> None:
        """Push all variants, and let the hub give them their names."""
        made: list[Made] = []
        rebuilt = self._task.kind == REBUILD
        with self._step("publish", done=rebuilt), self._registry() as registry:
            reference = Reference.parse(self._task.repository)
            if rebuilt:
                image = reference.at(Digest.parse(self._task.source.image))
                self._alongside(lambda: self._each(lambda one: publishing.attach(one, image, registry)))
            else:
                made = self._alongside(lambda: self._each(lambda one: self._push(one, reference, registry)))
        reply = self._tell(publish=True, made=made)
        self._told(f"pipeline {self._task.id}: {reply.state}")

    def _alongside(self, work: Callable[[], _T]) -> _T:
        """Do what may take long, and report meanwhile, so that the hub knows that we are here."""
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(work)
            while not wait([going], _TELL_SECONDS).done:
                self._tell(force=False)
            return going.result()

    def _push(self, release: Release, reference: Reference, registry: Registry) -> Made:
        image = convert.open_image(release.sif)
        pipeline.trust(image, release.evidence(), self._post.keys)
        variant = image.labels.get(pipeline.VARIANT, "")
        version = "-".join(filter(None, (self._version(), variant)))
        named = replace(reference, version=version)
        digest = publishing.push(release, named, registry, epoch=self._post.settings.epoch, named=False)
        return Made(variant=variant, version=version, manifest=str(digest), image=str(image.id))

    def _version(self) -> str:
        fetched = next(one for one in self._folder.steps() if one.name == "fetch")
        return str(fetched.facts["version"])

    def _registry(self) -> Registry:
        token = self._asked(lambda: self._client.push_token(self._task.id, self._task.lease))
        return Registry(self._post.hub, login=Login(token))

    # what the hub hears

    def _step(self, name: str, *, done: bool = True) -> "_Own":
        return _Own(self, self._folder, name, done=done)

    def tell(self) -> None:
        """Report what is new, at once."""
        self._tell()

    def _tell(self, *, force: bool = True, publish: bool = False, made: list[Made] | None = None) -> Reply:
        """Report what is new: at once, or when it is time. Waits as long as the hub does not answer.

        Raises:
            _GoneError: the pipeline is not ours any more, or shall end.
        """
        now = time.monotonic()
        changed = [one for one in self._folder.steps() if self._known.get(one.name) != one]
        if not force and not changed and now < self._next:
            return Reply(state=RUNNING, ending=False, log_at=self._log_at)
        while True:
            version, locked = self._facts(changed)
            said = Report(
                lease=self._task.lease,
                steps=changed,
                log_at=self._log_at,
                log=self._log(),
                publish=publish and not self._behind(),
                made=made or [],
                version=version,
                locked=locked,
            )
            reply = self._report(said)
            self._known |= {one.name: one for one in changed}
            stuck, self._log_at = reply.log_at == self._log_at, reply.log_at
            if reply.ending and reply.state == RUNNING:
                self._report(Report(lease=self._task.lease, cancelled=True))
            if reply.ending:
                raise _GoneError("cancelled" if reply.state == RUNNING else f"it has {reply.state}")
            if not publish or said.publish:
                break
            if stuck and self._behind():  # the hub keeps no more of the log
                self._log_at = self._folder.log.stat().st_size
        self._next = time.monotonic() + _TELL_SECONDS
        return reply

    def _facts(self, changed: list[Step]) -> tuple[str, bool]:
        """Return the version of the recipe, once it is known, and whether it came with a lock."""
        fetched = next((one for one in changed if one.name == "fetch" and one.state == DONE), None)
        if fetched is None or self._task.kind == REBUILD:
            return "", False
        return str(fetched.facts["version"]), bool(fetched.facts["locked"])

    def _log(self) -> bytes:
        try:
            with self._folder.log.open("rb") as file:
                file.seek(self._log_at)
                return file.read(_LOG_BYTES)
        except FileNotFoundError:
            return b""

    def _behind(self) -> bool:
        try:
            return self._folder.log.stat().st_size - self._log_at > _LOG_BYTES
        except FileNotFoundError:
            return False

    def _report(self, said: Report) -> Reply:
        return self._asked(lambda: self._client.report(self._task.id, said))

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """Ask the hub until it answers: it may be away for a while.

        Raises:
            _GoneError: the pipeline is not ours any more.
        """
        pause = 0.2
        while True:
            try:
                return ask()
            except (ConflictError, NotFoundError) as error:
                raise _GoneError(error.message) from None
            except NetworkError:
                if self._stopping.wait(pause):
                    raise _StopError from None
                pause = min(pause * 2, 5.0)

    def _fail(self, error: str, hint: str) -> None:
        self._told(f"pipeline {self._task.id}: failed: {error.splitlines()[0] if error else ''}")
        said = Report(lease=self._task.lease, failed=True, error=error[:4000], hint=hint[:4000])
        try:
            self._tell()
            self._report(said)
        except (_GoneError, _StopError):
            pass
        except ComputeOpsError as other:
            self._told(f"pipeline {self._task.id}: {other.message}")
        self._jobs.forget()
        # what ended well stays for whoever retries it; the rest is not resumed
        (self._folder.path / "task.json").unlink(missing_ok=True)
        Folder(self._folder.path / "tmp").remove()

    def _forget(self) -> None:
        self._jobs.forget()
        self._folder.remove()


class _Own:
    """A step that the agent does itself; entering tells whether it is still to be done."""

    def __init__(self, work: Work, folder: Folder, name: str, *, done: bool) -> None:
        self._work, self._folder, self._done = work, folder, done
        self._step, self._began = Step(name=name, state=RUNNING, began=int(time.time() * 1000)), time.monotonic()
        self._going = not folder.has_done(name)

    def __enter__(self) -> bool:
        if self._going:
            self._folder.note(self._step)
            self._work.tell()
        return self._going

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._going or isinstance(error, _StopError | _GoneError) or (error is None and not self._done):
            return
        state = FAILED if error else DONE
        seconds = round(time.monotonic() - self._began, 3)
        self._folder.note(structs.replace(self._step, state=state, seconds=seconds))
        if error is None:
            self._work.tell()
