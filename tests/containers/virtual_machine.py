"""A virtual machine with cgroups v2, emulated by qemu: Debian 13 with its own kernel and Docker.

If the host's controllers are on cgroups v1, no container on it can have them on v2.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from .engine import NotAvailable
from .images import cached

QEMU = "qemu-system-x86_64"
NEEDS = (QEMU, "mmdebstrap", "mke2fs")
SUITE = "trixie"
PACKAGES = "linux-image-cloud-amd64,docker.io,docker-cli,containerd,runc,kmod,zstd"
BEGIN, END = "begin of the job\n", "end of the job\n"
BYTES = 4 << 30  # of its disk, a file with holes
BOOTS = 3
BOOT_TIMEOUT = 300.0  # seconds until the job begins: 30 on an idle host

# The first process of the machine: mount file systems, start an engine, run the job, power off.
START = r"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
modprobe overlay
tar -xf /dev/vdb -C /tmp
# It gives up where its containerd takes more than 15 seconds to start, as in a slow machine.
while sleep 0.2; do dockerd --bridge none --iptables=false --ip6tables=false; done >/tmp/dockerd.log 2>&1 &
until docker version >/tmp/version 2>&1; do sleep 0.2; done
cd /tmp
echo "begin of the job"
sh -u job 2>&1
echo "end of the job"
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def run(files: dict[str, Path], seconds: float) -> str:
    """Boot the machine, run `sh job` in a folder with these files, and return its output. Raises NotAvailable.

    `files`: name inside to path outside. `seconds`: the timeout of the job. An emulated machine can crash or hang
    before the job begins: then it is booted again.
    """
    kernel, disk = _made()
    with tempfile.TemporaryDirectory(prefix="agent-init-machine-") as name:
        folder = Path(name)
        with tarfile.open(folder / "files", "w") as archive:
            for inside, path in files.items():
                archive.add(path, inside)
        _pad(folder / "files")
        command = [
            # One processor: with two, the kernel sometimes crashed while it booted.
            *(QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048", "-no-reboot"),
            *("-nodefaults", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initrd.img")),
            # loglevel=1: kernel messages would mix with the output of the job.
            *("-append", "console=ttyS0 loglevel=1 root=/dev/vda rw init=/sbin/start oops=panic panic=-1"),
            *("-drive", f"file={disk},if=virtio,format=raw,snapshot=on"),
            *("-drive", f"file={folder / 'files'},if=virtio,format=raw,readonly=on"),
        ]
        for _ in range(BOOTS):
            output = _boot(command, folder / "console", seconds)
            if BEGIN in output:
                break
    assert END in output, f"not within {seconds:.0f} s: {output[-5000:]}"
    return output.split(BEGIN)[1].split(END)[0]


def _boot(command: list[str], console: Path, seconds: float) -> str:
    """Run the machine to its end or a timeout, and return what it printed on its console."""
    with console.open("wb") as output:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while machine.poll() is None and time.monotonic() < deadline and BEGIN not in _text(console):
            time.sleep(0.5)
        if BEGIN in _text(console):
            machine.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        machine.kill()
        machine.wait()
    return _text(console)


def _text(console: Path) -> str:
    return console.read_text(errors="replace").replace("\r\n", "\n")


def _made() -> tuple[Path, Path]:
    """The folder with the kernel, and the disk."""
    if platform.machine() != "x86_64":
        raise NotAvailable("the virtual machine is an x86-64 one and runs only on x86-64")
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        raise NotAvailable(f"the virtual machine takes {', '.join(missing)} (Debian: qemu-system-x86, mmdebstrap)")
    recipe = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE)
    with cached("machine", " ".join(recipe) + START) as (folder, to_be_made):
        if to_be_made:
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            root = partial / "root"
            partial.mkdir(parents=True)
            subprocess.run([*recipe, str(root)], check=True, stdin=subprocess.DEVNULL)
            for name in ("vmlinuz", "initrd.img"):
                (found,) = (root / "boot").glob(f"{name}-*")
                shutil.copy(found, partial / name)
            start = root / "sbin" / "start"
            start.write_text(START)
            start.chmod(0o755)
            disk = partial / "disk"
            with disk.open("wb") as file:
                file.truncate(BYTES)
            subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk)], check=True)
            shutil.rmtree(root)
            partial.rename(folder)
    return folder, folder / "disk"


def _pad(path: Path) -> None:
    """Extend a file to a whole number of sectors."""
    with path.open("ab") as file:
        file.truncate(-(-path.stat().st_size // 4096) * 4096)
