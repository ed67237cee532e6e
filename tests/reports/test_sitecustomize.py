"""Our directory in front of PYTHONPATH changes nothing except that the responder runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import PATIENCE

from .running import SITE

if TYPE_CHECKING:
    from .conftest import Run

STATE = (
    "import os, sys; print(sys.path, sorted(set(sys.modules) - {'_socket', 'gc'}), "
    "getattr(sys.modules.get('sitecustomize'), '__file__', None), "
    "getattr(sys.modules.get('usercustomize'), '__file__', None), sorted(sys.path_importer_cache))"
)
OWN = {
    "none": None,
    "sets an attribute": "import sys; sys.flag = 1; print('user')",
    "a package": "package",
    "fails": "import nowhere",
    "fails otherwise": "1 / 0",
    "fails by its own name": "raise ImportError('no', name='sitecustomize')",
    "does not compile": "def",
    "exits": "raise SystemExit(7)",
    "changes the path": "import sys; sys.path.append('/tmp/more')",
    "chains on": "import sys; sys.path.remove(__file__.rpartition('/')[0]); del sys.modules['sitecustomize']\n"
    "try: import sitecustomize\nexcept ImportError: print('nothing more')",
}


def outcome(python: str, path: str, *flags: str, code: str = STATE, **variables: str) -> tuple[int, str, str]:
    """Run `code`; return the exit code, stdout and stderr. `path`: PYTHONPATH, "" for none."""
    environment = {"PATH": os.environ["PATH"], "AGENT_INIT_RESPONDERS": f"@site-{os.getpid()}", **variables}
    if path:
        environment["PYTHONPATH"] = path
    argv = [python, *flags, "-c", code]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, cwd="/")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("own", OWN)
def test_a_sitecustomize_of_the_user_runs_unchanged(python: str, tmp_path: Path, own: str) -> None:
    """Same effect, same failure, same modules from the same places, except for two built-in ones."""
    code = OWN[own]
    if code == "package":
        (tmp_path / "sitecustomize").mkdir()
        (tmp_path / "sitecustomize" / "__init__.py").write_text("print('package')")
    elif code is not None:
        (tmp_path / "sitecustomize.py").write_text(code)
    outcome(python, str(tmp_path))  # compiles it
    without = outcome(python, str(tmp_path), "-B")
    with_ours = outcome(python, f"{SITE}:{tmp_path}", "-B")
    assert with_ours[:2] == without[:2]
    assert _without_frames(with_ours[2]) == _without_frames(without[2])


def _without_frames(err: str) -> list[str]:
    """Return the lines of a traceback without its frames: with ours there is one more."""
    return [line for line in err.splitlines() if not line.startswith("  ")]


def test_usercustomize_is_left_alone(python: str, tmp_path: Path) -> None:
    if python == sys.executable:  # a virtual environment has none
        python = str(Path(sys.base_exec_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    (tmp_path / "usercustomize.py").write_text("print('hello')")
    without, with_ours = (outcome(python, f"{first}{tmp_path}", "-B", code="print()") for first in ("", f"{SITE}:"))
    assert with_ours == without
    assert "hello" in with_ours[1]


def test_child_processes_inherit_it(run: Run, python: str) -> None:
    """PYTHONPATH in the environment stays as agent-init set it."""
    program = run(
        "-c",
        "import os, subprocess, sys; print(os.environ['PYTHONPATH'], flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(100)'])",
        python=python,
    )
    assert program.line() == str(SITE)
    child = int(program.line())
    assert program.answer_with("end", child).startswith(f"process\t{child}\t")


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_an_isolated_interpreter_has_none(python: str, flag: str) -> None:
    code, out, err = outcome(python, str(SITE), flag, code="import os; print(len(os.listdir('/proc/self/task')))")
    assert (code, out, err) == (0, "1\n", "")


def test_it_does_nothing_without_its_variable(python: str) -> None:
    code = "import os, sys; print(len(os.listdir('/proc/self/task')), '_socket' in sys.modules)"
    environment = {"PYTHONPATH": str(SITE)}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 False\n", "")


OLD = [
    str(python)
    for place in ("2.*", "3.[0-8].*")
    for python in Path("~/.pyenv/versions").expanduser().glob(f"{place}/bin/python")
]


@pytest.mark.parametrize("own", ["none", "sets an attribute", "fails otherwise"])
def test_older_pythons_in_the_tree_are_left_alone(tmp_path: Path, own: str) -> None:
    """They read the same PYTHONPATH. Each older Python of this machine, down to 2.7."""
    if (code := OWN[own]) is not None:
        (tmp_path / "sitecustomize.py").write_text(code)
    for python in [*OLD, sys.executable]:
        without, with_ours = (
            outcome(python, f"{first}{tmp_path}", "-B", code="print(1)") for first in ("", f"{SITE}:")
        )
        assert with_ours == without
