"""A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager) with one fake node.

The node is ours: it binds pods to itself, runs their commands as processes of this machine, without the image, and
reports and serves their output as a kubelet does. What is real is all that judges a Job: validation, indexes, retries.
"""

import base64
import contextlib
import json
import os
import secrets
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from schedulers.daemons import Daemons, free_port

NODE = "n1"
_INDEX = "batch.kubernetes.io/job-completion-index"


def up() -> Daemons:
    kube = Daemons("kubernetes")
    etcd, peer, port, token = free_port(), free_port(), free_port(), secrets.token_hex(16)
    store = f"http://127.0.0.1:{etcd}"
    words = {
        "data-dir": kube.folder / "etcd",
        "listen-client-urls": store,
        "advertise-client-urls": store,
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": f"default=http://127.0.0.1:{peer}",
    }
    kube.start(["etcd", "--unsafe-no-fsync", *(f"--{name}={value}" for name, value in words.items())])
    for name, what in (("sa.key", ["genrsa"]), ("sa.pub", ["rsa", "-pubout", "-in", f"{kube.folder}/sa.key"])):
        kube.run(["openssl", *what, "-out", kube.folder / name])
    kube.write("tokens.csv", f"{token},admin,admin,system:masters\n")
    server = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": kube.folder / "pki",
        "token-auth-file": kube.folder / "tokens.csv",
        "authorization-mode": "RBAC",
        "service-account-key-file": kube.folder / "sa.pub",
        "service-account-signing-key-file": kube.folder / "sa.key",
        "service-account-issuer": "https://computeops.local",
        "service-cluster-ip-range": "10.96.0.0/16",
        "disable-admission-plugins": "ServiceAccount",
        "endpoint-reconciler-type": "none",
    }
    kube.start(["kube-apiserver", *(f"--{name}={value}" for name, value in server.items())])
    certificate = kube.folder / "pki/apiserver.crt"
    address = f"https://127.0.0.1:{port}"
    config = kube.write("kubeconfig", _KUBECONFIG.format(A=address, C=certificate, T=token))
    kube.env["KUBECONFIG"] = str(config)
    kube.wait(lambda: kube.run(["kubectl", "get", "--raw", "/readyz"], check=False) == "ok")
    controllers = (
        "--controllers=job-controller,garbage-collector-controller,ttl-after-finished-controller,namespace-controller"
    )
    kube.start(
        [
            "kube-controller-manager",
            f"--kubeconfig={config}",
            "--leader-elect=false",
            f"--cert-dir={kube.folder}/kcm",
            f"--secure-port={free_port()}",
            controllers,
        ]
    )
    kube.wait(lambda: kube.run(["kubectl", "get", "namespace", "default", "-o", "name"], check=False) != "")
    kube.node = Node(address, token, certificate, kube.folder)  # type: ignore[attr-defined]  goes with the daemons
    kube.node.start()  # type: ignore[attr-defined]  as above
    return kube


def down(kube: Any) -> None:
    kube.node.stop()
    kube.stop(signal.SIGKILL)


class Node(threading.Thread):
    """The fake kubelet and scheduler."""

    def __init__(self, address: str, token: str, certificate: Path, folder: Path) -> None:
        super().__init__(daemon=True)
        self._address, self._token, self._folder = address, token, folder
        self._tls = ssl.create_default_context(cafile=str(certificate))
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._done = threading.Event()
        self._logs = self._log_server(certificate)
        self.ask("POST", "/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}})
        self._patch(
            f"/api/v1/nodes/{NODE}/status",
            {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_address[1]}},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        )

    def run(self) -> None:
        while not self._done.wait(0.1):
            for pod in self.ask("GET", "/api/v1/pods")["items"]:
                with contextlib.suppress(urllib.error.HTTPError):  # deleted or changed meanwhile: seen next time
                    self._tend(pod)

    def stop(self) -> None:
        self._done.set()
        self.join()
        for process, _ in self._running.values():
            self._kill(process)
        self._logs.shutdown()
        self._logs.server_close()

    def _tend(self, pod: Mapping[str, Any]) -> None:
        meta, path = (
            pod["metadata"],
            f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}",
        )
        process, began = self._running.get(meta["uid"], (None, 0.0))
        if meta.get("deletionTimestamp"):
            if process:
                self._kill(process)
            self.ask("DELETE", path, {"gracePeriodSeconds": 0})
        elif not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
            self.ask("POST", f"{path}/binding", body)
        elif process is None and pod["status"]["phase"] == "Pending":
            self._begin(pod, path)
        elif process is not None and pod["status"]["phase"] == "Running":
            late = time.monotonic() - began > pod["spec"].get("activeDeadlineSeconds", 1e9)
            if late:
                self._kill(process)
                self._patch(f"{path}/status", {"phase": "Failed", "reason": "DeadlineExceeded"})
            elif (code := process.poll()) is not None:
                code = 128 - code if code < 0 else code
                ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
                self._patch(f"{path}/status", _status("Failed" if code else "Succeeded", pod, ended))

    def _begin(self, pod: Mapping[str, Any], path: str) -> None:
        container = pod["spec"]["containers"][0]
        if "missing" in container["image"]:
            waiting = {"waiting": {"reason": "ErrImagePull", "message": "there is no such image"}}
            self._patch(f"{path}/status", _status("Pending", pod, waiting))
            return
        namespace = pod["metadata"]["namespace"]
        env = {"PATH": os.environ["PATH"]}
        for one in container.get("env", []):
            source = one.get("valueFrom", {})
            if "secretKeyRef" in source:
                try:
                    secret = self.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{source['secretKeyRef']['name']}")
                except urllib.error.HTTPError:
                    return  # a kubelet too waits until it is there
                env[one["name"]] = base64.b64decode(secret["data"][source["secretKeyRef"]["key"]]).decode()
            elif "fieldRef" in source:
                env[one["name"]] = pod["metadata"]["annotations"][_INDEX]
            else:
                env[one["name"]] = one["value"]
        with self._log(pod["metadata"]["name"]).open("wb") as log:
            process = subprocess.Popen(
                ["env", "--default-signal", *(_expanded(word, env) for word in container["command"])],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        self._running[pod["metadata"]["uid"]] = (process, time.monotonic())
        self._patch(f"{path}/status", _status("Running", pod, {"running": {}}))

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _log(self, pod: str) -> Path:
        return self._folder / f"{pod}.log"

    def _patch(self, path: str, status: Mapping[str, Any]) -> None:
        self.ask("PATCH", path, {"status": status}, kind="application/strategic-merge-patch+json")

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        request = urllib.request.Request(self._address + path, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", kind)
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, context=self._tls, timeout=20) as answer:
            return json.load(answer)

    def _log_server(self, certificate: Path) -> ThreadingHTTPServer:
        """Serve /containerLogs/NAMESPACE/POD/CONTAINER, which the apiserver asks a node for."""
        node = self

        class Logs(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = node._log(self.path.partition("?")[0].split("/")[3]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Logs)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def _status(phase: str, pod: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    image = pod["spec"]["containers"][0]["image"]
    container = {"name": "main", "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"phase": phase, "containerStatuses": [container]}


def _expanded(word: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` and `$$` as Kubernetes expands them (third_party/forked/golang/expansion)."""
    out, at = "", 0
    while at < len(word):
        if word[at] == "$" and word[at + 1 : at + 2] == "$":
            out, at = out + "$", at + 2
        elif word[at] == "$" and word[at + 1 : at + 2] == "(" and ")" in word[at:]:
            end = word.index(")", at)
            name = word[at + 2 : end]
            out, at = out + env.get(name, f"$({name})"), end + 1
        else:
            out, at = out + word[at], at + 1
    return out


_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{A}", certificate-authority: "{C}"}}}}]
users: [{{name: u, user: {{token: "{T}"}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u, namespace: default}}}}]
current-context: x
"""
