"""Get what the cluster is made of: `python -m tests.kubernetes.build`.

Kubernetes is built from Go's module proxy (no package ships a kubelet), once: about 7 minutes of processor time. etcd,
containerd and runc are Debian's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import go_programs

VERSION = "1.37.2"
PROGRAMS = ("kubelet", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


def kubernetes() -> Path:
    """Return the folder with Kubernetes' programs. Raises BuildFailed."""
    return go_programs.programs(
        "k8s.io/kubernetes",
        f"v{VERSION}",
        [f"cmd/{name}" for name in PROGRAMS],
        ldflags=f"-X k8s.io/component-base/version.gitVersion=v{VERSION}",
        local=f"v0{VERSION[1:]}",
    )


if __name__ == "__main__":
    sys.exit(go_programs.main(kubernetes))
