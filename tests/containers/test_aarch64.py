"""The core behaviour on aarch64: natively on an aarch64 machine, else under qemu's user emulation.

Under qemu the kernel is the host's, so signals, PID namespaces and reaping are real. Emulation is slow, so times are
not checked closely. qemu handles every signal itself, so agent-init cannot see which signals the agent handles: names
decide. The images are built from Debian's and Python's arm64 packages.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import images
from .conftest import skip_or_fail
from .container import RECORDER, Containers, wait_until
from .emulation import aarch64
from .engine import Engine, NotAvailable
from .images import EXAMPLE, PROBE

MACHINE = "arm64"
SLOW = 20.0  # seconds that emulation may add


@pytest.fixture(scope="module")
def emulated(engine: Engine) -> Iterator[None]:
    """Build the images for aarch64 and let the kernel run them."""
    try:
        with aarch64():
            images.build_all(engine, MACHINE)
            yield
    except NotAvailable as error:
        skip_or_fail(str(error))


@pytest.fixture
def arm(emulated: None, engine: Engine) -> Iterator[Containers]:
    with Containers(engine, f"{PROBE}:{MACHINE}") as made:
        yield made


def test_example_image_stops_gracefully(arm: Containers) -> None:
    container = arm.start("run", "--detach", f"{EXAMPLE}:{MACHINE}")
    wait_until(lambda: any("ready, on uvloop" in line for line in container.output()), "the agent is ready, on uvloop")
    assert "aarch64" in arm.engine("exec", container.name, "uname", "-m").stdout
    ended, _ = container.stop("-t", "60")
    assert ended.code == 0
    assert "cleaned up" in container.output()[-1]
    assert "ended: the agent exited with code 0" in container.errors()[-1]


def test_stop_passes_the_agents_exit_code_on(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--code=3")
    ended, _ = container.stop("-t", "60")
    assert ended.code == 3
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    events = ["started", "masks-unknown", "stop-requested", "ended"]
    assert [line["event"] for line in container.events()] == events
    assert container.event("started")["role"] == "process 1"
    assert container.event("stop-requested")["sender"] == "outside the container"


def test_signals_are_forwarded(arm: Containers) -> None:
    """Only handled signals are tested: under qemu the others are forwarded too."""
    container = arm.run(*RECORDER, VERBOSE="1")
    for name in ("USR1", "HUP", "QUIT"):
        container.signal(name)
        container.wait_for_line(f"got {name}")
    container.signal("INT")
    assert container.wait_for_exit().code == 0
    assert container.signals() == ["USR1", "HUP", "QUIT", "TERM"]


def test_agent_behind_a_shell_drains(arm: Containers) -> None:
    """For longer than what a shell leaves behind would have. A signal that it does not handle is dropped."""
    command = ("sh", "-c", '"$@"; exit $?', "sh", *RECORDER, "--handle=TERM,INT", "--cleanup=3", "--code=3")
    container = arm.run(*command, LINGER="500ms", VERBOSE="1")
    container.signal("USR1")
    assert container.wait_for_events("shielded")
    ended, _ = container.stop("-t", "60")
    assert ended.code == 3
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"


def test_orphans_are_reaped_and_leftover_processes_stopped(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--orphans=3", "--children=1", ready=None, VERBOSE="1")
    container.wait_for_line("ready", times=2)
    assert len(container.wait_for_events("reaped", times=3)) == 3
    ended, _ = container.stop("-t", "60")
    assert ended.code == 0
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2


def test_agent_that_ignores_the_stop_is_killed_at_the_deadline(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--stop-on=", "--children=1", ready=None, GRACE="2s")
    container.wait_for_line("ready", times=2)
    ended, seconds = container.stop("-t", "60")
    assert ended.code == 137
    assert 2 <= seconds < 2 + SLOW
    assert len(container.event("deadline")["processes"]) == 2


@pytest.mark.parametrize(("command", "code"), [("exit 41", 41), ("kill -TERM $$", 143), ("exec no-such", 127)])
def test_exit_codes(arm: Containers, command: str, code: int) -> None:
    container = arm.run("sh", "-c", command, ready=None)
    assert container.wait_for_exit().code == code
    assert container.event("ended")["code"] == code


def test_command_not_found_is_127(arm: Containers) -> None:
    container = arm.run("no-such-program", ready=None)
    assert container.wait_for_exit().code == 127
    assert "not found in PATH" in container.event("not-started")["message"]
