"""The core of the behaviour on aarch64: natively where the machine is one, else under qemu's user emulation.

The kernel below qemu is the real one: signals, process namespaces and reaping are its own. Emulation is slow, so times
are not judged closely here; and qemu catches every signal in the agent's place, so that what the agent handles cannot
be seen, which the shield and looking through a shell live by. The images are made from Debian's and Python's packages
for that machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import images
from .conftest import without
from .container import RECORDER, Containers, await_true
from .emulation import aarch64
from .engine import Engine, NoEngine
from .images import EXAMPLE, PROBE

MACHINE = "arm64"
SLOW = 20.0  # what emulation may add


@pytest.fixture(scope="module")
def emulated(engine: Engine) -> Iterator[None]:
    """The images for aarch64, and a kernel that runs them."""
    try:
        with aarch64():
            images.build_all(engine, MACHINE)
            yield
    except NoEngine as error:
        without(str(error))


@pytest.fixture
def arm(emulated: None, engine: Engine) -> Iterator[Containers]:
    with Containers(engine, f"{PROBE}:{MACHINE}") as made:
        yield made


def test_the_example_image_as_it_is(arm: Containers) -> None:
    container = arm.start("run", "--detach", f"{EXAMPLE}:{MACHINE}")
    await_true(lambda: any("ready, on uvloop" in line for line in container.output()), "the agent is ready, on uvloop")
    assert "aarch64" in arm.engine("exec", container.name, "uname", "-m").stdout
    ended, _ = container.stop("-t", "60")
    assert ended.code == 0
    assert "cleaned up" in container.output()[-1]
    assert "ended: the agent exited with code 0" in container.errors()[-1]


def test_stop_and_exit_code(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--code=3")
    ended, _ = container.stop("-t", "60")
    assert ended.code == 3
    assert container.signals() == ["TERM"]
    assert container.output()[-1] == "cleaned up"
    assert [line["event"] for line in container.events()] == ["started", "stop-requested", "ended"]
    assert container.event("started")["role"] == "process 1"
    assert container.event("stop-requested")["sender"] == "outside the container"


def test_signals_are_forwarded(arm: Containers) -> None:
    """Those that the agent handles. (qemu itself catches every signal: whether the agent does cannot be seen.)"""
    container = arm.run(*RECORDER, VERBOSE="1")
    for name in ("USR1", "HUP", "QUIT"):
        container.signal(name)
        container.await_line(f"got {name}")
    container.signal("INT")
    assert container.await_end().code == 0
    assert container.signals() == ["USR1", "HUP", "QUIT", "TERM"]


def test_orphans_are_reaped_and_survivors_stopped(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--orphans=3", "--children=1", ready=None, VERBOSE="1")
    container.await_line("ready", times=2)
    assert len(container.await_event("reaped", times=3)) == 3
    ended, _ = container.stop("-t", "60")
    assert ended.code == 0
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2


def test_the_deadline(arm: Containers) -> None:
    container = arm.run(*RECORDER, "--stop-on=", "--children=1", ready=None, GRACE="2s")
    container.await_line("ready", times=2)
    ended, seconds = container.stop("-t", "60")
    assert ended.code == 137
    assert 2 <= seconds < 2 + SLOW
    assert len(container.event("deadline")["processes"]) == 2


@pytest.mark.parametrize(("command", "code"), [("exit 41", 41), ("kill -TERM $$", 143), ("exec no-such", 127)])
def test_exit_codes(arm: Containers, command: str, code: int) -> None:
    container = arm.run("sh", "-c", command, ready=None)
    assert container.await_end().code == code
    assert container.event("ended")["code"] == code


def test_not_found(arm: Containers) -> None:
    container = arm.run("no-such-program", ready=None)
    assert container.await_end().code == 127
    assert "not found in PATH" in container.event("not-started")["message"]
