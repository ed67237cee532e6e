"""Agents with helpers: the stop signal is for the agent.

`test_helpers.py` tries more helpers, on more kinds of loops.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.field.place import Place
from tests.field.running import Build
from tests.field.trial import Right, Trial
from tests.field.wrappers import tool

HELPED = Path(__file__).parents[1] / "programs" / "helped.py"


def helped(kind: str, helper: str, shell_line: str = "") -> Build:
    def build(place: Place) -> list[str]:
        words = [sys.executable, str(HELPED), kind, helper]
        return ["bash", "-c", shell_line.replace("AGENT", shlex.join(words))] if shell_line else words

    return build


def _variables(place: Place) -> Mapping[str, str]:
    return {"EVENTS": str(place.log), "FIELD_DISPLAY": f":{place.display}"}


def _uv_run(place: Place) -> list[str]:
    words = [sys.executable, str(HELPED), "asyncio", "mcp server"]
    return [tool("uv"), "run", "--no-project", "--python", words[0], "python", *words[1:]]


def _helper(name: str, build: Build, *programs: str, variation: bool = True, within: float = 4,
            codes: tuple[int, ...] = (130,)) -> Trial:  # fmt: skip
    right = Right("cleaned", {"agent": ("ready", "up", "cleaned")}, codes=codes, within=within)
    return Trial(name, "own", build, right, programs=programs, environment=_variables, variation=variation)


TRIALS = [
    _helper("asyncio with an MCP server in Node", helped("asyncio", "mcp server"), "node", variation=False),
    _helper("asyncio with an MCP server behind a shell", helped("asyncio", "mcp server behind a shell"), "node"),
    _helper("asyncio with an MCP server, behind sh", helped("asyncio", "mcp server", "AGENT; exit $?"), "node"),
    _helper("asyncio with an MCP server, behind uv run", _uv_run, "node", tool("uv")),
    _helper("asyncio with an MCP server, behind an exiting trap",
            helped("asyncio", "mcp server", "trap 'exit 0' TERM; AGENT"), "node", codes=(0, 130, 143)),
    _helper("asyncio with a transcoder", helped("asyncio", "transcoder"), "node"),
    _helper("a loop around sleep with an MCP server", helped("sync", "mcp server"), "node"),
    _helper("asyncio with Redis", helped("asyncio", "redis"), "redis-server", within=5),
    _helper("asyncio with Xvfb", helped("asyncio", "xvfb"), "Xvfb", within=5),
]  # fmt: skip
