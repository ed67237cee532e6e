"""Compiles launcher.c: for any machine with zig (`ziglang` on PyPI), for this one with the C compiler that is there."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("launcher.c")

# No C library, and nothing that takes one: stack protector, unwind tables, calls to memcpy by the compiler.
COMPILE = (
    *("-Os", "-std=gnu11", "-Wall", "-Wextra", "-fno-builtin", "-fno-pie", "-fomit-frame-pointer"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
)
COMMANDS = {"agent-init": (), "agent-initctl": ("-DCONTROL",)}  # with what each is compiled with
LINK = ("-static", "-s", "--build-id=none", "-z", "noexecstack")


class Target(NamedTuple):
    """A machine that has a wheel. The launcher needs no C library, so its wheel suits glibc and musl."""

    triple: str  # for zig
    emulation: str  # for the linker
    tags: str  # of the wheel's platforms (PEP 600, PEP 656)


TARGETS = {
    "x86_64": Target(
        "x86_64-linux-musl", "elf_x86_64", "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64"
    ),
    "aarch64": Target(
        "aarch64-linux-musl", "aarch64linux", "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"
    ),
    "armv7l": Target(
        "arm-linux-musleabihf", "armelf_linux_eabi", "manylinux_2_17_armv7l.manylinux2014_armv7l.musllinux_1_1_armv7l"
    ),
    "riscv64": Target("riscv64-linux-musl", "elf64lriscv", "manylinux_2_31_riscv64.musllinux_1_2_riscv64"),
}


def with_zig(machine: str, output: Path) -> None:
    """Compile the command of that name for a machine of TARGETS. The same bytes wherever and whenever it runs."""
    target = TARGETS[machine]
    with tempfile.TemporaryDirectory(prefix="agent-init-launcher-") as scratch:
        # zig links with the machine's own linker if it is asked to link without a C library, so its lld is called.
        compile = ("cc", "-target", target.triple, *COMPILE, *COMMANDS[output.name], "-c")
        _zig(scratch, *compile, "-o", f"{scratch}/launcher.o", str(SOURCE))
        _zig(scratch, "ld.lld", "-m", target.emulation, *LINK, "-o", str(output), f"{scratch}/launcher.o")
    output.chmod(0o755)


def _zig(scratch: str, *arguments: str) -> None:
    settings = {"ZIG_GLOBAL_CACHE_DIR": f"{scratch}/cache", "ZIG_LOCAL_CACHE_DIR": f"{scratch}/cache", "HOME": scratch}
    # Not `python -m ziglang`: pip's build environment is on this interpreter's path only, not on that of another.
    package = find_spec("ziglang")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no module ziglang: pip install ziglang")
    subprocess.run([Path(package.origin).with_name("zig"), *arguments], env=settings, check=True)


def natively(output: Path, compiler: Sequence[str] = ("gcc",)) -> None:
    """Compile the command of that name for this machine, for the tests. Raises OSError without such a compiler."""
    linker = [f"-Wl,{','.join(('-z', 'noexecstack', '--build-id=none'))}", "-static", "-s", "-no-pie", "-nostdlib"]
    subprocess.run([*compiler, *COMPILE, *COMMANDS[output.name], *linker, "-o", str(output), str(SOURCE)], check=True)
