"""A stop that the platform has not requested, and does not end: requested inside the container, or by hand.

And one that the platform has requested in its own way: Heroku signals every process of the container.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pexpect
import psutil
import pytest

from tests.support.init import AGENT_INIT, NAMESPACE, actor_line, clean_environment
from tests.support.proc import children_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

root_only = pytest.mark.skipif(os.getuid() != 0, reason="enters a namespace, which takes root")

RAILWAY = {"RAILWAY_ENVIRONMENT_ID": "x", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "1"}  # its limit in whole seconds
# Requests a stop itself; takes longer than the limit for it.
ASKS = "on('USR1', lambda: os.kill(os.getppid(), 15)); on('TERM', lambda: leave(7, after=2.5)); ready()"
UNKNOWN = "which does not end a stop that it has not requested"


def agent_of(init: Init) -> int:
    return children_of(init)[0].pid


def request_from_inside(init: Init) -> None:
    init.wait_for_event("ready")
    os.kill(agent_of(init), signal.SIGUSR1)
    init.wait_for_line("stop requested by TERM from python")


def test_limit_of_the_platform_is_enforced_for_a_request_from_inside(start_in_role: Start) -> None:
    init = start_in_role(agent=ASKS, env=clean_environment(**RAILWAY))
    request_from_inside(init)
    requested_at = time.monotonic()
    assert init.wait() == 137
    assert time.monotonic() - requested_at < 2.4
    line = init.wait_for_line("stop requested")
    assert line.endswith(f"TERM to the agent, KILL after 1s, the limit of Railway (1s as set), {UNKNOWN}")
    assert init.lines("deadline") or init.lines("SIGKILL")


@root_only
def test_request_of_another_session_in_the_container_is_from_inside(start: Start) -> None:
    """As of `docker exec`, whose command has exited before the request is handled."""
    init = start(agent=ASKS, env=clean_environment(**RAILWAY))
    init.wait_for_event("ready")
    enter = ["nsenter", "--target", str(init.pid), "--pid", "--mount", "sh", "-c", "kill -TERM 1"]
    subprocess.run(enter, check=True)
    assert init.wait() == 137
    assert UNKNOWN in init.wait_for_line("stop requested")


@pytest.mark.parametrize("order", ["inside, outside", "outside, inside"])
@pytest.mark.parametrize("options", [(), ("--stop-delay", "300ms")], ids=["", "delay"])
def test_request_from_outside_has_no_deadline_of_ours(start: Start, order: str, options: tuple[str, ...]) -> None:
    """Not even after one from inside."""
    init = start(*options, agent=ASKS, env=clean_environment(**RAILWAY))
    if order == "inside, outside":
        request_from_inside(init)
        init.signal("TERM")
    else:
        init.wait_for_event("ready")
        init.signal("TERM")
        init.wait_for_line("stop requested by TERM from outside")
        os.kill(agent_of(init), signal.SIGUSR1)
    repeated = init.wait_for_line("stop already in progress")
    assert ("no deadline any more but that of Railway (1s as set)" in repeated) == (order == "inside, outside")
    assert init.wait() == 7
    assert init.events().count("TERM") == 1
    assert init.lines("Railway (1s as set) ends its wait with a SIGKILL from outside")


def test_request_from_outside_comes_too_late_after_the_escalation(start: Start) -> None:
    init = start(agent=ASKS, env=clean_environment(**RAILWAY))
    request_from_inside(init)
    init.wait_for_line("SIGKILL")
    try:
        init.signal("TERM")
    except ProcessLookupError:
        pass
    assert init.wait() == 137


@pytest.mark.parametrize("options", [("-t", "20s"), ("--stop-schedule", "TERM/20s/KILL")], ids=" ".join)
def test_explicit_grace_is_kept_for_a_request_from_inside(start: Start, options: tuple[str, ...]) -> None:
    init = start(*options, agent=ASKS, env=clean_environment(**RAILWAY))
    request_from_inside(init)
    assert init.wait() == 7
    assert init.lines("stop requested")[0].endswith("TERM to the agent, KILL after 20s")


def test_on_kubernetes_a_request_from_inside_is_only_logged(start_in_role: Start) -> None:
    """It may be a preStop hook's."""
    init = start_in_role(agent=ASKS, env=clean_environment(KUBERNETES_SERVICE_HOST="10.0.0.1"))
    request_from_inside(init)
    assert init.wait() == 7
    line = init.wait_for_line("stop requested")
    assert "no deadline but that of Kubernetes (30s unless raised), which ends this stop only if" in line


# A process 1 that passes TERM on to agent-init, and another process that can.
ABOVE = """
trap 'kill -TERM $p' TERM
"$@" &
p=$!
( while [ ! -e "$EVENTS.go" ]; do sleep 0.05; done; exec sh -c "kill -TERM $p; sleep 0.1" ) &
wait $p
wait $p
"""


@pytest.mark.parametrize("sender", ["above", "beside"])
def test_request_of_an_init_above_us_is_from_outside(start: Start, sender: str) -> None:
    """Of a script with a trap, tini, supervisord. Any other process in the container is inside."""
    code = "on('TERM', lambda: leave(7, after=2.5)); ready()"
    program = ["sh", "-c", ABOVE, "sh", str(AGENT_INIT)]
    init = start(agent=code, program=program, env=clean_environment(**RAILWAY))
    init.wait_for_event("ready")
    if sender == "above":
        init.signal("TERM")
    else:
        init.log.with_name(init.log.name + ".go").touch()
    assert init.wait() == (7 if sender == "above" else 137)
    assert (UNKNOWN in init.wait_for_line("stop requested")) == (sender == "beside")


# --- Started by hand. -----------------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("platform", ["Railway", "Kubernetes"])
def test_agent_init_in_another_session_of_the_container_has_the_limit_as_its_grace(
    start: Start, tmp_path: Path, platform: str
) -> None:
    """As with `docker exec container agent-init ...`: nobody ends that, whoever requests the stop."""
    container = subprocess.Popen([*NAMESPACE, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    try:
        assert container.stdout
        container.stdout.readline()
        [process_1] = psutil.Process(container.pid).children()
        env = clean_environment(**(RAILWAY if platform == "Railway" else {"KUBERNETES_SERVICE_HOST": "x"}))
        init = start(
            agent="on('TERM', lambda: leave(7, after=2.5)); ready()",
            process1=False,
            before=["nsenter", "--target", str(process_1.pid), "--pid", "--mount"],
            env=env,
        )
        init.wait_for_event("ready")
        [inner] = children_of(init)
        inner.terminate()
        assert init.wait() == (137 if platform == "Railway" else 7)
        started = init.wait_for_line("started python")
        if platform == "Railway":
            assert "grace 1s, that of Railway, which does not stop what was started inside" in started
        else:
            assert "grace: Kubernetes's own, 30s unless raised, which may not stop what was started" in started
    finally:
        container.kill()
        container.wait()
        container.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("shell", ["bash --norc -i", "sh script"])
def test_agent_init_in_an_interactive_shell_is_started_by_hand(tmp_path: Path, shell: str) -> None:
    line = f"{AGENT_INIT} -- {sys.executable} -S -c pass; echo the' 'end"
    (tmp_path / "script").write_text(line)
    with pexpect.spawn(shell, env=clean_environment(**RAILWAY), cwd=tmp_path, timeout=30, dimensions=(24, 300)) as run:
        if "script" not in shell:
            run.sendline(line)
        run.expect_exact("the end")
        text = (run.before or b"").decode()
    assert ("which does not stop what was started inside" in text) == ("script" not in shell)
    assert "as subreaper; grace" in text


# --- Heroku. --------------------------------------------------------------------------------------------------------

HEROKU = {"DYNO": "web.1"}
DRAINS = "on('TERM', lambda: leave(7, after=0.5)); ready()"


@pytest.mark.parametrize("order", ["agent first", "agent last"])
@pytest.mark.parametrize(
    "options", [(), ("-t", "20s"), ("--stop-signal", "TERM"), ("--repeat", "forward")], ids=" ".join
)
def test_platform_that_signals_every_process_signals_the_agent_alone(
    start: Start, order: str, options: tuple[str, ...]
) -> None:
    init = start(*options, agent=DRAINS, env=clean_environment(**HEROKU))
    init.wait_for_event("ready")
    to = [agent_of(init), init.pid]
    for pid in to if order == "agent first" else reversed(to):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.01)
    os.kill(init.pid, signal.SIGTERM)  # Heroku may repeat it
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert "TERM to every process from Heroku itself, none to the agent from agent-init" in init.wait_for_line(
        "requested"
    )


def test_signals_that_heroku_does_not_send_are_sent(start: Start) -> None:
    """An explicit stop signal other than TERM; a request from inside; INT; a rewritten TERM."""
    handlers = "on('INT', lambda: leave(8)); on('USR2', lambda: leave(9)); " + ASKS.replace("2.5", "0.1")
    for options, request, code in (
        (("--stop-signal", "INT"), "TERM", 8),
        (("-r", "TERM:USR2"), "TERM", 9),
        ((), "INT", 7),
        ((), "USR1", 7),
    ):
        init = start(*options, agent=handlers, env=clean_environment(**HEROKU))
        init.wait_for_event("ready")
        if request == "USR1":
            os.kill(agent_of(init), signal.SIGUSR1)
        else:
            init.signal(request)
        assert init.wait() == code
        init.log.write_text("")  # the next run has the same file


@pytest.mark.parametrize("order", ["agent-init first", "shell first"])
@pytest.mark.parametrize("options", [(), ("-t", "20s")], ids=" ".join)
def test_on_heroku_what_a_wrapper_leaves_is_signalled_once_and_drains(
    start: Start, order: str, options: tuple[str, ...]
) -> None:
    command = ["--", "sh", "-c", actor_line("agent", DRAINS.replace("0.5", "1.5")) + "; exit $?"]
    init = start(*options, "--linger", "300ms", command=command, env=clean_environment(**HEROKU))
    init.wait_for_event("ready")
    [shell] = children_of(init)
    [agent] = shell.children()
    if order == "agent-init first":
        init.signal("TERM")
        init.wait_for_line("stop requested")
    shell.terminate()
    init.wait_for_line("before the program that it runs")
    if order == "shell first":
        assert options or UNKNOWN in init.lines("stop requested by TERM from Heroku")[0]
        init.signal("TERM")
        line = init.wait_for_line("stop already in progress")
        assert options or "no deadline any more but that of Heroku" in line
    agent.terminate()
    assert init.wait() == 143
    assert init.events() == ["ready", "TERM", "end"]


def test_on_heroku_what_is_left_of_an_agent_that_somebody_kills_is_signalled(start: Start) -> None:
    """It is presumed to have got TERM from the platform, until no TERM comes to process 1."""
    command = ["--", "sh", "-c", actor_line("agent", DRAINS) + "; exit $?"]
    init = start("-t", "20s", command=command, env=clean_environment(**HEROKU))
    init.wait_for_event("ready")
    children_of(init)[0].terminate()
    assert init.wait() == 143
    assert init.events() == ["ready", "TERM", "end"]


# What the agent, a shell, is ended by while its program runs: a signal to it alone, from inside the container.
KILLS_THE_SHELL = '(until grep -q ready "$EVENTS"; do sleep 0.1; done; kill -TERM $$) &'


@pytest.mark.parametrize("options", [(), ("-t", "20s")], ids=" ".join)
def test_on_heroku_what_is_left_of_an_agent_that_dies_by_itself_is_signalled_soon_and_drains(
    start_in_role: Start, options: tuple[str, ...]
) -> None:
    """It has the rest of the grace, not only the linger time."""
    drains = "on('TERM', lambda: leave(7, after=1.5)); ready()"
    command = ["--", "sh", "-c", f"{KILLS_THE_SHELL} {actor_line('agent', drains)}; exit $?"]
    init = start_in_role(*options, "--linger", "300ms", command=command, env=clean_environment(**HEROKU))
    init.wait_for_line("stop requested by TERM from Heroku, it seems")
    requested_at = time.monotonic()
    term = init.wait_for_event("TERM")
    assert term["t"] < requested_at + 5
    assert init.wait() == 143
    assert init.events() == ["ready", "TERM", "end"]
    assert "was killed by SIGTERM before the program that it runs, which has had TERM" in init.stderr


def test_on_heroku_what_is_left_of_an_agent_and_does_not_handle_the_signal_gets_it_soon(start_in_role: Start) -> None:
    command = ["--", "sh", "-c", f'{KILLS_THE_SHELL} sleep 1000 & echo ready >"$EVENTS"; wait']
    init = start_in_role("--linger", "60s", "-t", "60s", command=command, env=clean_environment(**HEROKU))
    init.wait_for_line("it left processes behind")
    left_at = time.monotonic()
    assert init.wait() == 143
    assert time.monotonic() < left_at + 10
    assert not init.lines("SIGKILL")
