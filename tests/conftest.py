"""Fixtures for all tests.

With CI=true a skipped test fails, unless `allowed-skips.txt` names it, and a test that fails runs once more: many of
them are about races, on two busy processors. What failed the first time is printed at the end. Each such test is a
fault to be found, in it or in the product.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

from tests.support.init import Init, actor, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_SKIPS = Path(__file__).with_name("allowed-skips.txt")


# In a background job of a shell, or under nohup(1), these are ignored, and the agents of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# It hides output that is not flushed; a container need not have it.
os.environ.pop("PYTHONUNBUFFERED", None)
# An example may take any time: the machine may be busy.
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.option.reruns = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed once: {report.nodeid}", yellow=True)
        terminalreporter.write_line(report.longreprtext)


class Start(Protocol):
    """Start agent-init with `options` and either a `command` or an actor that runs `agent`."""

    def __call__(self, *options: str, agent: str = "", command: list[str] | None = None, **more: Any) -> Init: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start agent-init. A process that a run leaves behind fails the test, unless `allow_leftovers`."""
    runs: list[tuple[Init, bool]] = []
    tmp_path.chmod(0o777)

    def run(
        *options: str, agent: str = "", command: list[str] | None = None, allow_leftovers: bool = False, **more: Any
    ) -> Init:
        log = tmp_path / "events.jsonl"
        init = Init(tmp_path, [*options, *(["--", *actor(log, "agent", agent)] if agent else command or [])], **more)
        runs.append((init, allow_leftovers))
        return init

    yield run
    left = {}
    for init, allow_leftovers in runs:
        if init.outer.poll() is not None and not allow_leftovers:
            until(partial(_is_empty, init), f"the end of {init.remaining_processes()}", 5)
        elif init.outer.poll() is None:
            left[init] = init.stderr
        init.close()
    assert not left, f"still running at the end of the test: {list(left.values())}"


def _is_empty(init: Init) -> bool:
    return not init.remaining_processes()


@pytest.fixture(params=["process 1", "subreaper"])
def start_in_role(request: pytest.FixtureRequest, start: Start) -> Start:
    """Like `start`. The test runs twice: as process 1 and as a subreaper."""

    def run(*options: str, agent: str = "", command: list[str] | None = None, **more: Any) -> Init:
        more.setdefault("process1", request.param == "process 1")
        return start(*options, agent=agent, command=command, **more)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With CI=true a skip is a failure, unless `allowed-skips.txt` names the test."""
    report: Any = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        allowed = [line.split("#")[0].strip() for line in ALLOWED_SKIPS.read_text().splitlines()]
        if item.nodeid.split("[")[0] not in allowed:
            report.outcome = "failed"
            report.longrepr = f"skipped on CI, and not in {ALLOWED_SKIPS.name}: {report.longrepr}"
    return report  # type: ignore[no-any-return]
