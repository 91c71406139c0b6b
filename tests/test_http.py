"""The HTTP client against real servers on this machine, most of them broken on purpose."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeops import http
from computeops.errors import (
    ConflictError,
    DeniedError,
    FormatError,
    LimitError,
    LoginError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from computeops.http import Session
from computeops.http.addresses import shown
from computeops.http.download import download
from computeops.model import Digest
from servers import Asked, free_port, serving

CONTENT = bytes(range(256)) * 16384  # 4 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def soon() -> Iterator[Session]:
    """A session that tries again at once."""
    with Session(pause=0.001) as session:
        yield session


def rest(asked: Asked, content: bytes = CONTENT) -> tuple[int, int]:
    """The status and the first byte that a `Range` header asks for."""
    asked_range = asked.headers.get("range", "")
    return (206, int(asked_range.removeprefix("bytes=").rstrip("-"))) if asked_range else (200, 0)


def head(first: int, content: bytes = CONTENT) -> dict[str, str]:
    known = {"Content-Length": str(len(content) - first), "ETag": '"one"'}
    return known | ({"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {})


def test_a_download_appears_whole_with_its_digest(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving(lambda asked: asked.answer(200, CONTENT)) as server:
        digest = download(
            f"{server.url}/x",
            tmp_path / "deeper/x",
            sha256=SHA256.upper(),
            limit_bytes=len(CONTENT),
            progress=lambda done, total: seen.append((done, total)),
        )
    assert str(digest) == f"sha256:{SHA256}"
    assert (tmp_path / "deeper/x").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["x"]


def test_a_digest_of_another_kind_is_computed(tmp_path: Path, soon: Session) -> None:
    expected = Digest.of(CONTENT, "sha512")
    with serving(lambda asked: asked.answer(200, CONTENT)) as server:
        assert download(f"{server.url}/x", tmp_path / "x", session=soon, digest=expected, limit_bytes=2**30) == expected


def test_a_wrong_digest_leaves_nothing(tmp_path: Path, soon: Session) -> None:
    (tmp_path / "x").write_bytes(b"what was here before")
    with serving(lambda asked: asked.answer(200, CONTENT[:-1])) as server, pytest.raises(FormatError):
        download(f"{server.url}/x", tmp_path / "x", session=soon, sha256=SHA256, limit_bytes=2**30)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"what was here before"}


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path, soon: Session) -> None:
    sent = 0

    def cutting(asked: Asked) -> None:
        nonlocal sent
        status, first = rest(asked)
        asked.start(status, head(first))
        part = CONTENT[first : first + 1_500_000]
        asked.send(part)
        sent += len(part)
        if first + len(part) < len(CONTENT):
            asked.cut()

    with serving(cutting) as server:
        download(f"{server.url}/x", tmp_path / "x", session=soon, sha256=SHA256, limit_bytes=2**30)
        assert all(one.headers["if-range"] == '"one"' for one in server.asked[1:])
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert sent < 1.5 * len(CONTENT)


def test_a_link_that_breaks_often_is_good_enough_while_it_brings_more(tmp_path: Path, soon: Session) -> None:
    content = CONTENT * 5  # 20 MiB in pieces of 2 MiB: ten breaks

    def cutting(asked: Asked) -> None:
        status, first = rest(asked)
        asked.start(status, head(first, content))
        asked.send(content[first : first + 2 * 1024 * 1024])
        asked.cut()

    with serving(cutting) as server:
        download(f"{server.url}/x", tmp_path / "x", session=soon, limit_bytes=2**30)
        assert len(server.asked) > 5
    assert (tmp_path / "x").read_bytes() == content


def test_a_file_that_changes_in_between_is_fetched_again(tmp_path: Path, soon: Session) -> None:
    new = CONTENT[::-1]

    def changing(asked: Asked) -> None:
        if "range" not in asked.headers:
            asked.start(200, head(0))
            asked.send(CONTENT[:2_000_000])
            asked.cut()
        else:
            asked.answer(200, new, {"ETag": '"two"'})

    with serving(changing) as server:
        download(f"{server.url}/x", tmp_path / "x", session=soon, limit_bytes=2**30)
    assert (tmp_path / "x").read_bytes() == new


def test_a_wrong_range_is_never_put_into_the_file(tmp_path: Path, soon: Session) -> None:
    def lying(asked: Asked) -> None:
        status, first = rest(asked)
        asked.start(status, head(0) | {"Content-Range": "bytes 7-99/100"} if first else head(0))
        asked.send(CONTENT[:2_000_000])
        asked.cut()

    with serving(lying) as server, pytest.raises(NetworkError):
        download(f"{server.url}/x", tmp_path / "x", session=soon, limit_bytes=2**30)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_answers_416_to_the_rest_is_asked_for_all_again(tmp_path: Path, soon: Session) -> None:
    def odd(asked: Asked) -> None:
        if "range" in asked.headers:
            asked.answer(416)
        elif len([one for one in server.asked if "range" not in one.headers]) == 1:
            asked.start(200, head(0))
            asked.send(CONTENT[:2_000_000])
            asked.cut()
        else:
            asked.answer(200, CONTENT)

    with serving(odd) as server:
        download(f"{server.url}/x", tmp_path / "x", session=soon, sha256=SHA256, limit_bytes=2**30)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_that_never_sends_more_is_given_up(tmp_path: Path, soon: Session) -> None:
    def cutting(asked: Asked) -> None:
        asked.start(200, {"Content-Length": str(len(CONTENT))})
        asked.send(CONTENT[:10])
        asked.cut()

    with serving(cutting) as server, pytest.raises(NetworkError):
        download(f"{server.url}/x", tmp_path / "x", session=soon, limit_bytes=2**30)
    assert len(server.asked) < 10
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_validator_that_always_breaks_is_given_up(tmp_path: Path, soon: Session) -> None:
    """Each attempt brings more than a MiB, but never more than the one before."""

    def cutting(asked: Asked) -> None:
        asked.start(200, {"Content-Length": str(len(CONTENT))})
        asked.send(CONTENT[:3_000_000])
        asked.cut()

    with serving(cutting) as server, pytest.raises(NetworkError):
        download(f"{server.url}/x", tmp_path / "x", session=soon, limit_bytes=2**30)
    assert len(server.asked) < 10


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_the_limit_is_refused(tmp_path: Path, declared: bool) -> None:
    def huge(asked: Asked) -> None:
        asked.start(200, {"Content-Length": str(2**40)} if declared else {"Transfer-Encoding": "chunked"})
        while not declared:
            asked.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    with serving(huge) as server:
        with pytest.raises(LimitError):
            download(f"{server.url}/x", tmp_path / "x", limit_bytes=1000)
        with Session() as session, pytest.raises(LimitError):
            session.request("GET", server.url, limit_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_login_that_ends_in_the_middle_is_renewed(tmp_path: Path, soon: Session) -> None:
    def guarded(asked: Asked) -> None:
        status, first = rest(asked)
        if asked.headers.get("authorization") != ("Bearer new" if first else "Bearer old"):
            asked.answer(401)
            return
        asked.start(status, head(first))
        asked.send(CONTENT[first : first + 3_000_000])
        asked.cut()

    with serving(guarded) as server:
        download(
            f"{server.url}/x",
            tmp_path / "x",
            sha256=SHA256,
            limit_bytes=2**30,
            session=soon,
            headers={"Authorization": "Bearer old"},
            login=lambda answer: {"Authorization": "Bearer new"},
        )
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_secrets_stay_with_the_origin_they_are_for() -> None:
    secret = {"Authorization": "Bearer secret", "Cookie": "a=b", "X-Other": "kept"}
    with serving(lambda asked: asked.answer(200, b"{}")) as there:

        def redirect(asked: Asked) -> None:
            target = f"{there.url}/y" if asked.path == "/x" else "/x"
            asked.answer(307, headers={"Location": target})

        with serving(redirect) as here, Session() as session:
            answer = session.request("GET", f"{here.url}/start", headers=secret)
            assert here.asked[1].headers["authorization"] == "Bearer secret"
    assert answer.url == f"{there.url}/y"
    assert "authorization" not in there.asked[0].headers
    assert "cookie" not in there.asked[0].headers
    assert there.asked[0].headers["x-other"] == "kept"


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/y", "http://[::1", "http://h:99999999/", "//[x/", ""]
)
def test_a_redirect_to_what_is_no_web_address_is_one_of_our_errors(target: str) -> None:
    with (
        serving(lambda asked: asked.answer(302, headers={"Location": target})) as server,
        Session() as session,
        pytest.raises(NetworkError),
    ):
        session.request("GET", f"{server.url}/x")


def test_redirects_end() -> None:
    with (
        serving(lambda asked: asked.answer(302, headers={"Location": asked.path + "x"})) as server,
        Session() as session,
        pytest.raises(NetworkError, match="more than 10 redirects"),
    ):
        session.request("GET", f"{server.url}/x")
    assert len(server.asked) == 10


def test_a_put_is_never_redirected_nor_sent_twice() -> None:
    def elsewhere(asked: Asked) -> None:
        asked.body()
        asked.answer(307, headers={"Location": "/y"})

    with serving(elsewhere) as server, Session() as session:
        assert session.request("PUT", f"{server.url}/x", body=b"abc").status == 307
    assert server.paths("PUT") == ["/x"]


def test_overload_is_waited_out(soon: Session) -> None:
    def busy(asked: Asked) -> None:
        asked.answer(503 if len(server.asked) < 3 else 200, b"{}")

    with serving(busy) as server:
        assert soon.request("GET", server.url).expect(200).json() == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, LoginError),
        (403, DeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, LimitError),
        (500, NetworkError),
    ],
)
def test_each_refusal_is_its_own_error_with_the_servers_words(
    status: int, kind: type[Exception], soon: Session
) -> None:
    body = b'{"errors":[{"code":"X","message":"what the \\u001b[31mserver says"}]}'
    with serving(lambda asked: asked.answer(status, body)) as server, pytest.raises(kind) as caught:
        soon.request("GET", f"{server.url}/x?token=secret").expect(200)
    assert "what the [31mserver says" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 200_000])
def test_what_is_no_json_is_one_of_our_errors(body: bytes) -> None:
    with serving(lambda asked: asked.answer(200, body)) as server, pytest.raises(NetworkError):
        http.get_json(server.url)


def test_nobody_there_is_one_of_our_errors() -> None:
    with Session(pause=0.001) as session, pytest.raises(NetworkError, match="no answer from"):
        session.request("GET", f"http://127.0.0.1:{free_port()}/x")


@pytest.mark.parametrize("url", ["gopher://x/", "http://[", "x", "http://a b/"])
def test_what_is_no_address_is_one_of_our_errors(url: str) -> None:
    with Session(pause=0.001) as session, pytest.raises((UsageError, NetworkError)):
        session.request("GET", url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 10_000_000,
    ],
)
def test_what_is_no_http_is_one_of_our_errors(answer: bytes) -> None:
    import threading

    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(answer)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    try:
        with Session(seconds=5, pause=0.001) as session, pytest.raises(NetworkError):
            session.request("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/")
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, Session(seconds=0.1, pause=0.001) as session:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(NetworkError):
            session.request("GET", url)


def test_files_are_copied_only_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(CONTENT)
    url = (tmp_path / "a b").as_uri()
    with pytest.raises(UsageError):
        download(url, tmp_path / "x", limit_bytes=2**30)
    download(url, tmp_path / "x", limit_bytes=2**30, sha256=SHA256, files=True)
    with pytest.raises(LimitError):
        download(url, tmp_path / "y", limit_bytes=1000, files=True)
    assert not (tmp_path / "y").exists()


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    assert shown("https://user:password@host:8/x?token=1#2") == "https://host:8/x"
