"""Mirrors: hub to hub and docker-registry to hub, by the verb as an operator types it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from computeops.errors import UsageError
from computeops.hub.auth import ANYONE
from computeops.hub.details import details, repository
from computeops.hub.mirror import Wanted
from computeops.hub.search import search
from computeops.hub.state import Hub
from computeops.hub.tables import releases
from computeops.image import oci
from computeops.model import Digest
from computeops.store.oci import Registry
from computeops.store.upload import push_blob
from conftest import RunningHub
from servers import Asked, docker_registry, serving
from shelf import TEST, Shelf


def argv(source: str, data: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "computeops", "hub", "mirror", source, "--data", str(data), "--json", *options]


def mirror(source: str, data: Path, *options: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(argv(source, data, *options), capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr.decode()}


def references(data: Path) -> list[str]:
    return sorted(one.reference for one in search(Hub.open(data).database, ANYONE, limit=100).entries)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[Shelf, RunningHub]]:
    (tmp_path / "there").mkdir()
    filled = Shelf(tmp_path / "there/hub")
    running = RunningHub(tmp_path / "there/hub").start()
    try:
        yield filled, running
        assert "Traceback" not in running.log()
    finally:
        running.stop()


def furnish(shelf: Shelf) -> str:
    digest = shelf.release("bio/samtools", "1.21", summary="Reads")
    shelf.artifact("bio/samtools", digest, oci.SIF_ARTIFACT, {"samtools.sif": b"SIF!"})
    shelf.artifact("bio/samtools", digest, oci.SOURCES_ARTIFACT, {"samtools.tar": b"sources"})
    shelf.evidence("bio/samtools", digest, TEST, {"result": "PASSED"})
    shelf.index("bio/both", "1", [shelf.image("bio/both", arch=arch) for arch in ("amd64", "arm64")])
    shelf.release("chem/gromacs", "2024")
    return digest


def test_a_hub_in_a_hub_with_all_that_is_about_its_releases(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    digest = furnish(shelf)
    here = tmp_path / "here"
    done = mirror(running.address, here)
    assert done["repositories"] == 3
    assert done["copied"]["tags"] == 3
    assert references(here) == ["bio/both:1", "bio/both:1", "bio/samtools:1.21", "chem/gromacs:2024"]
    hub = Hub.open(here)
    one = details(hub.database, repository(hub.database, ANYONE, "bio/samtools"), "1.21")
    assert one.release.digest == digest
    assert one.about["package"]["summary"] == "Reads"
    assert [file.name for file in one.sources] == ["samtools.tar"]
    assert one.sif is not None
    assert [(item.kind, item.passed) for item in one.release.evidence] == [(TEST, True)]
    for file in (*one.recipe, *one.sources, one.sif):
        assert Digest.of(hub.blobs.read(Digest.parse(file.digest), 10**6)) == Digest.parse(file.digest)


def test_a_second_run_copies_only_what_is_new(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    digest = furnish(shelf)
    here = tmp_path / "here"
    mirror(running.address, here)
    nothing = {"tags": 0, "manifests": 0, "blobs": 0, "bytes": 0}
    assert mirror(running.address, here)["copied"] == nothing
    shelf.evidence("bio/samtools", digest, TEST, {"result": "FAILED"})
    shelf.release("bio/samtools", "1.22")
    again = mirror(running.address, here)["copied"]
    assert (again["tags"], again["manifests"]) == (1, 3)
    assert mirror(running.address, here)["copied"] == nothing
    verdicts = [item.passed for one in search(Hub.open(here).database, ANYONE, "1.21").entries for item in one.evidence]
    assert sorted(verdicts) == [False, True]


def test_a_collection_below_another(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    furnish(shelf)
    mirror(running.address, tmp_path / "here", "--collection", "chem", "--into", "mirrors/site")
    assert references(tmp_path / "here") == ["mirrors/site/chem/gromacs:2024"]
    mirror(running.address, tmp_path / "other", "--repository", "bio/both")
    assert references(tmp_path / "other") == ["bio/both:1", "bio/both:1"]
    missing = mirror(running.address, tmp_path / "other", "--collection", "physics", code=5)
    assert "has nothing that is wanted" in missing["stderr"]


def test_new_collections_are_as_the_settings_say(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    furnish(shelf)
    here = tmp_path / "here"
    here.mkdir(mode=0o700)
    (here / "hub.toml").write_text('new_collections = "private"\n')
    Hub.open(here).set_public("chem", public=True)
    mirror(running.address, here)
    assert references(here) == ["chem/gromacs:2024"]


def test_a_release_is_never_overwritten(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    furnish(shelf)
    own = Shelf(tmp_path / "here")
    mine = own.release("bio/samtools", "1.21", content="mine")
    own.image("bio/both", "1", content="old")
    done = mirror(running.address, tmp_path / "here", code=13)
    assert len(done["faults"]) == 1
    assert "bio/samtools:1.21 is a release here" in done["faults"][0]
    kept = own.hub.database.manifest(own.hub.database.create_repository("bio/samtools"), "1.21")
    assert kept is not None
    assert kept.digest == mine
    assert references(tmp_path / "here").count("bio/both:1") == 2


def test_killed_in_the_middle_and_gone_on(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    for number in range(40):
        digest = shelf.release(f"bio/tool{number}", "1", size=200_000)
        shelf.evidence(f"bio/tool{number}", digest, TEST, {"result": "PASSED"})
    here = tmp_path / "here"
    for wait in (0.9, 1.2, 1.6):
        process = subprocess.Popen(argv(running.address, here), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if here.exists():
            for one in search(Hub.open(here).database, ANYONE, limit=100).entries:
                assert one.evidence, "a release appears with its evidence or not at all"
    mirror(running.address, here)
    assert len(references(here)) == 40
    assert list((here / "mirror").iterdir()) == []
    assert mirror(running.address, here)["copied"]["blobs"] == 0


def test_killed_between_the_tag_and_the_catalogue(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    shelf, running = source
    furnish(shelf)
    here = tmp_path / "here"
    mirror(running.address, here)
    wanted = references(here)
    with Hub.open(here).database.write() as connection:  # what the catalogue was not told
        connection.execute(sa.delete(releases))
    assert references(here) == []
    mirror(running.address, here)
    assert references(here) == wanted


def test_two_at_once(source: tuple[Shelf, RunningHub], tmp_path: Path) -> None:
    import fcntl

    _, running = source
    here = tmp_path / "here"
    Hub.open(here)
    with (here / "mirror.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another mirror" in mirror(running.address, here, code=6)["stderr"]


@pytest.mark.registry
def test_a_docker_registry(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host, Registry(host) as there:
        layer, config = os.urandom(3_000_000), b'{"architecture":"amd64","os":"linux"}'
        subject = _pushed(there, "tools/blast", layer, config, "2.16")
        _pushed(there, "tools/blast", b'{"a":1}', b"{}", "", subject=subject)
        _pushed(there, "alone", layer, config, "1")
        done = mirror(host, tmp_path / "here", code=13)
        assert done["copied"]["blobs"] == 4
        assert "alone" in done["faults"][0]
        assert references(tmp_path / "here") == ["tools/blast:2.16"]
        hub = Hub.open(tmp_path / "here")
        found = hub.database.repository("tools/blast")
        assert found is not None
        assert len(hub.database.referrers(found, str(subject))) == 1
        assert hub.database.tags(found) == ["2.16"]
        assert mirror(host, tmp_path / "here", code=13)["copied"]["manifests"] == 0


def _pushed(
    there: Registry, name: str, layer: bytes, config: bytes, tag: str, *, subject: Digest | None = None
) -> Digest:
    described = []
    for data in (config, layer):
        push_blob(there, name, Digest.of(data), data)
        described.append({"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)})
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": described[0] | {"mediaType": oci.CONFIG},
        "layers": described[1:],
    }
    if subject:
        document |= {
            "artifactType": "text/x",
            "subject": {"mediaType": oci.MANIFEST, "digest": str(subject), "size": 1},
        }
    return there.push_manifest(name, oci.canonical(document), oci.MANIFEST, tag)


def test_a_source_that_lies(tmp_path: Path) -> None:
    """What it sends has other digests, or its names lead out: nothing of it is kept."""

    def answers(asked: Asked) -> None:
        if asked.path == "/v2/_catalog":
            names = ["../../etc", "api/x", "bio/x", "bio/" + "x" * 400]
            asked.answer(200, json.dumps({"repositories": names}).encode())
        elif asked.path == "/v2/bio/x/tags/list":
            asked.answer(200, json.dumps({"name": "bio/x", "tags": ["1", "../2"]}).encode())
        elif "/manifests/" in asked.path:
            asked.answer(200, b'{"schemaVersion":2}', {"docker-content-digest": "sha256:" + "0" * 64})
        else:
            asked.answer(404)

    with serving(answers) as server:
        done = mirror(server.url, tmp_path / "here", code=13)
    assert len(done["faults"]) == 5
    assert references(tmp_path / "here") == []


def test_a_source_that_lists_for_ever(tmp_path: Path) -> None:
    def answers(asked: Asked) -> None:
        following = {"Link": f'</v2/_catalog?last={len(server.asked)}>; rel="next"'}
        asked.answer(200, b'{"repositories": []}', following)

    with serving(answers) as server:
        started = time.monotonic()
        failed = mirror(server.url, tmp_path / "here", code=15)
        assert "more than" in failed["stderr"]
        assert time.monotonic() - started < 60


def test_names_that_no_repository_can_have() -> None:
    for name in ("alone", "../x", "API/x", "v2/x", "a//b", "a/b?c"):
        with pytest.raises(UsageError):
            Wanted().target(name)
    assert Wanted(into="m").target("alone") == "m/alone"
