"""The portal: pages over HTTP through the whole application, and in a real browser."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from computeops.hub import present
from computeops.hub.app import create_app
from computeops.hub.highlight import highlight
from computeops.hub.portal import error_page
from computeops.image import oci
from furnished import furnish
from shelf import RECIPE, TEST, Shelf, until

SCRIPT = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
CSS = Path(error_page.__code__.co_filename).parent / "static/portal.css"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "hub")


@pytest.fixture
def client(shelf: Shelf) -> Iterator[TestClient]:
    with TestClient(create_app(shelf.hub.data), base_url="https://hub.example.org") as client:
        yield client


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return furnish(tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture(scope="module")
def visitor(furnished: Shelf) -> Iterator[TestClient]:
    with TestClient(create_app(furnished.hub.data, base="https://csan.example.org")) as client:
        yield client


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skipped = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def signed(client: TestClient, **fields: str) -> dict[str, str]:
    """Return a form as our own page would send it."""
    found = [one["value"] for one in Page(client.get("/auth/tokens").text).all("input") if one.get("name") == "form"]
    return {"form": str(found[0]), **fields}


def page(client: TestClient, path: str, status: int = 200, **options: Any) -> Page:
    answer = client.get(path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


PAGES = [
    "/",
    "/?q=samtools",
    "/?q=none",
    "/genomics/samtools",
    "/genomics/samtools/1.21",
    "/genomics/samtools/1.21-v3",
    "/auth/tokens",
    "/no/thing",
    "/imaging/fiji/2.16.0",
]


# What pages say


def test_the_list_has_the_newest_first_with_what_matters(visitor: TestClient) -> None:
    seen = page(visitor, "/")
    text = " ".join(seen.text.split())
    assert text.index("samtools 1.21") < text.index("casa 6.6.5") < text.index("root 6.32.10")
    for word in (
        "Tools for manipulating",
        "bioinformatics",
        "amd64",
        "arm64",
        "1 variant",
        "MIT",
        "Tests passed",
        "Tests failed",
        "SBOM",
        "Provenance",
    ):
        assert word in text
    assert "unpublished" not in text


def test_a_search_shows_what_it_found_and_what_was_asked(visitor: TestClient) -> None:
    seen = page(visitor, "/", params={"q": "molecular dyn"})
    assert "gromacs" in seen.text
    assert "samtools" not in seen.text.replace("samtools, climate", "")
    assert {"molecular dyn"} == {one.get("value") for one in seen.all("input")}
    assert "Nothing has all of these words" in page(visitor, "/?q=nonesuch").text


def test_the_list_in_pages(shelf: Shelf, client: TestClient) -> None:
    for number in range(30):
        shelf.image(f"bio/tool{number:02}", "1", size=10)
    seen, path = [], "/?q=tool"
    while path:
        one = page(client, path)
        seen += re.findall(r"tool\d\d", one.text)
        path = next((str(a["href"]) for a in one.all("a") if a.get("rel") == "next"), "")
    assert seen == [f"tool{number:02}" for number in reversed(range(30))]


def test_an_empty_hub_says_how_to_fill_it(client: TestClient) -> None:
    assert "computeops push" in page(client, "/").text


def test_a_release_with_all_that_is_known_of_it(visitor: TestClient) -> None:
    seen = page(visitor, "/genomics/samtools/1.21")
    for word in (
        "Tools for manipulating next-generation sequencing data",
        "computeops run csan.example.org/genomics/samtools:1.21",
        "apptainer pull library://csan.example.org/genomics/samtools:1.21",
        "podman run --rm -it csan.example.org/genomics/samtools:1.21",
        "docker pull csan.example.org/genomics/samtools:1.21",
        'cpu = "x86_64_v3"',
        "./configure --prefix=/usr",
        "92 packages",
        "2 findings",
        "by computeops.example.org/builder/debian",
        "samtools-1.21.tar.bz2",
        "Ada Lovelace",
        "1.21-v3",
        "arm64",
    ):
        assert word in seen.text
    links = [a.get("href") for a in seen.all("a")]
    assert "https://doi.org/10.1093/gigascience/giab008" in links
    assert "https://www.htslib.org" in links
    assert "https://orcid.org/0000-0002-1825-0097" in links


def test_another_architecture_has_its_own_commands_and_digests(visitor: TestClient) -> None:
    seen = page(visitor, "/genomics/samtools/1.21?arch=arm64")
    assert "podman pull --platform linux/arm64 csan" in seen.text
    assert "apptainer pull --arch arm64 library" in seen.text


def test_a_reference_as_people_paste_it_leads_to_its_page(visitor: TestClient) -> None:
    answer = visitor.get("/genomics/samtools:1.21", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "/genomics/samtools/1.21")
    answer = visitor.get("//evil.example.org/x:1", follow_redirects=False)
    assert not answer.headers.get("location", "").startswith("//")


def test_all_versions(visitor: TestClient) -> None:
    seen = page(visitor, "/genomics/samtools")
    assert re.findall(r"1\.2[01](?=\n)", seen.text)[:2] == ["1.21", "1.20"]
    assert "Get the newest, 1.21" in seen.text


def test_every_link_to_the_hub_leads_somewhere(visitor: TestClient) -> None:
    wanted = {"/"}
    for path in PAGES:
        for a in Page(visitor.get(path).text).all("a") + Page(visitor.get(path).text).all("link"):
            target = str(a.get("href"))
            if target.startswith("/"):
                wanted.add(target)
    assert len(wanted) > 30
    for target in wanted:
        assert visitor.get(target).status_code == 200, target


def test_what_is_downloaded_is_what_was_pushed(shelf: Shelf, client: TestClient) -> None:
    digest = shelf.release("bio/tool", "1")
    shelf.artifact("bio/tool", digest, oci.SOURCES_ARTIFACT, {"page.html": b"<script>alert(1)</script>"})
    (target,) = {str(a["href"]) for a in page(client, "/bio/tool/1").all("a") if a.get("download") == "page.html"}
    answer = client.get(target)
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get(target, headers={"Range": "bytes=1-6"}).content == b"script"


def test_a_broken_recipe_is_shown_with_what_is_wrong(shelf: Shelf, client: TestClient) -> None:
    shelf.recipe("bio/tool", shelf.image("bio/tool", "1"), "[package]\nname = 3\n")
    seen = page(client, "/bio/tool/1")
    assert "This recipe is broken" in seen.text
    assert "computeops.toml:2: package.name = 3" in seen.text
    assert "name = 3" in seen.text


def test_a_page_that_is_not_there(client: TestClient) -> None:
    for path in (
        "/nothing",
        "/a/b",
        "/a/b/c",
        "/-/none.css",
        "/-/../secret",
        "/%00/x",
        "/a/b:c",
        "/favicon.ico",
        "/x" * 500,
    ):
        assert "Not found" in page(client, path, 404).text


# Strangers


def test_a_private_release_is_not_there_for_strangers(shelf: Shelf, client: TestClient) -> None:
    shelf.hub.database.set_public("secret", public=False)
    digest = shelf.release("secret/samtools", "1.21", summary="Hidden")
    blob = shelf.blob("secret/samtools", b"hidden")["digest"]
    owner = {"Authorization": f"Bearer {shelf.token('pull:secret/samtools')}"}
    for path in ("/secret/samtools", "/secret/samtools/1.21", f"/-/files/{blob}/secret/samtools"):
        hidden = client.get(path)
        missing = client.get(path.replace("samtools", "nonesuch"))
        assert hidden.status_code == missing.status_code == 404
        assert hidden.text == missing.text.replace("nonesuch", "samtools")
        assert client.get(path, headers=owner).status_code == 200
    for path in ("/", "/?q=samtools"):
        assert "Hidden" not in page(client, path).text
        assert "Hidden" in page(client, path, headers=owner).text
    assert digest in client.get("/secret/samtools/1.21", headers=owner).text


def test_a_blob_of_another_repository_is_not_served(shelf: Shelf, client: TestClient) -> None:
    shelf.hub.database.set_public("secret", public=False)
    blob = shelf.blob("secret/tool", b"hidden")["digest"]
    shelf.image("bio/tool", "1")
    assert client.get(f"/-/files/{blob}/bio/tool").status_code == 404


def test_signing_in_shows_what_is_private_until_signing_out(shelf: Shelf, client: TestClient) -> None:
    shelf.hub.database.set_public("secret", public=False)
    shelf.release("secret/samtools", "1.21", summary="Hidden")
    token = shelf.token("pull:secret/*")
    answer = client.post("/auth/login", data=signed(client, token=f" {token}\n"), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert token not in answer.headers["set-cookie"]
    assert all(word in cookie for word in ("__host-", "httponly", "samesite=lax", "secure", "path=/"))
    assert "Hidden" in page(client, "/").text
    assert "Private" in page(client, "/secret/samtools/1.21").text
    assert client.post("/auth/logout").status_code == 403
    assert "Hidden" in page(client, "/").text
    client.post("/auth/logout", data=signed(client))
    assert "Hidden" not in page(client, "/").text


@pytest.mark.parametrize("token", ["", "wrong", "copss.0.9999999999.x", "x" * 900])
def test_a_wrong_token_does_not_sign_in(client: TestClient, token: str) -> None:
    answer = client.post("/auth/login", data=signed(client, token=token), follow_redirects=False)
    assert answer.status_code == 401
    assert "Who are you?" in Page(answer.text).text
    assert "set-cookie" not in answer.headers


def test_a_cookie_that_is_not_ours_is_nobody(client: TestClient) -> None:
    for cookie in ("x", "copss.1.9999999999.0", "copss.", "cops_x", "é"):
        assert client.get("/", headers={"Cookie": f"computeops_session={cookie}".encode()}).status_code == 200


# Hostile content


def hostile(shelf: Shelf, text: str) -> None:
    """A release that has `text` wherever its author may write."""
    toml = text.replace("\\", "\\\\").replace('"', '\\"')
    more = f'[[maintainers]]\nname = "{toml}"\n[[tests]]\nname = "{toml}"\nrun = "{toml}"'
    recipe = RECIPE.format(name="tool", version="1", summary=toml, license="MIT", domains="[]", more=more)
    recipe = recipe.replace(
        'license = "MIT"',
        'license = "MIT"\nhomepage = "https://x/\'><script>document.title=1</script>"\ncitation = "10.1234/\'><script>"',
    )
    annotated = {"org.opencontainers.image.description": text, "org.opencontainers.image.licenses": text}
    digest = shelf.image("bio/tool", "1", arch=text, labels=annotated)
    shelf.recipe(
        "bio/tool",
        digest,
        recipe,
        {f"{text}.sh": text.encode(), "build.sh": f'#!/bin/sh\n# {text}\necho "{text}"'.encode()},
    )
    shelf.artifact("bio/tool", digest, oci.SOURCES_ARTIFACT, {text: b"x"})
    shelf.evidence("bio/tool", digest, text, {}, signers=[text])
    shelf.evidence("bio/tool", digest, f"https://{text}/", {}, signers=[text] * 70)
    shelf.evidence("bio/tool", digest, "https://slsa.dev/provenance/v1", {"runDetails": {"builder": {"id": text}}})
    shelf.evidence("bio/tool", digest, TEST, {"result": text})
    shelf.image("bio/plain", "1", labels=annotated)
    shelf.recipe("bio/broken", shelf.image("bio/broken", "1"), f"[package]\nname = '''{text}'''\n{toml} = 1")


HOSTILE = [
    SCRIPT,
    "\"'><svg onload=alert(1)>",
    "{{ 7777*7777 }}{% raw %}",
    "javascript:alert(1)//",
    "\u202eRTL override\u202d \u2066isolate",
    "\u0627" * 300 + " \u05e2\u05d1\u05e8\u05d9\u05ea",
    "x" * 60_000,
    "á̷̧" * 500,
    "🧬" * 2000,
    "</code></pre></details><h1>fake</h1>",
    "&lt;script&gt;",
    "]]></textarea></title><base href=//evil.example.org>",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_becomes_markup(shelf: Shelf, client: TestClient, text: str) -> None:
    hostile(shelf, text)
    for path in ("/", "/bio/tool", "/bio/tool/1", "/bio/broken/1", "/bio/plain/1", "/?q=tool"):
        seen = page(client, path)
        names = {name for name, _ in seen.elements}
        assert names.isdisjoint({"script", "base", "iframe", "object", "textarea", "style"}), path
        assert not [a for _, attributes in seen.elements for a in attributes if a.startswith("on") or a == "style"]
        assert len(seen.all("h1")) == 1
        assert all(str(a.get("href")).startswith(("/", "#", "https://")) for a in seen.all("a"))
        assert all(str(one.get("src")).startswith("/-/") for one in seen.all("img"))
        assert "60481729" not in seen.text
        assert len(seen.text) < 1_000_000


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_no_search_becomes_markup(client: TestClient, text: str) -> None:
    seen = page(client, "/", params={"q": text})
    assert "script" not in {name for name, _ in seen.elements}
    assert seen.all("input")[0]["value"] == text.strip()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["computeops.toml", "build.sh"]))
def test_highlighting_keeps_every_character_and_adds_only_spans(text: str, name: str) -> None:
    text = text.replace("\r", "").replace("\x00", "")
    seen = Page(str(highlight(text, name)))
    assert seen.text.rstrip("\n") == text.rstrip("\n")
    assert {tag for tag, _ in seen.elements} <= {"span"}


@pytest.mark.parametrize(
    "text",
    [
        '"' * 100_000,
        "'''" * 50_000,
        "[" * 100_000,
        "\\" * 100_000 + '"',
        '"\\' * 100_000,
        " " * 200_000 + "#",
        "a" * 200_000,
        "1." * 100_000,
        "\n" * 50_000,
    ],
)
@pytest.mark.parametrize("name", ["computeops.toml", "build.sh"])
def test_highlighting_takes_time_in_proportion(text: str, name: str) -> None:
    code = f"from computeops.hub.highlight import highlight; import sys; highlight(sys.stdin.read(), {name!r})"
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=20)


# What browsers need


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_locked_down_and_can_be_used_by_everybody(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "script-src" not in policy
    assert "unsafe" not in str(policy)
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    seen = Page(answer.text)
    assert seen.all("html")[0]["lang"] == "en"
    assert [len(seen.all(landmark)) for landmark in ("main", "h1", "title")] == [1, 1, 1]
    assert {"header", "footer", "nav"} <= {name for name, _ in seen.elements}
    labelled = {one.get("for") for one in seen.all("label")}
    assert all(one.get("id") in labelled for one in seen.all("input") if one.get("type") != "hidden")
    assert all("alt" in one for one in seen.all("img"))
    assert all(one.get("scope") in {"col", "row"} for one in seen.all("th"))
    identities = [str(attributes["id"]) for _, attributes in seen.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert all(one in identities for _, a in seen.elements if "aria-labelledby" in a for one in [a["aria-labelledby"]])
    external = [one for tag in ("link", "img", "form") for one in seen.all(tag)]
    assert all(str(one.get("href") or one.get("src") or one.get("action")).startswith("/") for one in external)


def test_the_style_sheet_asks_for_nothing_else(visitor: TestClient) -> None:
    answer = visitor.get("/-/portal.css")
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert "url(" not in answer.text
    assert "@import" not in answer.text
    assert visitor.get("/-/portal.css", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast(mode: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[mode]))
    pairs = [
        (text, surface) for text in ("text", "muted", "accent") for surface in ("page", "surface", "raised", "code")
    ]
    pairs += [
        ("on-accent", "accent"),
        ("on-accent", "accent-strong"),
        ("accent-strong", "accent-soft"),
        ("good", "good-soft"),
    ]
    pairs += [
        ("bad", "bad-soft"),
        ("text", "bad-soft"),
        ("good", "page"),
        ("bad", "page"),
        ("warm", "page"),
        ("muted", "accent-soft"),
    ]
    pairs += [(f"code-{kind}", "code") for kind in ("comment", "key", "string", "table", "value")]
    for text, surface in pairs:
        dark, bright = sorted((luminance(colours[text]), luminance(colours[surface])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, surface)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (41_500_000, "41.5 MB"),
        (999_999_999, "1000 MB"),
        (2**53, "9.0 PB"),
        (10**20, "100000 PB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert present.size(count) == text


# A real browser


@pytest.fixture
def address(shelf: Shelf) -> Iterator[str]:
    """Where the hub of `shelf` is served."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(shelf.hub.data), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    assert until(10, lambda: server.started)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


def browse(address: str, *options: str) -> str:
    """Return the document that a browser has made of the page, after its scripts, if there were any."""
    with tempfile.TemporaryDirectory() as profile:
        argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        argv += ["--virtual-time-budget=2000", "--no-first-run", *options, "--dump-dom", address]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.browser
def test_this_browser_would_run_a_script(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><title>good</title>{SCRIPT}")
    assert "<title>pwned</title>" in browse(f"file://{tmp_path}/page.html")


@pytest.mark.browser
def test_nothing_of_an_author_runs_in_a_browser(shelf: Shelf, address: str) -> None:
    hostile(shelf, SCRIPT)
    for path in ("/", "/bio/tool/1", "/bio/broken/1"):
        seen = browse(address + path)
        assert "ComputeOps</title>" in seen
        assert "<title>pwned</title>" not in seen


class Phone:
    """A narrow browser, driven by the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

    def __init__(self, port: int) -> None:
        self._session = f"http://127.0.0.1:{port}/session"
        metrics = {"mobileEmulation": {"deviceMetrics": {"width": 360, "height": 740, "pixelRatio": 1}}}
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments, **metrics}}}
        self._session += "/" + self._ask("", {"capabilities": wanted})["sessionId"]

    def _ask(self, path: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._session + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def visit(self, address: str) -> None:
        self._ask("/url", {"url": address})

    def ask(self, expression: str) -> Any:
        """Return what a JavaScript expression is in the page."""
        return self._ask("/execute/sync", {"script": f"return {expression}", "args": []})

    def close(self) -> None:
        self._ask("", None, "DELETE")


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def phone() -> Iterator[Phone]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(20, lambda: answers(port))
        phone = Phone(port)
        yield phone
        phone.close()
    finally:
        driver.terminate()
        driver.wait()


@pytest.mark.browser
def test_a_phone_never_scrolls_pages_sideways(shelf: Shelf, address: str, phone: Phone) -> None:
    hostile(shelf, "x" * 5000)
    for path in ("/", "/bio/tool", "/bio/tool/1", "/bio/broken/1", "/auth/tokens", "/no/thing"):
        phone.visit(address + path)
        assert phone.ask("getComputedStyle(document.querySelector('main')).flexGrow") == "1", "the style sheet is there"
        assert phone.ask("document.documentElement.scrollWidth") <= 360, path


@pytest.mark.browser
def test_the_whole_way_by_keyboard_and_without_a_mouse(shelf: Shelf, address: str, phone: Phone) -> None:
    shelf.release("bio/tool", "1", summary="A tool")
    phone.visit(address + "/bio/tool/1")
    unreachable = "[...document.querySelectorAll('.scroll, .code, .lines')].filter(one => one.tabIndex != 0).length"
    assert phone.ask(unreachable) == 0
    phone.ask("document.querySelector('.skip').focus()")
    assert phone.ask("document.activeElement.getBoundingClientRect().top") >= 0, "the link to the content shows itself"
