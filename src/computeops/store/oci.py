"""A client of OCI registries: distribution-spec 1.1, with the ways round what older registries lack.

Whatever a registry sends is checked against the digest by which it was asked for. One `Registry` may be used by several
threads: each has connections of its own, all share the logins.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from computeops import http
from computeops.errors import ConflictError, FormatError, LimitError, LoginError, NetworkError, NotFoundError
from computeops.http import Answer, Session
from computeops.http.addresses import leads_to, origin, shown
from computeops.http.download import Progress, download
from computeops.image import oci
from computeops.limits import LIMITS
from computeops.model import Digest, Reference
from computeops.store.credentials import Credentials, Login, base_url
from computeops.store.tokens import Challenge, Tokens

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = frozenset({oci.MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({oci.INDEX, DOCKER_INDEX})
_ACCEPT = f"{oci.MANIFEST}, {oci.INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"
_IMMUTABLE = frozenset({409, 412})
_PAGES = 100
_INDEX_TRIES = 20
_INDEX_LOOKS = 3
_INDEX_PAUSE = 0.1  # seconds between the looks
_PUTS = 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as the registry has it, its digest computed here."""

    digest: Digest
    media_type: str
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that it is; FormatError if it is none."""
        return oci.document(self.body)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What refers to some content by its digest (descriptor.md)."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def read(cls, found: Any) -> Self:
        """Read a descriptor from a manifest or index.

        Raises:
            FormatError: it is none.
        """
        size = found.get("size") if isinstance(found, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise FormatError(f"not a descriptor: {str(found)[:200]!r}")
        notes = found.get("annotations")
        annotations = {str(k): str(v) for k, v in notes.items()} if isinstance(notes, dict) else {}
        kind, artifact = str(found.get("mediaType", "")), str(found.get("artifactType") or "")
        return cls(Digest.parse(str(found.get("digest"))), kind, size, artifact, MappingProxyType(annotations))

    @property
    def title(self) -> str:
        """The name of the file that it is, as its maker says."""
        return self.annotations.get("org.opencontainers.image.title", "")


class Registry:
    """One registry, and who we are to it; a context manager that closes its connections."""

    def __init__(
        self,
        hub: str,
        credentials: Credentials | None = None,
        *,
        login: Login | None = None,
        pause: float = http.PAUSE,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """Raise UsageError if `hub` is no address. `login` is used in place of what `credentials` know.

        `hosts`: where else, besides the registry itself, it may send us; None: wherever it likes.
        """
        self.base = base_url(hub)
        self.login = login or (credentials.login(hub) if credentials else None)
        self._tokens = Tokens(self.base, self.login)
        self._pause = pause
        self._hosts = None if hosts is None else hosts | {urlsplit(self.base).netloc}
        self._own = threading.local()
        self._sessions: list[Session] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        for session in self._sessions:
            session.close()

    @property
    def session(self) -> Session:
        """The connections of this thread."""
        if not hasattr(self._own, "session"):
            self._own.session = Session(pause=self._pause, hosts=self._hosts)
            self._sessions.append(self._own.session)
        session: Session = self._own.session
        return session

    def check(self) -> bool:
        """Ask the registry who we are; False if it lets in anyone, so that the login proved nothing.

        Raises:
            LoginError: it does not accept our login; NetworkError: no registry answers there.
        """
        url = f"{self.base}/v2/"
        answer = self.session.request("GET", url)
        asked = Challenge.of(answer) if answer.status == 401 else None
        if asked:
            headers = self._tokens.meet(answer, "", self.session)
        else:
            headers = {"Authorization": self.login.header} if self.login else {}
        answer = self.session.request("GET", url, headers=headers)
        if answer.status == 404:
            raise NetworkError(f"{self.base} is no registry: it has no {shown(url)}", hint="check the hub's address")
        answer.expect(200)
        return asked is not None

    def resolve(self, repository: str, target: str) -> Manifest:
        """Return the manifest or index that a tag or digest names, checked against the digest.

        Raises:
            NotFoundError: there is none.
            FormatError: it is not what was asked for; LimitError: it is too large.
        """
        url = self._url(repository, "manifests", target)
        answer = self.ask("GET", url, repository, headers={"Accept": _ACCEPT}, limit_bytes=LIMITS.manifest_bytes)
        answer.expect(200)
        said = target if ":" in target else answer.headers.get("docker-content-digest", "")
        digest = Digest.of(answer.body, Digest.parse(said).algorithm if said else "sha256")
        if said and str(digest) != said:
            raise FormatError(f"{shown(url)} sent a manifest with another digest: {digest}")
        kind = oci.document(answer.body).get("mediaType")
        said_kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Manifest(digest, kind if isinstance(kind, str) else said_kind, answer.body)

    def digest_of(self, repository: str, target: str) -> Digest | None:
        """Return the digest of a manifest, or None if there is none that we may see; reads no more than needed."""
        url = self._url(repository, "manifests", target)
        answer = self.ask("HEAD", url, repository, headers={"Accept": _ACCEPT})
        if answer.status == 404:
            return None
        said = answer.expect(200).headers.get("docker-content-digest", "")
        return Digest.parse(said) if said else self.resolve(repository, target).digest

    def exists(self, repository: str, digest: Digest, *, push: bool = False) -> bool:
        """Return whether the blob is there; `push`: as somebody who may push."""
        answer = self.ask("HEAD", self._url(repository, "blobs", str(digest)), repository, push=push)
        return answer.status != 404 and answer.expect(200).status == 200

    def read(self, repository: str, digest: Digest, limit_bytes: int) -> bytes:
        """Return a small blob, checked.

        Raises:
            NotFoundError: it is not there; FormatError: it is not what its digest says; LimitError: it is too large.
        """
        url = self._url(repository, "blobs", str(digest))
        data = self.ask("GET", url, repository, limit_bytes=limit_bytes).expect(200).body
        if Digest.of(data, digest.algorithm) != digest:
            raise FormatError(f"{shown(url)} sent other content: {Digest.of(data, digest.algorithm)}")
        return data

    def blob(self, repository: str, what: Descriptor, into: Path, progress: Progress | None = None) -> None:
        """Fetch a blob into the file `into`, which appears whole and checked or not at all; goes on after breaks.

        Raises:
            NotFoundError: it is not there; FormatError: its content or size is not as described.
        """
        scope = _scope(repository, push=False)
        download(
            self._url(repository, "blobs", str(what.digest)),
            into,
            digest=what.digest,
            limit_bytes=what.size,
            headers=self._tokens.header(scope),
            login=lambda answer: self._tokens.meet(answer, scope, self.session),
            progress=progress,
            session=self.session,
        )

    def referrers(self, repository: str, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        """Return what says that it is about the manifest `digest`, in the registry's order; of one type if given.

        Raises:
            FormatError, LimitError: the list is broken or too long.
        """
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        found = self._pages(repository, self._url(repository, "referrers", str(digest)) + query)
        if found is None:  # a registry before 1.1: the list is an index under a tag
            found = self._fallback(repository, digest)
        return [one for one in found if artifact_type in {"", one.artifact_type}]

    def _pages(self, repository: str, url: str) -> list[Descriptor] | None:
        found: list[Descriptor] = []
        for _ in range(_PAGES):
            answer = self.ask("GET", url, repository, headers={"Accept": oci.INDEX}, limit_bytes=LIMITS.manifest_bytes)
            if answer.status == 404:
                return None
            found += _descriptors(answer.expect(200).body)
            if len(found) > LIMITS.referrers:
                break
            following = next_page(answer)
            if not following:
                return found
            url = following
        raise LimitError(f"{shown(url)} lists more than {LIMITS.referrers} referrers")

    def _fallback(self, repository: str, digest: Digest) -> list[Descriptor]:
        with contextlib.suppress(NotFoundError):
            return _descriptors(self.resolve(repository, _referrers_tag(digest)).body)
        return []

    def push_manifest(self, repository: str, body: bytes, media_type: str, tag: str = "") -> Digest:
        """Store a manifest under its digest, or under `tag`, and return its digest.

        Raises:
            ConflictError: the tag is taken and does not move.
            FormatError: the registry took it for something else.
        """
        digest = Digest.of(body)
        url = self._url(repository, "manifests", tag or str(digest))
        answer = self._put(url, repository, body, media_type)
        if tag and (answer.status in _IMMUTABLE or b"mmutable" in answer.body[:4096]):
            raise ConflictError(
                f"{shown(url)} is taken, and a released version never changes", hint="release a new version"
            )
        said = answer.expect(200, 201).headers.get("docker-content-digest", "")
        if said and said != str(digest):
            raise FormatError(f"{shown(url)} stored another manifest: {said}")
        subject = oci.document(body).get("subject")
        if isinstance(subject, dict) and "oci-subject" not in answer.headers:
            self._list_referrer(repository, Digest.parse(str(subject.get("digest"))), digest, body, media_type)
        return digest

    def _put(self, url: str, repository: str, body: bytes, media_type: str) -> Answer:
        """Send a manifest, again after trouble of the server's own: two times the same is the same.

        docker-registry, while another writes the same bytes, reads them half written and says that our digest is wrong.
        """
        headers = {"Content-Type": media_type}
        for attempt in range(1, _PUTS):
            answer = self.ask("PUT", url, repository, push=True, headers=headers, body=body)
            if answer.status not in http.TRY_AGAIN and b"DIGEST_INVALID" not in answer.body[:4096]:
                return answer
            self.session.wait(attempt)
        return self.ask("PUT", url, repository, push=True, headers=headers, body=body)

    def _list_referrer(self, repository: str, subject: Digest, digest: Digest, body: bytes, media_type: str) -> None:
        """Add a manifest to the list of referrers of its subject, which a registry before 1.1 does not keep itself.

        Two who do so at once can overwrite each other, for such a registry has no "if unchanged": so look again, after
        longer than another takes between its look and its write.
        """
        found = oci.document(body)
        entry = {"mediaType": media_type, "digest": str(digest), "size": len(body)}
        entry |= {key: found[key] for key in ("artifactType", "annotations") if key in found}
        tag = _referrers_tag(subject)
        seen = 0
        for _ in range(_INDEX_TRIES):
            listed: list[dict[str, Any]] = []
            with contextlib.suppress(NotFoundError):
                listed = oci.items(self.resolve(repository, tag).document, "manifests")
            if any(one.get("digest") == str(digest) for one in listed):
                seen += 1
                if seen == _INDEX_LOOKS:
                    return
                time.sleep(_INDEX_PAUSE)
                continue
            seen = 0
            index = oci.canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*listed, entry]})
            self.push_manifest(repository, index, oci.INDEX, tag)
        raise ConflictError(f"others keep changing {repository}:{tag}", hint="run it again")

    def ask(
        self,
        method: str,
        url: str,
        repository: str,
        *,
        push: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        limit_bytes: int = LIMITS.json_answer_bytes,
    ) -> Answer:
        """Send a request to the registry as who we are to it, once more after it asked for a login.

        `body` as an iterable can be sent only once: log in by an earlier request.

        Raises:
            LoginError: our login is not accepted; ComputeOpsError: as `Session.request`.
        """
        ours = origin(url) == origin(self.base)  # an upload may go elsewhere, and then no secret goes with it
        scope = _scope(repository, push=push)
        sent = {**(headers or {}), **(self._tokens.header(scope) if ours else {})}
        answer = self.session.request(method, url, headers=sent, body=body, limit_bytes=limit_bytes)
        again = body is None or isinstance(body, bytes)
        if answer.status == 401 and ours and again:
            sent |= self._tokens.meet(answer, scope, self.session)
            answer = self.session.request(method, url, headers=sent, body=body, limit_bytes=limit_bytes)
        if answer.status == 401 and method == "HEAD":
            raise LoginError(f"{shown(url)} asks who you are", hint=f"log in: computeops login {self.base}")
        return answer

    def uploads(self, repository: str) -> str:
        """Return the address at which the upload of a blob begins."""
        return f"{self.base}/v2/{repository}/blobs/uploads/"

    def _url(self, repository: str, kind: str, name: str) -> str:
        return f"{self.base}/v2/{repository}/{kind}/{quote(name, safe=':')}"


def tag(reference: Reference) -> str:
    """Return the tag of a reference's version: a registry knows no `+`, which becomes `_` as Helm has it."""
    return reference.version.replace("+", "_")


def target(reference: Reference) -> str:
    """Return what a registry resolves: the digest, else the tag."""
    return str(reference.digest) if reference.digest else tag(reference) or "latest"


def files(manifest: Mapping[str, Any]) -> Sequence[Descriptor]:
    """Return the descriptors of the layers of a manifest.

    Raises:
        FormatError, LimitError: they are broken or too many.
    """
    return [Descriptor.read(one) for one in oci.items(manifest, "layers")]


def _scope(repository: str, *, push: bool) -> str:
    return f"repository:{repository}:{'pull,push' if push else 'pull'}" if repository else ""


def _referrers_tag(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"[:128]


def _descriptors(index: bytes) -> list[Descriptor]:
    listed = oci.document(index).get("manifests", [])
    if not isinstance(listed, list):
        raise FormatError("the list of referrers is broken")
    return [Descriptor.read(one) for one in listed]


def next_page(answer: Answer) -> str:
    """Return the address of the next page (RFC 8288 `Link`), or "".

    Raises:
        NetworkError: it is on another host.
    """
    link = answer.headers.get("link", "")
    if 'rel="next"' not in link and "rel=next" not in link:
        return ""
    url = leads_to(answer.url, link.partition("<")[2].partition(">")[0])
    if origin(url) != origin(answer.url):
        raise NetworkError(f"{shown(answer.url)} continues at {shown(url)}, which is another host")
    return url
