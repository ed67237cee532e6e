"""Programs for aarch64 on another machine: qemu's user emulation, called by the kernel (binfmt_misc)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .engine import NoEngine

REGISTRY = Path("/proc/sys/fs/binfmt_misc")
QEMU = "qemu-aarch64-static"

# The first bytes of an ELF file for aarch64, and which of their bits count.
MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")


@contextmanager
def aarch64() -> Iterator[None]:
    """Meanwhile the kernel runs programs for aarch64, in containers too. Raises NoEngine."""
    if platform.machine() == "aarch64" or (REGISTRY.is_dir() and any(map(_is_for_aarch64, REGISTRY.iterdir()))):
        yield
        return
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise NoEngine(f"to run programs for aarch64 there is no {QEMU} (Debian: qemu-user-static)")
    if os.geteuid() != 0:
        raise NoEngine("only root can have programs for aarch64 emulated")
    register = REGISTRY / "register"
    mounted = not register.exists()
    if mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(REGISTRY)], check=False, capture_output=True)
    name = f"agent-init-{os.getpid()}"
    # F: the kernel opens qemu now, so that containers need not have it.
    try:
        register.write_bytes(f":{name}:M::{_escaped(MAGIC)}:{_escaped(MASK)}:{qemu}:F".encode())
    except OSError as error:
        raise NoEngine(f"the kernel does not take an emulator for aarch64: {error}") from None
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
