"""Existing clients of sd_notify(3) work as they are: what they say is heard."""

from __future__ import annotations

from signal import Signals

import pytest

from .conftest import PROGRAMS, Start
from .test_web import port

__all__ = ["port"]

CLIENTS = ["sdnotify", "cysystemd", "systemd-notify"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_heard(start: Start, client: str) -> None:
    """Ready in time, watched, and with more time to stop than the grace of one second."""
    agent = start(
        "notify",
        ["python", str(PROGRAMS / "notifying.py"), client],
        options=["-v", "--watchdog", "30s", "--ready-timeout", "60s"],
        variables={"AGENT_INIT_GRACE": "1s"},
    )
    agent.wait("serving")
    agent.signal(Signals.SIGTERM)
    agent.must_end(0)
    agent.must_say("serving", "drained")
    assert [record.get("status") for record in agent.log() if record["event"] == "status"] == [
        "loading",
        "serving",
        "draining",
    ]
    events = [record["event"] for record in agent.log()]
    assert events.count("ready") == 1
    assert "extended" in events


def test_gunicorn_says_that_it_is_ready(start: Start, port: int) -> None:
    command = ["gunicorn", "web:app", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}"]
    agent = start("web", command, options=["-v", "--ready-timeout", "60s"])
    agent.until(lambda: [r for r in agent.log() if r["event"] == "ready"] or None, "readiness")
    agent.signal(Signals.SIGTERM)
    agent.must_end(0)
