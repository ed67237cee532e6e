"""A cluster of one node, in namespaces of its own: etcd, Kubernetes' programs, containerd.

It has its own network, mounts and processes (see holder.py), one folder for all its files, and one cgroup in each
hierarchy. Other programs can be run beside its own, in its network: `Cluster.start`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import build
from .api import Api, ApiError
from .holder import ADDRESS, BRIDGE, SERVICES

HERE = Path(__file__).parent
NODE = "node"
PORT = 6443
PODS = "10.90.0.0/16"
CNI = Path("/usr/lib/cni")
START_SECONDS = 180.0  # on a busy machine
EVICTION_SIGNALS = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")
PAUSE_IMAGE = "agent-init.test/pause:1"

DEBIAN = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "openssl": "openssl",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "gcc": "gcc",
    "mmdebstrap": "mmdebstrap",
    "tini": "tini",
}


class NotAvailable(Exception):
    """A program or a privilege is missing; the text says which."""


class Program:
    """A program in the cluster's namespaces. `pid` is its pid in our namespace."""

    def __init__(self, first: int, argv: Sequence[str], log: Path) -> None:
        self.argv, self.log = list(argv), log
        enter = ("nsenter", f"--target={first}", "--mount", "--net", "--pid", "--ipc", "--uts", "--")
        with log.open("ab") as output:
            self.outer = subprocess.Popen(
                [*enter, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while not (found := Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()):
            assert self.outer.poll() is None, f"{self.argv[0]} has ended: {self.tail()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return int(found[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        os.kill(self.pid, number)
        self.outer.wait(60)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Cluster:
    root: Path
    first: int  # the first process of the namespaces
    bin: Path
    api: Api
    programs: dict[str, Program]

    def start(self, name: str, *argv: str) -> Program:
        """Start a program in the cluster's namespaces, under a name of its own."""
        self.programs[name] = Program(self.first, argv, self.root / "logs" / f"{name}.log")
        return self.programs[name]

    def run(
        self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's namespaces. If it fails, raise AssertionError with its output."""
        enter = ("nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "--")
        done = subprocess.run(
            [*enter, *argv], input=stdin or "", capture_output=True, text=True, errors="replace", timeout=timeout
        )
        if check:
            assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        config = f"--kubeconfig={self.root}/kubeconfig"
        return self.run(str(self.bin / "kubectl"), config, *arguments, stdin=stdin, check=check)

    def ctr(self, *arguments: str) -> str:
        return self.run("ctr", "--address", str(self.root / "containerd.sock"), "-n", "k8s.io", *arguments).stdout

    def import_image(self, archive: Path) -> None:
        """Import a docker-archive."""
        self.ctr("images", "import", str(archive))

    # --- Its programs. ---

    def start_containerd(self) -> None:
        self.start("containerd", "containerd", "--config", str(self.root / "containerd.toml"))
        version = ("ctr", "--address", str(self.root / "containerd.sock"), "version")
        self._await("containerd", lambda: self.run(*version, check=False).returncode == 0)

    def start_kubelet(self) -> None:
        self.start(
            "kubelet",
            str(self.bin / "kubelet"),
            f"--config={self.root}/kubelet.yaml",
            f"--kubeconfig={self.root}/kubeconfig",
            f"--root-dir={self.root}/kubelet",
            f"--cert-dir={self.root}/kubelet-certificates",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
        )

    def restart_containerd(self) -> None:
        """Kill it and start it again; the containers go on."""
        self.programs["containerd"].kill()
        self.start_containerd()

    def restart_kubelet(self) -> None:
        self.programs["kubelet"].kill()
        self.start_kubelet()

    def _await(self, name: str, ready: object, seconds: float = START_SECONDS) -> None:
        assert callable(ready)
        deadline = time.monotonic() + seconds
        while not ready():
            program = self.programs[name]
            assert program.outer.poll() is None, f"{name} has ended: {program.tail()}"
            assert time.monotonic() < deadline, f"{name} is not ready after {seconds:.0f} s: {program.tail()}"
            time.sleep(0.1)

    def is_ready(self, path: str) -> bool:
        """Whether this path of the API can be read."""
        try:
            self.api.get(path)
        except (OSError, ApiError):
            return False
        return True

    def node_is_ready(self) -> bool:
        try:
            node = self.api.get(f"/api/v1/nodes/{NODE}")
        except (OSError, ApiError):
            return False
        states = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", ())}
        tainted = any("not-ready" in taint["key"] for taint in node["spec"].get("taints", ()))
        return states.get("Ready") == "True" and not tainted


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster with a Ready node. Raises NotAvailable, and go_programs.BuildFailed."""
    if os.geteuid() != 0:
        raise NotAvailable("a cluster takes root")
    missing = [package for program, package in DEBIAN.items() if shutil.which(program) is None]
    missing += [] if (CNI / "bridge").exists() else ["containernetworking-plugins"]
    if missing:
        raise NotAvailable(f"a cluster takes Debian's packages {', '.join(missing)}")
    programs = build.kubernetes()
    root = Path(tempfile.mkdtemp(prefix="agent-init-kube-", dir="/tmp"))  # a socket's path is limited to 107 bytes
    holder = subprocess.Popen(
        [sys.executable, str(HERE / "holder.py"), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdin
    assert holder.stdout
    made: Cluster | None = None
    try:
        line = holder.stdout.readline()
        if not line.strip():
            raise NotAvailable("no namespaces of its own for the cluster")
        token = secrets.token_hex(16)
        api = Api(int(line), PORT, root / "certificates" / "apiserver.crt", token)
        made = Cluster(root, int(line), programs, api, {})
        _write_files(made, token)
        _start(made)
        yield made
    finally:
        holder.stdin.close()
        holder.wait(180)
        for program in made.programs.values() if made else ():
            program.outer.wait(10)
        assert not root.exists(), f"not removed: {root}"


def _start(cluster: Cluster) -> None:
    root, bin = cluster.root, cluster.bin
    cluster.start(
        *("etcd", "etcd", f"--data-dir={root}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
        *("--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"),
        "--listen-peer-urls=http://127.0.0.1:2380",
    )
    cluster.start(
        *("apiserver", str(bin / "kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", f"--secure-port={PORT}"),
        *(f"--advertise-address={ADDRESS}", f"--cert-dir={root}/certificates"),
        *(f"--token-auth-file={root}/tokens", "--authorization-mode=AlwaysAllow"),
        *("--service-account-issuer=https://localhost", f"--service-account-key-file={root}/key"),
        f"--service-account-signing-key-file={root}/key",
        *("--disable-admission-plugins=ServiceAccount", f"--service-cluster-ip-range={SERVICES}"),
        *("--kubelet-preferred-address-types=InternalIP", "--enable-priority-and-fairness=false"),
    )
    cluster.start_containerd()
    _import_pause(cluster)
    cluster._await("apiserver", lambda: cluster.is_ready("/readyz"))
    cluster.start(
        *("controller-manager", str(bin / "kube-controller-manager"), f"--kubeconfig={root}/kubeconfig"),
        *("--leader-elect=false", f"--cert-dir={root}/certificates-of-controllers"),
    )
    cluster.start(
        *("scheduler", str(bin / "kube-scheduler"), f"--kubeconfig={root}/kubeconfig", "--leader-elect=false"),
        f"--cert-dir={root}/certificates-of-scheduler",
    )
    cluster.start_kubelet()
    cluster._await("kubelet", cluster.node_is_ready)
    cluster._await("controller-manager", lambda: cluster.is_ready("/api/v1/namespaces/default"))


def _import_pause(cluster: Cluster) -> None:
    from . import image

    program = cluster.root / "pause"
    subprocess.run(["gcc", "-static", "-O2", "-o", str(program), str(HERE / "programs" / "pause.c")], check=True)
    archive = cluster.root / "pause.tar"
    layer = cluster.root / "pause-layer.tar"
    image.pack_layer(layer, {"/pause": program})
    image.pack(archive, PAUSE_IMAGE, [layer], {"Entrypoint": ["/pause"]})
    cluster.import_image(archive)


def _write_files(cluster: Cluster, token: str) -> None:
    root = cluster.root
    for name in ("logs", "pod-logs", "cni", "manifests"):
        (root / name).mkdir()
    (root / "tokens").write_text(f"{token},admin,admin,system:masters\n")
    (root / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["openssl", "genrsa", "-out", str(root / "key"), "2048"], check=True, capture_output=True)
    (root / "kubeconfig").write_text(yaml.safe_dump(_kubeconfig(token)))
    (root / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(root)))
    (root / "cni" / "10-pods.conflist").write_text(json.dumps(_network()))
    (root / "containerd.toml").write_text(CONTAINERD.format(root=root, cni=CNI, pause=PAUSE_IMAGE))


CONTAINERD = """\
version = 2
root = "{root}/containerd"
state = "{root}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _network() -> dict[str, object]:
    plugin = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": False,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": PODS, "rangeStart": "10.90.1.1", "gateway": ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}


def _kubeconfig(token: str) -> dict[str, object]:
    server = {"server": f"https://127.0.0.1:{PORT}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


def _kubelet(root: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{root.name}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "singleProcessOOMKill": True,  # as on cgroups v1
        "makeIPTablesUtilChains": False,
        "shutdownGracePeriod": "0s",
        "shutdownGracePeriodCriticalPods": "0s",
        "evictionHard": dict.fromkeys(EVICTION_SIGNALS, "0%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "fileCheckFrequency": "1s",
        "staticPodPath": f"{root}/manifests",
        "podLogsDir": f"{root}/pod-logs",
        "containerRuntimeEndpoint": f"unix://{root}/containerd.sock",
        "volumePluginDir": f"{root}/volume-plugins",
        "resolvConf": f"{root}/resolv.conf",
        "maxPods": 250,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "registryPullQPS": 0,
        "localStorageCapacityIsolation": False,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerLogMaxSize": "100Mi",
    }
