"""The drain timeout that `examples/livekit` derives from the grace."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.agents.environments import environment

from .trial import EXAMPLE

PRINT = """
import agent, json, os, sys
def of(seconds):
    os.environ.pop("AGENT_INIT_STOP_SECONDS", None)
    if seconds is not None:
        os.environ["AGENT_INIT_STOP_SECONDS"] = seconds
    return agent.drain_timeout()
print(json.dumps([of(seconds) for seconds in json.loads(sys.argv[1])]))
"""


@pytest.mark.parametrize("release", ["livekit", "livekit-1.0.12"])
def test_drain_timeout(release: str) -> None:
    """28 s less than the grace, at least 1 s: 0 would mean no limit, as it does for an infinite grace."""
    expected = {"588.5": 560, "29.5": 1, "7.5": 1, "0.0": 1, "inf": 0, None: 3600}
    command = [environment(release).python, "-c", PRINT, json.dumps(list(expected))]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(EXAMPLE)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(expected.values())
