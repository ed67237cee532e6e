"""The automatic stop signal, and wrappers that would stay after the processes behind them have exited."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.init import actor_line

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

# A program that handles no signal; Python raises KeyboardInterrupt for INT.
PLAIN = "try: log('ready'); time.sleep(90)\nfinally: log('cleaned')"
ASYNC = """
import asyncio
async def main():
    try:
        log('ready')
        await asyncio.sleep(90)
    finally:
        await asyncio.sleep(0.1)
        log('cleaned')
asyncio.run(main())
"""
DRAINS = "on('TERM', lambda: leave(7, after=0.3)); ready()"


def stop(init: Init, number: str = "TERM") -> tuple[int, float]:
    """Return the exit code, and the seconds from the stop request to the end."""
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal(number)
    return init.wait(), time.monotonic() - requested_at


@pytest.mark.parametrize("number", ["TERM", "INT"])
@pytest.mark.parametrize("agent", [PLAIN, ASYNC], ids=["plain", "asyncio"])
def test_program_without_handlers_cleans_up(start_in_role: Start, agent: str, number: str) -> None:
    init = start_in_role("-t", "20s", agent=agent)
    assert stop(init, number)[0] == 130
    assert init.events() == ["ready", "cleaned"]
    assert init.lines("which does not handle TERM")
    assert init.lines("the normal end of a program that INT interrupts")


def test_program_without_handlers_cleans_up_behind_a_shell(start_in_role: Start) -> None:
    command = ["--", "sh", "-c", f"{actor_line('agent', ASYNC)}; exit $?"]
    init = start_in_role("-t", "20s", "-e", "143", command=command)
    assert stop(init)[0] == 0
    assert init.events() == ["ready", "cleaned"]
    assert init.lines("exit code 0 (--ok-exit 143)")


@pytest.mark.parametrize(
    ("options", "code"),
    [(("--stop-signal", "TERM"), 143), (("--stop-schedule", "TERM/9s/KILL"), 143), (("-r", "TERM:USR1"), 138)],
)
def test_explicit_stop_signal_is_obeyed(start_in_role: Start, options: tuple[str, ...], code: int) -> None:
    init = start_in_role(*options, agent=PLAIN)
    assert stop(init)[0] == code
    assert init.events() == ["ready"]


@pytest.mark.parametrize(
    "options", [("-r", "TERM:KILL"), ("-r", "TERM:KILL", "-t", "20s"), ("--stop-schedule", "KILL")], ids=" ".join
)
def test_kill_as_the_stop_signal_is_no_deadline(start_in_role: Start, options: tuple[str, ...]) -> None:
    init = start_in_role(*options, agent=PLAIN)
    assert stop(init)[0] == 137
    assert init.events() == ["ready"]
    requested, end = init.lines()[-2:]
    assert "stop requested by TERM from " in requested
    assert requested.endswith(": KILL to the agent")
    assert "ended: the agent was killed by SIGKILL as the stop signal, " in end
    assert "deadline" not in end
    assert end.endswith("; exit code 137")


def test_program_that_ignores_term_is_not_interrupted(start_in_role: Start) -> None:
    init = start_in_role("-t", "1s", agent="ignore('TERM')\n" + PLAIN)
    assert stop(init)[0] == 137


def test_program_that_swallows_the_interrupt_gets_term_before_the_kill(start_in_role: Start) -> None:
    agent = """
log('ready')
while True:
    try:
        time.sleep(90)
    except KeyboardInterrupt:
        log('swallowed')
"""
    init = start_in_role("-t", "4s", agent=agent)
    code, seconds = stop(init)
    assert code == 143
    assert 1.9 < seconds < 3.5
    assert init.events() == ["ready", "swallowed"]


def test_launcher_without_handlers_does_not_take_its_child_with_it(start_in_role: Start) -> None:
    """INT to a Python program in subprocess.run makes it kill its child a quarter of a second later."""
    argv = f"[sys.executable, '-S', __file__, LOG, 'agent', {DRAINS!r}]"
    run = f"import subprocess; os._exit(subprocess.run({argv}).returncode)"
    init = start_in_role("-t", "20s", agent=run)
    assert stop(init)[0] == 7
    assert init.events()[-2:] == ["TERM", "end"]


def test_agent_that_waits_for_a_tool_is_interrupted_after_it(start_in_role: Start) -> None:
    tool = "on('TERM', lambda: leave(0)); ready()"
    agent = f"""
import subprocess
try:
    subprocess.run([sys.executable, '-S', __file__, LOG, 'tool', {tool!r}])
    time.sleep(90)
finally:
    log('cleaned')
"""
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready", "tool")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 130
    assert time.monotonic() - requested_at < 5
    assert init.events() == ["cleaned"]


# --- Wrappers. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("AGENT; exit $?", 7),
        ("AGENT & tail -f /dev/null", 143),
        ("AGENT & sleep 60", 143),
        ("while true; do AGENT; sleep 30; done", 143),
        ("tail -f /dev/null & AGENT; exit $?", 7),
        ("AGENT; sleep 1; exit 3", 143),  # sleep(1) is no clean-up
    ],
)
def test_wrapper_does_not_outstay_its_agent(start_in_role: Start, line: str, code: int) -> None:
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", line.replace("AGENT", actor_line("agent", DRAINS))])
    exit_code, seconds = stop(init)
    assert exit_code == code
    assert seconds < 3
    assert init.events() == ["ready", "TERM", "end"]


def test_wrapper_that_restarts_its_agent_starts_no_work(start_in_role: Start) -> None:
    line = f"while true; do {actor_line('agent', DRAINS)}; done"
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", line])
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 5
    events = init.events()  # the new one is stopped, too, perhaps before it is ready
    assert events.count("end") == events.count("TERM") >= events.count("ready")


def test_clean_up_of_a_wrapper_has_the_rest_of_the_grace(start_in_role: Start) -> None:
    upload = actor_line("upload", "log('ready'); time.sleep(2.5); leave(0)")
    line = f"{actor_line('agent', DRAINS)}; {upload}; exit 5"
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", line])
    assert stop(init)[0] == 5
    assert init.events("upload") == ["ready", "end"]
