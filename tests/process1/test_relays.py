"""Wrappers that handle signals themselves: shells with traps, relays such as `uv run`, tracers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.init import ACTOR, actor_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Start
    from tests.support.init import Init

DRAINS = "on('TERM', lambda: leave(7, after=0.5)); ready()"
# As uvicorn and gunicorn do: then a background job does not show by what it ignores.
HANDLES_ALL = "on('INT'); on('QUIT'); " + DRAINS
# In the midst of a call that blocks all signals, as the start of a thread does; until the stop signal has come.
BLOCKS_A_MOMENT = """
on('TERM', lambda: leave(7))
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
log('ready')
end = time.monotonic() + 10
while signal.SIGTERM not in signal.sigpending() and time.monotonic() < end:
    pass
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
forever()
"""
BLOCKS_FOR_GOOD = """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
log('ready')
log(signal.sigwait([signal.SIGTERM]).name[3:])
leave(7)
"""
# Neither TERM nor INT is handled yet, until somebody writes into the FIFO `go`.
STARTS = """
signal.signal(signal.SIGINT, signal.SIG_DFL)
log('ready')
open({go!r}).read()
"""
PLAIN = "try: log('ready'); time.sleep(90)\nfinally: log('cleaned')"


def stop(init: Init, number: str = "TERM") -> int:
    init.wait_for_event("ready")
    init.signal(number)
    return init.wait()


def run_shell(start: Start, shell: str, line: str, *options: str, agent: str = DRAINS, **more: Any) -> Init:
    """Start a shell with this line as the agent; `AGENT` in it is an actor."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    applet = ["sh"] if shell == "busybox" else []
    line = line.replace("AGENT", actor_line("agent", agent))
    return start("-t", "20s", *options, command=["--", shell, *applet, "-c", line], **more)


def note(name: str) -> str:
    """A command that logs an event of an actor of this name."""
    return actor_line(name, "log('ready')")


# --- Shells with traps. ---------------------------------------------------------------------------------------------

SHELLS = ["bash", "dash", "busybox", "ksh", "zsh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_program_in_the_foreground_is_stopped_and_the_trap_runs_after_it(start_in_role: Start, shell: str) -> None:
    trap = shlex.quote(f"{note('trap')}; exit 3")
    line = f"trap {trap} TERM; AGENT; {note('next')}"
    init = run_shell(start_in_role, shell, line)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("trap") == ["ready"]
    assert init.records("trap")[0]["t"] > init.records("agent", "end")[0]["t"]
    assert init.events("next") == []
    assert init.lines("handles TERM, but waits for what runs in its foreground; TERM sent to ")


@pytest.mark.parametrize("relay", ["timeout 60", "setsid -w"])
@pytest.mark.parametrize("shell", SHELLS)
def test_program_in_the_foreground_behind_a_leader_of_a_process_group_is_stopped(
    start_in_role: Start, shell: str, relay: str
) -> None:
    if shell == "busybox" and relay == "setsid -w":
        relay = "/usr/bin/setsid -w"  # its own one has no such option
    trap = shlex.quote(f"{note('trap')}; exit 3")
    init = run_shell(start_in_role, shell, f"trap {trap} TERM; {relay} AGENT; true")
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("trap") == ["ready"]


def test_program_that_makes_its_own_process_group_is_stopped_in_the_foreground(start_in_role: Start) -> None:
    init = run_shell(start_in_role, "bash", "trap 'exit 3' TERM; AGENT; true", agent="os.setpgid(0, 0); " + DRAINS)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("line", ["AGENT", "AGENT & fg %1"])
def test_foreground_of_a_shell_with_job_control_is_stopped_before_the_kill(start_in_role: Start, line: str) -> None:
    """In the background it would look the same."""
    init = run_shell(start_in_role, "bash", f"set -m; trap 'exit 3' TERM; {line}; true", "-t", "5s")
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("before the KILL, as it has not exited")


def test_background_job_of_a_shell_with_job_control_gets_one_signal(start_in_role: Start) -> None:
    line = "set -m; trap 'kill -TERM $a; wait $a; exit 3' TERM; AGENT & a=$!; wait $a"
    init = run_shell(start_in_role, "bash", line)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


# --- A trap for EXIT, and what a script does after its foreground. ---


SIDE = "on('TERM', lambda: leave(0, after=1.5)); on('INT', lambda: leave(0, after=1.5)); ready()"


@pytest.mark.parametrize(
    ("trap", "event", "ends"),
    [
        ("kill $a; wait $a", "TERM", True),
        ("kill -INT $a; wait", "INT", True),
        ("kill $a; while kill -0 $a; do sleep 0.1; done", "TERM", True),
        ("kill $a", "TERM", False),
        ("kill 0", "TERM", False),
    ],
)
@pytest.mark.parametrize("how", ["an argument", "a file"])
def test_trap_for_exit_that_stops_a_job_is_not_cut(
    start_in_role: Start, tmp_path: Path, trap: str, event: str, ends: bool, how: str
) -> None:
    trap = shlex.quote(f"{trap}; {note('trap')}" if ends else trap)
    line = f"{actor_line('side', SIDE)} & a=$!; trap {trap} EXIT; {actor_line('agent', DRAINS)}\n"
    (tmp_path / "entrypoint.sh").write_text(line)
    command = ["bash", str(tmp_path / "entrypoint.sh")] if how == "a file" else ["bash", "-c", line]
    init = start_in_role("-t", "20s", command=["--", *command])
    init.wait_for_event("ready", "side")
    assert stop(init) in (7, 143)
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("side") == ["ready", event, "end"]
    assert init.events("trap") == ["ready"] * ends


@pytest.mark.parametrize("how", ["AGENT", "exec AGENT"])
def test_server_that_a_script_starts_after_the_stop_request_is_stopped(start_in_role: Start, how: str) -> None:
    line = f"{actor_line('migration', DRAINS)}; {how}"
    init = run_shell(start_in_role, "sh", line, "-t", "4s")
    init.wait_for_event("ready", "migration")
    init.signal("TERM")
    init.wait()
    assert init.events("migration") == ["ready", "TERM", "end"]
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("it has started")  # the same program again, as far as that shows, or another one


def test_node_program_that_a_script_starts_after_the_stop_request_is_stopped_before_the_kill(
    start_in_role: Start, tmp_path: Path
) -> None:
    """It may be clean-up: every program in Node handles TERM from its start. This one has only the name."""
    node = tmp_path / "node"
    node.symlink_to(Path(sys.executable).resolve())
    program = actor_line("node", "on('TERM', leave); ready()").replace(sys.executable, str(node), 1)
    init = run_shell(start_in_role, "sh", f"{actor_line('migration', DRAINS)}; {program}; exit $?", "-t", "5s")
    init.wait_for_event("ready", "migration")
    init.signal("TERM")
    init.wait()
    assert init.events("node") == ["ready", "TERM", "end"]
    assert len(init.lines("TERM sent to node ")) == 1
    assert not init.lines("SIGKILL")
    assert time.monotonic() - init.records("migration", "TERM")[0]["t"] < 4.5  # the looks do not put it off


@pytest.mark.parametrize("shell", ["bash", "ksh"])
@pytest.mark.parametrize("signals", ["EXIT", "EXIT TERM INT"])
def test_trap_for_exit_runs_once_and_leaves_the_exit_code(start_in_role: Start, shell: str, signals: str) -> None:
    """With such a trap bash and ksh handle all signals that would end them, and end at once by any of them."""
    init = run_shell(start_in_role, shell, f"trap 'echo cleaning >&2' {signals}; AGENT")
    assert stop(init) == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.stderr.count("cleaning") == 1


@pytest.mark.parametrize("agent", [DRAINS, HANDLES_ALL], ids=["plain", "handles all"])
@pytest.mark.parametrize("shell", SHELLS)
def test_background_job_is_left_to_the_trap_that_forwards(start_in_role: Start, shell: str, agent: str) -> None:
    line = "trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c"
    init = run_shell(start_in_role, shell, line, agent=agent)
    assert stop(init) in (7, 127)  # not every shell still has the code of a job that it has waited for
    assert init.events() == ["ready", "TERM", "end"]
    assert not init.lines("foreground")


@pytest.mark.parametrize("shell", ["dash", "busybox", "zsh"])
def test_foreground_shows_in_how_the_shell_waits(start_in_role: Start, shell: str) -> None:
    init = run_shell(start_in_role, shell, "trap 'exit 3' TERM; AGENT", agent=HANDLES_ALL)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


def test_foreground_shows_in_the_stdin_that_the_program_has_inherited(start_in_role: Start) -> None:
    init = run_shell(start_in_role, "bash", "trap 'exit 3' TERM; AGENT", agent=HANDLES_ALL, stdin=subprocess.PIPE)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("agent", [DRAINS, HANDLES_ALL], ids=["plain", "handles all"])
@pytest.mark.parametrize("shell", SHELLS)
def test_foreground_shows_where_a_script_has_started_us_in_its_background(
    start_in_role: Start, shell: str, agent: str
) -> None:
    init = in_background(start_in_role, shell, "trap 'exit 3' TERM; AGENT", agent)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("agent", [DRAINS, HANDLES_ALL], ids=["plain", "handles all"])
@pytest.mark.parametrize("shell", SHELLS)
def test_background_job_shows_where_a_script_has_started_us_in_its_background(
    start_in_role: Start, shell: str, agent: str
) -> None:
    init = in_background(start_in_role, shell, "trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c", agent)
    assert stop(init) in (7, 127)
    assert init.events() == ["ready", "TERM", "end"]


def in_background(start: Start, shell: str, line: str, agent: str) -> Init:
    """As a shell starts what is in its background: INT and QUIT are ignored, and /dev/null is open for reading."""
    with open("/dev/null", "rb") as null:
        return run_shell(start, shell, line, agent=agent, stdin=null, before=["env", "--ignore-signal=INT,QUIT"])


@pytest.mark.parametrize("shell", SHELLS)
def test_foreground_program_that_does_not_handle_the_signal_gets_it_before_the_kill(
    start_in_role: Start, shell: str
) -> None:
    """It may be finishing its work. But then the shell would be killed before its trap has run."""
    agent = "signal.signal(signal.SIGINT, signal.SIG_DFL); ready()"
    init = run_shell(start_in_role, shell, "trap 'exit 3' TERM; AGENT", "-t", "4s", agent=agent)
    assert stop(init) in (3, 128 + 3)  # the latter by ksh, if a signal has ended its program
    assert init.lines(" before the KILL, as it has not exited")
    assert not init.lines("SIGKILL")


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """What a program waits for that has not started yet, see STARTS."""
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


def stop_late(init: Init, go: Path) -> int:
    """Have the program go on when the stop signal was sent: a request is answered after the one before it."""
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_line("stop requested by TERM")
    init.signal("TERM")
    init.wait_for_line("not passed on")
    go.write_text("")
    return init.wait(patience=10)


@pytest.mark.parametrize("shell", SHELLS)
def test_foreground_program_that_handles_the_signal_late_gets_it_then(
    start_in_role: Start, shell: str, go: Path
) -> None:
    """It was starting, and would begin its work."""
    agent = STARTS.format(go=str(go)) + DRAINS
    init = run_shell(start_in_role, shell, "trap 'exit 3' TERM; AGENT", agent=agent)
    assert stop_late(init, go) == 3
    assert init.events() == ["ready", "ready", "TERM", "end"]
    assert init.lines("which handles it by now")


def test_program_that_a_foreground_script_starts_late_is_stopped(start_in_role: Start, go: Path) -> None:
    """The script itself does not handle the signal: it gets it before the KILL, as it may start another program."""
    script = STARTS.format(go=str(go)) + f"os.waitpid(child('late', {DRAINS!r}), 0); leave(5)"
    init = run_shell(start_in_role, "bash", "trap 'exit 3' TERM; AGENT", agent=script)
    assert stop_late(init, go) == 3
    assert init.events("late") == ["ready", "TERM", "end"]
    assert init.events() == ["ready", "end"]


@pytest.mark.parametrize("agent", [BLOCKS_A_MOMENT, BLOCKS_FOR_GOOD], ids=["for a moment", "for good"])
@pytest.mark.parametrize("shell", SHELLS)
def test_foreground_program_that_blocks_all_signals_is_stopped(start_in_role: Start, shell: str, agent: str) -> None:
    """Shells block none for a background job; fish blocks two."""
    init = run_shell(start_in_role, shell, "trap 'exit 3' TERM; AGENT", agent=agent)
    wait_until_it_blocks_all(init, agent)
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("agent", [BLOCKS_A_MOMENT, BLOCKS_FOR_GOOD], ids=["for a moment", "for good"])
@pytest.mark.parametrize("shell", SHELLS)
def test_background_job_that_blocks_all_signals_is_left_to_the_trap(
    start_in_role: Start, shell: str, agent: str
) -> None:
    line = "trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c"
    init = run_shell(start_in_role, shell, line, agent=agent)
    wait_until_it_blocks_all(init, agent)
    assert stop(init) in (7, 127)
    assert init.events() == ["ready", "TERM", "end"]
    assert not init.lines("foreground")


def wait_until_it_blocks_all(init: Init, agent: str) -> None:
    """One that does so for good also sleeps then: until that it might do so for a moment, on a busy machine."""
    init.wait_for_event("ready")
    if agent == BLOCKS_FOR_GOOD:
        init.wait_for(lambda: any(map(is_in_sigwait, init_children(init))), "sigwait(3)")


def is_in_sigwait(process: psutil.Process) -> bool:
    try:
        return b"sigtimedwait" in Path(f"/proc/{process.pid}/wchan").read_bytes()
    except OSError:  # it has exited
        return False


def test_foreground_program_behind_a_subshell_and_another_shell(start_in_role: Start) -> None:
    line = "trap 'exit 3' TERM; (cd /; dash -c \"AGENT; exit 5\"; exit 6)"
    quoted = actor_line("agent", DRAINS).replace("$", "\\$").replace('"', '\\"')
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", line.replace("AGENT", quoted)])
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]


def test_program_that_does_not_handle_term_is_interrupted_behind_a_trap(start_in_role: Start) -> None:
    init = run_shell(start_in_role, "bash", "trap 'exit 3' TERM; AGENT", agent=PLAIN)
    assert stop(init) == 3
    assert init.events() == ["ready", "cleaned"]


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_shell_that_sleeps_in_its_foreground_runs_its_trap_at_once(start_in_role: Start, shell: str) -> None:
    line = f"trap 'stop=1' TERM; {note('agent')}; while [ -z \"$stop\" ]; do sleep 60; done; exit 4"
    init = run_shell(start_in_role, shell, line)
    init.wait_for_event("ready")
    init.wait_for(lambda: "sleep" in names_below(init), "sleep(1)")
    began = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 4
    assert time.monotonic() - began < 5


def names_below(init: Init) -> list[str]:
    """Return the names of all processes below process 1; none if one has just exited."""
    try:
        return [child.name() for child in init_children(init)]
    except psutil.NoSuchProcess:
        return []


def init_children(init: Init) -> list[psutil.Process]:
    return psutil.Process(init.pid).children(recursive=True)


def test_trap_that_forwards_and_waits_is_not_run_twice(start_in_role: Start) -> None:
    """The shell waits for an older child, after its foreground program has ended: that is its trap."""
    worker = actor_line("worker", "on('TERM', lambda: leave(0, after=2)); ready()")
    line = f"trap 'kill -TERM $c; wait $c; exit 3' TERM; {worker} & c=$!; AGENT"
    init = run_shell(start_in_role, "bash", line)
    init.wait_for_event("ready", "worker")
    assert stop(init) == 3
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("worker") == ["ready", "TERM", "end"]


def test_signal_for_shell_and_program_reaches_both(start_in_role: Start) -> None:
    line = "trap 'echo trapped >&2' USR1; AGENT"
    agent = "on('USR1'); on('TERM', lambda: leave(7)); ready()"
    init = run_shell(start_in_role, "bash", line, agent=agent)
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_event("USR1")
    assert stop(init) == 7
    assert init.stderr.count("trapped") == 1


def test_signal_that_would_end_a_shell_with_a_trap_for_exit_is_kept_from_it(start_in_role: Start) -> None:
    init = run_shell(start_in_role, "bash", "trap 'echo cleaning >&2' EXIT; AGENT")
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_line("USR1 from outside the container dropped" if init.process1 else "dropped: no process handles it")
    assert stop(init, "HUP") == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.stderr.count("cleaning") == 1


# --- Relays. --------------------------------------------------------------------------------------------------------

# It passes on whatever it gets, as `uv run` does.
RELAY = """
import subprocess
process = subprocess.Popen([{python!r}, '-S', {actor!r}, LOG, 'agent', {code!r}])
for name in ('HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'TERM'):
    signal.signal(number(name), lambda n, _: (log(str(n)), process.send_signal(n)))
code = process.wait()
leave(128 - code if code < 0 else code)
"""


@pytest.fixture
def relay(start_in_role: Start, tmp_path: Path) -> Callable[..., Init]:
    """Start a program of some name, which passes signals on to an actor that runs `agent`."""

    def begin(agent: str, *options: str, name: str = "uv") -> Init:
        program = tmp_path / name
        program.symlink_to(os.path.realpath(sys.executable))
        code = RELAY.format(python=sys.executable, actor=str(ACTOR), code=agent)
        line = f'exec {program} -S {ACTOR} "$EVENTS" relay {shlex.quote(code)}'
        return start_in_role("-t", "20s", *options, command=["--", "sh", "-c", line])

    return begin


def test_relay_is_looked_through(relay: Callable[..., Init]) -> None:
    init = relay(DRAINS)
    assert stop(init) == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("relay") == ["end"]


@pytest.mark.parametrize("name", ["HUP", "QUIT"])
def test_signal_that_the_program_behind_a_relay_does_not_handle_is_a_stop_request(
    relay: Callable[..., Init], name: str
) -> None:
    init = relay(DRAINS)
    assert stop(init, name) == 7
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_signal_that_the_program_behind_a_relay_does_not_handle_is_dropped(
    relay: Callable[..., Init], name: str
) -> None:
    init = relay(DRAINS)
    init.wait_for_event("ready")
    for _ in range(3):
        init.signal(name)
    init.wait_for_line("dropped: no process handles it")
    assert stop(init) == 7
    assert init.events("relay") == ["end"]


def test_signal_that_the_program_behind_a_relay_handles_reaches_it_once(relay: Callable[..., Init]) -> None:
    init = relay("on('HUP'); on('USR1'); " + DRAINS)
    init.wait_for_event("ready")
    for name in ("HUP", "USR1"):
        init.signal(name)
        init.wait_for_event(name)
    assert stop(init) == 7
    assert init.events() == ["ready", "HUP", "USR1", "TERM", "end"]


def test_signal_that_the_program_behind_a_relay_ignores_is_no_stop_request(relay: Callable[..., Init]) -> None:
    init = relay("ignore('HUP'); on('USR1'); " + DRAINS)
    init.wait_for_event("ready")
    init.signal("HUP")
    init.signal("USR1")
    init.wait_for_event("USR1")
    assert not init.lines("stop requested")
    assert stop(init) == 7


def test_program_behind_a_relay_that_does_not_handle_term_is_interrupted(relay: Callable[..., Init]) -> None:
    init = relay(PLAIN)
    assert stop(init) == 130
    assert init.events() == ["ready", "cleaned"]


def test_relay_passes_the_stop_signal_on_where_nothing_behind_it_handles_it(relay: Callable[..., Init]) -> None:
    init = relay(PLAIN, "--stop-signal", "TERM")
    assert stop(init) == 143
    assert init.events("relay") == ["15", "end"]


def test_small_init_is_given_only_what_the_program_behind_it_handles(relay: Callable[..., Init]) -> None:
    init = relay("on('USR1'); " + DRAINS, name="dumb-init")
    init.wait_for_event("ready")
    init.signal("USR2")
    init.wait_for_line("dropped: no process handles it")
    init.signal("USR1")
    init.wait_for_event("USR1")
    assert stop(init) == 7
    assert init.events("relay") == ["10", "15", "end"], "it may translate signals"


@pytest.mark.parametrize("options", [[], ["-f", "-o", "/dev/null"]])
def test_traced_program_is_stopped(start_in_role: Start, options: list[str]) -> None:
    """With -o strace(1) ignores the signals that would end it; without, it passes TERM on and ends at once."""
    line = actor_line("agent", DRAINS)
    init = start_in_role(
        "-t", "20s", command=["--", "sh", "-c", f"exec strace -e trace=none {' '.join(options)} {line}"]
    )
    assert stop(init) == 7
    assert init.events() == ["ready", "TERM", "end"]


# --- Supervisors, and process groups. -------------------------------------------------------------------------------


def test_what_was_left_to_a_supervisor_is_named_before_the_kill(start_in_role: Start, tmp_path: Path) -> None:
    agent = f"child('worker', {DRAINS!r}); on('TERM'); ready()"
    log = tmp_path / "termination-log"
    init = start_in_role("-t", "500ms", "--termination-log", str(log), agent=agent)
    init.wait_for_event("ready", "worker")
    assert stop(init) == 137
    [line] = init.lines("left to it")
    assert line.startswith("warning: TERM went to python")
    assert "which handles it; whether it reached python" in line
    assert "left to it" in log.read_text()
    assert init.events("worker") == ["ready"]


def test_no_such_line_where_all_were_signalled(start_in_role: Start) -> None:
    agent = "child('worker', \"on('TERM'); ready()\"); time.sleep(90)"
    init = start_in_role("-t", "500ms", "--stop-signal", "TERM", agent=agent)
    init.wait_for_event("ready", "worker")
    init.signal("TERM")
    assert init.wait() == 137
    assert not init.lines("left to")


def test_with_target_group_a_signal_reaches_the_members_that_handle_it(start_in_role: Start) -> None:
    """Those that do not handle it would end by it."""
    agent = "child('member', \"on('USR1'); on('TERM', lambda: leave(0)); ready()\"); " + DRAINS
    init = start_in_role("-t", "20s", "-g", agent=agent)
    init.wait_for_event("ready", "member")
    init.wait_for_event("ready")
    init.signal("USR2")
    init.wait_for_line("USR2 from")
    init.signal("USR1")
    init.wait_for_event("USR1", "member")
    assert stop(init) == 7
    assert init.events("member") == ["ready", "USR1", "TERM", "end"]
