"""Sources: pinned, fetched, cached, archived; real servers and repositories, some of them hostile."""

import hashlib
import http.server
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from computeops.build import sources
from computeops.build.model import Material, Place
from computeops.errors import FormatError, NetworkError, NotFoundError, RecipeError
from computeops.model import Digest
from computeops.recipe import Recipe, parse

HEAD = '[package]\nname = "a"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\n[build]\nbuilder = "dockerfile"\nfile = "Dockerfile"\n'


def recipe(*tables: str) -> Recipe:
    return parse((HEAD + "".join(f"[[sources]]\n{one}\n" for one in tables)).encode())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "work").mkdir()
    return Place(work=tmp_path / "work", cache=tmp_path / "cache", pypi="http://127.0.0.1:9/simple")


class Server(http.server.ThreadingHTTPServer):
    """Serves what `files` says and counts the requests."""

    files: dict[str, tuple[str, bytes]]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, data = self.server.files.get(self.path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.files, made.asked = {}, []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def address(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def url_source(server: Server, path: str, data: bytes, *, said: bytes | None = None) -> Recipe:
    server.files[path] = ("application/octet-stream", data)
    return recipe(f'url = "{address(server, path)}"\nsha256 = "{sha256(data if said is None else said)}"')


def test_a_file_of_the_web_is_fetched_once(tmp_path: Path, place: Place, server: Server) -> None:
    wanted = url_source(server, "/dl/tool-1.0%2Bx.tar.gz", b"the source")
    (material,) = sources.pin(tmp_path, wanted, place)
    assert material.name == "tool-1.0+x.tar.gz"
    for _ in range(2):
        found = sources.fetch([material], tmp_path, place)
        assert found[material].read_bytes() == b"the source"
    assert len(server.asked) == 1


def test_a_changed_file_is_a_clear_error_and_nothing_is_kept(tmp_path: Path, place: Place, server: Server) -> None:
    wanted = url_source(server, "/tool.tar", b"another thing", said=b"the source")
    with pytest.raises(FormatError, match=sha256(b"the source")) as caught:
        sources.fetch(sources.pin(tmp_path, wanted, place), tmp_path, place)
    assert sha256(b"another thing") in caught.value.message
    assert caught.value.hint
    assert not [one for one in (tmp_path / "cache").rglob("*") if one.is_file()]


def test_a_broken_file_in_the_cache_is_fetched_again(tmp_path: Path, place: Place, server: Server) -> None:
    wanted = url_source(server, "/tool.tar", b"the source")
    (material,) = sources.pin(tmp_path, wanted, place)
    file = sources.fetch([material], tmp_path, place)[material]
    file.write_bytes(b"rotten")
    assert sources.fetch([material], tmp_path, place)[material].read_bytes() == b"the source"


def test_a_missing_file_names_its_address(tmp_path: Path, place: Place, server: Server) -> None:
    wanted = url_source(server, "/tool.tar", b"x")
    server.files.clear()
    with pytest.raises(NotFoundError, match=r"/tool\.tar answered 404"):
        sources.fetch(sources.pin(tmp_path, wanted, place), tmp_path, place)


@pytest.mark.parametrize("path", ["/", "/a/..%2f..%2fpasswd", "/-rf", "/a%00b"])
def test_an_address_without_a_usable_name_is_refused(tmp_path: Path, place: Place, server: Server, path: str) -> None:
    with pytest.raises(RecipeError, match="usable file name"):
        sources.pin(tmp_path, url_source(server, path, b"x"), place)


def test_two_sources_of_one_name_are_refused(tmp_path: Path, place: Place, server: Server) -> None:
    one = f'url = "{address(server, "/a/x.tar")}"\nsha256 = "{sha256(b"x")}"'
    two = f'url = "{address(server, "/b/x.tar")}"\nsha256 = "{sha256(b"x")}"'
    with pytest.raises(RecipeError, match=r"same name: x\.tar"):
        sources.pin(tmp_path, recipe(one, two), place)


# Files and folders beside the recipe


def test_a_folder_becomes_a_tar_of_names_contents_and_modes_alone(tmp_path: Path, place: Place) -> None:
    tars = []
    for name in ("one", "two"):
        folder = tmp_path / name / "patches"
        folder.mkdir(parents=True)
        (folder / "b").write_text("b")
        (folder / "a").write_text("a")
        (folder / "run").write_text("#!/bin/sh")
        (folder / "run").chmod(0o700 if name == "one" else 0o755)
        (folder / "link").symlink_to("/etc/passwd")
        os.mkfifo(folder / "fifo")
        os.utime(folder / "a", (len(name) * 1000 + (name == "two"), 7))
        wanted = recipe('path = "patches"')
        (material,) = sources.pin(tmp_path / name, wanted, place)
        tars.append(sources.fetch([material], tmp_path / name, place)[material].read_bytes())
    assert tars[0] == tars[1]
    (tmp_path / "x.tar").write_bytes(tars[0])
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == ["patches", "patches/a", "patches/b", "patches/link", "patches/run"]
        assert tar.getmember("patches/link").linkname == "/etc/passwd"


def test_a_change_beside_the_recipe_is_noticed_though_the_old_file_is_cached(tmp_path: Path, place: Place) -> None:
    (tmp_path / "data").write_text("old")
    (material,) = sources.pin(tmp_path, recipe('path = "data"'), place)
    sources.fetch([material], tmp_path, place)
    (tmp_path / "data").write_text("new")
    with pytest.raises(FormatError, match="data from path:data has the digest") as caught:
        sources.fetch([material], tmp_path, place)
    assert "computeops lock" in caught.value.hint


def test_a_file_with_another_digest_than_the_recipe_says_is_refused(tmp_path: Path, place: Place) -> None:
    (tmp_path / "data").write_text("old")
    with pytest.raises(RecipeError, match="as the recipe says"):
        sources.pin(tmp_path, recipe(f'path = "data"\nsha256 = "{sha256(b"new")}"'), place)


def test_what_is_no_file_or_folder_is_refused(tmp_path: Path, place: Place) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecipeError, match="no file or folder"):
        sources.pin(tmp_path, recipe('path = "fifo"'), place)


# Repositories


Git = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Git]:
    folder = tmp_path / "tool.git"

    def git(*argv: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
        done = subprocess.run(["git", *identity, "-C", folder, *argv], capture_output=True, check=True, text=True)
        return done.stdout.strip()

    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    (folder / "file").write_text("first\n")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    return folder, git


def git_source(folder: Path, commit: str) -> Recipe:
    return recipe(f'git = "file://{folder}"\ncommit = "{commit}"')


def test_a_commit_is_archived_as_a_tar_whoever_fetches_it(
    tmp_path: Path, place: Place, repository: tuple[Path, Git]
) -> None:
    folder, git = repository
    commit = git("rev-parse", "HEAD")
    (material,) = sources.pin(tmp_path, git_source(folder, commit), place)
    assert material.name == f"tool-{commit[:12]}.tar"
    file = sources.fetch([material], tmp_path, place)[material]
    with tarfile.open(file) as tar:
        assert tar.getnames() == [f"tool-{commit[:12]}", f"tool-{commit[:12]}/file"]
    file.unlink()
    assert sources.fetch([material], tmp_path, place)[material].is_file()


def test_an_older_commit_is_found(tmp_path: Path, place: Place, repository: tuple[Path, Git]) -> None:
    folder, git = repository
    commit = git("rev-parse", "HEAD")
    (folder / "file").write_text("second\n")
    git("commit", "-q", "-a", "-m", "two")
    (material,) = sources.pin(tmp_path, git_source(folder, commit), place)
    with tarfile.open(sources.fetch([material], tmp_path, place)[material]) as tar:
        member = tar.extractfile(f"tool-{commit[:12]}/file")
        assert member is not None
        assert member.read() == b"first\n"


def test_a_commit_that_is_not_there_is_a_clear_error(
    tmp_path: Path, place: Place, repository: tuple[Path, Git]
) -> None:
    with pytest.raises(NetworkError):
        sources.pin(tmp_path, git_source(repository[0], "0" * 40), place)


def test_nothing_that_a_repository_says_is_run(tmp_path: Path, place: Place, repository: tuple[Path, Git]) -> None:
    folder, git = repository
    mark = tmp_path / "mark"
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (folder / ".git/hooks" / hook).write_text(f"#!/bin/sh\ntouch {mark}-{hook}\n")
        (folder / ".git/hooks" / hook).chmod(0o755)
    (folder / ".gitattributes").write_text("file filter=evil export-subst ident eol=crlf\n")
    (folder / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch% ' + str(mark) + '"\n')
    (folder / "file").write_text("$Format:%d$ $Id$\n")
    (folder / "link").symlink_to("../../../../etc/passwd")
    config = folder / ".git/config"
    config.write_text(config.read_text() + f'[filter "evil"]\n\tsmudge = touch {mark}\n\tclean = cat\n')
    git("add", "-A")
    git("update-index", "--add", "--cacheinfo", f"160000,{git('rev-parse', 'HEAD')},x")
    git("commit", "-q", "-m", "evil")
    for one in tmp_path.glob("mark*"):
        one.unlink()
    commit = git("rev-parse", "HEAD")
    (material,) = sources.pin(tmp_path, git_source(folder, commit), place)
    assert not list(tmp_path.glob("mark*"))
    with tarfile.open(sources.fetch([material], tmp_path, place)[material]) as tar:
        member = tar.extractfile(f"tool-{commit[:12]}/file")
        assert member is not None
        assert member.read() == b"$Format:%d$ $Id$\n"
        assert tar.getmember(f"tool-{commit[:12]}/link").issym()


def test_a_tag_that_comes_later_does_not_change_the_archive(
    tmp_path: Path, place: Place, repository: tuple[Path, Git]
) -> None:
    folder, git = repository
    (folder / ".gitattributes").write_text("file export-subst\n")
    (folder / "file").write_text("$Format:%d$\n")
    git("add", "-A")
    git("commit", "-q", "-m", "two")
    wanted = git_source(folder, git("rev-parse", "HEAD"))
    before = sources.pin(tmp_path, wanted, place)
    git("tag", "v1")
    git("config", "uploadpack.allowAnySHA1InWant", "false")
    assert sources.pin(tmp_path, wanted, place) == before


# The Python package index


def index(server: Server, file: dict[str, object]) -> None:
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "cut-adapt", "files": [file]}).encode()
    server.files["/simple/cut-adapt/"] = ("application/vnd.pypi.simple.v1+json", page)


def test_an_sdist_is_found_in_the_index_and_pinned(tmp_path: Path, place: Place, server: Server) -> None:
    data = b"an sdist"
    server.files["/files/cut_adapt-4.9.tar.gz"] = ("application/gzip", data)
    index(
        server,
        {
            "filename": "cut_adapt-4.9.tar.gz",
            "url": "../../files/cut_adapt-4.9.tar.gz",
            "hashes": {"sha256": sha256(data)},
        },
    )
    there = Place(work=place.work, cache=place.cache, pypi=address(server, "/simple/"))
    (material,) = sources.pin(tmp_path, recipe('pypi = "Cut.Adapt"\nversion = "4.9"'), there)
    assert material.digest.hex == sha256(data)
    assert sources.fetch([material], tmp_path, there)[material].read_bytes() == data


@pytest.mark.parametrize(
    ("file", "error", "expected"),
    [
        (
            {"filename": "cut_adapt-4.8.tar.gz", "url": "x", "hashes": {"sha256": "0" * 64}},
            RecipeError,
            "no source distribution",
        ),
        (
            {"filename": "cut_adapt-4.9-py3-none-any.whl", "url": "x", "hashes": {}},
            RecipeError,
            "no source distribution",
        ),
        ({"filename": "cut_adapt-4.9.tar.gz", "url": "x", "hashes": {}}, NetworkError, "did not answer as"),
        (
            {"filename": "cut_adapt-4.9.tar.gz", "url": "file:///etc/passwd", "hashes": {"sha256": "0" * 64}},
            NetworkError,
            "not on the web",
        ),
        ({"filename": 7}, NetworkError, "did not answer as"),
    ],
)
def test_a_wrong_or_hostile_index_is_refused(
    tmp_path: Path, place: Place, server: Server, file: dict[str, object], error: type[Exception], expected: str
) -> None:
    index(server, file)
    there = Place(work=place.work, cache=place.cache, pypi=address(server, "/simple"))
    with pytest.raises(error, match=expected):
        sources.pin(tmp_path, recipe('pypi = "cut-adapt"\nversion = "4.9"'), there)


def test_an_address_of_a_lock_that_nobody_knows_is_refused(tmp_path: Path, place: Place) -> None:
    hostile = Material("x", "gopher://example.org/x", Digest.of(b"x"))
    with pytest.raises(RecipeError, match="unknown kind of address"):
        sources.fetch([hostile], tmp_path, place)


def test_a_lock_cannot_reach_out_of_the_recipes_folder(tmp_path: Path, place: Place) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "recipe").mkdir()
    hostile = Material("x", "path:../secret", Digest.of(b"x"))
    with pytest.raises(RecipeError, match="outside"):
        sources.fetch([hostile], tmp_path / "recipe", place)


def test_an_archived_folder_is_laid_out_again_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "here/data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/program").write_text("#!/bin/sh")
    (folder / "sub/program").chmod(0o755)
    (folder / "link").symlink_to("sub/program")
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    sources._archive(folder, first)
    (tmp_path / "there").mkdir()
    sources.restore(first, tmp_path / "there")
    sources._archive(tmp_path / "there/data", second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("../x", tarfile.REGTYPE), ("data/link/x", tarfile.REGTYPE), ("d", b"3")])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(hostile, "w") as tar:
        for one, what in (("data", tarfile.DIRTYPE), ("data/link", tarfile.SYMTYPE), (name, kind)):
            member = tarfile.TarInfo(one)
            member.type, member.linkname = what, str(tmp_path) if what == tarfile.SYMTYPE else ""
            tar.addfile(member)
    (tmp_path / "into").mkdir()
    with pytest.raises(FormatError):
        sources.restore(hostile, tmp_path / "into")
    assert not (tmp_path / "x").exists()
