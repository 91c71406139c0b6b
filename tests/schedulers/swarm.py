"""A real Docker Swarm of one machine, whose daemon is asked over TLS only, by those who have a certificate."""

import subprocess
from pathlib import Path

from containers import root_filesystem
from schedulers.daemons import Daemons, free_port

IMAGE = "local/shell:1"


class Swarm(Daemons):
    """The daemon, with an image."""

    def __init__(self) -> None:
        super().__init__("swarm")
        self.socket = f"unix://{self.folder}/sock"
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.identity = _certificates(self.folder)
        tls = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
        self._words = [
            *(f"--{name}={self.identity / file}" for name, file in tls.items()),
            *(f"--{name}={self.folder / name}" for name in ("data-root", "exec-root", "pidfile")),
            *("--tlsverify", f"--host={self.address}", f"--host={self.socket}", "--storage-driver=vfs"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        ]
        self.env["DOCKER_HOST"] = self.socket
        self.serve()
        self.run(["docker", "swarm", "init", "--advertise-addr=127.0.0.1", f"--listen-addr=127.0.0.1:{free_port()}"])
        root = root_filesystem(self.folder / "root")
        subprocess.run(["sh", "-c", f"tar -C {root} -c . | docker --host {self.socket} import - {IMAGE}"], check=True)

    def serve(self) -> None:
        """Start the daemon, and wait until it answers."""
        self.start(["dockerd", *self._words])
        self.wait(lambda: bool(self.run(["docker", "version", "-f", "{{.Server.Version}}"], check=False).strip()))

    def down(self) -> None:
        """End all jobs, then the daemon."""
        services = self.run(["docker", "service", "ls", "-q"]).split()
        if services:
            self.run(["docker", "service", "rm", *services])
        self.wait(lambda: not self.run(["docker", "ps", "-q"]).strip())
        subprocess.run(["umount", self.folder / "exec-root/netns/default"], capture_output=True, check=False)
        self.stop()


def _certificates(folder: Path) -> Path:
    """Make an authority, and what it signs: the certificates of the daemon and, as Docker calls them, of a client."""
    place = folder / "tls"
    place.mkdir()
    pair = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca = ["-CA", f"{place}/ca.pem", "-CAkey", f"{place}/ca-key.pem"]
    for name, signed, more in (
        ("ca", [], ["-addext", "keyUsage=critical,keyCertSign"]),
        ("server", ca, ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth"]),
        ("client", ca, ["-addext", "extendedKeyUsage=clientAuth"]),
    ):
        files = ["-keyout", f"{place}/{name}-key.pem", "-out", f"{place}/{name}.pem"]
        words = [*pair, "-x509", "-days", "2", "-subj", f"/CN={name}", *files, *signed, *more]
        subprocess.run(words, capture_output=True, check=True)
    (place / "client.pem").rename(place / "cert.pem")
    (place / "client-key.pem").rename(place / "key.pem")
    return place
