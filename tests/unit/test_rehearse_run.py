"""What happens in a run when the agent does not wait for what is planned."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.rehearse import up
from entrypoint.rehearse.model import Mode
from entrypoint.rehearse.options import Options
from entrypoint.rehearse.run import Reference, Setting, Trial
from entrypoint.rehearse.scenarios import NAMES, TERM, Planned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Ends:
    """A container that has ended by the second look at it."""

    pid = stdout = 0

    def __init__(self) -> None:
        self.codes = [None]
        self.sent: list[int] = []

    def exit_code(self) -> int | None:
        return self.codes.pop() if self.codes else 143

    def signal(self, number: int) -> None:
        self.sent.append(number)


class Quiet:
    """Streams that bring nothing, and processes that are gone."""

    changed_at = 0.0

    def read(self, _seconds: float) -> None:
        pass

    def look(self, *, at_once: bool = False) -> None:
        pass

    def alive(self) -> Sequence[Any]:
        return ()


@pytest.mark.parametrize("name", ["term", "term-to-all", "hup"])
def test_agent_that_ends_just_before_the_request_has_ended_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """TERM to every process may end the agent, and with it agent-init, before agent-init's own turn."""
    setting = Setting((), Options(), Mode.SUBREAPER, tmp_path, {}, threading.Event())
    trial = Trial(setting, Planned(NAMES[name], 1), up.After(0.0), Reference(1.0, 1.0))

    def play() -> None:
        trial.container, trial.streams, trial.observer = Ends(), Quiet(), Quiet()  # type: ignore[assignment]
        trial._stop()
        trial._await_end()

    monkeypatch.setattr(trial, "_play", play)
    run = trial.run()
    assert run.exit_code == 128 + TERM
    assert run.drain is not None
    assert [event.kind for event in run.events] == ["request", "end"]
