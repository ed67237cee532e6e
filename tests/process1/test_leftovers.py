"""An agent that exits during a stop before what is below it: a wrapper's work, and what an agent leaves behind."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.process1.test_stop import TOLERANCE
from tests.support.init import actor_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

LINGER = ("--linger", "200ms")  # too short for a drain
LONGER = ("--linger", "2s")  # enough for a handler to run, on a busy machine too
DRAINS = "on('TERM', lambda: leave(7, after=1)); ready()"
LEAVES = "on('TERM', lambda: leave(3)); ready()"
STAYS = "on('TERM'); ready()"
BUSY = "on('TERM', lambda: leave(0)); log('ready')\nwhile True: time.sleep(0.001)"
# It catches TERM, but only to restore the default action and to die of it, as the runtimes of Node and Go do.
DIES = (
    "child('work', {work!r}); "
    "on('TERM', lambda: (signal.signal(signal.SIGTERM, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGTERM))); ready()"
)
WORK = actor_line("work", DRAINS)


def stop(init: Init, *names: str) -> tuple[int, float]:
    """The exit code, and the seconds from the stop request to the end."""
    for name in names or ("work",):
        init.wait_for_event("ready", name)
    time.sleep(0.1)  # the wrapper has come to wait for it
    asked = time.monotonic()
    init.signal("TERM")
    return init.wait(), time.monotonic() - asked


def bash(script: str) -> list[str]:
    return ["bash", "-c", script]


# --- Work below a wrapper. ---


def test_work_has_the_rest_of_the_grace_when_a_shell_exits_with_the_first_of_two(start_in_role: Start) -> None:
    script = f"{actor_line('first', LEAVES)} & {WORK} & wait -n; exit $?"
    init = start_in_role("-t", "20s", *LINGER, command=bash(script))
    code, seconds = stop(init, "first", "work")
    assert code == 3
    assert 1 <= seconds < 5
    assert init.events("first") == init.events("work") == ["ready", "TERM", "end"]
    assert init.lines("the agent exited with code 3 before the program that it runs")


def test_work_that_is_killed_at_the_deadline_makes_the_exit_code_137(start_in_role: Start) -> None:
    script = f"{actor_line('first', LEAVES)} & {actor_line('work', STAYS)} & wait -n; exit 0"
    init = start_in_role("-t", "1500ms", *LINGER, command=bash(script))
    code, seconds = stop(init, "first", "work")
    assert code == 137
    assert 1.5 <= seconds < 1.5 + TOLERANCE
    assert init.events("work") == ["ready", "TERM"]
    last = init.wait_for_line("ended")
    assert "the agent exited with code 0, the program that it ran was killed by SIGKILL at the deadline" in last
    assert "running when it was sent: python" in last
    assert "exit code 137" in last


def test_work_that_is_killed_at_a_repeated_request_makes_the_exit_code_137(start_in_role: Start) -> None:
    init = start_in_role("-t", "20s", "--repeat", "escalate", agent=DIES.format(work=STAYS))
    init.wait_for_event("ready", "work")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM", "work")
    init.signal("TERM")
    assert init.wait() == 137
    assert "killed by SIGKILL at a repeated stop request" in init.wait_for_line("ended")


def test_work_below_a_wrapper_that_died_of_the_stop_signal_gets_it_and_the_rest_of_the_grace(
    start_in_role: Start,
) -> None:
    init = start_in_role("-t", "20s", *LINGER, agent=DIES.format(work=DRAINS))
    code, seconds = stop(init, "work", "agent")
    assert code == 143
    assert 1 <= seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]


def test_later_steps_of_the_schedule_go_to_the_work(start_in_role: Start) -> None:
    work = "on('TERM'); on('INT', lambda: leave(0)); ready()"
    init = start_in_role("--stop-schedule", "TERM/700ms/INT/20s/KILL", *LINGER, agent=DIES.format(work=work))
    code, seconds = stop(init, "work", "agent")
    assert code == 143
    assert 0.7 <= seconds < 5
    assert init.events("work") == ["ready", "TERM", "INT", "end"]


@pytest.mark.parametrize("shell", [True, False])
def test_work_below_a_wrapper_below_a_wrapper(start_in_role: Start, shell: bool) -> None:
    """All of them die of the stop signal, one after the other: a shell, npm, a launcher in Node."""
    outer = DIES.format(work=DIES.format(work=DRAINS)).replace("'work'", "'inner'", 1)
    how = {"command": bash(f"{actor_line('agent', outer)}; exit $?")} if shell else {"agent": outer}
    init = start_in_role("-t", "20s", *LINGER, **how)
    code, seconds = stop(init, "work", "inner", "agent")
    assert code == 143
    assert 1 <= seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]


def test_work_keeps_what_reads_its_output(start_in_role: Start) -> None:
    """Tee(1) is not signalled while the work goes on."""
    work = "on('TERM', lambda: (time.sleep(0.5), os.write(1, b'drained'), leave(0))); ready()"
    script = f"{actor_line('work', work)} | tee -a /dev/null; exit 0"
    agent = DIES.replace("child('work', {work!r})", f"import subprocess; subprocess.Popen(['sh', '-c', {script!r}])")
    init = start_in_role("-t", "20s", *LINGER, agent=agent)
    assert stop(init, "work", "agent")[0] == 143
    assert init.events("work") == ["ready", "TERM", "end"]


def test_work_that_prefers_int_gets_int(start_in_role: Start) -> None:
    work = (
        "signal.signal(signal.SIGINT, signal.default_int_handler); log('ready')\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: log('INT'); leave(0, after=0.5)"
    )
    init = start_in_role("-t", "20s", *LINGER, agent=DIES.format(work=work))
    assert stop(init, "work", "agent")[0] == 143
    assert init.events("work") == ["ready", "INT", "end"]


def test_what_the_work_leaves_behind_has_the_time_to_linger_and_does_not_change_the_exit_code(
    start_in_role: Start,
) -> None:
    work = f"child('helper', {STAYS!r}); {DRAINS}"
    init = start_in_role("-t", "20s", *LINGER, agent=DIES.format(work=work))
    code, seconds = stop(init, "helper", "work", "agent")
    assert code == 143
    assert seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]
    assert init.events("helper") == ["ready", "TERM"]
    assert init.wait_for_event("TERM", "helper")["t"] >= init.wait_for_event("end", "work")["t"]


# --- Who has been signalled already. ---


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(f"set -e; {WORK} & c=$!; trap 'kill -TERM $c' TERM; wait $c", 143, id="set -e"),
        pytest.param(f"{WORK} & c=$!; trap 'kill -TERM $c; exit 5' TERM; wait", 5, id="exit"),
        pytest.param(f"trap 'trap \"\" TERM; kill 0' EXIT; {WORK} & wait", 143, id="EXIT trap"),
        pytest.param(f"trap 'kill $(jobs -p)' EXIT; {WORK} & wait", 143, id="EXIT trap, jobs"),
    ],
)
def test_work_that_a_shell_has_signalled_gets_no_second_signal(start_in_role: Start, script: str, code: int) -> None:
    init = start_in_role("-t", "20s", *LINGER, command=bash(script))
    assert stop(init)[0] == code
    assert init.events("work") == ["ready", "TERM", "end"]
    assert init.lines("is likely to have passed the signal on to python")


def test_work_that_a_waiting_launcher_has_signalled_gets_no_second_signal(start_in_role: Start) -> None:
    agent = (
        f"pid = child('work', {DRAINS!r}); on('TERM', lambda: (os.kill(pid, 15), leave(4))); "
        "log('ready'); os.waitpid(pid, 0)"
    )
    init = start_in_role("-t", "20s", *LINGER, agent=agent)
    assert stop(init, "work", "agent")[0] == 4
    assert init.events("work") == ["ready", "TERM", "end"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(f"trap 'echo bye' EXIT; {WORK}", 7, id="in the foreground"),
        pytest.param(f"trap 'echo bye' EXIT; {WORK} & wait $!", 143, id="in the background"),
        pytest.param(f"trap 'exit 6' TERM; {WORK} & wait $!", 6, id="in the background, with a code"),
    ],
)
def test_work_that_a_shell_has_not_signalled_gets_the_stop_signal_at_once(
    start_in_role: Start, script: str, code: int
) -> None:
    init = start_in_role("-t", "20s", *LINGER, command=bash(script))
    assert stop(init)[0] == code
    assert init.events("work") == ["ready", "TERM", "end"]
    assert not init.lines("is likely to have passed")


def test_sleeping_work_of_a_script_that_may_signal_it_gets_the_stop_signal_at_once(start_in_role: Start) -> None:
    """It would have been woken."""
    init = start_in_role("-t", "20s", *LINGER, command=bash(f"trap 'kill -0 $$; exit 6' TERM; {WORK} & wait $!"))
    code, seconds = stop(init)
    assert code == 6
    assert seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]


def test_work_that_was_not_signalled_after_all_gets_the_stop_signal_before_the_kill(start_in_role: Start) -> None:
    script = f"trap 'sleep 0.2; kill -0 $$; exit 6' TERM; {actor_line('work', BUSY)} & wait $!"
    init = start_in_role("-t", "5s", *LINGER, command=bash(script))
    code, seconds = stop(init)
    assert code == 6
    assert 3 <= seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]
    assert init.lines("is likely to have passed the signal on to python")


# --- What is left beside the work. ---


@pytest.mark.parametrize("beside", [LEAVES, STAYS])
def test_a_shell_that_has_waited_for_its_program_leaves_no_work(start_in_role: Start, beside: str) -> None:
    """Such as Xvfb, which gets its signal at once, and no more than the time to linger."""
    script = (
        f"{actor_line('beside', beside)} & {actor_line('work', LEAVES)} & c=$!; "
        "trap 'kill $c' TERM; wait $c; wait $c; exit 4"
    )
    init = start_in_role("-t", "20s", *LONGER, command=bash(script))
    code, seconds = stop(init, "beside", "work")
    assert code == 4
    assert seconds < 5
    assert init.events("work") == ["ready", "TERM", "end"]
    assert init.events("beside")[:2] == ["ready", "TERM"]


@pytest.mark.parametrize("role", ["child", "orphan"])
def test_a_process_beside_an_agent_that_has_drained_delays_no_stop(start_in_role: Start, role: str) -> None:
    agent = f"{role}('beside', {STAYS!r}); on('TERM', lambda: leave(0, after=0.5)); ready()"
    init = start_in_role("-t", "20s", *LONGER, agent=agent)
    code, seconds = stop(init, "beside", "agent")
    assert code == 0
    assert 2.5 <= seconds < 5
    assert init.events("beside") == ["ready", "TERM"]


# --- Leftovers, from the top down. ---


def test_a_leftover_pool_is_signalled_from_the_top_down(start_in_role: Start) -> None:
    worker = "on('TERM', lambda: leave(0)); ready()"
    pool = f"child('worker', {worker!r}); on('TERM', lambda: leave(0, after=0.7)); ready()"
    init = start_in_role("-t", "20s", agent=f"child('pool', {pool!r}); on('USR1', lambda: leave(5)); ready()")
    for name in ("worker", "pool", "agent"):
        init.wait_for_event("ready", name)
    init.signal("USR1")
    assert init.wait() == 5
    assert init.events("pool") == init.events("worker") == ["ready", "TERM", "end"]
    assert init.wait_for_event("TERM", "worker")["t"] >= init.wait_for_event("end", "pool")["t"]


def test_a_leftover_worker_that_its_pool_ends_gets_no_signal(start_in_role: Start) -> None:
    worker = "on('TERM'); on('USR2', lambda: leave(0)); ready()"
    pool = (
        f"pid = child('worker', {worker!r}); "
        "on('TERM', lambda: (time.sleep(0.3), os.kill(pid, signal.SIGUSR2), os.waitpid(pid, 0), leave(0))); ready()"
    )
    init = start_in_role("-t", "20s", agent=f"child('pool', {pool!r}); on('TERM', lambda: leave(5)); ready()")
    assert stop(init, "worker", "pool", "agent")[0] == 5
    assert init.events("worker") == ["ready", "USR2", "end"]


def test_a_leftover_shell_has_its_turn_after_its_program(start_in_role: Start) -> None:
    """The shell would run on."""
    program = "on('TERM', lambda: leave(0, after=0.3)); ready()"
    script = f"{actor_line('program', program)}; tail -f /dev/null; exit 0"
    agent = f"import subprocess; subprocess.Popen(['sh', '-c', {script!r}]); on('USR1', lambda: leave(5)); ready()"
    init = start_in_role("-t", "20s", "--linger", "10s", agent=agent)
    init.wait_for_event("ready", "program")
    init.wait_for_event("ready")
    asked = time.monotonic()
    init.signal("USR1")
    assert init.wait() == 5
    assert time.monotonic() - asked < 5
    assert init.events("program") == ["ready", "TERM", "end"]


# --- The exit code of a shell that waits. ---


@pytest.mark.parametrize("number", range(10))
def test_a_shell_that_waits_keeps_its_exit_code(start: Start, number: int) -> None:
    work = actor_line("work", f"on('TERM', lambda: leave({number})); ready()")
    init = start("-t", "20s", command=["sh", "-c", f"{work}; exit $?"])
    init.wait_for_event("ready", "work")
    init.signal("TERM")
    assert init.wait() == number


# --- multiprocessing's helpers, which notice the end of the agent by themselves. ---

SPAWNS = """
import multiprocessing, signal, sys
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    lock = context.Lock()  # has the resource tracker started
    child = context.Process(target=print)
    child.start()
    child.join()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_helpers_of_multiprocessing_are_not_logged_as_left_behind(
    start_in_role: Start, tmp_path: Path, method: str
) -> None:
    """On a busy machine they may take longer than 1 s: then once more."""
    program = tmp_path / "agent.py"
    program.write_text(SPAWNS)
    lines: list[str] = []
    for _ in range(5):
        init = start_in_role("-t", "20s", command=["--", sys.executable, str(program), method])
        assert init.outer.stdout
        while init.outer.stdout.readline() != b"ready\n":
            pass
        init.signal("TERM")
        assert init.wait() == 0
        lines = init.lines("left processes behind")
        if not lines:
            return
    raise AssertionError(lines)
