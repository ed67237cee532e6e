"""Who may speak for the agent: a database that inherits NOTIFY_SOCKET may not, the agent behind a wrapper may."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.field import place
from tests.field.running import init as init_command
from tests.field.running import running
from tests.field.wrappers import WRAPPERS
from tests.support.init import clean_environment, until

if TYPE_CHECKING:
    from tests.conftest import Start

PROGRAMS = Path(__file__).parent / "programs"
REDIS = ["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--supervised", "systemd", "--save", ""]
# Its one helper is a Redis; it is ready itself when it is asked to.
AGENTS = {
    "handles TERM": "on('TERM', lambda: leave(3, after=0.2))",
    "handles INT only": "on('INT', lambda: leave(3, after=0.2))",
}


@pytest.mark.parametrize("access", ["auto", "all"])
@pytest.mark.parametrize("kind", AGENTS)
def test_redis_does_not_report_the_agents_readiness(start: Start, tmp_path: Path, kind: str, access: str) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: python -m tests.field.install")
    agent = (
        f"on('USR1', lambda: notify('READY=1')); import subprocess; subprocess.Popen({REDIS}); {AGENTS[kind]}; ready()"
    )
    init = start("-t", "10s", "-v", "--notify-access", access, agent=agent, env=clean_environment(), cwd=tmp_path)
    init.wait_for_event("ready")
    init.wait_for_line('agent status: "Ready to accept connections"')
    if access == "auto":
        init.wait_for_line("ignored READY from redis-server")
        assert not init.lines("the agent is ready")
        init.signal("USR1")
    assert init.wait_for_line("the agent is ready")
    init.signal("TERM")
    assert init.wait() == 3


@pytest.mark.parametrize(
    "name",
    [
        "bash, forwarding trap",
        "su -c",
        "timeout",
        "xargs",
        "python subprocess.run",
        "tini",
        "uv",
        "npm start",
        "poetry",
    ],
)
def test_agent_behind_a_wrapper_reports_its_readiness(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = WRAPPERS[name]
    if program := wrapper.trial.missing():
        pytest.skip(f"{program} is not installed: python -m tests.field.install")
    monkeypatch.setattr(place, "DRAIN", PROGRAMS / "ready.py")
    with running(wrapper.build, init_command("agent-init", "-t", "5s"), drain=0) as run:
        assert run.wait_until_up(), run.output.read_text()
        until(lambda: "the agent is ready, after" in run.output.read_text(), "readiness")
