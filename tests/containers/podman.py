"""Podman with a separate store, to run Kubernetes YAML.

It uses runc and plain cgroups, so it needs no systemd, and stays within the existing resource limits.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .engine import Engine, NotAvailable

NEEDS = ("podman", "conmon", "runc")
LIMIT = 4096  # files and processes; podman's default may be above the hard limit

CONFIGURATION = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


class Podman:
    """The `podman` command with all its files in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        configuration = root / "containers.conf"
        configuration.write_text(
            CONFIGURATION.format(files=_at_most(resource.RLIMIT_NOFILE), processes=_at_most(resource.RLIMIT_NPROC))
        )
        self.environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
        self.command = ("podman", "--root", f"{root}/store", "--runroot", f"{root}/run", "--tmpdir", f"{root}/tmp")

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def load(self, engine: Engine, image: str) -> None:
        """Copy an image from Docker."""
        saving = subprocess.Popen(["docker", "save", image], env=engine.environment, stdout=subprocess.PIPE)
        load = [*self.command, "load", "--quiet"]
        loading = subprocess.run(load, env=self.environment, stdin=saving.stdout, capture_output=True, timeout=300)
        assert saving.stdout is not None
        saving.stdout.close()
        assert saving.wait() == 0
        assert loading.returncode == 0, loading.stderr

    def state(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self("inspect", container).stdout)
        state = found["State"]
        assert isinstance(state, dict)
        return state

    def output(self, container: str) -> str:
        """The container's stdout, then its stderr."""
        logs = self("logs", container)
        return logs.stdout + logs.stderr


def _at_most(what: int) -> int:
    hard = resource.getrlimit(what)[1]
    return LIMIT if hard == resource.RLIM_INFINITY else min(hard, LIMIT)


@contextmanager
def private_podman() -> Iterator[Podman]:
    """Podman with an empty store, removed afterwards. Raises NotAvailable."""
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        raise NotAvailable(f"running Kubernetes YAML takes {', '.join(missing)} (Debian: podman, runc)")
    if os.geteuid() != 0:
        raise NotAvailable("only root can run podman without a user session")
    root = Path(tempfile.mkdtemp(prefix="agent-init-podman-", dir="/tmp"))
    podman = Podman(root)
    try:
        yield podman
    finally:
        podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
        podman("rm", "--all", "--force", "--time", "0", check=False)
        mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{root}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(root)
