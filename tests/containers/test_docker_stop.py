"""`docker stop`, `docker kill`, `docker restart`: which signal the agent gets, the exit code, and the time it takes."""

from __future__ import annotations

import re

import pytest

from .container import RECORDER, TOLERANCE, Containers, wait_until
from .images import EXAMPLE

DOCKER_TIMEOUT = 10.0  # seconds from `docker stop` to Docker's own SIGKILL, by default


def test_example_image_stops_gracefully(containers: Containers) -> None:
    """`Dockerfile.example` with its agent, without options or settings."""
    container = containers.start("run", "--detach", EXAMPLE)
    wait_until(lambda: any("ready" in line for line in container.output()), "the agent is ready")
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKER_TIMEOUT
    output = "\n".join(container.output())
    assert re.findall(r"call (\d+) begins", output) == re.findall(r"call (\d+) ends", output)
    assert "cleaned up" in container.output()[-1]
    started, ready, requested, last = container.errors()
    assert "the agent is ready, after" in ready
    assert "as process 1; grace: Docker's own, 10s unless raised" in started
    assert "stop requested by TERM from outside the container: TERM to the agent" in requested
    assert "ended: the agent exited" in last
    assert last.endswith("exit code 0")


def test_agent_gets_one_term_and_its_exit_code_is_passed_on(containers: Containers) -> None:
    container = containers.run(*RECORDER, "--code=3")
    ended, seconds = container.stop()

    assert ended.code == 3
    assert seconds < DOCKER_TIMEOUT
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"]
    assert container.event("ended")["code"] == 3
    assert container.other_stderr_lines() == []


def test_no_default_grace_kills_a_slow_agent(containers: Containers) -> None:
    """With a longer `docker stop -t` and no grace set, the agent gets all of that time."""
    container = containers.run(*RECORDER, "--cleanup=12")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 0
    assert 12 <= seconds < 12 + TOLERANCE
    assert container.output()[-1] == "cleaned up"
    (report,) = container.events("limit-near")
    assert "Docker (10s unless raised)" in report["message"]
    assert len(report["processes"]) == 1


def test_explicit_grace_is_a_deadline(containers: Containers) -> None:
    """The agent and its child ignore the stop. Both are killed at the grace, long before Docker's timeout."""
    container = containers.run(*RECORDER, "--stop-on=", "--children=1", GRACE="2s")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 2 <= seconds < 2 + TOLERANCE
    assert container.signals() == ["TERM"]
    assert "cleaned up" not in container.output()
    assert len(container.event("deadline")["processes"]) == 2
    assert container.event("ended")["how"] == "was killed by SIGKILL at the deadline"


def test_docker_stop_timeout_shorter_than_the_grace_kills_first(containers: Containers) -> None:
    """Docker's SIGKILL comes first, so the log ends with the stop request."""
    container = containers.run(*RECORDER, "--cleanup=30", GRACE="25s")
    ended, seconds = container.stop("-t", "2")

    assert ended.code == 137
    assert 2 <= seconds < 2 + TOLERANCE
    assert container.signals() == ["TERM"]
    assert "KILL after 25s" in container.event("stop-requested")["message"]
    assert container.events()[-1]["event"] == "stop-requested"


def test_leftover_children_are_stopped(containers: Containers) -> None:
    container = containers.run(*RECORDER, "--children=2", ready=None)
    container.wait_for_line("ready", times=3)
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKER_TIMEOUT
    assert container.signals() == ["TERM"] * 3
    assert container.output().count("cleaned up") == 3
    assert len(container.event("lingering")["processes"]) == 2


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_docker_kill_with_term_or_int_is_a_stop_request(containers: Containers, name: str) -> None:
    """INT is translated to TERM: most agents stop gracefully only on TERM."""
    container = containers.run(*RECORDER)
    container.signal(name)
    ended = container.wait_for_exit()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-requested")["signal"] == name
    assert container.event("stop-requested")["sender"] == "outside the container"


def test_second_stop_request_is_not_passed_on(containers: Containers) -> None:
    """`docker kill -s TERM`, then `docker stop`: an agent that exits at once on a second TERM finishes its clean-up."""
    container = containers.run(*RECORDER, "--cleanup=3")
    container.signal("TERM")
    container.wait_for_line("got TERM")
    ended, _ = container.stop()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-repeated")["signal"] == "TERM"


@pytest.mark.parametrize("name", ["HUP", "QUIT", "USR1"])
def test_docker_kill_with_a_handled_signal_is_forwarded(containers: Containers, name: str) -> None:
    """The agent gets the signal and continues."""
    container = containers.run(*RECORDER, VERBOSE="1")
    container.signal(name)
    container.wait_for_line(f"got {name}")
    assert container.event("forwarded")["signal"] == name
    assert container.running()

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == [name, "TERM"]


@pytest.mark.parametrize("name", ["HUP", "QUIT"])
def test_docker_kill_with_unhandled_hup_or_quit_is_a_stop_request(containers: Containers, name: str) -> None:
    """The signal would kill the agent, so it becomes a stop request."""
    container = containers.run(*RECORDER, "--handle=TERM")
    container.signal(name)
    ended = container.wait_for_exit()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-requested")["signal"] == name


def test_docker_kill_with_unhandled_usr1_is_dropped(containers: Containers) -> None:
    """It is dropped with a warning, as the kernel would do if the agent were process 1."""
    container = containers.run(*RECORDER, "--handle=TERM")
    container.signal("USR1")
    (warning,) = container.wait_for_events("shielded")
    assert warning["level"] == "warning"
    assert warning["signal"] == "USR1"
    assert container.running()

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["TERM"]


def test_docker_restart_stops_and_starts_the_agent(containers: Containers) -> None:
    """The agent runs twice, each time with its clean-up and its own lines."""
    container = containers.run(*RECORDER)
    containers.engine("restart", container.name)
    container.wait_for_line("ready", times=2)
    assert container.running()
    assert container.output() == ["ready", "got TERM", "cleaned up", "ready"]

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.output() == ["ready", "got TERM", "cleaned up"] * 2
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"] * 2


def test_restart_policy_sees_the_agents_exit_code(containers: Containers) -> None:
    """Docker restarts a container whose agent fails, and not one whose agent exits with 0."""
    failing = containers.run("sh", "-c", "exit 3", options=("--restart", "on-failure:2"), ready=None)
    failing.wait_for_events("ended", times=3)
    wait_until(lambda: not failing.running(), "Docker has given up")
    assert failing.inspect()["RestartCount"] == 2
    assert [line["code"] for line in failing.events("ended")] == [3, 3, 3]

    fine = containers.run("true", options=("--restart", "on-failure:2"), ready=None)
    assert fine.wait_for_exit().code == 0
    assert fine.inspect()["RestartCount"] == 0


@pytest.mark.parametrize(
    ("stop_signal", "stop_on"), [("INT", "TERM,INT"), ("QUIT", "QUIT"), ("RTMIN+3", "TERM,RTMIN+3")]
)
def test_stopsignal_of_the_image_is_a_stop_request(containers: Containers, stop_signal: str, stop_on: str) -> None:
    """STOPSIGNAL (here `docker run --stop-signal`) is the stop request; the agent gets TERM all the same."""
    container = containers.run(*RECORDER, options=("--stop-signal", f"SIG{stop_signal}"), STOP_ON=stop_on)
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKER_TIMEOUT
    assert container.signals() == ["TERM"]
    assert container.event("stop-requested")["signal"] == stop_signal


def test_stop_signal_setting_selects_what_the_agent_gets(containers: Containers) -> None:
    """Docker sends TERM, and the agent gets INT."""
    container = containers.run(*RECORDER, STOP_SIGNAL="INT")
    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["INT"]


def test_docker_stop_before_the_agent_is_ready_is_not_lost(containers: Containers) -> None:
    """`docker stop` right after `docker run`: nothing is lost, because the launcher blocks signals.

    The agent may not have installed its handler yet, so TERM may kill it; but Docker must not have to.
    """
    container = containers.run(*RECORDER, ready=None)
    ended, seconds = container.stop()
    assert ended.code in (0, 143)
    assert seconds < DOCKER_TIMEOUT
    assert container.events("stop-requested")


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        (("no-such-program",), 127, "not found in PATH"),
        (("/etc",), 126, "is a directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("sh", "-c", "kill -SEGV $$"), 139, ""),
        (("sh", "-c", "exit 41"), 41, ""),
    ],
)
def test_exit_codes(containers: Containers, command: tuple[str, ...], code: int, why: str) -> None:
    container = containers.run(*command, ready=None)
    assert container.wait_for_exit().code == code
    assert any(why in line["message"] for line in container.events())
    assert container.other_stderr_lines() == []
