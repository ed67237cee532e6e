"""Build everything that is published: `python launcher/build.py [DIRECTORY]`, `dist` by default.

The source archive, and from it a pure wheel and one with the launcher for each machine. With the versions of the
dependency group `release`, the files have the same bytes wherever they are built; their times are SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build(source: Path, output: Path, kind: str, machine: str = "") -> None:
    """Build the source archive (`--sdist`) or a wheel (`--wheel`). The machine's own settings have no effect."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HATCH", "AGENT_INIT_", "PYTHON"))
    }
    environment = {**kept, "AGENT_INIT_LAUNCHER": machine, "SOURCE_DATE_EPOCH": time_of_source()}
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", kind]
    subprocess.run(
        [*command, "--outdir", str(output), str(source)], env=environment, check=True, stdout=subprocess.DEVNULL
    )


def time_of_source() -> str:
    """Seconds since the epoch: SOURCE_DATE_EPOCH, else the last commit's, else hatchling's default."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(HERE.parent), "log", "-1", "--format=%ct"]
    commit = subprocess.run(command, capture_output=True, text=True)
    return commit.stdout.strip() or "1580601600"


def main(output: Path) -> None:
    """Build all."""
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    build(HERE.parent, output, "--sdist")
    (archive,) = output.glob("agent_init-*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="agent-init-source-") as scratch:
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        (source,) = Path(scratch).iterdir()
        for machine in ("", *runpy.run_path(str(HERE / "compile.py"))["TARGETS"]):
            build(source, output, "--wheel", machine)
    for built in sorted(output.iterdir()):
        print(built.name)


if __name__ == "__main__":
    main(Path(*sys.argv[1:] or ["dist"]))
