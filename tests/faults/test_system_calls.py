"""Each system call that process 1 makes after the spawn fails once (strace's fault injection)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import SCENARIOS, TOLERANCE, Failures, Run, python

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the calls fail"),
]

PARTS = 6
MAX_SAMPLES = 8  # of one system call in one scenario, unless every call is tried
MAX_CALLS = 60  # later calls of the same kind are those of a scan of /proc, all alike
ERRORS = ("ENOMEM", "EIO", "EPERM", "EAGAIN")
# readv is the gate of the test. The others cannot fail (getpid(2), exit_group(2)), or the C library cannot detect the
# injected failure (brk(2) returns the old break).
EXCLUDED = {"readv", "exit_group", "getpid", "brk", "restart_syscall", "rt_sigreturn"}


class Traced:
    """A scenario with strace attached to process 1 just after the spawn."""

    def __init__(self, directory: Path, scenario: str, *, process1: bool, inject: str = "") -> None:
        reader, writer = os.pipe()
        try:
            self.run = Run(
                directory,
                SCENARIOS[scenario],
                process1=process1,
                program=python("gated.py", str(reader)),
                pass_fds=[reader],
            )
        finally:
            os.close(reader)
        self.writer: int | None = writer
        self.trace = directory / "trace"
        self.inject = inject

    def trace_to_the_end(self) -> None:
        """Attach strace, open the gate and run the scenario to its end."""
        self.run.wait_until_ready()
        self.run.send_signals()
        which = ["-e", f"trace={self.inject.split(':')[0]}", "-e", f"inject={self.inject}"] if self.inject else []
        strace = ["strace", "-o", str(self.trace), *which, "-p", str(self.run.init.pid)]
        tracer = subprocess.Popen(strace, stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr
            assert "attached" in (line := tracer.stderr.readline()), line
            self.open_gate()
            if self.inject.startswith("kill:"):
                self.check_lost_signal()
            else:
                self.run.wait_for_usr1()
                self.run.check(*self.run.stop())
        finally:
            self.open_gate()
            self.run.init.close()
            tracer.kill()
            tracer.communicate()

    def check_lost_signal(self) -> None:
        """A signal that kill(2) cannot send goes by a pidfd, or it is lost and logged. The deadline is kept."""
        init = self.run.init
        init.wait_for_line("dropped: no process handles it")  # USR2, which is received after USR1
        code, seconds = self.run.stop()
        assert code in (self.run.scenario.code, 137)
        assert seconds < 1.5 + TOLERANCE
        received, expected = set(init.events()), set(self.run.scenario.events)
        assert received <= expected
        assert init.lines("cannot send") or received == expected
        self.run.assert_nothing_remains()

    def open_gate(self) -> None:
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    def calls(self) -> Counter[str]:
        return Counter(re.findall(r"^(\w+)\(", self.trace.read_text(), re.MULTILINE))

    @property
    def injected(self) -> bool:
        return "INJECTED" in self.trace.read_text()


def survey(directory: Path, scenario: str, *, process1: bool) -> Counter[str]:
    """Count each system call in an undisturbed run. A first run compiles the modules if needed."""
    for name in ("first", "survey"):
        traced = Traced(directory / name, scenario, process1=process1)
        traced.trace_to_the_end()
    return traced.calls()


def spread(count: int, *, every: bool) -> list[int]:
    """The numbers of the calls that are made to fail, of `count` calls."""
    count = min(count, MAX_CALLS)
    if every or count <= MAX_SAMPLES:
        return list(range(1, count + 1))
    return sorted({round(1 + (count - 1) * i / (MAX_SAMPLES - 1)) for i in range(MAX_SAMPLES)})


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    ("scenario", "process1", "every"),
    [
        pytest.param("graceful", True, True, id="graceful, process 1"),
        pytest.param("graceful", False, False, id="graceful, subreaper"),
        pytest.param("stubborn", True, False, id="stubborn, process 1"),
        pytest.param("stubborn", False, False, id="stubborn, subreaper"),
    ],
)
def test_stop_succeeds_when_one_system_call_fails(
    tmp_path: Path, scenario: str, process1: bool, every: bool, part: int
) -> None:
    tmp_path.chmod(0o777)
    counts = survey(tmp_path, scenario, process1=process1)
    sites = [
        f"{call}:error={ERRORS[when % len(ERRORS)]}:when={when}"
        for call, count in sorted(counts.items())
        if call not in EXCLUDED
        for when in spread(count, every=every)
    ]
    failures, injected = Failures(), 0
    chosen = sites[part::PARTS]
    for number, site in enumerate(chosen):
        traced = Traced(tmp_path / str(number), scenario, process1=process1, inject=site)
        with failures.of(site, traced.run):
            traced.trace_to_the_end()
            injected += traced.injected
    failures.assert_none()
    assert injected >= 0.7 * len(chosen), "too few failures were injected"
