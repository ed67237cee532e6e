"""What `kubectl describe` shows of an end: the container's termination message, on a real kubelet."""

from __future__ import annotations

import pytest

from .running import Run


def message(run: Run, name: str, init: str = "agent-init") -> str:
    end = run.pods[name, init].end()
    assert end is not None
    return str(end.get("message", ""))


def test_deadline_is_explained(together: Run) -> None:
    """After our own deadline: what was left, and why the code is 137. The peers leave nothing."""
    assert "SIGKILL" in message(together, "explicit")
    assert "python" in message(together, "explicit")
    for init in ("tini", "no init"):
        assert message(together, "explicit", init) == ""


@pytest.mark.parametrize("name", ["grace-5-slow", "delete-within-5", "grace-30-hangs", "prestop-too-long"])
def test_kubelets_sigkill_is_explained(together: Run, name: str) -> None:
    """It comes without a warning, so what is shown was written before: since when it stops, and what was running."""
    found = message(together, name)
    assert "TERM" in found
    assert "python" in found
    assert message(together, name, "tini") == ""


@pytest.mark.parametrize("name", ["grace-5", "grace-30", "prestop", "sleep-action", "stop-delay", "tty", "restricted"])
def test_finished_agent_leaves_no_message(together: Run, name: str) -> None:
    assert message(together, name) == ""


def test_long_drain_leaves_no_message(together: Run) -> None:
    """It takes longer than the default grace, but not than the pod's."""
    assert message(together, "grace-120") == ""


def test_oom_kill_is_explained(together: Run) -> None:
    assert "limit 64 MiB" in message(together, "oom-agent")
    assert message(together, "oom-agent", "tini") == ""


def test_agents_own_message_is_kept(together: Run) -> None:
    assert message(together, "own-message") == "out of tokens"


def test_deadline_is_explained_after_the_agents_own_message(together: Run) -> None:
    first, _, rest = message(together, "own-message-killed").partition("\n")
    assert first == "out of tokens"
    assert "SIGKILL" in rest


@pytest.mark.parametrize("name", ["crash", "crash-in-stop"])
def test_fallback_to_logs_shows_the_traceback(together: Run, name: str) -> None:
    assert "RuntimeError: the agent's own bug" in message(together, name)


@pytest.mark.parametrize("name", ["crash", "crash-in-stop"])
@pytest.mark.parametrize("init", ["tini", "no init"])
def test_fallback_to_logs_shows_the_traceback_under_the_peers(together: Run, name: str, init: str) -> None:
    assert "RuntimeError: the agent's own bug" in message(together, name, init)
