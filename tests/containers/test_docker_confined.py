"""Containers with less than the usual: no root, no capability, no place to write, few processes, little memory."""

from __future__ import annotations

import time

import pytest

from .container import RECORDER, SLACK, Containers, Ended, await_true

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
def test_confined(containers: Containers, options: tuple[str, ...]) -> None:
    """A whole life: orphans are reaped, the stop and what is left behind are handled, and nobody has to complain."""
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=options, ready=None, VERBOSE="1")
    container.await_line("ready", times=2)
    assert len(container.await_event("reaped", times=3)) == 3
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2
    assert {line["level"] for line in container.events()} == {"info", "debug"}
    assert container.stray() == []


def test_an_agent_that_became_another_user(containers: Containers) -> None:
    """Process 1 is root, the agent is not any more (setpriv, gosu)."""
    dropped = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups")
    container = containers.run(*dropped, *RECORDER, options=ROOT)
    ended, _ = container.stop()
    assert ended.code == 0
    assert container.signals() == ["TERM"]


def test_no_process_may_be_started(containers: Containers) -> None:
    """A pids limit of 1 is process 1 itself: one line says so, and the code is 125."""
    container = containers.run(*RECORDER, options=("--pids-limit", "1"), ready=None)
    assert container.await_end().code == 125
    assert "pids limit" in container.event("not-started")["message"]
    assert container.stray() == []


def test_a_stop_with_the_process_table_full(containers: Containers) -> None:
    """The agent and its children ignore the stop and fork whenever there is room; the deadline is kept."""
    bomb = "import os, signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nprint('ready', flush=True)\n"
    bomb += "while True:\n try: os.fork()\n except OSError: pass\n"
    options = ("--pids-limit", "40", "--cpus", "0.5")
    container = containers.run("python", "-c", bomb, options=options, GRACE="1s")
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 1 <= seconds < 1 + SLACK
    assert container.event("deadline")
    assert container.events()[-1]["event"] == "ended"


def test_the_agent_is_killed_for_want_of_memory(containers: Containers) -> None:
    """Process 1 outlives it and tells the truth: 137, killed, and by nobody's stop."""
    eater = "print('ready', flush=True); hoard = []\nwhile True: hoard.append(bytes(1_000_000))"
    container = containers.run("python", "-c", eater, options=LIMITED)
    ended: Ended = container.await_end()

    assert ended.code == 137
    told = container.event("ended")
    assert told["code"] == 137
    assert "KILL" in told["how"]
    assert (told["cause"], told["stop_seconds"]) == ("oom", None)
    assert "the kernel's OOM killer struck" in told["how"]
    assert "limit 64 MiB" in told["how"]


def test_a_child_is_killed_for_want_of_memory(containers: Containers) -> None:
    """The agent goes on and decides for itself; its own code is what is told."""
    program = (
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-c', 'h = []\\nwhile True: h.append(bytes(1_000_000))'])\n"
        "print('child', done.returncode, flush=True)\n"
        "sys.exit(7)\n"
    )
    container = containers.run("python", "-c", program, options=LIMITED, ready=None)
    ended = container.await_end()
    assert ended.code == 7
    told = container.event("ended")
    assert told["cause"] == "exited"
    assert "meanwhile the kernel's OOM killer struck" in told["how"]
    assert container.output() == ["child -9"]
    assert container.event("ended")["code"] == 7


def test_a_stop_while_memory_is_short(containers: Containers) -> None:
    """The agent holds most of what there is; a stop must need no more."""
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


def test_no_orphan_stays_a_zombie(containers: Containers) -> None:
    """Under load, and while the agent itself never waits for anybody."""
    container = containers.run(*RECORDER, "--orphans=100", WARN_REAPED="on")
    container.await_event("reaped", times=100)
    states = {pid: state for pid, (_, state) in container.processes().items()}
    assert "Z" not in states.values()
    ended, _ = container.stop()
    assert ended.code == 0


def test_a_health_check_goes_its_own_way(containers: Containers) -> None:
    """Docker enters the container for each check. What a check leaves behind is reaped; a check does not
    hold up the end."""
    check = "sh -c 'sleep 0.2 & test -e /tmp/well'"
    options = ("--health-cmd", check, "--health-interval", "200ms", "--health-retries", "2", "--user", "0")
    container = containers.run(*RECORDER, options=options, VERBOSE="1")

    def health() -> str:
        return str(container.inspect()["State"]["Health"]["Status"])

    await_true(lambda: health() == "unhealthy", "the check fails")
    containers.engine("exec", container.name, "touch", "/tmp/well")
    await_true(lambda: health() == "healthy", "the check succeeds")
    container.await_event("reaped", times=3)

    ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM"]
    assert {line["level"] for line in container.events()} == {"info", "debug"}


def test_a_health_check_is_not_signalled(containers: Containers) -> None:
    """One that is under way when the stop comes: it gets none of our signals, and does not hold up the end."""
    check = "exec python /probe/recorder.py >/tmp/check"
    options = ("--health-cmd", check, "--health-interval", "200ms", "--user", "0")
    container = containers.run(*RECORDER, "--cleanup=3", options=options)

    def said() -> str:
        return containers.engine("exec", container.name, "cat", "/tmp/check", check=False).stdout

    await_true(lambda: said() == "ready\n", "the check is under way")
    asked = time.time()
    container.signal("TERM")
    container.await_line("got TERM")
    time.sleep(1)
    assert said() == "ready\n"
    ended = container.await_end()
    assert ended.code == 0
    assert 3 <= ended.at - asked < 3 + SLACK
    assert container.signals() == ["TERM"]
