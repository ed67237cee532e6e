"""agent-initctl asks a real process 1, and commands it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init.control_socket import MAX_FOLLOWERS
from tests.support.control import AGENT_INITCTL, argv, ask, begin, records, status, wait_until_served
from tests.support.init import AGENT_INIT, clean_environment, until
from tests.support.proc import IDLE, PYTHON, descriptors, inner_pid, wait_for_agent

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

SCRIPT = Path(__file__).parents[2] / "entrypoint" / "ctl" / "__main__.py"
READY = "on('TERM', leave); on('USR1'); notify('READY=1\\nSTATUS=42 calls'); ready()"
STAYS = "ignore('TERM'); ready()"
STARTS = "on('TERM', leave); ready()"


# An agent-init whose agent runs for some time before it gets to open its socket.
LATE = f"""
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
sys.path.insert(0, {str(SCRIPT.parents[2])!r})
from entrypoint import start
from entrypoint.init import control_socket
open_socket = control_socket._open
control_socket._open = lambda: (time.sleep(2.5), open_socket())[1]
sys.exit(start.main(sys.argv[1:], {str(SCRIPT.parents[2])!r}))
"""


def started(start: Start, *options: str, agent: str = READY, ready: bool = True, **more: Any) -> Init:
    init = start(*options, agent=agent, **more)
    init.wait_for_event("ready")
    wait_until_served(init)
    if ready and "READY=1" in agent and "-q" not in options and "-qq" not in options:
        init.wait_for_line("the agent is ready")
    return init


def test_agent_may_ask_before_agent_init_has_opened_its_socket(start_in_role: Start) -> None:
    init = start_in_role(program=[sys.executable, "-I", "-S", "-c", LATE], command=[str(AGENT_INITCTL), "live"])
    assert init.wait() == 0


# --- status, ready, live. ---------------------------------------------------------------------------------------------


def test_status_shows_agent_and_state(start_in_role: Start) -> None:
    init = started(start_in_role, "--watchdog", "60s")
    agent = init.wait_for_event("ready")["pid"]
    ran = ask(init, "status")
    lines = ran.stdout.splitlines()
    own, state, command, text, watchdog, processes = lines[:6]
    assert re.fullmatch(r"agent-init \S+ \(pid \d+\), up \S+", own)
    assert re.fullmatch(r"state: ready since \S+", state)
    assert command.startswith(f"agent: {sys.executable} -S ")
    assert command.endswith(f"(pid {agent})")
    assert text == 'status: "42 calls"'
    assert re.fullmatch(r"watchdog: 1m, last ping \S+ ago", watchdog)
    assert re.fullmatch(r"processes: \d+", processes)
    assert (ran.returncode, ran.stderr) == (0, "")
    init.signal("TERM")
    assert init.wait() == 0


def test_status_as_json_counts_signals_and_orphans(start_in_role: Start) -> None:
    init = started(start_in_role, "-r", "USR2:0", agent="orphan('o', 'leave()'); " + READY)
    init.signal("USR2")
    init.signal("USR1")
    init.wait_for_event("USR1")
    init.wait_for_event("end", "o")
    found = until(lambda: (it := status(init))["orphans_reaped"] and it["signals"]["dropped"] and it, "counts")
    assert found["format"] == 1
    assert found["signals"] == {"forwarded": {"USR1": 1}, "dropped": {"USR2": 1}}
    assert found["orphans_reaped"] >= 1
    assert (found["state"], found["ready"], found["hung"]) == ("ready", True, None)
    assert found["agent"]["status"] == "42 calls"
    assert found["stop"] == {"seconds": None, "seconds_left": None, "next": [], "ended_by": None}
    assert found["uptime_seconds"] >= found["state_seconds"] >= 0
    init.signal("TERM")
    assert init.wait() == 0


def test_status_shows_the_stop(start_in_role: Start) -> None:
    init = started(start_in_role, "--stop-schedule", "TERM/60s/INT/60s/KILL", agent=STAYS)
    init.signal("TERM")
    init.wait_for_line("stop requested")
    found = status(init)
    assert (found["state"], found["ready"]) == ("stopping", False)
    assert [step["signal"] for step in found["stop"]["next"]] == ["INT", "KILL"]
    assert 60 < found["stop"]["seconds_left"] <= 120
    assert 0 <= found["stop"]["seconds"] < 60
    assert re.search(r"^stop: requested \S+ ago; INT in \S+, KILL in \S+$", ask(init, "status").stdout, re.MULTILINE)
    init.wait_for_event("ready")
    os.kill(init.records("agent", "ready")[0]["pid"] if not init.process1 else agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


def agent_pid(init: Init) -> int:
    """The agent's pid here."""
    return wait_for_agent(init, PYTHON)


def test_status_prints_nothing_that_a_terminal_acts_on(start: Start) -> None:
    init = started(start, agent=r"on('TERM', leave); notify('READY=1\nSTATUS=\x1b[2J\x9b31m'); ready()")
    ran = ask(init, "status")
    assert r'status: "\x1b[2J\x9b31m"' in ran.stdout.splitlines()
    assert status(init)["agent"]["status"] == "\x1b[2J\x9b31m"
    init.signal("TERM")
    assert init.wait() == 0


def test_a_probe_without_stdout(start_in_role: Start) -> None:
    init = started(start_in_role)
    ran = ask(init, "live", before=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    init.signal("TERM")
    assert init.wait() == 0


def test_ready_from_the_ready_message_to_the_stop_request(start_in_role: Start) -> None:
    code = "on('TERM'); on('USR1', lambda: notify('READY=1')); on('INT', leave); ready()"
    init = started(start_in_role, "--stop-schedule", "TERM/60s/KILL", agent=code, ready=False)
    before = ask(init, "ready")
    assert before.returncode == 1
    assert re.fullmatch(
        r"not ready: the agent has not sent READY=1 in \S+ \(sd_notify; see docs/notify.md\)\n", before.stdout
    )
    init.signal("USR1")
    init.wait_for_line("the agent is ready")
    during = ask(init, "ready")
    assert during.returncode == 0
    assert re.fullmatch(r"ready since \S+\n", during.stdout)
    init.signal("TERM")
    init.wait_for_event("TERM")
    after = ask(init, "ready")
    assert after.returncode == 1
    assert re.fullmatch(r"not ready: stopping since \S+\n", after.stdout)
    assert ask(init, "live").stdout == "no hang detected; stopping\n"
    ask(init, "signal", "USR1")
    os.kill(agent_pid(init), signal.SIGINT)
    assert init.wait() == 0


def test_live_until_a_hang(start_in_role: Start) -> None:
    code = "on('ABRT'); notify('READY=1'); ready()"
    init = start_in_role("-t", "60s", "--watchdog", "300ms", agent=code)
    init.wait_for_event("ABRT")
    ran = ask(init, "live")
    assert (ran.returncode, ran.stdout) == (1, "the agent hangs: no sign of life (--watchdog)\n")
    assert ask(init, "ready").returncode == 1
    assert status(init)["hung"] == "watchdog"
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


# What `ready` and `live` load beside what every interpreter does. A new entry costs every probe of every container.
OF_PROBES = frozenset(
    "_socket entrypoint entrypoint.control entrypoint.ctl entrypoint.ctl.connection entrypoint.ctl.main "
    "entrypoint.ctl.probes entrypoint.notify entrypoint.units".split()
)


def loaded(stderr: str) -> set[str]:
    """The modules in what `-X importtime` prints."""
    return {line.rpartition("|")[2].strip() for line in stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("command", ["ready", "live"])
def test_probes_load_little(start: Start, command: str) -> None:
    init = started(start)
    python = [sys.executable, "-I", "-S", "-X", "importtime"]
    of_any = loaded(subprocess.run([*python, "-c", "pass"], capture_output=True, text=True, timeout=60).stderr)
    ran = subprocess.run(
        argv(init, command, program=[*python, str(SCRIPT)]), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert loaded(ran.stderr) - of_any - {"imported package"} == OF_PROBES
    init.signal("TERM")
    assert init.wait() == 0


@pytest.mark.parametrize(
    "options", [["--pid", "{}"], ["--timeout=10s", "--pid={}"], ["--timeout", "1m", "--pid", "{}"]]
)
def test_options_of_probes_take_no_click(start: Start, options: list[str]) -> None:
    init = started(start)
    python = [sys.executable, "-I", "-S", "-X", "importtime"]
    arguments = [option.format(inner_pid(init.pid)) for option in options]
    command = argv(init, "live", *arguments, program=[*python, str(SCRIPT)])
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "no hang detected; ready\n")
    assert not any(name.startswith("click") for name in loaded(ran.stderr))
    init.signal("TERM")
    assert init.wait() == 0


# --- Where it is called. ----------------------------------------------------------------------------------------------


def test_a_descendant_of_the_agent_asks_the_agent_init_above(start_in_role: Start) -> None:
    script = f"(setsid {AGENT_INITCTL} live); exit 7"
    init = start_in_role(command=["--", "sh", "-c", script], stdout=subprocess.PIPE)
    assert init.wait() == 7, init.stderr
    assert init.outer.stdout is not None
    assert init.outer.stdout.read() == b"no hang detected; starting\n"


def test_the_nearest_agent_init_answers(start_in_role: Start) -> None:
    """A container in a container: another agent-init below, in a PID namespace of its own or in the same one."""
    asks = ["sh", "-c", f"{AGENT_INITCTL} status --json; exit 0"]
    for before in (["unshare", "--pid", "--fork", "--mount-proc"], []):
        command = [*before, str(AGENT_INIT), "-q", "-t", "11s", "--", *asks]
        init = start_in_role("-q", command=["--", *command], stdout=subprocess.PIPE)
        assert init.wait() == 0, init.stderr
        assert init.outer.stdout is not None
        found = json.loads(init.outer.stdout.read())
        assert found["agent"]["name"] == "sh"
        assert (found["pid"] == 1) == bool(before)


@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["own /proc", "/proc of another PID namespace"])
def test_where_there_is_none_one_line_says_so(proc: list[str]) -> None:
    command = ["unshare", "--pid", "--fork", *proc, str(AGENT_INITCTL), "ready"]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr == (
        "agent-initctl: no agent-init is running here: it is no ancestor, and no process of this container\n"
    )


@pytest.mark.parametrize("pid", ["999999999", "1"])
def test_a_pid_that_is_no_agent_init(pid: str) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", f"{AGENT_INITCTL} status --pid {pid}; exit $?"]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 125
    assert len(ran.stderr.splitlines()) == 1
    reason = "process 1 (sh) is no agent-init" if pid == "1" else "there is no process 999999999 here"
    assert reason in ran.stderr


def test_one_that_has_ended_and_is_not_reaped() -> None:
    script = f"""
import subprocess, time
one = subprocess.Popen([{str(AGENT_INIT)!r}, "-q", "--", "true"])
while open(f"/proc/{{one.pid}}/stat").read().rpartition(") ")[2][0] != "Z":
    time.sleep(0.02)
print(subprocess.run([{str(AGENT_INITCTL)!r}, "live", "--pid", str(one.pid)]).returncode)
"""
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert ran.stdout == "125\n"
    assert re.fullmatch(r"agent-initctl: cannot reach agent-init \(pid \d+\): it has ended\n", ran.stderr)


def test_two_of_one_container_must_be_chosen_between(start: Start) -> None:
    """Neither is an ancestor of the client, nor process 1."""
    script = (
        f"for i in 1 2; do {AGENT_INIT} -q -- sleep 60 & done; sleep 1; {AGENT_INITCTL} ready; kill $(jobs -p); wait"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", "bash", "-c", script]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert re.search(r"there are several agent-inits here: \d+, \d+; choose one with --pid\n", ran.stderr)


def test_without_proc_net_unix_and_without_run(start: Start) -> None:
    """The socket has a name, and no file."""
    if os.getuid() != 0:
        pytest.skip("mounting takes root")
    script = 'mount -t tmpfs none /proc/1/net 2>/dev/null || mount --bind /dev/null /proc/net/unix; exec "$@"'
    init = start(command=["--", *IDLE], before=["sh", "-c", script, "sh"])
    wait_for_agent(init)
    wait_until_served(init)
    init.signal("TERM")
    assert init.wait() == 143


def test_no_control(start_in_role: Start) -> None:
    init = start_in_role("--no-control", command=["--", *IDLE])
    agent = wait_for_agent(init)
    assert init.wait_for_line("started")  # before it, process 1 may have a child call signalfd(2)
    assert not [target for target in descriptors(init.pid).values() if target.startswith("socket:")][1:]
    ran = ask(init, "ready")
    assert ran.returncode == 125
    assert "it has no socket (--no-control, or an older version?)" in ran.stderr
    os.kill(agent, signal.SIGTERM)
    assert init.wait() == 143


# --- stop. ------------------------------------------------------------------------------------------------------------


def test_stop_is_a_stop_request(start_in_role: Start) -> None:
    init = started(start_in_role)
    ran = ask(init, "stop")
    assert init.wait() == 0
    assert ran.returncode in (0, -signal.SIGKILL)  # of process 1's namespace
    assert re.search(
        r"stop requested by TERM from agent-initctl \(pid \d+, user \d+\)", init.wait_for_line("stop requested")
    )
    assert init.events()[-2:] == ["TERM", "end"]


def test_stop_wait_prints_the_stop_to_its_final_line(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "20s", agent="on('TERM', lambda: leave(after=0.5)); ready()")
    client = begin(init, "stop", "--wait")
    out, _ = client.communicate(timeout=60)
    assert init.wait() == 0
    first, *_, last = out.splitlines()
    assert first.startswith("agent-init: stop requested by TERM from agent-initctl (pid ")
    assert last.startswith("agent-init: ended: the agent exited with code 0")
    # As process 1 it ends with its namespace, just after that line.
    assert client.returncode in ((0, -signal.SIGKILL, 137) if init.process1 else (0,))


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_stop_wait_knows_the_end_with_a_quiet_log_too(start: Start, quiet: str) -> None:
    init = started(start, quiet, process1=False)
    out, err = begin(init, "stop", "--wait").communicate(timeout=60)
    assert init.wait() == 0
    assert err == ""
    assert len(out.splitlines()) == 2
    assert init.stderr == ""


def test_stop_wait_prints_progress(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", agent="on('TERM', lambda: leave(after=11)); ready()")
    out, _ = begin(init, "stop", "--wait").communicate(timeout=60)
    assert init.wait() == 0
    assert [line for line in out.splitlines() if line.startswith("agent-init: stopping: ")], out


def test_stop_wait_with_a_timeout(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", agent=STAYS)
    ran = ask(init, "stop", "--wait", "--timeout", "1")
    assert (ran.returncode, ran.stderr) == (1, "agent-initctl: the stop has not ended within 1s; it goes on\n")
    assert len(ran.stdout.splitlines()) == 1
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


def test_a_stop_that_agent_init_has_not_answered_is_not_said_to_go_on(start: Start) -> None:
    init = started(start, process1=False)
    os.kill(init.pid, signal.SIGSTOP)
    ran = ask(init, "stop", "--wait", "--timeout", "300ms")
    os.kill(init.pid, signal.SIGCONT)
    problem = f"agent-initctl: agent-init (pid {init.pid}) does not answer within 300ms\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (125, "", problem)
    init.signal("TERM")
    assert init.wait() == 0


def test_those_that_follow_the_log_do_not_keep_a_stop_from_being_waited_for(start_in_role: Start) -> None:
    init = started(start_in_role)
    followers = [begin(init, "events", "--follow") for _ in range(MAX_FOLLOWERS)]
    for follower in followers:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["event"] == "started"
    out, err = begin(init, "stop", "--wait").communicate(timeout=60)
    assert init.wait() == 0
    assert out.splitlines()[-1].startswith("agent-init: ended: "), err
    for follower in followers:
        follower.communicate(timeout=30)


def test_stop_grace_replaces_the_grace_of_this_stop(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", agent=STAYS)
    began = begin(init, "stop", "--wait", "--grace", "1s")
    assert init.wait() == 137
    out, _ = began.communicate(timeout=30)
    assert "KILL after 1s" in out
    assert init.lines("KILL after 1s")


@pytest.mark.parametrize("options", [["-t", "1s"], ["-t", "60s", "--linger", "1s"]], ids=["deadline", "linger"])
def test_stop_wait_prints_the_end_though_it_takes_sigkill(start_in_role: Start, options: list[str]) -> None:
    """SIGKILL goes to everything in the container but to those that wait for the end."""
    agent = STAYS if "60s" not in options else f"child('left', {STAYS!r}); on('TERM', leave); ready()"
    init = started(start_in_role, *options, agent=agent)
    if agent != STAYS:
        init.wait_for_event("ready", "left")
    began = begin(init, "stop", "--wait")
    out, _ = began.communicate(timeout=60)
    assert init.wait() == (137 if agent == STAYS else 0)
    *before, last = out.splitlines()  # a line of a report may be among them on a busy machine
    assert any("SIGKILL" in line and "still running: " in line for line in before)
    assert last.startswith("agent-init: ended: ")


def test_stop_grace_comes_too_late(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", agent=STAYS)
    init.signal("TERM")
    init.wait_for_line("stop requested")
    ran = ask(init, "stop", "--grace", "1s")
    assert (ran.returncode, ran.stdout) == (0, "the stop has begun already: --grace has no effect\n")
    assert status(init)["stop"]["seconds_left"] > 10
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


# --- extend. ----------------------------------------------------------------------------------------------------------


def test_extend_up_to_max_grace(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", "--max-grace", "200s", agent=STAYS)
    before = ask(init, "extend", "5s")
    assert (before.returncode, before.stderr) == (
        1,
        "agent-initctl: there is no stop to extend: none was requested\n",
    )
    init.signal("TERM")
    init.wait_for_line("stop requested")
    for more in (30, 30):
        left = status(init)["stop"]["seconds_left"]
        ran = ask(init, "extend", f"{more}s")
        assert ran.returncode == 0
        assert re.fullmatch(rf"{more}s more: \S+ left\n", ran.stdout)
        assert left < status(init)["stop"]["seconds_left"] <= left + more
    cut = ask(init, "extend", "1h")
    assert re.fullmatch(r"1m20s more: \S+ left, no more: --max-grace comes first\n", cut.stdout)
    assert 100 < status(init)["stop"]["seconds_left"] <= 200
    refused = ask(init, "extend", "1s")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "agent-initctl: the stop lasts as long as --max-grace allows\n"
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


def test_extend_moves_the_kill(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "3s", agent="on('TERM'); ready()")
    sent_at = time.monotonic()  # not when the agent gets it, which may be later
    init.signal("TERM")
    init.wait_for_event("TERM")
    assert ask(init, "extend", "2s").returncode == 0
    assert init.wait() == 137
    assert time.monotonic() - sent_at >= 5


def test_extend_during_the_stop_delay(start_in_role: Start) -> None:
    init = started(start_in_role, "-t", "60s", "--stop-delay", "50s", agent=STAYS)
    init.signal("TERM")
    init.wait_for_line("stop requested")
    ran = ask(init, "extend", "40s")
    assert ran.stdout.startswith("40s more: "), ran.stderr
    found = status(init)["stop"]
    assert [step["signal"] for step in found["next"]] == ["TERM", "KILL"]
    assert found["next"][0]["seconds"] <= 50
    assert 60 < found["seconds_left"] <= 100
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


def test_extend_while_leftovers_exit(start_in_role: Start) -> None:
    code = f"child('stays', {STAYS!r}, session=True); on('TERM', leave); ready()"
    init = started(start_in_role, "-t", "60s", "--linger", "30s", agent=code)
    init.wait_for_event("ready", "stays")
    init.signal("TERM")
    init.wait_for_event("end")
    until(lambda: status(init)["state"] == "lingering", "the linger phase")
    assert ask(init, "extend", "10s").stdout.startswith("10s more: ")
    assert 10 < status(init)["stop"]["seconds_left"] <= 40
    os.kill(stays_pid(init), signal.SIGKILL)
    assert init.wait() == 0


def test_status_says_how_long_leftover_processes_have_where_no_stop_was_requested(start_in_role: Start) -> None:
    code = f"child('stays', {STAYS!r}, session=True); leave(after=0.2)"
    init = start_in_role("--linger", "30s", "-t", "60s", agent=code)
    init.wait_for_event("ready", "stays")
    until(lambda: status(init)["state"] == "lingering", "the linger phase")
    text = ask(init, "status").stdout
    assert re.search(r"^stop: not requested; KILL in (30|2[0-9](\.[0-9])?)s$", text, re.MULTILINE), text
    os.kill(stays_pid(init), signal.SIGKILL)
    assert init.wait() == 0


def stays_pid(init: Init) -> int:
    pid = int(init.wait_for_event("ready", "stays")["pid"])
    if not init.process1:
        return pid
    (found,) = (process.pid for process in init.remaining_processes() if inner_pid(process.pid) == pid)
    return found


PLATFORMS = {
    "Kubernetes": (
        (),
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        "the end of this stop is not agent-init's: it is that of ",
    ),
    "--platform-grace": (
        ("--platform-grace", "60s"),
        {},
        "the platform ends the container after 1m (--platform-grace)",
    ),
    "no deadline": (("-t", "infinity"), {}, "this stop has no deadline"),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_extend_is_refused_where_the_platforms_limit_comes_first(start: Start, platform: str) -> None:
    options, variables, why = PLATFORMS[platform]
    init = started(start, *options, agent=STAYS, env=clean_environment(**variables))
    init.signal("TERM")
    init.wait_for_line("stop requested")
    ran = ask(init, "extend", "5s")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"agent-initctl: {why}")
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


# --- signal. ----------------------------------------------------------------------------------------------------------


def test_signal_is_forwarded(start_in_role: Start) -> None:
    init = started(start_in_role, "-v")
    ran = ask(init, "signal", "USR1")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    init.wait_for_event("USR1")
    assert status(init)["signals"]["forwarded"] == {"USR1": 1}
    ask(init, "signal", "term")
    assert init.wait() == 0
    assert init.lines("stop requested by TERM from agent-initctl")


def test_signal_is_rewritten_and_shielded_as_any_other(start_in_role: Start) -> None:
    init = started(start_in_role, "-r", "HUP:USR1")
    ask(init, "signal", "HUP")
    init.wait_for_event("USR1")
    ask(init, "signal", "USR2")  # which nobody handles
    init.wait_for_line("USR2")
    ask(init, "signal", "QUIT")
    assert init.wait() == 0
    assert init.lines("stop requested by QUIT")


@pytest.mark.parametrize("name", ["KILL", "STOP", "0", "NOSUCH", "99"])
def test_signal_that_nobody_can_catch_is_refused(start: Start, name: str) -> None:
    init = started(start)
    ran = ask(init, "signal", name)
    assert (ran.returncode, ran.stdout) == (125, "")
    assert len(ran.stderr.splitlines()) == 1
    assert name in ran.stderr
    init.signal("TERM")
    assert init.wait() == 0


# --- report. ----------------------------------------------------------------------------------------------------------


def test_report_is_made_without_another_effect(start_in_role: Start) -> None:
    init = started(start_in_role)
    before = init.stderr
    ran = ask(init, "report")
    assert ran.returncode == 0, ran.stderr
    assert "python" in ran.stdout
    assert "MiB" in ran.stdout
    agent = init.wait_for_event("ready")["pid"]
    assert f"pid {agent}" in ran.stdout or str(agent) in ran.stdout
    assert init.stderr == before
    assert status(init)["state"] == "ready"
    init.signal("TERM")
    assert init.wait() == 0


TASKS = """
import asyncio, {loop}

async def call():
    await asyncio.sleep(100)

async def main():
    calls = [asyncio.create_task(call(), name=f"call-{{number}}") for number in (1, 2)]
    await asyncio.wait(calls)

{loop}.run(main())
"""


@pytest.mark.parametrize("loop", [name for name in ("asyncio", "uvloop") if importlib.util.find_spec(name)])
def test_report_shows_stacks_and_every_task(start: Start, tmp_path: Path, loop: str) -> None:
    script = tmp_path / "agent.py"
    script.write_text(TASKS.format(loop=loop))
    init = start("--stacks", command=["--", sys.executable, str(script)])
    wait_until_served(init)
    until(lambda: "2 tasks (call-" in ask(init, "report").stdout, "both tasks as one line")
    call = f"{script}:5 in call: await asyncio.sleep(100)"
    short = ask(init, "report").stdout.splitlines()
    assert f"report:     {call}" in short
    # From 3.14 on the line of the main task names the two that it waits for.
    assert not any(re.match(r"report: pid \d+, task call-", line) for line in short), short
    every = ask(init, "report", "--tasks").stdout.splitlines()
    for number in (1, 2):
        one = re.compile(rf"report: pid \d+, task call-{number}: {re.escape(call)}")
        assert any(map(one.fullmatch, every)), every
    assert any(re.match(r"report: pid \d+, task (?!call-)", line) for line in every), every  # the main task, too
    os.kill(agent_pid(init), signal.SIGKILL)
    assert init.wait() == 137


def test_a_report_about_a_stopped_agent_ends_within_its_timeout(start: Start, tmp_path: Path) -> None:
    """It does not answer; it is asked once, also with --tasks."""
    script = tmp_path / "agent.py"
    script.write_text(TASKS.format(loop="asyncio"))
    init = start("--stacks", command=["--", sys.executable, str(script)])
    wait_until_served(init)
    until(lambda: "2 tasks (call-" in ask(init, "report").stdout, "an agent that answers")
    agent = agent_pid(init)
    os.kill(agent, signal.SIGSTOP)
    until(lambda: ": it is stopped" in ask(init, "report", "--timeout=1s").stdout, "its stop")
    began = time.monotonic()
    ran = ask(init, "report", "--tasks", "--timeout=3s")
    assert time.monotonic() - began < 3.0
    assert ran.stdout.count(": it is stopped") == 1, ran.stdout
    os.kill(agent, signal.SIGKILL)
    assert init.wait() == 137


def test_a_report_on_a_full_disk_is_one_line(start: Start) -> None:
    init = started(start)
    with open("/dev/full", "w") as full:
        command = argv(init, "report")
        ran = subprocess.run(
            command, env=clean_environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (ran.returncode, ran.stderr) == (125, "agent-initctl: cannot go on: [Errno 28] No space left on device\n")
    init.signal("TERM")
    assert init.wait() == 0


# --- events. ----------------------------------------------------------------------------------------------------------


def test_events_are_the_log_as_json(start_in_role: Start) -> None:
    """What was logged, and what was not at this level."""
    init = started(start_in_role, "-q", ready=False)
    ran = until(lambda: '"ready"' in (it := ask(init, "events")).stdout and it, "the event ready")
    found = list(records(ran.stdout))
    assert found[0]["event"] == "started"
    assert "ready" in [record["event"] for record in found]
    assert {"time", "level", "event", "message"} <= found[0].keys()
    init.signal("TERM")
    assert init.wait() == 0


def test_events_are_followed_by_several_clients_to_the_end(start_in_role: Start) -> None:
    init = started(start_in_role)
    clients = [begin(init, "events", "--follow") for _ in range(3)]
    for client in clients:
        assert client.stdout is not None
        assert json.loads(client.stdout.readline())["event"] == "started"
    init.signal("TERM")
    assert init.wait() == 0
    for client in clients:
        out, err = client.communicate(timeout=30)
        found = [record["event"] for record in records(out)]
        assert found[-1] == "ended", err
        assert client.returncode in ((0, -signal.SIGKILL, 137) if init.process1 else (0,))


def test_watching_the_status_ends_with_agent_init(start: Start) -> None:
    init = started(start, process1=False)
    client = begin(init, "status", "--watch")
    assert client.stdout is not None
    assert client.stdout.readline().startswith("agent-init ")
    init.signal("TERM")
    assert init.wait() == 0
    assert (client.communicate(timeout=30)[1], client.returncode) == ("", 0)


def test_a_follower_ends_when_nobody_reads_what_it_prints(start: Start) -> None:
    init = started(start)
    client = begin(init, "events", "--follow")
    assert client.stdout is not None
    assert json.loads(client.stdout.readline())["event"] == "started"
    client.stdout.close()
    assert client.wait(timeout=30) == 1
    init.signal("TERM")
    assert init.wait() == 0


@pytest.mark.parametrize("command", ["events", "report", "signal WINCH"])
def test_a_client_whose_standard_files_are_closed(start: Start, command: str) -> None:
    init = started(start)
    line = shlex.join(argv(init, *command.split()))
    ran = subprocess.run(["sh", "-c", f"{line} <&- >&- 2>&-"], env=clean_environment(), timeout=60)
    assert ran.returncode == 0
    init.signal("TERM")
    assert init.wait() == 0


def test_a_follower_that_does_not_read_is_cut_off(start: Start) -> None:
    init = started(start, "-v")
    client = subprocess.Popen(argv(init, "events", "--follow"), env=clean_environment(), stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert json.loads(client.stdout.readline())["event"] == "started"
    os.kill(client.pid, signal.SIGSTOP)
    for i in range(3000):
        init.signal("USR1")
        if i % 100 == 0:
            assert status(init)["state"] == "ready"
    os.kill(client.pid, signal.SIGCONT)
    init.signal("TERM")
    assert init.wait() == 0
    client.communicate(timeout=30)


# --- Usage. -----------------------------------------------------------------------------------------------------------

WRONG = {
    ("nonsense",): "No such command 'nonsense'; accepted: ",
    ("extend",): "Missing argument 'DURATION'",
    ("extend", "soon"): "'soon' is not a duration",
    ("extend", "0s"): "'0s' is too short; accepted: more than 0",
    ("extend", "soon "): "accepted: 25s, 1m30s, 500ms, 2h, a number of seconds\n",
    ("extend", "400d"): "'400d' is longer than a year; accepted: up to 366d\n",
    ("ready", "--timeout=400d"): "accepted: up to 366d\n",
    ("extend", "infinity"): "infinity is not accepted here; accepted: a finite time, such as 25s",
    ("ready", "--nonsense"): "No such option",
    ("ready", "more"): "Got unexpected extra argument",
    ("live", "--pid", "x"): "'x' is not a pid; accepted: a number from 1",
    ("live", "--pid=0"): "'0' is not a pid",
    ("live", "--pid", "9" * 5000): "is not a pid; accepted: a number from 1",
    ("live", "--pid"): "Option '--pid' requires an argument",
    ("ready", "--timeout", "soon"): "'soon' is not a duration",
    (
        "ready",
        "--pid",
        "1",
        "--timeout=infinity",
    ): "infinity is not accepted here; accepted: a finite time, such as 25s",
    ("status", "--pid", "x"): "'x' is not a pid; accepted: a number from 1",
    ("status", "--timeout", "-1"): "-1",
    ("stop", "--wait", "--timeout", "0"): "'0' is too short; accepted: more than 0\n",
    ("live", "--timeout=0s"): "'0s' is too short; accepted: more than 0\n",
}


@pytest.mark.parametrize("arguments", WRONG, ids=lambda words: " ".join(words)[:40])
def test_bad_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [AGENT_INITCTL, *arguments], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (125, "")
    (line,) = ran.stderr.splitlines(keepends=True)
    assert line.startswith("agent-initctl: ")
    assert WRONG[arguments] in line


def test_help_and_version() -> None:
    for arguments, text in ((["--help"], "extend"), (["-V"], "agent-initctl "), (["stop", "-h"], "--wait")):
        ran = subprocess.run([AGENT_INITCTL, *arguments], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert text in ran.stdout
