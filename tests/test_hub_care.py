"""The verbs of who looks after a hub, as processes beside one that serves: nothing needed is lost, what is bad is found."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backends import CHOSEN, furnish
from computeops.hub.storage import blob_key
from computeops.image import oci
from computeops.model import Digest
from conftest import RunningHub
from raw_http import Caller

REPO = "/v2/bio/tool"
MANIFEST = oci.MANIFEST
in_folder = pytest.mark.skipif(CHOSEN["storage"] == "s3", reason="looks into the folder")
on_sqlite = pytest.mark.skipif(CHOSEN["database"] != "sqlite", reason="looks at the file of SQLite")


def computeops(*argv: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "computeops", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def care(hub: RunningHub, verb: str, *argv: str | Path, code: int = 0) -> Any:
    done = computeops("hub", verb, "--data", hub.data, "--json", *argv)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture
def admin(hub: RunningHub) -> Caller:
    return Caller(hub.address, hub.token("delete:*"))


def push_blob(caller: Caller, data: bytes, repo: str = REPO) -> dict[str, Any]:
    digest = Digest.of(data)
    answer = caller("POST", f"{repo}/blobs/uploads/?digest={digest}", data)
    assert answer.status == 201, answer
    return {"mediaType": "application/octet-stream", "digest": str(digest), "size": len(data)}


def push_image(caller: Caller, tag: str, layer: bytes, repo: str = REPO) -> tuple[str, dict[str, Any]]:
    """Push an image of one layer; return its digest and its layer's descriptor."""
    config = push_blob(caller, b'{"architecture":"amd64"}', repo) | {"mediaType": oci.CONFIG}
    described = push_blob(caller, layer, repo)
    body = oci.canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [described]})
    answer = caller("PUT", f"{repo}/manifests/{tag}", body, {"Content-Type": MANIFEST})
    assert answer.status == 201, answer
    return answer.headers["docker-content-digest"], described


def release(caller: Caller, subject: str, size: int, repo: str = REPO) -> str:
    """Let the image be a release: give it a recipe."""
    recipe = push_blob(caller, b'[package]\nname = "tool"\n', repo)
    recipe["annotations"] = {"org.opencontainers.image.title": "computeops.toml"}
    empty = push_blob(caller, b"{}", repo) | {"mediaType": "application/vnd.oci.empty.v1+json"}
    body = oci.canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": oci.RECIPE_ARTIFACT,
            "config": empty,
            "layers": [recipe],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": size},
        }
    )
    digest = str(Digest.of(body))
    assert caller("PUT", f"{repo}/manifests/{digest}", body, {"Content-Type": MANIFEST}).status == 201
    return digest


def set_clock_back(hub: RunningHub, seconds: float) -> None:
    """Let all that is stored be `seconds` older."""
    then = time.time() - seconds
    for file in (hub.data / "blobs").rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))
    connection = sqlite3.connect(hub.data / "hub.sqlite")
    for table, column in (("links", "created"), ("manifests", "created"), ("tags", "moved")):
        connection.execute(f"UPDATE {table} SET {column} = {column} - {int(seconds)}")
    connection.commit()
    connection.close()


class TestReindex:
    def test_everything_comes_back_from_storage_alone(self, hub: RunningHub, admin: Caller) -> None:
        digest, layer = push_image(admin, "1.0", b"layer")
        size = len(admin.get(f"{REPO}/manifests/1.0").body)
        release(admin, digest, size)
        push_image(admin, "latest", b"other")
        gone, _ = push_image(admin, "2.0", b"gone")
        release(admin, gone, size)
        assert admin("DELETE", f"{REPO}/manifests/2.0").status == 202
        computeops("hub", "collection", "--data", hub.data, "--private", "--quota", "1G", "secret")
        push_image(admin, "1.0", b"hidden", "/v2/secret/tool")
        before = {
            path: admin.get(path).body
            for path in (f"{REPO}/manifests/1.0", f"{REPO}/tags/list", f"{REPO}/referrers/{digest}")
        }
        shown = admin.get("/api/v1/releases/bio/tool").json["about"]
        hub.stop()
        self.lose_database(hub)
        lost = computeops("hub", "serve", "--data", hub.data, "--port", "0")
        assert (lost.returncode, "hub reindex" in lost.stderr) == (16, True)
        done = computeops("hub", "reindex", "--data", hub.data)
        assert (done.returncode, done.stdout) == (0, "2 repositories, 6 manifests, 4 tags; 0 rows taken out\n")
        hub.start()
        admin = Caller(hub.address, hub.token("delete:*"))
        assert {path: admin.get(path).body for path in before} == before
        assert admin.get("/api/v1/releases/bio/tool").json["about"] == shown
        assert admin.get(f"{REPO}/blobs/{layer['digest']}").body == b"layer"
        assert Caller(hub.address).get("/v2/secret/tool/manifests/1.0").status == 401
        body = admin.get(f"{REPO}/manifests/latest").body
        moved = admin("PUT", f"{REPO}/manifests/2.0", body, {"Content-Type": MANIFEST})
        assert moved.status == 409  # it was a release, and is never used again

    def test_a_collection_that_somebody_made_stays_private(self, hub: RunningHub) -> None:
        done = computeops("hub", "user", "add", "ada", "--data", hub.data, "--admin")
        assert done.returncode == 0, done.stderr
        ada = Caller(hub.address, done.stdout.split()[-1])
        said = (hub.data / "hub.toml").read_text() if (hub.data / "hub.toml").exists() else ""
        (hub.data / "hub.toml").write_text(said + 'new_collections = "private"\n')
        hub.stop()
        hub.start()
        push_image(ada, "1.0", b"mine", "/v2/ada/tool")
        hub.stop()
        self.lose_database(hub)
        assert computeops("hub", "reindex", "--data", hub.data).returncode == 0
        hub.start()
        assert Caller(hub.address).get("/v2/ada/tool/manifests/1.0").status == 401
        assert Caller(hub.address, hub.token("pull:*")).get("/v2/ada/tool/manifests/1.0").status == 200

    def lose_database(self, hub: RunningHub) -> None:
        if CHOSEN["database"] == "sqlite":
            for file in hub.data.glob("hub.sqlite*"):
                file.unlink()
            return
        text = (hub.data / "hub.toml").read_text()
        (hub.data / "hub.toml").unlink()
        furnish(hub.data)
        fresh = (hub.data / "hub.toml").read_text().splitlines()[0]
        (hub.data / "hub.toml").write_text("\n".join([fresh, *text.splitlines()[1:]]) + "\n")

    @in_folder
    def test_what_storage_does_not_know_is_taken_out(self, hub: RunningHub, admin: Caller) -> None:
        digest, _ = push_image(admin, "1.0", b"layer")
        (hub.data / "repositories/bio/tool/_tags/1.0").unlink()
        (hub.data / "repositories/bio/tool/_manifests" / digest.replace(":", "/")).unlink()
        done = computeops("hub", "reindex", "--data", hub.data)
        assert (done.returncode, "2 rows taken out" in done.stdout) == (0, True)
        assert admin.get(f"{REPO}/manifests/1.0").status == 404

    @in_folder
    def test_damaged_records_are_told(self, hub: RunningHub, admin: Caller) -> None:
        push_image(admin, "1.0", b"layer")
        push_image(admin, "2.0", b"layer2")
        (hub.data / "repositories/bio/tool/_tags/1.0").write_bytes(b"\0")
        done = computeops("hub", "reindex", "--data", hub.data)
        assert done.returncode == 13
        assert "_tags/1.0: damaged" in done.stderr
        assert admin.get(f"{REPO}/manifests/2.0").status == 200


@in_folder
@on_sqlite
class TestGc:
    def test_what_nobody_needs_goes_and_the_rest_stays(self, hub: RunningHub, admin: Caller) -> None:
        keep, kept = push_image(admin, "1.0", b"kept")
        drop, dropped = push_image(admin, "2.0", b"dropped")
        alone = push_blob(admin, b"alone")
        assert admin("DELETE", f"{REPO}/manifests/{drop}").status == 202
        assert care(hub, "gc")["blobs"] == 0  # all of it is young
        set_clock_back(hub, 2 * 24 * 3600)
        dry = care(hub, "gc", "--dry-run")
        assert (dry["links"], admin.get(f"{REPO}/blobs/{alone['digest']}").status) == (2, 200)
        done = care(hub, "gc")
        assert (done["links"], done["blobs"]) == (2, 3)  # the manifest that was deleted too
        assert done["blob_bytes"] > len(b"alone" + b"dropped")
        for one in (dropped, alone):
            assert admin.get(f"{REPO}/blobs/{one['digest']}").status == 404
            assert not (hub.data / blob_key(Digest.parse(one["digest"]))).exists()
        assert admin.get(f"{REPO}/blobs/{kept['digest']}").body == b"kept"
        assert admin.get(f"{REPO}/manifests/{keep}").status == 200
        push_blob(admin, b"alone")
        assert admin.get(f"{REPO}/blobs/{alone['digest']}").body == b"alone"

    def test_a_blob_that_is_pushed_again_stays(self, hub: RunningHub, admin: Caller) -> None:
        """It is on the disk already, old and unused, when it is pushed."""
        alone = push_blob(admin, b"alone")
        assert admin("DELETE", f"{REPO}/blobs/{alone['digest']}").status == 202
        set_clock_back(hub, 2 * 24 * 3600)
        push_blob(admin, b"alone")
        assert care(hub, "gc")["blobs"] == 0
        assert admin.get(f"{REPO}/blobs/{alone['digest']}").body == b"alone"

    def test_rules_never_delete_a_release(self, hub: RunningHub, admin: Caller) -> None:
        rules = 'untagged_days = 10\nretention = [{ repositories = "bio/*", tags = "*", days = 10 }]\n'
        (hub.data / "hub.toml").write_text(rules)
        released, layer = push_image(admin, "1.0", b"released")
        release(admin, released, len(admin.get(f"{REPO}/manifests/1.0").body))
        retired, _ = push_image(admin, "0.9", b"retired")
        release(admin, retired, len(admin.get(f"{REPO}/manifests/0.9").body))
        assert admin("DELETE", f"{REPO}/manifests/0.9").status == 202
        push_image(admin, "pr-7", b"seven")
        push_image(admin, "pr-8", b"eight", "/v2/other/tool")
        set_clock_back(hub, 20 * 24 * 3600)
        push_image(admin, "pr-9", b"nine")
        first = care(hub, "gc")
        assert first["tags"] == 1
        assert admin.get(f"{REPO}/tags/list").json["tags"] == ["1.0", "pr-9"]
        assert admin.get("/v2/other/tool/tags/list").json["tags"] == ["pr-8"]
        assert first["manifests"] == 1
        for one in (released, retired):
            assert admin.get(f"{REPO}/manifests/{one}").status == 200
        assert admin.get(f"{REPO}/blobs/{layer['digest']}").body == b"released"
        assert len(admin.get(f"{REPO}/referrers/{released}").json["manifests"]) == 1

    def test_one_at_a_time(self, hub: RunningHub) -> None:
        from computeops.hub.dialects import Sqlite

        with Sqlite(hub.data / "hub.sqlite").exclusive("storage") as free:
            assert free
            done = computeops("hub", "gc", "--data", hub.data)
        assert (done.returncode, "another verb" in done.stderr) == (6, True)


class TestQuota:
    def test_refused_before_the_upload(self, hub: RunningHub, admin: Caller) -> None:
        assert computeops("hub", "collection", "--data", hub.data, "--quota", "1K", "bio").returncode == 0
        push_blob(admin, b"x" * 600)
        for path in (f"{REPO}/blobs/uploads/?digest={Digest.of(b'y' * 600)}", f"{REPO}/blobs/uploads/"):
            answer = admin("POST", path, b"y" * 600)
            assert (answer.status, answer.code) == (507, "DENIED")
        place = admin("POST", f"{REPO}/blobs/uploads/").headers["location"]
        assert admin("PATCH", place, b"y" * 600).status == 507
        assert admin("PATCH", place, b"y" * 400).status == 202
        again = admin("POST", f"/v2/bio/more/blobs/uploads/?mount={Digest.of(b'x' * 600)}&from=bio/tool")
        assert again.status == 201  # the same blob counts once
        push_blob(admin, b"z" * 600, "/v2/other/tool")
        image = admin(
            "POST", "/v1/images", json.dumps({"container": identity("bio/tool"), "hash": f"sha256.{'0' * 64}"})
        )
        answer = admin("POST", f"/v2/imagefile/{image.json['data']['id']}", json.dumps({"filesize": 600}))
        assert answer.status == 507
        assert "room for" in answer.json["error"]["message"]
        assert computeops("hub", "collection", "--data", hub.data, "--quota", "none", "bio").returncode == 0
        push_blob(admin, b"y" * 600)

    @pytest.mark.parametrize("text", ["", "-1", "1X", "1.5G", "G"])
    def test_what_is_no_size(self, tmp_path: Path, text: str) -> None:
        assert computeops("hub", "collection", "--data", tmp_path, f"--quota={text}", "bio").returncode == 2


def identity(name: str) -> str:
    import base64

    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


@in_folder
class TestScrub:
    def test_a_damaged_blob_is_found_put_aside_and_healed(self, hub: RunningHub, admin: Caller) -> None:
        digest, layer = push_image(admin, "1.0", b"layer" * 1000)
        assert care(hub, "scrub")["bad"] == []
        file = hub.data / blob_key(Digest.parse(layer["digest"]))
        file.chmod(0o644)
        file.write_bytes(b"rotten" + file.read_bytes()[6:])
        (hub.data / blob_key(Digest.parse(digest))).write_bytes(b"{}")  # the body of the manifest
        assert len(care(hub, "scrub", "--dry-run", code=13)["bad"]) == 2
        bad = care(hub, "scrub", code=13)["bad"]
        assert {one["digest"] for one in bad} == {digest, layer["digest"]}
        assert ["bio/tool"] in [one["repositories"] for one in bad]
        assert (hub.data / "quarantine" / blob_key(Digest.parse(layer["digest"]))).read_bytes().startswith(b"rotten")
        assert admin.get(f"{REPO}/blobs/{layer['digest']}").status == 404
        assert admin.get(f"{REPO}/manifests/1.0").status == 200
        push_blob(admin, b"layer" * 1000)
        assert admin.get(f"{REPO}/blobs/{layer['digest']}").body == b"layer" * 1000
        assert care(hub, "scrub")["bad"] == []

    def test_a_missing_blob_is_found(self, hub: RunningHub, admin: Caller) -> None:
        blob = push_blob(admin, b"lost")
        (hub.data / blob_key(Digest.parse(blob["digest"]))).unlink()
        bad = care(hub, "scrub", code=13)["bad"]
        assert [(one["digest"], one["fault"]) for one in bad] == [(blob["digest"], "is not there")]
        push_blob(admin, b"lost")
        assert admin.get(f"{REPO}/blobs/{blob['digest']}").body == b"lost"


class TestBackup:
    def test_a_hub_comes_back_whole(self, hub: RunningHub, admin: Caller, tmp_path: Path) -> None:
        digest, layer = push_image(admin, "1.0", b"layer")
        release(admin, digest, len(admin.get(f"{REPO}/manifests/1.0").body))
        token = hub.token("pull:*", name="reader")
        first = computeops("hub", "backup", "--data", hub.data, tmp_path / "backup")
        assert first.returncode == 0, first.stderr
        push_image(admin, "2.0", b"second")
        again = computeops("hub", "backup", "--data", hub.data, tmp_path / "backup")
        assert " 2 blobs of " in again.stdout  # the layer and the manifest
        hub.stop()
        (tmp_path / "new").mkdir()
        if "s3" in CHOSEN.values() or "postgresql" in CHOSEN.values():
            furnish(tmp_path / "new/hub")
        done = computeops("hub", "restore", "--data", tmp_path / "new/hub", tmp_path / "backup")
        assert (done.returncode, done.stdout) == (0, "1 repositories, 3 manifests, 2 tags\n"), done.stderr
        restored = RunningHub(tmp_path / "new/hub").start()
        try:
            reader = Caller(restored.address, token)
            assert reader.get(f"{REPO}/tags/list").json["tags"] == ["1.0", "2.0"]
            assert reader.get(f"{REPO}/blobs/{layer['digest']}").body == b"layer"
            assert reader.get("/api/v1/releases/bio/tool?version=1.0").status == 200
            new = Caller(restored.address, restored.token("delete:*"))  # the ids go on
            push_image(new, "3.0", b"third")
        finally:
            restored.stop()

    def test_one_file(self, hub: RunningHub, admin: Caller, tmp_path: Path) -> None:
        """Made while others push, it is of one moment; broken in any way it is refused, and nothing is restored."""
        _, layer = push_image(admin, "1.0", os.urandom(3_000_000))
        ended = threading.Event()
        numbers = iter(range(10_000))

        def go_on() -> None:
            while not ended.is_set():
                number = next(numbers)
                push_image(admin, f"2.{number}", b"%d" % number)

        pushing = threading.Thread(target=go_on)
        pushing.start()
        try:
            done = computeops("hub", "backup", "--data", hub.data, tmp_path / "out/hub.tar.zst")
        finally:
            ended.set()
            pushing.join()
        assert done.returncode == 0, done.stderr
        assert [one.name for one in (tmp_path / "out").iterdir()] == ["hub.tar.zst"]
        hub.stop()
        whole = (tmp_path / "out/hub.tar.zst").read_bytes()
        broken = {
            "short": whole[: len(whole) // 2],
            "end": whole[:-5],
            "changed": whole[:2_000_000] + bytes([whole[2_000_000] ^ 1]) + whole[2_000_001:],
            "none": b"",
            "else": b"PK" * 1000,
        }
        for name, data in broken.items():
            (tmp_path / name).write_bytes(data)
            done = computeops("hub", "restore", "--data", tmp_path / "new/hub", tmp_path / name)
            assert (done.returncode, "Traceback" in done.stderr) == (4, False), (name, done.stderr)
            assert list((tmp_path / "new/hub").iterdir()) == []
        furnish(tmp_path / "new/hub")
        done = computeops("hub", "restore", "--data", tmp_path / "new/hub", tmp_path / "out/hub.tar.zst")
        assert done.returncode == 0, done.stderr  # no tag without its image
        restored = RunningHub(tmp_path / "new/hub").start()
        try:
            again = Caller(restored.address, admin.headers["Authorization"].removeprefix("Bearer "))
            assert Digest.of(again.get(f"{REPO}/blobs/{layer['digest']}").body) == Digest.parse(layer["digest"])
            for tag in again.get(f"{REPO}/tags/list").json["tags"]:
                manifest = again.get(f"{REPO}/manifests/{tag}").json
                assert again.get(f"{REPO}/blobs/{manifest['layers'][0]['digest']}").status == 200
        finally:
            restored.stop()

    def test_a_damaged_folder_is_refused(self, hub: RunningHub, admin: Caller, tmp_path: Path) -> None:
        _, layer = push_image(admin, "1.0", b"layer")
        assert computeops("hub", "backup", "--data", hub.data, tmp_path / "backup").returncode == 0
        file = tmp_path / "backup/objects" / blob_key(Digest.parse(layer["digest"]))
        for name in (file, tmp_path / "backup/tables.jsonl"):
            kept = name.read_bytes()
            name.write_bytes(b"L" + kept[1:])
            done = computeops("hub", "restore", "--data", tmp_path / "new", tmp_path / "backup")
            assert (done.returncode, "damaged" in done.stderr) == (4, True), done.stderr
            assert list((tmp_path / "new").iterdir()) == []
            name.write_bytes(kept)

    def test_half_a_backup_is_refused(self, hub: RunningHub, admin: Caller, tmp_path: Path) -> None:
        push_image(admin, "1.0", b"layer")
        assert computeops("hub", "backup", "--data", hub.data, tmp_path / "backup").returncode == 0
        again = computeops("hub", "restore", "--data", hub.data, tmp_path / "backup")
        assert (again.returncode, "there is a hub already" in again.stderr) == (6, True)
        (tmp_path / "backup/backup.json").unlink()
        done = computeops("hub", "restore", "--data", tmp_path / "new", tmp_path / "backup")
        assert (done.returncode, "no whole backup" in done.stderr) == (4, True)

    def test_not_into_something_else(self, hub: RunningHub, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full/mine").touch()
        for target in (tmp_path / "full", hub.data / "backup"):
            assert computeops("hub", "backup", "--data", hub.data, target).returncode == 2
        assert (tmp_path / "full/mine").exists()


class TestCheck:
    def test_all_is_well(self, hub: RunningHub) -> None:
        found = care(hub, "check", "--external-url", hub.address)
        assert {one["name"] for one in found} == {
            "folder",
            "disk",
            "clock",
            "settings",
            "database",
            "storage",
            "address",
        }
        assert all(not one["fault"] for one in found)

    def test_what_is_wrong_and_how_to_mend_it(self, hub: RunningHub) -> None:
        hub.data.chmod(0o755)
        bad = {
            one["name"]: one
            for one in care(hub, "check", "--external-url", "http://127.0.0.1:9", code=13)
            if one["fault"]
        }
        assert bad.keys() == {"folder", "address"}
        assert bad["folder"]["mend"] == f"chmod 700 {hub.data}"

    @on_sqlite
    def test_a_damaged_database(self, hub: RunningHub, admin: Caller) -> None:
        push_image(admin, "1.0", b"layer")
        hub.stop()
        file = hub.data / "hub.sqlite"
        data = bytearray(file.read_bytes())
        data[4096 * 2 : 4096 * 20] = os.urandom(4096 * 18)
        file.write_bytes(data)
        done = computeops("hub", "check", "--data", hub.data)
        assert done.returncode == 13
        assert "BAD" in done.stdout
        assert "Traceback" not in done.stderr


class TestHealth:
    def test_for_a_load_balancer(self, hub: RunningHub) -> None:
        anyone = Caller(hub.address)
        assert anyone.get("/healthz").body == b"ok\n"
        ready = anyone.get("/readyz")
        assert (ready.status, ready.json) == (200, {"database": "ok", "storage": "ok"})

    def test_metrics(self, hub: RunningHub, admin: Caller) -> None:
        push_blob(admin, b"counted")
        text = admin.get("/metrics").body.decode()
        assert 'computeops_requests_total{door="registry",method="POST",status="201"} 1' in text
        assert "computeops_blob_bytes 7" in text
        for line in text.splitlines():
            assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0
        proxied = Caller(hub.address).get("/metrics", X_Forwarded_For="192.0.2.1")
        assert proxied.status == 404
        assert admin.get("/metrics", X_Forwarded_For="192.0.2.1").status == 200

    def test_a_log_for_machines(self, tmp_path: Path) -> None:
        hub = RunningHub(tmp_path / "hub").start("--port", "0", "--log", "json")
        Caller(hub.address).get("/v2/bio/x/tags/list?secret=1")
        hub.stop()
        (line,) = [json.loads(line) for line in hub.log().splitlines() if "/tags/list" in line]
        assert (line["path"], line["status"], line["door"]) == ("/v2/bio/x/tags/list", 401, "registry")
        assert "secret" not in hub.log()


def test_a_log_for_people_has_no_line_for_each_request(hub: RunningHub) -> None:
    Caller(hub.address).get("/v2/bio/x/tags/list")
    hub.stop()
    assert "tags/list" not in hub.log()


@on_sqlite
def test_a_database_of_a_newer_hub_is_refused(hub: RunningHub) -> None:
    hub.stop()
    connection = sqlite3.connect(hub.data / "hub.sqlite")
    connection.execute("INSERT INTO schema_version VALUES (9999)")
    connection.commit()
    connection.close()
    done = computeops("hub", "serve", "--data", hub.data, "--port", "0")
    assert done.returncode == 16
    assert "9999" in done.stderr
    assert "newer" in done.stderr
