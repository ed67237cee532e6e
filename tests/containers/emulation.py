"""Run aarch64 programs on another machine: qemu's user emulation, started by the kernel (binfmt_misc)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .engine import NotAvailable

REGISTRY = Path("/proc/sys/fs/binfmt_misc")
QEMU = "qemu-aarch64-static"

# The first bytes of an ELF file for aarch64, and the mask of the bits that are compared.
MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")


@contextmanager
def aarch64() -> Iterator[None]:
    """Inside this context the kernel runs aarch64 programs, also in containers. Raises NotAvailable."""
    if platform.machine() == "aarch64" or (REGISTRY.is_dir() and any(map(_is_for_aarch64, REGISTRY.iterdir()))):
        yield
        return
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise NotAvailable(f"running aarch64 programs takes {QEMU} (Debian: qemu-user-static)")
    if os.geteuid() != 0:
        raise NotAvailable("only root can register an emulator for aarch64")
    register = REGISTRY / "register"
    mounted = not register.exists()
    if mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(REGISTRY)], check=False, capture_output=True)
    name = f"agent-init-{os.getpid()}"
    # F: the kernel opens qemu now, so the containers need no copy.
    try:
        register.write_bytes(f":{name}:M::{_escaped(MAGIC)}:{_escaped(MASK)}:{qemu}:F".encode())
    except OSError as error:
        raise NotAvailable(f"the kernel refuses an emulator for aarch64: {error}") from None
    try:
        yield
    finally:
        (REGISTRY / name).write_text("-1")
        if mounted:
            subprocess.run(["umount", str(REGISTRY)], check=False)


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _is_for_aarch64(entry: Path) -> bool:
    if entry.name in ("register", "status"):
        return False
    lines = entry.read_text().splitlines()
    return lines[0] == "enabled" and f"magic {MAGIC.hex()}" in lines and any("F" in x for x in lines if "flags:" in x)
