"""The JSON API against its own OpenAPI document: every route is in it, and Schemathesis finds nothing that is not so."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.routing import Route

from computeops.hub.api import openapi
from computeops.hub.app import create_app, routes
from computeops.hub.settings import Settings
from computeops.image import oci
from shelf import TEST, Shelf

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
positive_data_acceptance = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance


def test_every_route_is_described(tmp_path: Path) -> None:
    paths = openapi()["paths"]
    served = set()
    for route in routes(Shelf(tmp_path / "hub").hub):
        assert isinstance(route, Route)
        ours = ("/api/v1/openapi.json", "/api/v1/work/")  # what a worker and its hub say is between them
        if route.path.startswith("/api/v1/") and not route.path.startswith(ours):
            path = route.path.replace(":path}", "}").replace(":int}", "}")
            served |= {(path, method.lower()) for method in route.methods or ()} - {(path, "head")}
    described = {(path, method) for path, methods in paths.items() for method in methods}
    assert described == served


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    filled = Shelf(tmp_path_factory.mktemp("hub") / "hub")
    digest = filled.release("bio/samtools", "1.21", summary="Reads", domains=["bioinformatics"])
    filled.artifact("bio/samtools", digest, oci.SIF_ARTIFACT, {"samtools.sif": b"SIF!"})
    filled.evidence("bio/samtools", digest, TEST, {"result": "PASSED"})
    return filled


OPERATIONS = sorted(f"{method.upper()} {path}" for path, methods in openapi()["paths"].items() for method in methods)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_schemathesis_sends(operation: str, shelf: Shelf) -> None:
    """Whatever it makes of the document, an answer is as the document says, and none is a fault of the hub."""
    app = create_app(shelf.hub.data, settings=Settings(requests_per_second=0))
    method, _, path = operation.partition(" ")
    api = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)[path][method]
    headers = {"Authorization": f"Bearer {shelf.token('pull:*', 'push:*', 'delete:*')}"}

    @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=api.as_strategy())
    def asked(case: Any) -> None:
        # a document tells the shape of what is sent, not every rule: what has the shape may still be refused
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    asked()
