"""The supervisor cannot be set up while the agent runs: the fallback forwards, keeps the deadline, reaps and exits."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import entrypoint
from entrypoint.start import RETRY_FOR
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Start
    from tests.support.init import Init

TOLERANCE = 1.0  # seconds
FALLBACK = "from now on agent-init only forwards signals, keeps the deadline, reaps and exits with the agent's code"
STUBBORN = "ignore('HUP'); on('USR1'); on('TERM'); on('INT'); ready()"


def raises(module: Path) -> None:
    module.write_text("raise ValueError('broken')\n")


def missing(module: Path) -> None:
    module.unlink()


def unreadable(module: Path) -> None:
    """A directory in its place: even root cannot read it."""
    module.unlink()
    module.mkdir()


def wrong_syntax(module: Path) -> None:
    module.write_text("def oops(:\n")


def ends_the_interpreter(module: Path) -> None:
    module.write_text("raise SystemExit(3)\n")


WAYS = [raises, missing, unreadable, wrong_syntax, ends_the_interpreter]


def broken(directory: Path, way: Callable[[Path], None], *modules: str) -> list[str]:
    """Return the command of an agent-init with broken modules."""
    package = directory / "package" / "entrypoint"
    shutil.copytree(Path(entrypoint.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "package").chmod(0o755)
    for module in modules or ("supervisor",):
        way(package / "init" / f"{module}.py")
    return [sys.executable, "-I", "-S", str(package / "__main__.py")]


def wait_for_fallback(init: Init) -> None:
    init.wait_for_line(FALLBACK)


@pytest.mark.parametrize("way", WAYS)
def test_the_first_failure_is_logged_at_once_and_the_deadline_kept(
    start_in_role: Start, tmp_path: Path, way: Callable[[Path], None]
) -> None:
    init = start_in_role("-t", "700ms", agent=STUBBORN, program=broken(tmp_path, way))
    line = init.wait_for_line("cannot supervise the agent")
    logged_at = time.monotonic()
    assert line.startswith("error: ")
    assert line.endswith("; trying again")
    wait_for_fallback(init)
    assert time.monotonic() - logged_at > RETRY_FOR / 2  # and not when all attempts had failed
    init.signal("USR1")
    init.wait_for_event("USR1")
    requested_at = time.monotonic()
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("TERM")
    init.signal("INT")
    assert init.wait() == 137
    assert 0.7 <= time.monotonic() - requested_at < 0.7 + TOLERANCE
    assert init.events() == ["ready", "USR1", "TERM"]  # one stop signal, whatever comes later
    assert len(init.lines()) == 3
    assert init.lines()[2] == "error: ended without a supervisor; exit code 137"


def test_a_module_that_may_not_be_read(start_in_role: Start, tmp_path: Path) -> None:
    program = broken(tmp_path, lambda module: module.chmod(0))

    # The interpreter of the tests may lie where another user cannot read: only the capability to read is dropped.
    before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    init = start_in_role("-t", "700ms", agent="on('TERM', lambda: leave(3)); ready()", program=program, before=before)
    init.wait_for_event("ready")
    wait_for_fallback(init)
    init.signal("TERM")
    assert init.wait() == 3


@pytest.mark.parametrize("module", ["console", "lifecycle", "signalfd", "delivery", "loop"])
def test_any_module_may_be_broken(start_in_role: Start, tmp_path: Path, module: str) -> None:
    """Without the module that logs, the lines are written all the same."""
    init = start_in_role(agent="on('TERM', lambda: leave(3)); ready()", program=broken(tmp_path, raises, module))
    init.wait_for_event("ready")
    wait_for_fallback(init)
    init.signal("TERM")
    assert init.wait() == 3
    assert init.lines("error: cannot supervise the agent: ValueError: broken")


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.6], ids=["before", "during", "after"])
def test_exit_code_of_an_agent_that_exits_by_itself(start_in_role: Start, tmp_path: Path, seconds: float) -> None:
    """Before the first attempt, while it is tried again, and in the fallback."""
    agent = f"log('ready'); time.sleep({seconds}); leave(6)"
    init = start_in_role(agent=agent, program=broken(tmp_path, raises))
    assert init.wait() == 6
    assert init.events() == ["ready", "end"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_graceful_stop(start_in_role: Start, tmp_path: Path, moment: str) -> None:
    """A stop request that comes while it is tried again does not wait for long."""
    agent = "on('TERM', lambda: leave(5)); ready()"
    init = start_in_role("-t", "10s", agent=agent, program=broken(tmp_path, raises))
    init.wait_for_event("ready")
    if moment == "after":
        wait_for_fallback(init)
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 5
    assert time.monotonic() - requested_at < 0.5 + TOLERANCE
    assert init.events() == ["ready", "TERM", "end"]


def test_the_grace_counts_from_the_request(start_in_role: Start, tmp_path: Path) -> None:
    init = start_in_role("-t", "1s", agent=STUBBORN, program=broken(tmp_path, raises))
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 0.9 <= time.monotonic() - requested_at < 1.0 + TOLERANCE / 2


@pytest.mark.parametrize("flags", [(), ("--stop-schedule", "INT/500ms/TERM/20s/KILL")], ids=["grace", "schedule"])
def test_the_deadline_is_before_the_platforms(start_in_role: Start, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Where the plan of the stop cannot be made either: --no-notify, as the agent would be given its time."""
    program = broken(tmp_path, raises, "stop_plan")
    options = ("--platform-grace", "4s", "--no-notify", *flags)
    init = start_in_role(*options, agent="on('INT'); on('TERM'); ready()", program=program)
    init.wait_for_event("ready")
    wait_for_fallback(init)
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 3.0 <= time.monotonic() - requested_at < 3.0 + TOLERANCE


def test_settings_that_count_in_the_fallback(start_in_role: Start, tmp_path: Path) -> None:
    init = start_in_role(
        *("--stop-schedule", "INT/300ms/TERM/400ms/KILL"),
        *("--stop-on", "USR2", "-r", "HUP:USR1", "-r", "WINCH:0", "-e", "137"),
        agent="on('USR1'); on('INT'); on('WINCH'); on('TERM'); ready()",
        program=broken(tmp_path, raises),
    )
    init.wait_for_event("ready")
    wait_for_fallback(init)
    for name, event in (("WINCH", ""), ("HUP", "USR1"), ("TERM", "TERM")):
        init.signal(name)
        if event:
            init.wait_for_event(event)
    requested_at = time.monotonic()
    init.signal("USR2")
    assert init.wait() == 0
    assert 0.7 <= time.monotonic() - requested_at < 0.7 + TOLERANCE
    assert init.events() == ["ready", "USR1", "TERM", "INT"]


def test_orphans_are_reaped_and_end_with_the_agent(start_in_role: Start, tmp_path: Path) -> None:
    agent = """
orphan('daemon', 'ignore("TERM"); ready()')
orphan('short', 'log("ready"); time.sleep(3)')
on('TERM', lambda: leave(4))
ready()
"""
    init = start_in_role("-t", "20s", agent=agent, program=broken(tmp_path, raises))
    for name in ("agent", "daemon", "short"):
        init.wait_for_event("ready", name)
    wait_for_fallback(init)
    short = init.records("short", "ready")[0]["pid"]
    until(lambda: not any(child.pid == short for child in psutil.Process(init.pid).children()), "the orphan's end")
    zombies = [p for p in psutil.Process(init.pid).children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
    init.signal("TERM")
    assert init.wait(10) == 4


def test_no_wake_ups_while_idle(start_in_role: Start, tmp_path: Path) -> None:
    init = start_in_role(agent="on('TERM', lambda: leave(0)); ready()", program=broken(tmp_path, raises))
    init.wait_for_event("ready")
    wait_for_fallback(init)
    time.sleep(0.2)
    before = psutil.Process(init.pid).num_ctx_switches().voluntary
    time.sleep(1)
    assert psutil.Process(init.pid).num_ctx_switches().voluntary - before <= 1
    init.signal("TERM")
    assert init.wait() == 0
