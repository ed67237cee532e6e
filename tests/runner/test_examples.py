"""The code in `docs/runner.md`, `docs/api.md` and `examples/runner.py` works."""

from __future__ import annotations

import inspect
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import entrypoint.agent
from tests.agents.environments import PROJECT
from tests.support.init import PATIENCE, until

from .pythons import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


def test_the_example_in_the_runner_page(start: Start, tmp_path: Path) -> None:
    block = re.search(r"```python\n(.*?)```", (PROJECT / "docs" / "runner.md").read_text(), re.DOTALL)
    assert block
    program = tmp_path / "page.py"
    program.write_text(block[1])
    init = start(command=[str(program)], program=[sys.executable], process1=False, env=environment())
    status = f"/proc/{init.pid}/status"

    def handles() -> bool:
        with open(status) as file:
            caught = re.search(r"SigCgt:\s*(\w+)", file.read())
        return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    until(handles, "a handler for TERM")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.stderr


SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (PROJECT / "docs" / "api.md").read_text(), re.M | re.S))
PRINTED = {
    "run": "done\n",
    "stop_requested": "nobody wants us to stop\n",
    "StopRequest": "False inf\n",
    "ready": "",
    "status": "",
    "DaemonThreadPool": "3\n",
}


def test_the_api_page_has_every_name_with_its_signature() -> None:
    assert sorted(SECTIONS) == sorted(entrypoint.agent.__all__)
    for name in set(SECTIONS) - {"StopRequest"}:
        signature = inspect.signature(getattr(entrypoint.agent, name))
        plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
        expected = f"{name}{inspect.Signature(plain)}"
        assert re.findall(r"^```\n(.*?)\n```", SECTIONS[name], re.M | re.S) == [expected]


@pytest.mark.parametrize("name", PRINTED)
def test_the_examples_in_the_api_page(name: str) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", SECTIONS[name], re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    slow = re.compile(r"^Executing <.* took .* seconds\n", re.M)  # asyncio's debug mode, on a busy machine
    assert (done.returncode, done.stdout, slow.sub("", done.stderr)) == (0, PRINTED[name], "")


def test_the_example_file(start: Start, tmp_path: Path) -> None:
    """Its calls take longer than agent-init's grace period."""
    output = tmp_path / "output"
    with output.open("wb") as stdout:
        init = start(
            *("-v", "--grace", "1s", "--", sys.executable, str(PROJECT / "examples" / "runner.py")),
            env=environment(WORK_SECONDS="3"),
            stdout=stdout,
        )
    until(lambda: "call 2 begins" in output.read_text(), "the second call")
    init.signal("TERM")
    assert init.wait() == 0
    printed = output.read_text()
    assert "agent: stop requested: 58s to finish the calls in hand\n" in printed
    assert printed.endswith("agent: call 2 ends\nagent: cleaned up\n")
    assert init.lines('"draining')
