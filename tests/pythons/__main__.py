"""Run the suites on the current Pythons: all of them on the newest, a share on the others. Needs root.

Debian's development release has the current patch releases of 3.13 and later. Of 3.11 and 3.12 the machine's own are
taken: whatever it has, as Debian keeps no newer ones.

`python -m tests.pythons get` only makes or updates what that takes. Other arguments go to pytest.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping

from tests.agents.environments import PROJECT, cache, uv
from tests.runner.pythons import found

from .root import PYTHONS, environment, ready, versions

# The parametrized fixtures of `runner`, `reports` and `pythons` have a test for each Python of the machine.
EVERYTHING = "tests/unit tests/process1 tests/runner tests/reports tests/pythons".split()
# What depends on the interpreter: how it starts, which modules it loads, how it runs programs and handles signals.
SHARE = [f"tests/process1/test_{name}.py" for name in "isolation start start_failures stop stop_signal".split()]
SHARE += [f"tests/unit/test_{name}.py" for name in "spawn start own_process libc loop supervisor fallback".split()]


OLDER = ("3.11", "3.12")  # the machine's, but not the one that runs this: the other sessions run on that
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses=4")


def on_machine(python: str) -> str:
    """An environment of this interpreter with the checkout and its tests' packages, brought up to date."""
    name = f"pythons-{python.strip('/').replace('/', '-')}"
    inside = str(cache() / name / "bin" / "python3")
    subprocess.run([uv(), "venv", "--quiet", "--allow-existing", "--python", python, str(cache() / name)], check=True)
    install = [uv(), "pip", "install", "--quiet", "--upgrade", "--python", inside, "--editable", ".[test]"]
    subprocess.run(install, cwd=PROJECT, check=True)
    return inside


def run(title: str, command: list[str], variables: Mapping[str, str] | None = None) -> bool:
    """Run pytest; return whether it passed."""
    print(f"--- {title}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=PROJECT, env=variables, stdin=subprocess.DEVNULL).returncode
    print(
        f"--- {title}: {f'FAILED ({code})' if code else 'passed'}, after {time.monotonic() - began:.0f} s", flush=True
    )
    return code == 0


def main(arguments: list[str]) -> int:
    with ready(uv()) as root:
        installed = versions(root)
        older = [on_machine(path) for version, path in found().items() if version in OLDER and path != sys.executable]
        print(*installed.values(), flush=True)
        if arguments == ["get"]:
            return 0
        *others, newest = PYTHONS
        suites = {newest: EVERYTHING, **dict.fromkeys(others, SHARE)}
        results = [
            run(installed[version], root.command(root.python(version), *PYTEST, *chosen, *arguments), environment())
            for version, chosen in suites.items()
        ]
        results += [run(python, [python, *PYTEST, *SHARE, *arguments]) for python in older]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
