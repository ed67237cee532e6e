"""Each system call that process 1 makes once its agent runs is made to fail, once (strace's fault injection)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import LATE, SCENARIOS, Failures, Run, python

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the calls fail"),
]

PARTS = 6
AT_MOST = 8  # of one call in one scenario, where not each of them is tried
ALIKE = 60  # calls of one kind beyond these are those of a look through /proc, one like the other
ERRORS = ("ENOMEM", "EIO", "EPERM", "EAGAIN")
# readv is the gate of the test. These cannot fail (getpid(2), exit_group(2)), or a C library cannot bear it: it is not
# told of the failure (brk(2) returns the old break).
SPARED = {"readv", "exit_group", "getpid", "brk", "restart_syscall", "rt_sigreturn"}


class Traced:
    """A scenario whose process 1 is traced from just after the spawn."""

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

    def go(self) -> None:
        """From the open gate to the end of the scenario."""
        self.run.begin()
        self.run.pass_on()
        which = ["-e", f"trace={self.inject.split(':')[0]}", "-e", f"inject={self.inject}"] if self.inject else []
        strace = ["strace", "-o", str(self.trace), *which, "-p", str(self.run.init.pid)]
        tracer = subprocess.Popen(strace, stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr
            assert "attached" in (line := tracer.stderr.readline()), line
            self.open()
            if self.inject.startswith("kill:"):
                self.lose_a_signal()
            else:
                self.run.arrived()
                self.run.check(*self.run.stop())
        finally:
            self.open()
            self.run.init.close()
            tracer.kill()
            tracer.communicate()

    def lose_a_signal(self) -> None:
        """What cannot be sent is lost, and told; the deadline holds all the same."""
        init = self.run.init
        init.said("dropped: nobody handles it")  # that is USR2, which comes after USR1
        code, seconds = self.run.stop()
        assert code in (self.run.scenario.code, 137)
        assert seconds < 1.5 + LATE
        assert init.lines("cannot send")
        assert set(init.events()) <= set(self.run.scenario.events)
        self.run.nothing_left()

    def open(self) -> None:
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    def calls(self) -> Counter[str]:
        return Counter(re.findall(r"^(\w+)\(", self.trace.read_text(), re.MULTILINE))

    @property
    def injected(self) -> bool:
        return "INJECTED" in self.trace.read_text()


def survey(directory: Path, scenario: str, *, process1: bool) -> Counter[str]:
    """How often each call is made; the first time, the modules may have to be compiled."""
    for name in ("first", "survey"):
        traced = Traced(directory / name, scenario, process1=process1)
        traced.go()
    return traced.calls()


def spread(count: int, *, every: bool) -> list[int]:
    """Which of `count` calls are to fail."""
    count = min(count, ALIKE)
    if every or count <= AT_MOST:
        return list(range(1, count + 1))
    return sorted({round(1 + (count - 1) * i / (AT_MOST - 1)) for i in range(AT_MOST)})


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
def test_a_call_that_fails_once(tmp_path: Path, scenario: str, process1: bool, every: bool, part: int) -> None:
    tmp_path.chmod(0o777)
    counts = survey(tmp_path, scenario, process1=process1)
    sites = [
        f"{call}:error={ERRORS[when % len(ERRORS)]}:when={when}"
        for call, count in sorted(counts.items())
        if call not in SPARED
        for when in spread(count, every=every)
    ]
    failures, came = Failures(), 0
    chosen = sites[part::PARTS]
    for number, site in enumerate(chosen):
        traced = Traced(tmp_path / str(number), scenario, process1=process1, inject=site)
        with failures.of(site, traced.run):
            traced.go()
            came += traced.injected
    failures.none()
    assert came >= 0.7 * len(chosen), "hardly anything was made to fail"
