"""Existing clients of sd_notify(3) work unchanged."""

from __future__ import annotations

from signal import Signals

import pytest

from .conftest import PROGRAMS, Start

CLIENTS = ["sdnotify", "cysystemd", "systemd-notify"]


@pytest.mark.parametrize("client", CLIENTS)
def test_messages_of_a_notify_client_are_handled(start: Start, client: str) -> None:
    """The client reports ready, pings the watchdog, and extends the grace of one second."""
    agent = start(
        "notify",
        ["python", str(PROGRAMS / "notify_client.py"), client],
        options=["-v", "--watchdog", "30s", "--ready-timeout", "60s"],
        variables={"AGENT_INIT_GRACE": "1s"},
    )
    agent.wait_for_event("serving")
    agent.signal(Signals.SIGTERM)
    agent.must_exit(0)
    agent.must_log_once("serving", "drained")
    assert [record.get("status") for record in agent.log() if record["event"] == "status"] == [
        "loading",
        "serving",
        "draining",
    ]
    events = [record["event"] for record in agent.log()]
    assert events.count("ready") == 1
    assert "extended" in events


def test_gunicorn_reports_ready(start: Start, port: int) -> None:
    command = ["gunicorn", "web:app", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}"]
    agent = start("web", command, options=["-v", "--ready-timeout", "60s"])
    agent.until(lambda: [r for r in agent.log() if r["event"] == "ready"] or None, "readiness")
    agent.signal(Signals.SIGTERM)
    agent.must_exit(0)
