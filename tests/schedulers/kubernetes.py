"""A real Kubernetes on this machine: etcd, kube-apiserver, controller manager, scheduler, and a node.

The node is a real kubelet with a real containerd. Nothing is pulled: the image of the tests is handed to containerd.
The machine's cgroups are the kubelet's only as far as a container goes, so that it may be one itself.
"""

import json
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from computeops.image import convert, oci
from computeops.image.tree import Directory
from containers import root_filesystem
from schedulers.daemons import Daemons, free_port

NODE = "localhost"
IMAGE = "hub.example/bio/shell"
_PAUSE = "computeops.local/pause"
_CONTROLLERS = "job-controller,garbage-collector-controller,ttl-after-finished-controller,namespace-controller"


class Cluster(Daemons):
    """The daemons, with the image that their node has."""

    image = ""
    """By its digest, as releases are named."""

    def containerd(self, *words: str | Path, check: bool = True) -> str:
        """Run a command of containerd's own client."""
        return self.run(["ctr", "-a", self.folder / "containerd.sock", "-n", "k8s.io", *words], check=check)

    def serve(self) -> None:
        """Start the server, and wait until it answers."""
        self.start(["kube-apiserver", *_flags(self._server)])
        self.wait(lambda: self.run(["kubectl", "get", "--raw", "/readyz"], check=False) == "ok")

    def __init__(self) -> None:
        super().__init__("kubernetes")
        store, token = self._etcd(), secrets.token_hex(16)
        for name, what in (("sa.key", ["genrsa"]), ("sa.pub", ["rsa", "-pubout", "-in", f"{self.folder}/sa.key"])):
            self.run(["openssl", *what, "-out", self.folder / name])
        self.write("tokens.csv", f"{token},admin,admin,system:masters\n")
        port = free_port()
        self._server = {
            "etcd-servers": store,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": port,
            "cert-dir": self.folder / "pki",
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-key-file": self.folder / "sa.pub",
            "service-account-signing-key-file": self.folder / "sa.key",
            "service-account-issuer": "https://computeops.local",
            "service-cluster-ip-range": "10.96.0.0/16",
            "kubelet-preferred-address-types": "Hostname",
            # No controller would take from the node the mark that it is new.
            "disable-admission-plugins": "ServiceAccount,TaintNodesByCondition",
            "endpoint-reconciler-type": "none",
        }
        config = self.folder / "kubeconfig"
        self.env["KUBECONFIG"] = str(config)
        config.write_text(
            _KUBECONFIG.format(A=f"https://127.0.0.1:{port}", C=self.folder / "pki/apiserver.crt", T=token)
        )
        self.serve()
        common = {"kubeconfig": config, "leader-elect": "false"}
        manager = {"controllers": _CONTROLLERS, "cert-dir": self.folder / "kcm", "secure-port": free_port()}
        self.start(["kube-controller-manager", *_flags(common | manager)])
        self.start(["kube-scheduler", *_flags(common | {"cert-dir": self.folder / "ks", "secure-port": free_port()})])
        self._node(config)

    def _etcd(self) -> str:
        store, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        words = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": store,
            "advertise-client-urls": store,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        self.start(["etcd", "--unsafe-no-fsync", *_flags(words)])
        return store

    def _node(self, config: Path) -> None:
        network = f"10.{128 + secrets.randbelow(128)}.{secrets.randbelow(256)}.0/24"
        self.write("cni/net.conflist", _NETWORK.format(S=self.folder, N=network))
        self.start(["containerd", "--config", self.write("containerd.toml", _CONTAINERD.format(S=self.folder))])
        self.wait(lambda: "Server" in self.containerd("version", check=False))
        self._images()
        kubelet = self.write("kubelet.yaml", _KUBELET.format(S=self.folder, P=free_port()))
        words = {
            "kubeconfig": config,
            "config": kubelet,
            "root-dir": self.folder / "kubelet",
            "cert-dir": self.folder / "kubelet-pki",
            "hostname-override": NODE,
        }
        self.start(["kubelet", *_flags(words)])
        ready = ["kubectl", "get", "node", NODE, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}']
        self.wait(lambda: self.run(ready, check=False) == "True")

    def _images(self) -> None:
        """Hand over an image whose command is a shell, and with it the one that holds a pod's namespaces."""
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            description = oci.Description("amd64", env={"PATH": "/usr/bin:/bin"}, command=("sleep", "infinity"))
            tree = Directory(root_filesystem(folder / "root"))
            convert.pack(tree, description, to_layout=folder / "oci", writer=convert.Writer(level=1), epoch=315532800)
            subprocess.run(["tar", "-C", folder / "oci", "-cf", folder / "oci.tar", "."], check=True)
            manifest = json.loads((folder / "oci/index.json").read_text())["manifests"][0]["digest"]
            self.image = f"{IMAGE}@{manifest}"
            for name in (self.image, f"{_PAUSE}:1"):
                self.containerd("images", "import", "--index-name", name, folder / "oci.tar")


def up() -> Cluster:
    return Cluster()


def crash(kube: Cluster) -> Callable[[], None]:
    """Kill the server, which has everything in its store; return what starts it again."""
    kube.killed("kube-apiserver")
    return kube.serve


def down(kube: Cluster) -> None:
    """End the kubelet, then the containers, which outlive it, then all others."""
    kube.killed("kubelet")
    for what in ("tasks", "containers"):
        for one in kube.containerd(what, "ls", "-q", check=False).split():
            kube.containerd(what, "delete", *(["--force"] if what == "tasks" else []), one, check=False)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((one for one in mounts if one.startswith(f"{kube.folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)
    kube.stop(signal.SIGKILL)


def _flags(words: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in words.items()]


_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{A}", certificate-authority: "{C}"}}}}]
users: [{{name: u, user: {{token: "{T}"}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u, namespace: default}}}}]
current-context: x
"""
_CONTAINERD = f"""\
version = 2
root = "{{S}}/containerd"
state = "{{S}}/run"
[grpc]
  address = "{{S}}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_PAUSE}:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{{S}}/cni"
"""
_NETWORK = """\
{{"cniVersion": "0.4.0", "name": "net", "plugins": [{{"type": "ptp", "ipam":
  {{"type": "host-local", "subnet": "{N}", "dataDir": "{S}/addresses"}}}}]}}
"""
_KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: {P}
healthzPort: 0
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
containerRuntimeEndpoint: unix://{S}/containerd.sock
podLogsDir: {S}/pods
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
evictionHard: {{memory.available: 50Mi}}
imageGCHighThresholdPercent: 100
maxPods: 250
"""
