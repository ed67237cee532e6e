"""`docker stop`, `docker kill`, `docker restart`: who gets which signal, how it ends, how long that takes."""

from __future__ import annotations

import re

import pytest

from .container import RECORDER, SLACK, Containers, await_true
from .images import EXAMPLE

DOCKERS_OWN = 10.0  # seconds from docker stop to docker's own SIGKILL, unless told otherwise


def test_the_example_image_as_it_is(containers: Containers) -> None:
    """`Dockerfile.example` with its agent, no option, no setting: stopped gracefully."""
    container = containers.start("run", "--detach", EXAMPLE)
    await_true(lambda: any("ready" in line for line in container.output()), "the agent is ready")
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKERS_OWN
    said = "\n".join(container.output())
    assert re.findall(r"call (\d+) begins", said) == re.findall(r"call (\d+) ends", said)
    assert "cleaned up" in container.output()[-1]
    started, requested, last = container.errors()
    assert "as process 1; grace: Docker's own, 10s unless raised" in started
    assert "stop requested by TERM from outside the container: TERM to the agent" in requested
    assert "ended: the agent exited" in last
    assert last.endswith("exit code 0")


def test_the_agent_gets_one_term_and_its_exit_code_is_told(containers: Containers) -> None:
    container = containers.run(*RECORDER, "--code=3")
    ended, seconds = container.stop()

    assert ended.code == 3
    assert seconds < DOCKERS_OWN
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"]
    assert container.event("ended")["code"] == 3
    assert container.stray() == []


def test_an_agent_that_needs_longer_is_not_killed_by_a_default_of_ours(containers: Containers) -> None:
    """docker stop -t raised and no second number set: the agent gets all of it."""
    container = containers.run(*RECORDER, "--cleanup=12")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 0
    assert 12 <= seconds < 12 + SLACK
    assert container.output()[-1] == "cleaned up"
    (report,) = container.events("limit-near")
    assert "Docker (10s unless raised)" in report["message"]
    assert len(report["processes"]) == 1


def test_an_explicit_grace_is_a_deadline(containers: Containers) -> None:
    """The agent and a child of its own ignore the stop; all is over when the grace is, long before Docker's own end."""
    container = containers.run(*RECORDER, "--stop-on=", "--children=1", GRACE="2s")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 2 <= seconds < 2 + SLACK
    assert container.signals() == ["TERM"]
    assert "cleaned up" not in container.output()
    assert len(container.event("deadline")["processes"]) == 2
    assert container.event("ended")["how"] == "was killed by SIGKILL when its time was up"


def test_docker_stop_shorter_than_the_grace(containers: Containers) -> None:
    """Then Docker's SIGKILL comes first: nothing of ours can help, and the log ends with the stop's plan."""
    container = containers.run(*RECORDER, "--cleanup=30", GRACE="25s")
    ended, seconds = container.stop("-t", "2")

    assert ended.code == 137
    assert 2 <= seconds < 2 + SLACK
    assert container.signals() == ["TERM"]
    assert "KILL after 25s" in container.event("stop-requested")["message"]
    assert container.events()[-1]["event"] == "stop-requested"


def test_what_the_agent_leaves_behind_is_stopped_too(containers: Containers) -> None:
    container = containers.run(*RECORDER, "--children=2", ready=None)
    container.await_line("ready", times=3)
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKERS_OWN
    assert container.signals() == ["TERM"] * 3
    assert container.output().count("cleaned up") == 3
    assert len(container.event("lingering")["processes"]) == 2


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_docker_kill_with_a_stop_request(containers: Containers, name: str) -> None:
    """INT is translated: most agents stop gracefully on TERM alone."""
    container = containers.run(*RECORDER)
    container.signal(name)
    ended = container.await_end()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-requested")["signal"] == name
    assert container.event("stop-requested")["sender"] == "outside the container"


def test_a_second_stop_request_is_not_passed_on(containers: Containers) -> None:
    """`docker kill -s TERM` by hand and then `docker stop`: an agent that ends at once on a second TERM lives on."""
    container = containers.run(*RECORDER, "--cleanup=3")
    container.signal("TERM")
    container.await_line("got TERM")
    ended, _ = container.stop()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-repeated")["signal"] == "TERM"


@pytest.mark.parametrize("name", ["HUP", "QUIT", "USR1"])
def test_docker_kill_with_a_signal_that_the_agent_handles(containers: Containers, name: str) -> None:
    """It gets the signal, and goes on."""
    container = containers.run(*RECORDER, VERBOSE="1")
    container.signal(name)
    container.await_line(f"got {name}")
    assert container.event("forwarded")["signal"] == name
    assert container.running()

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == [name, "TERM"]


@pytest.mark.parametrize("name", ["HUP", "QUIT"])
def test_docker_kill_with_a_signal_to_leave_that_the_agent_does_not_handle(containers: Containers, name: str) -> None:
    """It would kill the agent, so it becomes a stop request."""
    container = containers.run(*RECORDER, "--handle=TERM")
    container.signal(name)
    ended = container.await_end()

    assert ended.code == 0
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert container.event("stop-requested")["signal"] == name


def test_docker_kill_with_usr1_that_the_agent_does_not_handle(containers: Containers) -> None:
    """Dropped with a warning, as the kernel would have done had the agent been process 1 itself."""
    container = containers.run(*RECORDER, "--handle=TERM")
    container.signal("USR1")
    (warning,) = container.await_event("shielded")
    assert warning["level"] == "warning"
    assert warning["signal"] == "USR1"
    assert container.running()

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["TERM"]


def test_docker_restart(containers: Containers) -> None:
    """Two lives, each with its clean-up and its own lines."""
    container = containers.run(*RECORDER)
    containers.engine("restart", container.name)
    container.await_line("ready", times=2)
    assert container.running()
    assert container.output() == ["ready", "got TERM", "cleaned up", "ready"]

    ended, _ = container.stop()
    assert ended.code == 0
    assert container.output() == ["ready", "got TERM", "cleaned up"] * 2
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"] * 2


def test_restart_on_failure(containers: Containers) -> None:
    """The exit code that Docker decides by is the agent's: a failure is started again, a clean end is not."""
    failing = containers.run("sh", "-c", "exit 3", options=("--restart", "on-failure:2"), ready=None)
    failing.await_event("ended", times=3)
    await_true(lambda: not failing.running(), "Docker has given up")
    assert failing.inspect()["RestartCount"] == 2
    assert [line["code"] for line in failing.events("ended")] == [3, 3, 3]

    fine = containers.run("true", options=("--restart", "on-failure:2"), ready=None)
    assert fine.await_end().code == 0
    assert fine.inspect()["RestartCount"] == 0


@pytest.mark.parametrize(
    ("stop_signal", "stop_on"), [("INT", "TERM,INT"), ("QUIT", "QUIT"), ("RTMIN+3", "TERM,RTMIN+3")]
)
def test_another_stop_signal_of_the_image(containers: Containers, stop_signal: str, stop_on: str) -> None:
    """STOPSIGNAL (here as `docker run --stop-signal`): what asks us to stop; the agent gets TERM all the same."""
    container = containers.run(*RECORDER, options=("--stop-signal", f"SIG{stop_signal}"), STOP_ON=stop_on)
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < DOCKERS_OWN
    assert container.signals() == ["TERM"]
    assert container.event("stop-requested")["signal"] == stop_signal


def test_the_agents_own_stop_signal(containers: Containers) -> None:
    """The other way round: Docker sends TERM, the agent wants INT."""
    container = containers.run(*RECORDER, STOP_SIGNAL="INT")
    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["INT"]


def test_a_stop_before_the_agent_is_ready(containers: Containers) -> None:
    """`docker stop` right after `docker run`: with `env --block-signal` in front of it nothing is lost.

    The agent has installed no handler yet, so TERM ends it; what must not happen is that Docker has to kill it.
    """
    container = containers.run(*RECORDER, ready=None)
    ended, seconds = container.stop()
    assert ended.code in (0, 143)
    assert seconds < DOCKERS_OWN
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
    assert container.await_end().code == code
    assert any(why in line["message"] for line in container.events())
    assert container.stray() == []
