"""What `kubectl describe` shows of an end: the container's termination message, on a real kubelet."""

from __future__ import annotations

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


def test_finished_agent_leaves_no_message(together: Run) -> None:
    for name in ("grace-5", "grace-30", "grace-120", "prestop", "sleep-action", "tty"):
        assert message(together, name) == "", name


def test_oom_kill_is_explained(together: Run) -> None:
    assert "limit 64 MiB" in message(together, "oom-agent")
    assert message(together, "oom-agent", "tini") == ""
