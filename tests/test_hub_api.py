"""The JSON API, asked over HTTP through the whole application."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from computeops.hub.app import create_app
from computeops.hub.commands import commands
from computeops.hub.listed import Listed
from computeops.hub.search import search
from computeops.image import oci
from shelf import CYCLONEDX, RECIPE, TEST, Shelf

FIELDS = {
    "reference",
    "collection",
    "name",
    "version",
    "verdict",
    "variant",
    "summary",
    "domains",
    "license",
    "arch",
    "size",
    "created",
    "image",
    "manifest",
}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with Shelf(tmp_path / "hub") as empty:
        yield empty


@pytest.fixture
def client(shelf: Shelf) -> Iterator[TestClient]:
    with TestClient(create_app(shelf.hub.data), base_url="http://hub.example.org") as client:
        yield client


def get(client: TestClient, path: str, status: int = 200, **options: Any) -> Any:
    answer = client.get(path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.json()


def test_a_search(shelf: Shelf, client: TestClient) -> None:
    digest = shelf.release("bio/samtools", "1.21", summary="Tools for reads", domains=["bioinformatics"])
    found = get(client, "/api/v1/search?q=sam")
    (one,) = found["releases"]
    assert found["next"] is None
    assert set(one) == FIELDS
    assert one["reference"] == "bio/samtools:1.21"
    assert one["manifest"] == digest
    assert one["domains"] == ["bioinformatics"]


def test_a_search_in_pages(shelf: Shelf, client: TestClient) -> None:
    for number in range(5):
        shelf.image(f"bio/tool{number}", "1")
    seen, after = [], ""
    while after is not None:
        page = get(client, "/api/v1/search", params={"q": "tool", "limit": "2", "after": after})
        seen += [one["name"] for one in page["releases"]]
        after = page["next"]
    assert seen == [f"tool{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=٣", "limit=-1", "after=x", "q=" + "x" * 257, "limit=" + "9" * 5000],
)
def test_a_wrong_question_gets_a_reason(client: TestClient, query: str) -> None:
    error = get(client, f"/api/v1/search?{query}", 400)["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == "usage"
    assert error["message"]


def test_one_release(shelf: Shelf, client: TestClient) -> None:
    digest = shelf.image("bio/samtools", "1.21")
    recipe = RECIPE.format(name="samtools", version="1.21", summary="S", license="MIT", domains="[]", more="")
    shelf.recipe("bio/samtools", digest, recipe, {"a.lock": b"{}", "build.sh": b"make\n", "picture.png": b"\x89PNG"})
    shelf.artifact("bio/samtools", digest, oci.SOURCES_ARTIFACT, {"samtools-1.21.tar.bz2": b"sources"})
    shelf.artifact("bio/samtools", digest, oci.SIF_ARTIFACT, {"samtools.sif": b"SIF!"})
    shelf.evidence("bio/samtools", digest, TEST, {"result": "PASSED"}, signers=["SHA256:k"])
    shelf.evidence("bio/samtools", digest, CYCLONEDX, {"components": [{}]})
    shelf.image("bio/samtools", "1.20")
    one = get(client, "/api/v1/releases/bio/samtools?version=1.21")
    assert one.keys() > FIELDS
    assert one["about"]["license"] == "MIT"
    assert one["versions"] == ["1.20", "1.21"]
    assert [other["reference"] for other in one["variants"]] == ["bio/samtools:1.21"]
    assert one["recipe"] == {"computeops.toml": recipe, "build.sh": "make\n", "a.lock": "{}"}
    assert [file["name"] for file in one["files"]] == ["computeops.toml", "build.sh", "picture.png", "a.lock"]
    assert [(file["name"], file["size"]) for file in one["sources"]] == [("samtools-1.21.tar.bz2", 7)]
    assert one["sif"]["size"] == 4
    by_kind = {item["kind"]: item for item in one["evidence"]}
    assert by_kind[TEST]["passed"] is True
    assert by_kind[TEST]["signers"] == ["SHA256:k"]
    assert by_kind[CYCLONEDX]["passed"] is None
    assert one["commands"]["computeops"] == "computeops run http://hub.example.org/bio/samtools:1.21"
    assert set(one["commands"]) == {"computeops", "apptainer", "podman", "docker"}


def test_without_a_version_the_newest(shelf: Shelf, client: TestClient) -> None:
    shelf.release("bio/samtools", "1.20")
    shelf.release("bio/samtools", "1.21")
    assert get(client, "/api/v1/releases/bio/samtools")["version"] == "1.21"


@pytest.mark.parametrize(
    "path", ["bio/none", "bio/samtools?version=9", "nothing", "bio/" + "x" * 300, "bio/samtools/1.21", "%00", "bio/%ff"]
)
def test_what_is_not_there(shelf: Shelf, client: TestClient, path: str) -> None:
    shelf.release("bio/samtools", "1.21")
    assert get(client, f"/api/v1/releases/{path}", 404)["error"]["code"] == "not_found"


def test_a_private_release_is_not_there_for_strangers(shelf: Shelf, client: TestClient) -> None:
    shelf.hub.database.set_public("secret", public=False)
    shelf.release("secret/samtools", "1.21")
    owner = {"Authorization": f"Bearer {shelf.token('pull:secret/*')}"}
    other = {"Authorization": f"Bearer {shelf.token('push:bio/*')}"}
    for headers in ({}, other):
        assert get(client, "/api/v1/search?q=samtools", headers=headers)["releases"] == []
        hidden = get(client, "/api/v1/releases/secret/samtools", 404, headers=headers)
        missing = get(client, "/api/v1/releases/secret/nonetool", 404, headers=headers)
        assert json.dumps(hidden) == json.dumps(missing).replace("nonetool", "samtools")
    assert get(client, "/api/v1/search?q=samtools", headers=owner)["releases"][0]["name"] == "samtools"
    assert get(client, "/api/v1/releases/secret/samtools", headers=owner)["version"] == "1.21"


def test_a_wrong_token_is_an_error_and_not_anyone(client: TestClient) -> None:
    error = get(client, "/api/v1/search", 401, headers={"Authorization": "Bearer wrong"})["error"]
    assert error["code"] == "login"


def test_an_unchanged_answer_is_not_sent_again(shelf: Shelf, client: TestClient) -> None:
    shelf.release("bio/samtools", "1.21")
    for path in ("/api/v1/search?q=sam", "/api/v1/releases/bio/samtools", "/api/v1/openapi.json"):
        tag = client.get(path).headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    tag = client.get("/api/v1/search?q=sam").headers["etag"]
    shelf.release("bio/samtools", "1.22")
    assert client.get("/api/v1/search?q=sam", headers={"If-None-Match": tag}).status_code == 200


def test_answers_are_not_kept_for_others(client: TestClient) -> None:
    headers = client.get("/api/v1/search").headers
    assert "private" in headers["cache-control"]
    assert "Authorization" in headers["vary"]


def test_the_openapi_document_describes_what_is_answered(shelf: Shelf, client: TestClient) -> None:
    shelf.release("bio/samtools", "1.21")
    document = get(client, "/api/v1/openapi.json")
    schemas = document["components"]["schemas"]
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in schemas
    assert set(get(client, "/api/v1/search")) == set(schemas["Found"]["properties"])
    assert set(get(client, "/api/v1/releases/bio/samtools")) == set(schemas["Release"]["properties"])
    assert set(schemas["Entry"]["properties"]) == FIELDS
    described = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    for path, operation in described:
        names = {one["name"] for one in operation["parameters"]}
        assert set(re.findall(r"{(\w+)}", path)) <= names


# Commands


@pytest.fixture
def listed(shelf: Shelf) -> Listed:
    from computeops.hub.auth import ANYONE

    shelf.release("bio/samtools", "1.21")
    return search(shelf.hub.database, ANYONE).entries[0]


def test_commands_for_a_hub_with_and_without_tls(listed: Listed) -> None:
    secure = commands("https://csan.example.org", listed, has_sif=True)
    plain = commands("http://127.0.0.1:8080", listed, has_sif=True)
    assert secure["computeops"].get == "computeops pull csan.example.org/bio/samtools:1.21"
    assert secure["apptainer"].get == "apptainer pull library://csan.example.org/bio/samtools:1.21"
    assert secure["podman"].run == "podman run --rm -it csan.example.org/bio/samtools:1.21"
    assert plain["computeops"].get == "computeops pull http://127.0.0.1:8080/bio/samtools:1.21"
    assert plain["apptainer"].get == "apptainer pull --no-https library://127.0.0.1:8080/bio/samtools:1.21"
    assert plain["podman"].get == "podman pull --tls-verify=false 127.0.0.1:8080/bio/samtools:1.21"
    assert not plain["docker"].note
    assert "insecure-registries" in commands("http://hub:8080", listed, has_sif=True)["docker"].note


def test_no_apptainer_command_without_a_sif(listed: Listed) -> None:
    assert "apptainer" not in commands("https://csan.example.org", listed, has_sif=False)


@pytest.mark.parametrize("host", ["x; rm -rf ~", "$(x)", "`x`", "a b", "<script>", 'x"y', "", "a/b c"])
def test_a_host_header_never_becomes_a_command(shelf: Shelf, client: TestClient, host: str) -> None:
    shelf.release("bio/samtools", "1.21")
    answer = client.get("/api/v1/releases/bio/samtools", headers={"Host": host})
    assert answer.status_code == 400
    assert "commands" not in answer.json()


def test_a_search_by_facts(shelf: Shelf, client: TestClient) -> None:
    shelf.release("bio/samtools", "1.21", license="MIT")
    shelf.release("bio/bwa", "0.7", license="GPL-3.0-only")
    found = get(client, "/api/v1/search?license=MIT&arch=amd64&q=")
    assert [one["reference"] for one in found["releases"]] == ["bio/samtools:1.21"]
    assert get(client, "/api/v1/search?verified=test")["releases"] == []
    get(client, "/api/v1/search?license=" + "x" * 300, 400)
