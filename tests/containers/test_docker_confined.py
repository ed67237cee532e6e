"""Confined containers: no root, no capabilities, no writable files, few processes, little memory."""

from __future__ import annotations

import time

import pytest

from .container import RECORDER, TOLERANCE, Containers, Exit, wait_until

READ_ONLY = ("--read-only",)
USER = ("--user", "1000")
NOBODY = ("--user", "65534:65534")
ROOT = ("--user", "0")
NO_PRIVILEGES = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
LIMITED = ("--memory", "64m", "--memory-swap", "64m")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(READ_ONLY, id="read-only"),
        pytest.param(USER, id="user"),
        pytest.param(NOBODY, id="nobody"),
        pytest.param(ROOT, id="root"),
        pytest.param((*ROOT, *NO_PRIVILEGES), id="root-without-capabilities"),
        pytest.param((*USER, *READ_ONLY, *NO_PRIVILEGES), id="all-together"),
    ],
)
def test_confined_container_stops_without_warnings(containers: Containers, options: tuple[str, ...]) -> None:
    """A complete run: orphans are reaped, the agent and its leftover processes are stopped, nothing is warned about."""
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=options, ready=None, VERBOSE="1")
    container.wait_for_line("ready", times=2)
    assert len(container.wait_for_events("reaped", times=3)) == 3
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2
    assert {line["level"] for line in container.events()} == {"info", "debug"}
    assert container.other_stderr_lines() == []


def test_agent_that_changed_its_user_is_stopped(containers: Containers) -> None:
    """Process 1 is root, but the agent has changed its user (setpriv, gosu)."""
    dropped = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    container = containers.run(*dropped, *RECORDER, options=ROOT)
    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["TERM"]


def test_pids_limit_of_1_is_exit_code_125(containers: Containers) -> None:
    """With a pids limit of 1 no agent can be started: one line reports that.

    The limit is set once the container runs: with one of 1 from the start, runc often fails for lack of a thread.
    """
    files = "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"  # cgroups v1 and v2
    waiting = f'until for file in {files}; do [ -e $file ] && read -r limit <$file; done; [ "$limit" = 1 ]; do :; done'
    code = f'{waiting}; exec agent-init -- "$@"'
    container = containers.run("-c", code, "sh", *RECORDER, options=("--entrypoint", "sh"), ready=None)
    containers.engine("update", "--pids-limit", "1", container.name)
    assert container.wait_for_exit().code == 125
    assert "pids limit" in container.event("not-started")["message"]
    assert container.other_stderr_lines() == []


def test_deadline_is_kept_with_a_full_process_table(containers: Containers) -> None:
    """The agent and its children ignore the stop and fork whenever they can."""
    bomb = "import os, signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nprint('ready', flush=True)\n"
    bomb += "while True:\n try: os.fork()\n except OSError: pass\n"
    options = ("--pids-limit", "40", "--cpus", "0.5")
    container = containers.run("python", "-c", bomb, options=options, GRACE="1s")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 1 <= seconds < 1 + TOLERANCE
    assert container.event("deadline")
    assert container.events()[-1]["event"] == "ended"


def test_oom_kill_of_the_agent_is_reported(containers: Containers) -> None:
    """Process 1 survives and reports an OOM kill, outside of a stop."""
    eater = "print('ready', flush=True); hoard = []\nwhile True: hoard.append(bytes(1_000_000))"
    container = containers.run("python", "-c", eater, options=LIMITED)
    ended: Exit = container.wait_for_exit()

    assert ended.code == 137
    end = container.event("ended")
    assert end["code"] == 137
    assert "KILL" in end["how"]
    assert (end["cause"], end["stop_seconds"]) == ("oom", None)
    assert "the kernel's OOM killer killed" in end["how"]
    assert "limit 64 MiB" in end["how"]


def test_oom_kill_of_a_child_does_not_change_the_exit_code(containers: Containers) -> None:
    """The agent continues and exits by itself; its own code is passed on."""
    program = (
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-c', 'h = []\\nwhile True: h.append(bytes(1_000_000))'])\n"
        "print('child', done.returncode, flush=True)\n"
        "sys.exit(7)\n"
    )
    container = containers.run("python", "-c", program, options=LIMITED, ready=None)
    ended = container.wait_for_exit()
    assert ended.code == 7
    end = container.event("ended")
    assert end["cause"] == "exited"
    assert "meanwhile the kernel's OOM killer killed" in end["how"]
    assert container.output() == ["child -9"]
    assert container.event("ended")["code"] == 7


def test_stop_works_with_little_memory_left(containers: Containers) -> None:
    """The agent uses most of the memory; a stop must not need more."""
    hog = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (print('got TERM', flush=True), sys.exit(0)))\n"
        "hoard = []\n"
        "while len(hoard) < 45: hoard.append(bytes(1_000_000))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    container = containers.run("python", "-c", hog, options=LIMITED)
    ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM"]


def test_hundred_orphans_leave_no_zombie(containers: Containers) -> None:
    """The agent itself never waits for children."""
    container = containers.run(*RECORDER, "--orphans=100", WARN_REAPED="on")
    container.wait_for_events("reaped", times=100)
    states = {pid: state for pid, (_, state) in container.processes().items()}
    assert "Z" not in states.values()
    ended, _ = container.stop()
    assert ended.code == 0


def test_health_check_leftovers_are_reaped(containers: Containers) -> None:
    """Docker enters the container for each check. Processes that a check leaves behind are reaped.

    A check does not delay the exit.
    """
    check = "sh -c 'sleep 0.2 & test -e /tmp/well'"
    options = ("--health-cmd", check, "--health-interval", "200ms", "--health-retries", "2", "--user", "0")
    container = containers.run(*RECORDER, options=options, VERBOSE="1")

    def health() -> str:
        return str(container.inspect()["State"]["Health"]["Status"])

    wait_until(lambda: health() == "unhealthy", "the check fails")
    containers.engine("exec", container.name, "touch", "/tmp/well")
    wait_until(lambda: health() == "healthy", "the check succeeds")
    container.wait_for_events("reaped", times=3)

    ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM"]
    assert {line["level"] for line in container.events()} == {"info", "debug"}


def test_running_health_check_is_not_signalled(containers: Containers) -> None:
    """A check that is running when the stop comes gets no signal from agent-init and does not delay the exit."""
    check = "exec python /probe/recorder.py >/tmp/check"
    options = ("--health-cmd", check, "--health-interval", "200ms", "--user", "0")
    container = containers.run(*RECORDER, "--cleanup=3", options=options)

    def check_output() -> str:
        return containers.engine("exec", container.name, "cat", "/tmp/check", check=False).stdout

    wait_until(lambda: check_output() == "ready\n", "the check is running")
    requested_at = time.time()
    container.signal("TERM")
    container.wait_for_line("got TERM")
    time.sleep(1)
    assert check_output() == "ready\n"
    ended = container.wait_for_exit()
    assert ended.code == 0
    assert 3 <= ended.at - requested_at < 3 + TOLERANCE
    assert container.signals() == ["TERM"]
