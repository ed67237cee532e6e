"""Fixtures for all tests; a skip that CI must not pass over is a failure there."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.init import Init, actor, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_SKIPS = Path(__file__).with_name("allowed-skips.txt")


# A shell's background job has these ignored, and so would every agent of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Start(Protocol):
    """Start agent-init with `options` and either a `command` or an actor that runs `agent`."""

    def __call__(self, *options: str, agent: str = "", command: list[str] | None = None, **more: Any) -> Init: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs that are looked after: whatever a test leaves behind fails it, unless it said `may_leave=True`."""
    runs: list[tuple[Init, bool]] = []
    tmp_path.chmod(0o777)

    def run(
        *options: str, agent: str = "", command: list[str] | None = None, may_leave: bool = False, **more: Any
    ) -> Init:
        log = tmp_path / "events.jsonl"
        init = Init(tmp_path, [*options, *(["--", *actor(log, "agent", agent)] if agent else command or [])], **more)
        runs.append((init, may_leave))
        return init

    yield run
    left = {}
    for init, may_leave in runs:
        if init.outer.poll() is not None and not may_leave:
            until(partial(_nothing_left, init), f"nothing to be left, there is {init.left()}", 5)
        elif init.outer.poll() is None:
            left[init] = init.stderr
        init.close()
    assert not left, f"still running at the end of the test: {list(left.values())}"


def _nothing_left(init: Init) -> bool:
    return not init.left()


@pytest.fixture(params=["process 1", "subreaper"])
def started(request: pytest.FixtureRequest, start: Start) -> Start:
    """As `start`, once as process 1 and once as a subreaper."""

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
