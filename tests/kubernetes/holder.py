"""Hold the namespaces that the cluster lives in, and remove all of it when stdin ends: `holder.py ROOT`.

It has a session of its own, so a Ctrl-C, a dead pytest or a killed one all end in the same way: the pipe to it closes.
The first process of the PID namespace is killed; with it go all the cluster's processes, and with these its mounts and
its network. What is left are cgroups and files.

It prints one line when the namespaces are ready: the pid of their first process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
END_SECONDS = 60.0

# Directories that programs use and have no option for, and sysctls that the kubelet sets for the whole machine.
OWN_DIRECTORIES = ("/run", "/var/lib", "/var/log")
OWN_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
BRIDGE, ADDRESS = "pods", "10.90.0.1"  # the node's address
SERVICES = "10.91.0.0/16"  # a packet needs a route before kube-proxy's rules see it

# All pods together get as much of the CPU as ten processes beside the cluster; without this, as much as one.
CPU_SHARES = {"cpu.shares": "10240", "cpu.weight": "1000"}


def main() -> int:
    root = Path(sys.argv[1])
    if sys.argv[2:]:
        first_process(root)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    make_cgroups(root.name)
    unshare = (
        "unshare",
        "--mount",
        "--propagation=slave",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
    )
    inside = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *unshare, sys.executable, __file__, str(root), "inside"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert inside.stdout
        if inside.stdout.readline():
            first = int(Path(f"/proc/{inside.pid}/task/{inside.pid}/children").read_text())
            print(first, flush=True)
            sys.stdin.read()
            os.kill(first, signal.SIGKILL)  # `unshare` reaps it when all are gone
            inside.wait(END_SECONDS)
    finally:
        inside.kill()
        inside.wait()
        remove_cgroups(root.name)
        remove_files(root)
    return 0


def first_process(root: Path) -> None:
    """Be process 1 of the namespaces: prepare them, then only reap."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for place in OWN_DIRECTORIES:
        own = root / "own" / place.replace("/", "_")
        own.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(own), place], check=True)
    for name in OWN_SYSCTLS:
        sysctl, own = Path("/proc/sys", name), root / "own" / name.replace("/", "_")
        if sysctl.exists():
            own.write_text(sysctl.read_text())
            subprocess.run(["mount", "--bind", str(own), str(sysctl)], check=True)
    for command in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"address add {ADDRESS}/16 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route add {SERVICES} dev {BRIDGE}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    print("ready", flush=True)
    while True:
        signal.pause()


def hierarchies() -> list[Path]:
    """The mounted cgroup hierarchies."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(place) for _, place, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def make_cgroups(name: str) -> None:
    for hierarchy in hierarchies():
        made = hierarchy / name
        made.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / setting).exists():
                (made / setting).write_text((hierarchy / setting).read_text())
        for setting, share in CPU_SHARES.items():
            if (made / setting).exists():
                (made / setting).write_text(share)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of this name; they are empty once the kernel has reaped the last process."""
    deadline = time.monotonic() + END_SECONDS
    while left := [made for hierarchy in hierarchies() if (made := hierarchy / name).exists()]:
        for made in left:
            for folder, _, _ in os.walk(made, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)


def remove_files(root: Path) -> None:
    deadline = time.monotonic() + END_SECONDS
    while root.exists() and time.monotonic() < deadline:  # a mount is gone a moment after its last process
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
