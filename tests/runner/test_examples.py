"""The code in `docs/runner.md`, `docs/api.md` and `examples/runner.py` works."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

from tests.agents.environments import PROJECT
from tests.support.init import until

from .pythons import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


def test_the_code_in_the_page(start: Start, tmp_path: Path) -> None:
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


def test_the_example(start: Start, tmp_path: Path) -> None:
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
