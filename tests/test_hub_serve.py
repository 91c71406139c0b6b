"""The verbs `hub serve` and `hub token` as processes: safe by default, honest about ports, quick to start and to stop."""

import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from backends import furnish
from conftest import RunningHub
from raw_http import Caller
from servers import Asked, serving


def computeops(*argv: str | Path, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "computeops", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


class TestPlaces:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hub.example.org"])
    def test_the_world_needs_tls(self, tmp_path: Path, host: str) -> None:
        done = computeops("hub", "serve", "--data", tmp_path / "hub", "--host", host, "--port", "0")
        assert done.returncode == 2
        assert "refused to listen" in done.stderr
        assert "--external-url" in done.stderr
        assert not (tmp_path / "hub").exists()

    def test_half_a_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "cert").touch()
        done = computeops("hub", "serve", "--data", tmp_path, "--tls-cert", tmp_path / "cert")
        assert (done.returncode, "both" in done.stderr) == (2, True)

    @pytest.mark.parametrize(
        "url", ["http://hub.example.org", "hub.example.org", "https://", "https://x/y?z", "https://x y"]
    )
    def test_an_external_address_has_tls(self, tmp_path: Path, url: str) -> None:
        done = computeops("hub", "serve", "--data", tmp_path, "--host", "0.0.0.0", "--external-url", url)
        assert (done.returncode, "https://" in done.stderr) == (2, True)

    def test_a_taken_port(self, hub: RunningHub, tmp_path: Path) -> None:
        port = hub.address.rpartition(":")[2]
        done = computeops("hub", "serve", "--data", tmp_path / "other", "--port", port)
        assert done.returncode == 16
        assert "Address already in use" in done.stderr
        assert "--port" in done.stderr

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = computeops("hub", "serve", "--data", tmp_path / "file/hub", "--port", "0")
        assert done.returncode == 16
        assert "Traceback" not in done.stderr


def test_behind_a_proxy_it_says_the_address_of_the_proxy(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path / "hub").start("--port", "0", "--external-url", "https://csan.example.org/")
    try:
        assert hub.address.startswith("http://127.0.0.1:")  # where it listens
        caller = Caller(hub.address)
        assert 'realm="https://csan.example.org/auth/token"' in caller.get("/v2/").headers["www-authenticate"]
        found = caller.get("/assets/config/config.prod.json").json
        assert found["libraryAPI"]["uri"] == "https://csan.example.org"
    finally:
        hub.stop()


def test_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    hub = RunningHub(tmp_path / "hub").start("--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        assert hub.address.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{hub.address}/version", context=context) as answer:
            assert answer.status == 200
    finally:
        hub.stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(*encoding))
    return certificate, key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_when_told(tmp_path: Path, number: int) -> None:
    hub = RunningHub(tmp_path / "hub").start()
    keeps = socket.create_connection(hub.host.split(":"))  # an idle connection does not hold it
    assert hub.stop(number) == 0
    keeps.close()
    assert hub.log() == ""


def test_says_nothing_before_it_accepts(tmp_path: Path) -> None:
    for _ in range(3):
        hub = RunningHub(tmp_path / "hub").start()
        socket.create_connection(hub.host.split(":"), timeout=1).close()
        hub.stop()


class TestRoles:
    """Processes of one hub that share the work: one answers, the other does what can wait."""

    def test_one_answers_and_the_other_tells(self, tmp_path: Path) -> None:
        from test_hub_registry import manifest, push

        told = threading.Event()

        def told_by_webhook(asked: Asked) -> None:
            asked.body()
            asked.answer(204)
            told.set()

        furnish(tmp_path / "hub", more="webhooks_to_private_addresses = true")
        with serving(told_by_webhook) as there:
            web = RunningHub(tmp_path / "hub").start("--port", "0", "--role", "web")
            worker = RunningHub(tmp_path / "hub")
            try:
                token = web.token("push:*")
                caller = Caller(web.address, token)
                push(caller, "/v2/bio/x", "0", manifest(caller, "/v2/bio/x"))
                added = computeops("hub", "webhook", "add", "bio", there.url, "--data", web.data)
                assert added.returncode == 0, added.stderr
                push(caller, "/v2/bio/x", "1", manifest(caller, "/v2/bio/x"))
                assert computeops("hub", "check", "--data", web.data).returncode == 0  # takes longer than telling
                assert not told.is_set()
                worker.start("--port", "0", "--role", "background")
                assert told.wait(20)
                own = Caller(worker.address, token)
                assert [own.get(path).status for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]
                assert [own.get(path).status for path in ("/v2/", "/v2/bio/x/tags/list", "/", "/version")] == [404] * 4
                assert own("PUT", "/v2/bio/x/manifests/2", b"{}").status == 404
            finally:
                assert web.stop() == 0
                assert worker.process is None or worker.stop() == 0


class TestTokens:
    def test_prints_only_the_token(self, tmp_path: Path) -> None:
        done = computeops("hub", "token", "--data", tmp_path / "hub", "--name", "ada", "--scope", "push:bio/samtools")
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = done.stdout.splitlines()
        assert 200 <= len(line) <= 4096

    @pytest.mark.parametrize(
        ("scope", "days", "says"),
        [("psh:bio/x", "1", "did you mean 'push'?"), ("push:Bio", "1", "pattern"), ("push:*", "0", "1 to 3650 days")],
    )
    def test_refused(self, tmp_path: Path, scope: str, days: str, says: str) -> None:
        done = computeops("hub", "token", "--data", tmp_path / "hub", "--name", "a", "--scope", scope, "--days", days)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr


def test_a_collection_becomes_private_while_the_hub_runs(hub: RunningHub) -> None:
    from test_hub_registry import manifest, push

    caller, stranger = Caller(hub.address, hub.token("push:*")), Caller(hub.address)
    push(caller, "/v2/embargo/x", "1", manifest(caller, "/v2/embargo/x"))
    for option, status in (("--private", 401), ("--public", 200)):
        assert computeops("hub", "collection", "--data", hub.data, option, "embargo").returncode == 0
        assert stranger.get("/v2/embargo/x/manifests/1").status == status
        assert caller.get("/v2/embargo/x/manifests/1").status == 200
    refused = computeops("hub", "collection", "--data", hub.data, "--private", "Not One")
    assert (refused.returncode, "lower case" in refused.stderr) == (2, True)
    assert computeops("hub", "reindex", "--data", hub.data).returncode == 0


def test_many_at_once(hub: RunningHub) -> None:
    """Pushes from several clients to one repository at the same time all arrive."""
    from test_hub_registry import manifest, push

    token = hub.token("push:*")
    failures: list[object] = []

    def work(number: int) -> None:
        caller = Caller(hub.address, token)
        for step in range(5):
            answer = push(
                caller, "/v2/bio/busy", f"{number}.{step}", manifest(caller, "/v2/bio/busy", b"%d %d" % (number, step))
            )
            if answer.status != 201:
                failures.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(Caller(hub.address).get("/v2/bio/busy/tags/list").json["tags"]) == 30
