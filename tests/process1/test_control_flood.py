"""Clients that flood the control socket of a real process 1 hold up no signal and no deadline, and leave nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import flood
from tests.support.control import argv, ask, wait_until_served
from tests.support.init import clean_environment, until
from tests.support.proc import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

SECONDS = 3.0  # of flood while signals are forwarded
LATE = 2.0  # seconds that a deadline may seem late on a busy machine


@pytest.fixture
def floods() -> Iterator[list[subprocess.Popen[bytes]]]:
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for client in made:
        client.kill()
    for client in made:
        client.communicate()


def begin(init: Init, kinds: list[str], floods: list[subprocess.Popen[bytes]]) -> None:
    for kind in kinds:
        command = argv(init, kind, program=[sys.executable, "-S", str(Path(flood.__file__))])
        floods.append(subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE))
    for client in floods:
        assert client.stdout is not None
        client.stdout.readline()


@pytest.mark.parametrize(
    "kinds", [*([kind] * 4 for kind in flood.KINDS), [*flood.KINDS] * 2], ids=[*flood.KINDS, "all"]
)
def test_a_flood_delays_no_signal_and_no_deadline(
    start: Start, kinds: list[str], floods: list[subprocess.Popen[bytes]]
) -> None:
    if os.getuid() != 0:
        pytest.skip("nsenter takes root")
    init = start("-t", "1s", agent="ignore('TERM'); on('USR1'); ready()")
    init.wait_for_event("ready")
    wait_until_served(init)
    begin(init, kinds, floods)
    end, sent = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        init.signal("USR1")
        sent += 1
        until(lambda: init.events().count("USR1") == sent, "the signal", 5)  # noqa: B023
    init.signal("TERM")
    requested = time.monotonic()
    init.wait_for_line("stop requested")
    assert init.wait() == 137
    assert 0.9 <= time.monotonic() - requested < 1 + LATE
    assert not init.lines("unexpected")


def test_after_a_flood_nothing_is_left(start: Start, floods: list[subprocess.Popen[bytes]]) -> None:
    if os.getuid() != 0:
        pytest.skip("nsenter takes root")
    init = start("-t", "1s", agent="on('TERM', leave); ready()")
    init.wait_for_event("ready")
    wait_until_served(init)
    before = descriptors(init.pid)
    begin(init, [*flood.KINDS] * 2, floods)
    time.sleep(1)  # of flood
    for client in floods:
        client.kill()
        client.wait()
    until(lambda: descriptors(init.pid) == before, f"the descriptors {before}")
    until(lambda: ask(init, "live").returncode == 0, "an answer")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("unexpected")
