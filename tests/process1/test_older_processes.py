"""Processes from before the agent: a service of a start script, or what foreign start-up code has left in process 1."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.init import AGENT_INIT, actor_line, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

BLOCKED = ["env", "--block-signal"]
AT_ONCE = 1.0  # seconds from the agent's end to ours; the linger time is longer
STOPS = "on('TERM', lambda: leave(7, after=0.3)); ready()"
IGNORES = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
HANDLES = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: None)\nwhile True: time.sleep(1)"
TELEMETRY = {
    "sleep": ["sleep", "60"],
    "shell": ["sh", "-c", "sleep 60; exit"],
    "ignores": ["python3", "-S", "-c", IGNORES],
}


def inject(directory: Path, *commands: list[str], at_once: bool = True) -> dict[str, str]:
    """Return an environment in which each Python interpreter first starts these processes."""
    code = "import subprocess, sys\nif not sys.flags.no_site:\n"
    code += "".join(f"    subprocess.Popen({command!r})\n" for command in commands)
    (directory / "sitecustomize.py").write_text(code)
    return clean_environment(PYTHONPATH=str(directory))


def behind_script(script: str, *options: str, agent: str) -> list[str]:
    """Return the command of a start script that becomes agent-init."""
    words = ["exec", shlex.quote(str(AGENT_INIT)), *options, "--", actor_line("agent", agent)]
    return ["sh", "-c", f"{script}\n{' '.join(words)}"]


def seconds_after_the_agent(init: Init) -> float:
    return time.monotonic() - float(init.records("agent")[-1]["t"])


@pytest.mark.parametrize("before", [[], BLOCKED], ids=["", "signals blocked"])
@pytest.mark.parametrize("telemetry", TELEMETRY)
def test_injected_process_does_not_delay_the_stop(
    start_in_role: Start, tmp_path: Path, telemetry: str, before: list[str]
) -> None:
    env = inject(tmp_path, TELEMETRY[telemetry])
    init = start_in_role("-t", "20s", agent=STOPS, env=env, before=before)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert seconds_after_the_agent(init) < AT_ONCE
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("SIGKILL to what is older than the agent and does not handle TERM; still running: ")
    assert not init.lines("left processes behind")


def test_injected_process_does_not_delay_an_end_of_the_agents_own(start_in_role: Start, tmp_path: Path) -> None:
    env = inject(tmp_path, TELEMETRY["sleep"], TELEMETRY["shell"])
    init = start_in_role("-t", "20s", agent="leave(3)", env=env, before=BLOCKED)
    assert init.wait() == 3
    assert seconds_after_the_agent(init) < AT_ONCE


def test_injected_handler_that_cannot_be_reached_is_not_waited_for(start_in_role: Start, tmp_path: Path) -> None:
    """It has inherited the blocked signals: its handler never runs."""
    init = start_in_role(
        "-t", "20s", agent=STOPS, env=inject(tmp_path, ["python3", "-S", "-c", HANDLES]), before=BLOCKED
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert seconds_after_the_agent(init) < AT_ONCE


def test_what_the_agent_leaves_behind_still_has_its_time(start_in_role: Start, tmp_path: Path) -> None:
    env = inject(tmp_path, TELEMETRY["sleep"])
    agent = "orphan('tool', \"on('TERM', lambda: leave(0, after=1)); ready()\"); " + STOPS
    init = start_in_role("-t", "20s", agent=agent, env=env, before=BLOCKED)
    init.wait_for_event("ready", "tool")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("tool") == ["ready", "TERM", "end"]
    end = time.monotonic()
    assert end < init.records("tool", "end")[0]["t"] + AT_ONCE
    assert init.lines("SIGKILL to what is older than the agent")


def test_service_of_a_start_script_gets_its_signal_after_the_agent_and_has_its_time(start_in_role: Start) -> None:
    service = actor_line("service", "on('TERM', lambda: leave(0, after=1)); ready()")
    init = start_in_role(program=behind_script(f"{service} & sleep 100 &", "-t 20s", agent=STOPS))
    init.wait_for_event("ready", "service")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("service") == ["ready", "TERM", "end"]
    assert init.records("service", "TERM")[0]["t"] >= init.records("agent", "end")[0]["t"]


def test_tree_of_a_start_script_is_not_waited_for(start_in_role: Start) -> None:
    """Nor is what it starts later, as long as it is below a process from before the agent."""
    script = "sh -c 'while :; do sleep 1; done' &"
    init = start_in_role(program=behind_script(script, "-t 20s", agent=STOPS))
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert seconds_after_the_agent(init) < AT_ONCE


def test_child_that_exits_before_the_agent_starts(start_in_role: Start) -> None:
    init = start_in_role(program=behind_script("true & sleep 0.2", "-t 20s", agent=STOPS))
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7


def test_nested_agent_init_from_before_the_agent_is_waited_for(start_in_role: Start) -> None:
    """It blocks all signals, but reads them."""
    service = actor_line("service", "on('TERM', lambda: leave(0, after=1)); ready()")
    init = start_in_role(program=behind_script(f"{AGENT_INIT} -- {service} &", "-t 20s", agent=STOPS))
    init.wait_for_event("ready", "service")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("service") == ["ready", "TERM", "end"]
