"""The images that the tests run, built from Debian's and Python's package registries only.

1. `BASE`: a Debian that looks like the official `python` images (`python` and `pip` in /usr/local). The wheels of the
   project and its dependencies are in /wheels, and pip installs from there instead of from the network.
2. `EXAMPLE`: the project's `Dockerfile.example`, unchanged, on that base.
3. `PROBE`: the same with the tests' programs in /probe.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .engine import Engine, NotAvailable

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]

BASE, EXAMPLE, PROBE = "agent-init-test/python", "agent-init-test/example", "agent-init-test/probe"
DEBIAN = "agent-init-test/debian"

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3,python3-venv"
PIP_SETTINGS = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_ROOT_USER_ACTION=ignore"
MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
WHEELS_FOR = {"arm64": "aarch64"}  # Debian's name of an architecture to the name in wheel tags
CHANGES = ("ENV LANG=C.UTF-8", "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")


def cache() -> Path:
    """The folder for everything that takes long to create."""
    named = os.environ.get("AGENT_INIT_TEST_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "agent-init-tests"


def build_all(engine: Engine, machine: str = "") -> None:
    """Build the three images. Raises NotAvailable.

    `machine` is Debian's name of another architecture; the images are then tagged with it.
    """
    tag = f":{machine}" if machine else ""
    changes = [word for change in CHANGES for word in ("--change", change)]
    target = ("--platform", f"linux/{machine}") if machine else ()
    engine("import", *target, *changes, str(debian(machine)), DEBIAN + tag, timeout=300)
    with tempfile.TemporaryDirectory(prefix="agent-init-context-") as folder:
        context = Path(folder)
        collect_wheels(context / "wheels", machine=WHEELS_FOR.get(machine, ""))
        build(engine, BASE + tag, context, f"FROM {DEBIAN}{tag}\nCOPY wheels /wheels\nENV {PIP_SETTINGS}\n")
    engine(
        *("build", "--network", "none", "--build-arg", f"BASE={BASE}{tag}", "--tag", EXAMPLE + tag),
        *("--file", str(PROJECT / "Dockerfile.example"), str(PROJECT)),
        timeout=600,
    )
    build(engine, PROBE + tag, HERE, f"FROM {EXAMPLE}{tag}\nCOPY programs /probe\n")


def build(engine: Engine, tag: str, context: Path, dockerfile: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(dockerfile)
        file.flush()
        engine("build", "--network", "none", "--tag", tag, "--file", file.name, str(context), timeout=300)


def debian(machine: str = "") -> Path:
    """A tar file of a small Debian with Python, for this architecture or another (Debian's name)."""
    recipe: Sequence[str] = (
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"),
        *((f"--architectures={machine}", "--skip=check/qemu") if machine else ()),
        '--customize-hook=chroot "$1" python3 -m venv /usr/local',
        '--customize-hook=rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale',
        SUITE,
    )
    if shutil.which("mmdebstrap") is None:
        raise NotAvailable("making the base image takes mmdebstrap")
    with cached(f"debian-{machine or platform.machine()}", " ".join(recipe), ".tar") as (path, missing):
        if missing:
            partial = path.with_suffix(".partial.tar")
            subprocess.run([*recipe, str(partial)], check=True, stdin=subprocess.DEVNULL)
            partial.rename(path)
    return path


@contextmanager
def cached(name: str, recipe: str, suffix: str = "") -> Iterator[tuple[Path, bool]]:
    """Lock a path in the cache for the result of `recipe`; yield the path and whether it still has to be created."""
    path = cache() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path, not path.exists()


def collect_wheels(folder: Path, systems: Sequence[str] = MANYLINUX, *, machine: str = "") -> None:
    """Build the wheel with the launcher from this checkout and download its dependencies for the image's Python."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = all(map(importlib.util.find_spec, ("hatchling", "hatch_fancy_pypi_readme", "ziglang")))
    subprocess.run(
        [
            *(*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder)),
            *(["--no-build-isolation"] if tools else []),  # else pip gets the compiler, 100 MB, for each wheel
            str(PROJECT),
        ],
        env={**os.environ, "AGENT_INIT_LAUNCHER": machine or platform.machine()},
        check=True,
    )
    (wheel,) = folder.glob("agent_init-*.whl")
    download(folder, str(wheel), systems=systems, machine=machine)


def download(folder: Path, *wanted: str, systems: Sequence[str] = MANYLINUX, machine: str = "") -> None:
    """Download wheels and their dependencies for the image's Python. `wanted`: arguments of `pip install`."""
    platforms = [f"{system}_{machine or platform.machine()}" for system in systems]
    subprocess.run(
        [
            *(*PIP, "download", "--only-binary=:all:", "--dest", str(folder), "--implementation", "cp"),
            *("--python-version", PYTHON, *(word for name in platforms for word in ("--platform", name))),
            *wanted,
        ],
        check=True,
    )
