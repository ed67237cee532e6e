"""`python -m bench.pythons DIRECTORY [OPTION]...`: measure on the current 3.13 and 3.15 too, as Debian sid has them.

The runs on these are in the root that `tests/pythons` makes; it needs root and `mmdebstrap`. Their figures are written
into DIRECTORY. Then `python -m bench` measures the installation that runs this, and shows all of them on the page.
OPTIONs, such as `--rounds 8`, go to each run.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from tests.agents.environments import uv
from tests.pythons.root import Root, environment, ready

PYTHONS = ("3.13", "3.15")
# What the targets are multiples of, and what no init in Python can be better than.
INITS = ("floor", "poll loop in Python", "tini", *(f"agent-init{form}" for form in ("", ", environment", ", flags")))
INITS += ("agent-init, everything on", "agent-init, PYTHONPATH set")


def install(root: Root, version: str) -> str:
    """Install the checkout with the launcher, as a wheel is installed; return the path of its interpreter inside."""
    place = f"/environments/bench-{version}"
    python = f"{place}/bin/python3"
    options = ("--quiet", "--compile-bytecode", "--python", python)
    tool = "/usr/local/bin/uv"
    root.run(tool, "venv", "--quiet", "--clear", "--python", f"/usr/bin/python{version}", place)
    root.run(tool, "pip", "install", *options, ".[http]")
    launcher = {"AGENT_INIT_LAUNCHER": platform.machine()}
    root.run(tool, "pip", "install", *options, "--reinstall", "--no-deps", "--no-cache", ".", **launcher)
    return python


def main(directory: Path, options: list[str]) -> None:
    """Measure each. Raises CalledProcessError."""
    directory.mkdir(parents=True, exist_ok=True)
    also = []
    with ready(uv()) as root:
        for version in PYTHONS:
            python = install(root, version)
            name = f"figures-{version}.json"
            inside = f"/environments/{name}"
            chosen = [word for init in INITS for word in ("--init", init)]
            (root.path / inside.lstrip("/")).unlink(missing_ok=True)
            run = [python, "-m", "bench", *chosen, *options, "--figures", inside]
            subprocess.run(root.command(*run), env=environment(), stdin=subprocess.DEVNULL, check=True)
            (directory / name).write_text((root.path / inside.lstrip("/")).read_text())
            also += ["--also", str(directory / name)]
    subprocess.run([sys.executable, "-m", "bench", *also, *options], check=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m bench.pythons DIRECTORY [OPTION]...")
    main(Path(sys.argv[1]), sys.argv[2:])
