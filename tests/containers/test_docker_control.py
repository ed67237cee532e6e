"""`docker exec CONTAINER agent-initctl`: as any user, with a read-only root, below tini, in shared namespaces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .container import RECORDER, Containers, wait_until

if TYPE_CHECKING:
    import subprocess

    from .container import Container


def ask(container: Container, *arguments: str, user: str = "") -> subprocess.CompletedProcess[str]:
    """`docker exec`, as the container's own user by default."""
    options = ["--user", user] if user else []
    return container.engine("exec", *options, container.name, "agent-initctl", *arguments, check=False)


def status(container: Container, user: str = "") -> dict[str, Any]:
    ran = ask(container, "status", "--json", user=user)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
KINDS = {
    "root": ("--user", "0"),
    "another user": ("--user", "1000"),
    "confined": ("--user", "1000", *CONFINED),
    "below tini": ("--init",),
    "below tini, confined": ("--init", "--user", "1000", *CONFINED),
}


@pytest.mark.parametrize("kind", KINDS)
def test_docker_exec_agent_initctl(containers: Containers, kind: str) -> None:
    """Root may ask and command, and so may agent-init's own user; nobody else."""
    container = containers.run(*RECORDER, options=KINDS[kind])
    own = "0" if kind == "root" else "1000"
    for user in ("", "0", own):
        assert status(container, user)["agent"]["command"] == [*RECORDER]
    ready = ask(container, "ready")
    assert (ready.returncode, ready.stdout[:9]) == (1, "not ready")
    stranger = ask(container, "status", user="1234")
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "permission denied" in stranger.stderr
    assert ask(container, "signal", "USR1", user=own).returncode == 0
    wait_until(lambda: container.signals() == ["USR1"], "USR1")

    waited = ask(container, "stop", "--wait", user=own)
    ended = container.wait_for_exit()
    assert ended.code == 0
    assert container.signals() == ["USR1", "TERM"]
    assert "stop requested by TERM from agent-initctl" in waited.stdout
    # Below tini, the container ends as soon as tini has seen the end of agent-init.
    assert waited.returncode in (0, 137)
    assert "ended: the agent exited with code 0" in waited.stdout


def test_containers_that_share_network_and_pids_do_not_answer_each_other(containers: Containers) -> None:
    """As the containers of a pod with shareProcessNamespace."""
    first = containers.run(*RECORDER, options=("--user", "1000"))
    shared = ("--pid", f"container:{first.name}", "--user", "1000")
    command = ("run", "--detach", *shared, "--env", "AGENT_INIT_WATCHDOG=77s", containers.image, *RECORDER)
    second = containers.start(*command, network=f"container:{first.name}")
    second.wait_for_line("ready")
    assert status(first)["watchdog"]["seconds"] is None
    found = status(second)
    assert found["watchdog"]["seconds"] == 77
    assert status(second, "0")["pid"] == found["pid"] != 1

    ran = ask(first, "stop", "--pid", str(found["pid"]))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "permission denied" in ran.stderr
    ask(second, "stop")
    assert second.wait_for_exit().code == 0
    assert first.running()
    assert first.signals() == []
    assert first.stop()[0].code == 0
