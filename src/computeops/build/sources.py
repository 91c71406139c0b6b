"""The recipe's sources: pinned by digest, fetched into a content-addressed cache, archived as single files."""

import hashlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from computeops import http, proc
from computeops.build import apt
from computeops.build.model import Material, Place
from computeops.errors import ComputeOpsError, FormatError, NetworkError, NotFoundError, RecipeError
from computeops.http.addresses import origin, pinned
from computeops.http.download import download
from computeops.image import folders
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe import DebianSource, GitSource, PathSource, PypiSource, Recipe, Source, UrlSource

_CHUNK = 1 << 20
_PARALLEL = 4
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~%:@-]{0,254}")


def pin(folder: Path, recipe: Recipe, place: Place) -> tuple[Material, ...]:
    """Return every source of `recipe` as one or more files with their digests.

    Raises:
        RecipeError: a source does not exist, or is not what the recipe says.
        NetworkError: it could not be fetched.
    """
    found: list[Material] = []
    for source in recipe.sources:
        found += _pin(source, folder, recipe, place)
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two sources are files of the same name: {name}")
    return tuple(found)


def _pin(source: Source, folder: Path, recipe: Recipe, place: Place) -> Sequence[Material]:
    match source:
        case UrlSource():
            name = unquote(urlsplit(source.url).path.rpartition("/")[2])
            return [Material(_name(name, source.url), source.url, Digest("sha256", source.sha256))]
        case GitSource():
            stem = source.git.rstrip("/").rpartition("/")[2].removesuffix(".git")
            name = _name(f"{stem}-{source.commit[:12]}.tar", source.git)
            return [_made(name, f"git+{source.git}@{source.commit}", folder, place)]
        case PathSource():
            return [_path(source, folder, place)]
        case DebianSource():
            return _debian(source, recipe, place)
        case PypiSource():
            return [_pypi(source, place)]
        case _:
            raise AssertionError(source)


def fetch(materials: Sequence[Material], folder: Path, place: Place) -> dict[Material, Path]:
    """Return the file of each of `materials` in the cache, fetching what is missing; every digest is checked.

    Raises:
        NetworkError: a file could not be fetched.
        FormatError: what came has another digest.
    """

    def one(material: Material) -> Path:
        return cached(material, folder, place)

    place.progress(f"fetching {len(materials)} files")
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return dict(zip(materials, pool.map(one, materials), strict=True))


def cached(material: Material, folder: Path, place: Place) -> Path:
    """Return the file of one material in the cache, as `fetch` does."""
    store = place.cache / "sources"
    target = store / material.digest.hex
    # what lies beside the recipe is looked at every time: a change must be noticed, not covered by an old copy
    if not material.uri.startswith("path:") and target.is_file() and digest_of(target) == material.digest:
        return target
    _open_store(store)
    with tempfile.TemporaryDirectory(dir=store, prefix=".new-") as scratch:
        file = Path(scratch) / "file"
        place.progress(f"fetching {material.name}")
        _get(material.uri, file, folder, material.digest)
        got = digest_of(file)
        if got != material.digest:
            raise FormatError(
                f"{material.name} from {material.uri} has the digest {got}, not {material.digest}",
                hint="if the new content is right, correct the recipe or run `computeops lock` again",
            )
        file.chmod(0o644)
        file.replace(target)
    return target


def _open_store(store: Path) -> None:
    """Make the folder of fetched files, readable in the box of a build, where everyone is somebody else."""
    store.mkdir(parents=True, exist_ok=True)
    store.chmod(0o755)


def _get(uri: str, into: Path, folder: Path, digest: Digest | None = None) -> None:
    """Write what `uri` names to the file `into`."""
    scheme = uri.partition(":")[0]
    if scheme in {"http", "https"}:
        sha256 = digest.hex if digest else None
        download(uri, into, sha256=sha256, limit_bytes=LIMITS.file_bytes)
    elif scheme in {"file", "copy"}:
        path = Path(unquote(uri.partition(":")[2].removeprefix("//")))
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}")
        shutil.copyfile(path, into)
    elif scheme == "git+https" or scheme.startswith("git+"):
        address, _, commit = uri.removeprefix("git+").rpartition("@")
        _git(address, commit, into)
    elif scheme == "path":
        target = folder / uri.removeprefix("path:")
        if not target.resolve().is_relative_to(folder.resolve()):
            raise RecipeError(f"{uri} is outside of the recipe's folder")
        _archive(target, into)
    else:
        raise RecipeError(f"cannot fetch {uri}: unknown kind of address")


def _made(name: str, uri: str, folder: Path, place: Place) -> Material:
    """Fetch what has no digest of its own yet, keep it in the cache and return it pinned."""
    store = place.cache / "sources"
    _open_store(store)
    with tempfile.TemporaryDirectory(dir=store, prefix=".new-") as scratch:
        file = Path(scratch) / "file"
        place.progress(f"fetching {name}")
        _get(uri, file, folder)
        digest, size = digest_of(file), file.stat().st_size
        file.chmod(0o644)
        file.replace(store / digest.hex)
    return Material(name, uri, digest, size)


def commit(address: str, commit: str, place: Place) -> Path:
    """Return a tar file with the tree of one commit of a git repository, of which nothing is run or followed.

    Raises:
        NetworkError: the repository did not answer, or has no such commit.
    """
    made = _made("tree.tar", f"git+{address}@{commit}", place.work, place)
    return place.cache / "sources" / made.digest.hex


def _path(source: PathSource, folder: Path, place: Place) -> Material:
    target = folder / source.path
    name = target.resolve().name + (".tar" if target.is_dir() else "")
    made = _made(_name(name, source.path), f"path:{source.path}", folder, place)
    if source.sha256 and made.digest.hex != source.sha256:
        raise RecipeError(f"{source.path} has the digest {made.digest}, not sha256:{source.sha256} as the recipe says")
    return made


def _debian(source: DebianSource, recipe: Recipe, place: Place) -> Sequence[Material]:
    build = recipe.build
    entries = apt.entries("deb-src", build.suite, build.components, mirror=place.mirror, snapshot=build.snapshot)
    with tempfile.TemporaryDirectory(dir=place.work, prefix="apt-") as folder:
        return apt.Archive(Path(folder), entries, place).source(source.debian, source.version)


def _pypi(source: PypiSource, place: Place) -> Material:
    """Find the sdist in the index (Simple repository API, PEP 691) and its SHA-256 there."""
    project = re.sub(r"[-_.]+", "-", source.pypi).lower()
    url = f"{place.pypi.rstrip('/')}/{project}/"
    headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
    page: Any = http.get_json(url, headers=headers, limit_bytes=LIMITS.json_answer_bytes)
    try:
        for file in page["files"]:
            stem = re.sub(r"\.(tar\.gz|zip)$", "", file["filename"])
            given, _, version = stem.rpartition("-")
            if (
                stem != file["filename"]
                and re.sub(r"[-_.]+", "-", given).lower() == project
                and version == source.version
            ):
                digest = Digest.parse(f"sha256:{file['hashes']['sha256']}")
                address = urljoin(url, file["url"])
                if urlsplit(address).scheme not in {"http", "https"}:
                    raise NetworkError(f"{url} points to {address[:160]}, which is not on the web")
                return Material(_name(file["filename"], url), address, digest, int(file.get("size") or 0))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NetworkError(f"{url} did not answer as a package index does: {error!r}") from error
    raise RecipeError(f"the package index has no source distribution of {source.pypi} {source.version}")


def git_at(address: str) -> list[str]:
    """Return the words that start a git that asks nobody, runs nothing of a repository and goes nowhere but there.

    Where addresses are pinned (`http.addresses`), it connects to the one that the name leads to now.
    """
    options: tuple[str, ...] = (
        "core.hooksPath=/dev/null",
        "tar.umask=0022",
        "core.fsmonitor=false",
        "core.autocrlf=false",
        "core.attributesFile=/dev/null",
    )
    # a redirect could lead where nobody looked, and a name somewhere else by the time that git asks for it
    pin = pinned(address) if address.startswith(("http:", "https:")) else ""
    if pin:
        _, host, port = origin(address)
        where = f"[{pin}]" if ":" in pin else pin
        options = (*options, "http.followRedirects=false", f"http.curloptResolve={host}:{port}:{where}")
    env = [
        "env",
        "GIT_TERMINAL_PROMPT=0",
        "GIT_CONFIG_NOSYSTEM=1",
        f"GIT_ALLOW_PROTOCOL={address.partition(':')[0] if pin else 'https:http:ssh:file'}",
        "LC_ALL=C",
    ]
    return [*env, "git", *(word for one in options for word in ("-c", one))]


def _git(address: str, commit: str, into: Path) -> None:
    """Write the tree of one commit to the tar file `into`, without running anything that the repository says."""
    command = git_at(address)
    proc.need("git")
    repository = into.with_name("repository")

    def git(*argv: str) -> str:
        return proc.run([*command, f"--git-dir={repository}", *argv], error=NetworkError)

    git("init", "--quiet", "--bare")
    # no filter of the user's settings, and nothing that depends on which branches and tags were fetched
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info/attributes").write_text("* -export-subst -filter -ident -text -eol\n")
    quiet = ["--quiet", "--no-tags", "--no-recurse-submodules"]
    try:
        git("fetch", *quiet, "--depth=1", "--", address, commit)
    except ComputeOpsError:  # servers may refuse a commit that is no branch's head: then take all branches and tags
        git("fetch", *quiet, "--", address, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    stem = into.with_name("tree.tar")
    prefix = address.rstrip("/").rpartition("/")[2].removesuffix(".git")
    git("archive", "--format=tar", f"--prefix={prefix}-{commit[:12]}/", f"--output={stem}", commit)
    stem.replace(into)


def _archive(path: Path, into: Path) -> None:
    """Copy a file, or write a folder as a tar file whose bytes depend on names, contents and modes alone."""
    if path.is_file():
        shutil.copyfile(path, into)
        return
    if not path.is_dir():
        raise RecipeError(f"there is no file or folder {path}")
    with tarfile.open(into, "w", format=tarfile.PAX_FORMAT) as tar:
        for one in [path, *sorted(path.rglob("*"))]:
            folders.add(tar, one, str(Path(path.name) / one.relative_to(path)))


def restore(archive: Path, into: Path) -> None:
    """Lay out below `into` a folder that was archived as a tar file: the reverse of how a path source is archived.

    Raises:
        FormatError: it is no such archive, or leads out of `into`.
    """
    root = into.resolve()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                target = into / member.name
                inside = ".." not in Path(member.name).parts and target.parent.resolve().is_relative_to(root)
                if not inside or not (member.isdir() or member.isreg() or member.issym()):
                    raise FormatError(f"{archive.name}: {member.name!r} is nothing that a folder is archived with")
                if member.issym():
                    target.symlink_to(member.linkname)
                elif member.isdir():
                    target.mkdir(exist_ok=True)
                elif (content := tar.extractfile(member)) is not None:
                    with target.open("xb") as file:
                        shutil.copyfileobj(content, file)
                    target.chmod(member.mode & 0o755)
    except tarfile.TarError as error:
        raise FormatError(f"{archive.name} cannot be read: {error}") from error


def _name(name: str, origin: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise RecipeError(f"{origin} does not end in a usable file name: {name!r}")
    return name


def digest_of(file: Path) -> Digest:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return Digest("sha256", hashlib.file_digest(stream, "sha256").hexdigest())
