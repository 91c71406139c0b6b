"""Known vulnerabilities in a hub: inventory of each image once, new advisories, verdicts, gates, VEX, keys, who is told."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import feeds
import oci_images
from computeops.check.advisories.update import update
from computeops.hub import audit, search
from computeops.hub.auth import ANYONE
from computeops.hub.state import Hub
from computeops.hub.vulnerabilities import index as advisories
from computeops.hub.vulnerabilities import inventory, told
from computeops.hub.vulnerabilities.tables import findings, inventories, packages, rebuild_requests, verdicts
from computeops.image import convert, oci
from computeops.image.tree import Directory
from computeops.model import Digest, Evidence
from computeops.sign import dsse
from computeops.sign.key import Key
from conftest import RunningHub
from shelf import RECIPE, until
from test_hub_webhooks import Receiver, genuine

OS = b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
ZLIB, OPENSSL = "CVE-2023-45853", "CVE-2024-0727"
CRITICAL = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]
MEDIUM = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:N/I:N/A:H"}]
OPENVEX = "https://openvex.dev/ns/v0.2.0"


def status(**versions: str) -> bytes:
    """A dpkg status file; the packages are binaries of the sources `zlib` and `openssl`."""
    names = {"zlib": "zlib1g", "openssl": "libssl3", "base": "base-files"}
    return "\n".join(
        f"Package: {names[source]}\nStatus: install ok installed\nSource: {source}\nVersion: {version}\n"
        f"Architecture: amd64\n"
        for source, version in versions.items()
    ).encode()


OLD = status(zlib="1:1.2.13.dfsg-1", openssl="3.0.11-1~deb12u1")
NEW = status(zlib="1:1.2.13.dfsg-1+deb12u1", openssl="3.0.15-1~deb12u1")


def about_zlib() -> dict[str, Any]:
    return feeds.osv(f"DEBIAN-{ZLIB}", upstream=[ZLIB], severity=CRITICAL, summary="MiniZip overflows")


def about_openssl(**more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "3.0.13-1~deb12u1"}]
    return feeds.osv(f"DEBIAN-{OPENSSL}", name="openssl", events=events, upstream=[OPENSSL], severity=MEDIUM, **more)


class Site:
    """A running hub, a mirror of advisories, and people with tokens."""

    def __init__(self, hub: RunningHub, folder: Path) -> None:
        self.running, self.folder = hub, folder
        self.hub = Hub.open(hub.data)
        self.push_token = hub.token("push:bio/*", name="contributor")
        self.owner_token = hub.token("manage:bio/*", name="owner")
        self.reader_token = hub.token("pull:bio/*", name="reader")

    # pushes, as every client sends them

    def send(
        self, path: str, data: Any = None, *, method: str = "GET", kind: str = "application/json", token: str = ""
    ) -> Any:
        body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.running.address + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text[:1] in (b"{", b"[") else text.decode()

    def blob(self, repository: str, data: bytes) -> None:
        path = f"/v2/{repository}/blobs/uploads/?digest={oci_images.digest(data)}"
        self.send(path, data, method="POST", token=self.push_token)

    def manifest(self, repository: str, body: bytes, tag: str = "") -> str:
        path = f"/v2/{repository}/manifests/{tag or oci_images.digest(body)}"
        self.send(path, body, method="PUT", kind=oci.MANIFEST, token=self.push_token)
        return oci_images.digest(body)

    def push(self, repository: str, tag: str, installed: bytes, *, recipe: bool = False) -> str:
        """Push an image with these packages; return the digest of its manifest."""
        members: list[oci_images.Member] = [
            ("etc", "dir"),
            ("etc/os-release", "file", OS),
            ("var/lib/dpkg", "dir"),
            ("var/lib/dpkg/status", "file", installed),
        ]
        files = oci_images.image([members], compression="gzip")
        index = json.loads(files["index.json"])
        digest = index["manifests"][0]["digest"]
        body = files.pop(f"blobs/sha256/{digest.partition(':')[2]}")
        for name, data in files.items():
            if name.startswith("blobs/"):
                self.blob(repository, data)
        self.manifest(repository, body, tag)
        if recipe:
            text = RECIPE.format(name="tool", version=tag, summary="A tool", license="MIT", domains="[]", more="")
            self.refer(repository, body, oci.RECIPE_ARTIFACT, text.encode(), "computeops.toml")
        return str(digest)

    def refer(self, repository: str, subject: bytes, kind: str, data: bytes, name: str) -> str:
        for one in (b"{}", data):
            self.blob(repository, one)
        layer = oci_images.descriptor("application/octet-stream", data)
        document = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": kind,
            "config": oci_images.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [layer | {"annotations": {"org.opencontainers.image.title": name}}],
            "subject": oci_images.descriptor(oci.MANIFEST, subject),
        }
        return self.manifest(repository, oci.canonical(document))

    def evidence(self, repository: str, digest: str, kind: str, predicate: Mapping[str, Any], key: Key) -> str:
        row = self.hub.database.manifest(self.repository(repository), digest)
        assert row is not None
        signed = dsse.sign(Evidence(kind, {"manifest": Digest.parse(digest)}, predicate), key)
        data = json.dumps(signed.as_json()).encode()
        return self.refer(repository, row.body, oci.EVIDENCE_ARTIFACT, data, "e.dsse.json")

    def repository(self, name: str) -> Any:
        return self.hub.database.repository(name)

    # advisories

    def advise(self, *records: Mapping[str, Any], when: int = 0) -> None:
        """Bring the hub's index up to date, as `hub advisories update` does."""
        mirror, now = self.folder / "mirror", int(time.time())
        feeds.write_zip(mirror / "osv/Debian/all.zip", records, when=when or now - 60)
        update(advisories.place(self.hub), mirror=str(mirror), now=now, full=True)

    # what is known

    def verdict(self, repository: str, digest: str) -> str:
        found = self.rows(
            verdicts, verdicts.c.repository == self.repository(repository).id, verdicts.c.digest == digest
        )
        return found[0].verdict if found and not found[0].pending else "pending"

    def judged(self, repository: str, digest: str, wanted: str) -> bool:
        assert until(60, lambda: self.verdict(repository, digest) == wanted), self.verdict(repository, digest)
        return True

    def rows(self, table: sa.Table, *conditions: Any) -> Sequence[Any]:
        with self.hub.database.read() as connection:
            return connection.execute(sa.select(table).where(*conditions)).all()

    def api(self, path: str, data: Any = None, *, method: str = "GET", token: str | None = None) -> Any:
        return self.send(f"/api/v1{path}", data, method=method, token=self.owner_token if token is None else token)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    data = tmp_path / "hub"
    data.mkdir()
    (data / "hub.toml").write_text("webhooks_to_private_addresses = true\nrequests_per_second = 0\n")
    running = RunningHub(data)
    running.start()
    try:
        yield Site(running, tmp_path)
        assert "Traceback" not in running.log()
    finally:
        if running.process:
            running.stop()


def refused(do: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        do()
    with contextlib.closing(caught.value) as error:
        return error.code, error.read().decode()


@pytest.mark.squashfs
def test_from_push_to_patch(site: Site, receiver: Receiver, tmp_path: Path) -> None:
    site.push("bio/x", "0", NEW)
    secret = site.api("/collections/bio/webhooks", {"url": receiver.url}, method="POST")

    # without advisories nothing is clean: nobody can say
    old = site.push("bio/tool", "1.0", OLD, recipe=True)
    site.judged("bio/tool", old, "unscannable")
    assert "no advisories" in site.api("/findings/bio/tool")["gaps"][0]["why"]

    # a SIF by the same hand, its inventory by the same worker, and the packages that both have are kept once
    tree = tmp_path / "tree"
    for name, data in {"etc/os-release": OS, "var/lib/dpkg/status": OLD}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    sif = tmp_path / "a.sif"
    convert.pack(
        Directory(tree), oci.Description("amd64"), to_sif=sif, writer=convert.Writer(threads=1), epoch=315532800
    )
    for one in (b"{}", sif.read_bytes()):
        site.blob("bio/sif", one)
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": oci_images.descriptor("application/vnd.sylabs.sif.config.v1+json", b"{}"),
        "layers": [oci_images.descriptor(oci.SIF_ARTIFACT, sif.read_bytes())],
    }
    in_sif = site.manifest("bio/sif", oci.canonical(document), "1.0")
    site.judged("bio/sif", in_sif, "unscannable")
    assert len(site.rows(packages)) == 4  # of the three images, old and new

    # the first advisories: every release that has it is found by its packages
    site.advise(about_zlib())
    for repository, digest in (("bio/tool", old), ("bio/sif", in_sif)):
        site.judged(repository, digest, "vulnerable")
    assert site.verdict("bio/x", site.rows(verdicts)[0].digest) == "clean"
    said = site.api("/findings/bio/tool", token="")
    (finding,) = said["findings"]
    assert (finding["id"], finding["severity"], finding["fixed"]) == (ZLIB, "critical", "1:1.2.13.dfsg-1+deb12u1")
    assert said["counts"]["critical"] == 1
    assert said["history"][-1]["count"] == 1
    assert [one["reference"] for one in site.api("/search?verdict=clean")["releases"]] == ["bio/x:0"]

    # maintainers are told, signed, what and where; and what another build would mend
    assert until(30, lambda: len(receiver.heard) >= 5)
    told_of = [(headers, json.loads(body), body) for headers, body in receiver.heard]
    assert all(genuine(secret["secret"], headers, body) for headers, _, body in told_of)
    found = [said["data"] for _, said, _ in told_of if said["type"] == "computeops.vulnerability.found"]
    assert {one["repository"] for one in found} == {"bio/tool", "bio/sif"}
    assert found[0]["findings"][0]["id"] == ZLIB
    wanted = [said["data"] for _, said, _ in told_of if said["type"] == "computeops.rebuild.wanted"]
    assert [(one["repository"], one["tag"]) for one in wanted] == [("bio/tool", "1.0")]  # the SIF has no recipe
    with site.hub.database.write() as connection:
        (request,) = told.rebuild_wanted(connection)
        assert told.take_rebuild(connection, request.id)
        assert not told.take_rebuild(connection, request.id)

    # one more advisory: only the packages it can be about are asked again; the inventories stay as they were
    made = {row.digest: row.made for row in site.rows(inventories)}
    site.advise(about_zlib(), about_openssl())
    assert until(60, lambda: len(site.rows(findings, findings.c.vulnerability == OPENSSL)) == 1)
    assert {row.digest: row.made for row in site.rows(inventories)} == made
    assert until(60, lambda: site.api("/findings/bio/sif")["counts"]["medium"] == 1)

    # the patched release: clean, and the time that it took is known
    patched = site.push("bio/tool", "1.1", NEW, recipe=True)
    site.judged("bio/tool", patched, "clean")
    everywhere = site.api(f"/vulnerabilities/{ZLIB}", token="")
    by_name = {one["repository"]: one for one in everywhere["repositories"]}
    assert by_name["bio/tool"]["patched_by"] == "1.1"
    assert by_name["bio/tool"]["days"] >= 0
    assert by_name["bio/sif"]["patched_by"] == ""

    # withdrawn: no longer counted, and not forgotten
    site.advise(about_openssl())
    assert until(60, lambda: site.api("/findings/bio/sif")["counts"]["critical"] == 0)
    (gone,) = [one for one in site.api("/findings/bio/sif")["findings"] if one["id"] == ZLIB]
    assert gone["until"] is not None
    page = site.send(f"/-/vulnerabilities/{ZLIB}")
    assert "withdrawn" in page
    assert "<svg" in site.send("/-/findings/bio/sif")
    feed = site.send("/-/feed/bio")
    assert feed.startswith("<?xml")
    assert ZLIB in feed


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


def test_a_gate_keeps_back_until_a_day_and_says_why(site: Site) -> None:
    site.advise(about_zlib(), about_openssl())
    digest = site.push("bio/tool", "1.0", OLD)
    site.judged("bio/tool", digest, "vulnerable")
    manifest, reader, owner = "/v2/bio/tool/manifests/1.0", site.reader_token, site.owner_token
    layer = site.send(manifest)

    def held(token: str = reader) -> bool:
        try:
            site.send(manifest, token=token)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 403
        return False

    assert not held()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        site.api("/collections/bio/gate", {"action": "block"}, method="PUT", token=site.push_token)
    site.api("/collections/bio/gate", {"action": "block", "severity": "critical"}, method="PUT")
    assert until(30, held)
    assert not held(owner)
    code, text = refused(lambda: site.send(manifest, token=reader))
    error = json.loads(text)["errors"][0]
    assert (code, error["code"]) == (403, "DENIED")
    assert f"{ZLIB} (critical) in zlib1g" in error["message"]
    assert "maintainer" in error["message"]
    # neither by digest, nor its layers, nor by the portal; what is known of it can be read
    for path in (f"/v2/bio/tool/manifests/{digest}", f"/v2/bio/tool/blobs/{layer['layers'][0]['digest']}"):
        assert refused(lambda path=path: site.send(path, token=reader))[0] == 403
    assert refused(lambda: site.send(f"/-/files/{layer['layers'][0]['digest']}/bio/tool"))[0] == 403
    assert refused(lambda: site.send("/v1/imagefile/bio/tool:1.0?arch=amd64", token=reader))[0] in {403, 404}
    said = site.api("/findings/bio/tool", token=reader)
    assert said["blocked"]
    assert "Readers cannot pull this release" in site.send("/bio/tool/1.0")

    # let it pass until a day: with a reason, in one repository, and it closes again by itself
    soon = int(time.time()) + 3
    wrong = {"vulnerability": ZLIB, "reason": "", "until": soon}
    assert refused(lambda: site.api("/collections/bio/passes", wrong, method="POST"))[0] == 400
    made = site.api("/collections/bio/passes", wrong | {"reason": "minizip is not called"}, method="POST")
    assert made["added_by"] == "owner"
    assert until(30, lambda: not held() or time.time() > soon)
    assert until(30, held)
    assert site.api("/findings/bio/tool")["blocked_from"] == soon
    assert time.time() >= soon
    site.api(f"/collections/bio/passes/{made['id']}", method="DELETE")
    site.api("/collections/bio/gate", {"action": "warn", "severity": "critical"}, method="PUT")
    assert until(30, lambda: not held())
    assert ZLIB in site.api("/findings/bio/tool", token=reader)["why"]

    # what nobody has looked into yet does not pass a strict gate
    site.api("/collections/bio/gate", {"action": "block", "strict": True}, method="PUT")
    with site.hub.database.write() as connection:
        inventory.want(connection, site.repository("bio/tool").id, oci_images.digest(b"another"))
    (waiting,) = site.rows(verdicts, verdicts.c.digest == oci_images.digest(b"another"))
    assert (waiting.blocked_from, waiting.why) == (0, "it is not judged yet")
    lines = [one.action for one in audit.lines(site.hub.database, limit=50)]
    assert any("action=block" in one for one in lines)
    assert any("vulnerability=CVE-2023-45853" in one for one in lines)


def test_only_vex_that_a_trusted_key_signed_counts(site: Site) -> None:
    site.advise(about_zlib())
    digest = site.push("bio/tool", "1.0", OLD)
    site.judged("bio/tool", digest, "vulnerable")
    ours, stranger = Key.generate("ada"), Key.generate("eve")
    vex = {
        "@context": OPENVEX,
        "timestamp": "2026-11-01T00:00:00Z",
        "statements": [
            {
                "vulnerability": {"name": ZLIB},
                "products": [{"@id": "pkg:deb/debian/zlib1g"}],
                "status": "not_affected",
                "justification": "vulnerable_code_not_present",
            }
        ],
    }

    def signatures() -> list[tuple[str, list[str]]]:
        return [(one["signature"], one["verified"]) for one in site.api("/releases/bio/tool")["evidence"]]

    site.evidence("bio/tool", digest, OPENVEX, vex, stranger)
    assert until(30, lambda: signatures() == [("unknown", [])])
    site.judged("bio/tool", digest, "vulnerable")
    site.evidence("bio/tool", digest, OPENVEX, vex, ours)
    assert (
        refused(lambda: site.api("/collections/bio/keys", {"name": "x", "public": "no key"}, method="POST"))[0] == 422
    )
    new = {"name": "ada", "public": ours.public_text().decode()}
    assert site.api("/collections/bio/keys", new, method="POST")["keyid"] == ours.keyid
    assert until(30, lambda: sorted(signatures()) == [("unknown", []), ("valid", ["ada"])])
    site.judged("bio/tool", digest, "clean")
    (finding,) = site.api("/findings/bio/tool")["findings"]
    assert finding["suppressed"] == "vulnerable code not present"
    page = site.send("/bio/tool/1.0")
    assert len(re.findall(r'<span class="verdict good">', page)) == 1
    # forged in her name: said so, never green
    forged = dsse.sign(Evidence(OPENVEX, {"manifest": Digest.parse(digest)}, {"a": 1}), stranger).as_json()
    forged["signatures"][0]["keyid"] = ours.keyid
    row = site.hub.database.manifest(site.repository("bio/tool"), digest)
    assert row is not None
    site.refer("bio/tool", row.body, oci.EVIDENCE_ARTIFACT, json.dumps(forged).encode(), "e.dsse.json")
    assert until(30, lambda: ("invalid", []) in signatures())
    # the key is gone: nothing is green from that moment on, and what it said does not count
    site.api("/collections/bio/keys/ada", method="DELETE")
    assert all(state != "valid" for state, _ in signatures())
    site.judged("bio/tool", digest, "vulnerable")


def test_what_is_private_shows_to_nobody_else(site: Site) -> None:
    site.hub.set_public("bio", public=False)
    site.advise(about_zlib())
    digest = site.push("bio/tool", "1.0", OLD)
    site.judged("bio/tool", digest, "vulnerable")
    assert site.api(f"/vulnerabilities/{ZLIB}", token=site.reader_token)["repositories"]
    for path in (f"/api/v1/vulnerabilities/{ZLIB}", f"/-/vulnerabilities/{ZLIB}"):
        assert refused(lambda path=path: site.send(path))[0] == 404
    for path in ("/api/v1/findings/bio/tool", "/-/findings/bio/tool", "/-/feed/bio", "/-/feed/bio/tool"):
        assert refused(lambda path=path: site.send(path))[0] == 404
    assert ZLIB in site.send("/-/feed/bio", token=site.reader_token)
    assert search.search(site.hub.database, ANYONE, facts={"verdict": "vulnerable"}).entries == ()


def test_what_cannot_be_read_is_unscannable_and_old_advisories_are_stale(site: Site) -> None:
    bomb = site.push(
        "bio/bomb", "1", b"Package: x\nStatus: install ok installed\nVersion: \xff\n" + b"A: " + b"x" * 100
    )
    site.advise(about_zlib(), when=int(time.time()) - 30 * 86400)
    clean = site.push("bio/tool", "1.1", NEW)
    site.judged("bio/tool", clean, "stale")
    said = site.api("/findings/bio/tool")
    assert "30 days old" in said["stale"][0]
    assert until(30, lambda: site.verdict("bio/bomb", bomb) != "pending")
    # a layer that is no tar: the reason is kept, the image is not tried again and again
    junk = oci.canonical({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    for one in (junk, b"no tar at all"):
        site.blob("bio/junk", one)
    layer = oci_images.descriptor(oci_images.LAYER, b"no tar at all")
    document = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": oci_images.descriptor(oci.CONFIG, junk)}
    digest = site.manifest("bio/junk", oci.canonical(document | {"layers": [layer]}), "1")
    site.judged("bio/junk", digest, "unscannable")
    (row,) = site.rows(inventories, inventories.c.digest == digest)
    assert row.fault
    assert row.due is None
    # fresh advisories: clean without a new inventory
    site.advise(about_zlib())
    site.judged("bio/tool", clean, "clean")


def test_the_reading_process_has_bounds(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_bytes(OLD)
    argv = ["-m", "computeops", "hub", "inventory", str(tree), str(tmp_path / "out.json")]
    done = subprocess.run([sys.executable, *argv], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {one["name"] for one in json.loads((tmp_path / "out.json").read_bytes())["packages"]} == {
        "zlib1g",
        "libssl3",
    }
    large = b"Package: x\nStatus: install ok installed\nVersion: 1\nDescription: " + b"x" * 120_000_000 + b"\n"
    (tree / "var/lib/dpkg/status").write_bytes(large)
    done = subprocess.run([sys.executable, *argv, "--memory", "400000000"], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr


def test_a_rebuild_request_ends_with_the_newer_release(site: Site) -> None:
    site.advise(about_zlib())
    site.judged("bio/tool", site.push("bio/tool", "1.0", OLD, recipe=True), "vulnerable")
    assert until(30, lambda: len(site.rows(rebuild_requests)) == 1)
    site.judged("bio/tool", site.push("bio/tool", "1.1", NEW, recipe=True), "clean")
    assert until(30, lambda: site.rows(rebuild_requests) == [])
