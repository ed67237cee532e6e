"""What becomes of a run where a seccomp profile refuses one system call for good, from the container's start on.

`python -m tests.faults.refused_calls` refuses every system call that process 1 makes, with each error, and writes the
table of docs/reliability.md. `python -m tests.faults.refused_calls CALL...` prints what happens, and writes nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import errno
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.stop_scenarios import PROGRAMS
from tests.support.init import AGENT_INIT, NAMESPACE, Init, clean_environment, remaining_pids, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TABLE = re.compile(r"(<!-- refused calls: [^\n]*-->\n).*?(<!-- end of refused calls -->)", re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (.*) \| (.*) \|$", re.MULTILINE)
ERRORS = ("EPERM", "ENOSYS")  # what older and newer profiles of Docker answer
CALL = re.compile(r"^(\d+) +\[ *(\d+)\] (\w+)\(")  # a line of `strace -f -n`: pid, number, name
FORKED = re.compile(r"^(\d+) .*\b(?:clone3?|v?fork)(?:\(| resumed>).* = (\d+)$")
MAX_LINES = 16  # of a log that is not flooded
SLACK = 5.0  # seconds, on a loaded machine
ROLES = {True: "process 1", False: "subreaper"}

GRACEFUL, EXPLAINED = "graceful", "explained"
NO_PYTHON, NO_PROGRAM = "Python does not start", "no program works"
Place = tuple[str, bool]  # a scenario, and whether agent-init is process 1


@dataclass(frozen=True)
class Scenario:
    """agent-init's options, its variables, the command, and what is seen of a run in which no call is refused."""

    options: tuple[str, ...]
    variables: dict[str, str]
    command: tuple[str, ...]
    code: int
    events: tuple[str, ...]
    least: float = 0.0  # seconds from the stop request to the exit


SCENARIOS = {
    # A wrapper, a supervisor above, and, as process 1, what takes a fork in place of posix_spawn(3).
    "drains": Scenario(
        ("-w", "-t", "20s", "--repeat", "escalate"),
        {"NOTIFY_SOCKET": "PARENT", "LISTEN_PID": "1"},
        ("/bin/sh", "-c", '"$0" graceful; exit $?', "AGENT"),
        7,
        ("ready", "USR1", "TERM", "end"),
    ),
    # A stall report, a final message, and a secret.
    "deaf": Scenario(
        ("-t", "1s", "--termination-log", "FINAL", "--secret", "KEY"),
        {"NOTIFY_SOCKET": "PARENT", "KEY_FILE": str(PROGRAMS / "refuse.py")},
        ("AGENT", "deaf"),
        137,
        ("ready", "USR1", "TERM"),
        1.0,
    ),
}
PLACES: list[Place] = [(name, process1) for name in SCENARIOS for process1 in ROLES]


@dataclass(frozen=True)
class Outcome:
    """`wrong`: what is neither graceful nor explained; empty if all is. `lines`: what was logged."""

    started: bool
    wrong: str
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.wrong or (GRACEFUL if self.started else EXPLAINED)


def missing() -> str:
    """Return the name of a program that this needs and that is not installed; an empty text if there is none."""
    return next((program for program in ("gcc", "strace") if not shutil.which(program)), "")


def build_agent(directory: Path) -> Path:
    """Compile the agent; return its path."""
    agent = directory / "plain_agent"
    subprocess.run(["gcc", "-O1", "-static", "-o", str(agent), str(PROGRAMS / "plain_agent.c")], check=True)
    return agent


def refusing(number: int, error: str) -> list[str]:
    """Return the beginning of a command line that runs the rest with this call refused."""
    return [sys.executable, "-I", "-S", str(PROGRAMS / "refuse.py"), str(number), str(getattr(errno, error))]


class Run:
    """One run of a scenario under agent-init. `before`: what runs agent-init, and refuses or traces its calls."""

    def __init__(
        self,
        directory: Path,
        scenario: Scenario,
        agent: Path,
        before: list[str],
        *,
        process1: bool,
        is_mute: bool = False,
    ) -> None:
        """`is_mute`: the agent cannot write what happens to it. That it is ready is seen by its message."""
        directory.mkdir(parents=True)
        self._expected = () if is_mute else scenario.events
        self.scenario, self.output = scenario, directory / "output"
        self.parent = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.parent.bind("")  # a name that the kernel chooses
        self.parent.setblocking(False)
        values = {
            "AGENT": str(agent),
            "PARENT": "@" + self.parent.getsockname()[1:].decode(),
            "FINAL": str(directory / "final"),
        }
        argv = [values.get(word, word) for word in (*scenario.options, "--", *scenario.command)]
        env = clean_environment(**{name: values.get(value, value) for name, value in scenario.variables.items()})
        with self.output.open("wb") as output:
            self.init = Init(directory, argv, process1=process1, before=before, stdout=output, env=env)

    @property
    def events(self) -> tuple[str, ...]:
        """What the agent has written so far."""
        return tuple(self.output.read_text().split())

    def wait_for(self, event: str) -> bool:
        """Wait until the agent has written this; return False where it has not. If it is mute, wait for a message."""

        def is_there() -> bool:
            with suppress(BlockingIOError):
                return event in self.events or bool(not self._expected and self.parent.recv(4096))
            return False

        with suppress(AssertionError):
            until(lambda: is_there() or self.init.outer.poll() is not None, event, 10)
            return self.init.outer.poll() is None or event in self.events
        return False

    def to_the_end(self) -> Outcome:
        """Send USR1 and a stop request; return what has become of it."""
        try:
            if not self.wait_for("ready") and self.init.outer.poll() is not None:
                return self._not_started(self.init.wait())
            return self._stop()
        finally:
            self.init.close()
            self.parent.close()

    def _not_started(self, code: int) -> Outcome:
        lines = tuple(self.init.stderr.splitlines())
        explained = code in (125, 126) and len(lines) == 1 and lines[0].startswith("agent-init: error: ")
        return Outcome(False, "" if explained else f"exit code {code}, {len(lines)} lines", lines)

    def _stop(self) -> Outcome:
        init, scenario = self.init, self.scenario
        init.signal("USR1")
        if self._expected:
            self.wait_for("USR1")
        if init.outer.poll() is not None:
            # Its failure to start took long, or the agent was quicker than the call that failed.
            outcome = self._not_started(init.wait())
            if self._expected and (not outcome.wrong or "ready" not in self.events):
                return outcome
            return Outcome(True, f"ends at once, exit code {init.wait()}", tuple(init.lines()))
        at = time.monotonic()
        init.signal("TERM")
        try:
            code = init.wait(scenario.least + 2 * SLACK)
        except AssertionError:
            return Outcome(True, "does not end", tuple(init.lines()))
        seconds = time.monotonic() - at
        wrong = [] if code == scenario.code else [f"exit code {code}"]
        if self.events != self._expected:
            wrong.append(f"events: {' '.join(self.events)}")
        if not scenario.least <= seconds < scenario.least + SLACK:
            wrong.append(f"took {seconds:.1f} s")
        if len(init.lines()) > MAX_LINES or "exception in thread" in init.stderr.lower():
            wrong.append(f"logged {len(init.stderr.splitlines())} lines")
        try:
            until(lambda: not remaining_pids(init), "the end of all processes", 5)
        except AssertionError:
            wrong.append("processes remain")
        return Outcome(True, ", ".join(wrong), tuple(init.lines()))


# --- Which calls there are. ---


def survey(directory: Path, agent: Path) -> dict[str, int]:
    """Return the numbers of all system calls that agent-init makes, and its children before their exec."""
    calls: dict[str, int] = {}
    for name, process1 in PLACES:
        trace = directory / f"trace-{name}-{process1}"
        before = ["strace", "-f", "-n", "-o", str(trace), *(NAMESPACE if process1 else ())]
        run = Run(directory / f"{name}-{process1}", SCENARIOS[name], agent, before, process1=False)
        assert run.wait_for("ready"), run.init.stderr
        for _ in range(1 + process1):  # the signals are for agent-init, not for strace or unshare
            run.init.pid = _child(run.init.pid)
        outcome = run.to_the_end()
        assert not outcome.wrong, outcome
        calls |= dict(_calls(trace.read_text(errors="replace").splitlines()))
    return {call: calls[call] for call in sorted(calls)}


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _calls(trace: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the calls of agent-init and of what it forks, with their numbers."""
    first = next(at for at, line in enumerate(trace) if f'execve("{AGENT_INIT}"' in line)
    ours = trace[first].split()[0]
    before_exec = {found[2] for line in trace if (found := FORKED.match(line)) and found[1] == ours}
    for line in trace[first:]:
        if (found := CALL.match(line)) is None:
            continue
        pid, number, call = found.groups()
        if pid == ours or pid in before_exec:
            yield call, int(number)
        if call == "execve":
            before_exec.discard(pid)


# --- Refuse them. ---


def attempt(directory: Path, agent: Path, call: str, number: int, error: str, place: Place) -> Outcome:
    """Return what becomes of a scenario with a call refused."""
    name, process1 = place
    where, before = directory / f"{call}-{error}-{name}-{process1}", refusing(number, error)
    return Run(where, SCENARIOS[name], agent, before, process1=process1, is_mute=call == "write").to_the_end()


def why_nothing_works(agent: Path, number: int, error: str) -> str:
    """Return what does not work with this call refused, whatever agent-init does; an empty text if all does."""

    def starts(*command: str) -> bool:
        argv = [*refusing(number, error), *command]
        return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0

    if not starts("/bin/sh", "-c", '"$0" once; exit $?', str(agent)):
        return NO_PROGRAM
    return "" if starts(sys.executable, "-I", "-S", str(PROGRAMS / "starts.py")) else NO_PYTHON


def summary(outcomes: Mapping[Place, Outcome], why: str) -> str:
    """Return a table's cell."""
    kinds = {outcome.kind for outcome in outcomes.values()}
    if not kinds <= {GRACEFUL, EXPLAINED} and why:
        return why
    return " or ".join(sorted(kinds, key=lambda kind: (kind != GRACEFUL, kind)))


# --- The page. ---


def made_with() -> str:
    """Return what the outcomes depend on, besides agent-init."""
    return f"CPython {sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}"


def table(cells: Mapping[tuple[str, str], str]) -> str:
    """Return the page's text for the cells, by call and error."""
    counts = [(kind, sum(cell == kind for cell in cells.values())) for kind in dict.fromkeys(cells.values())]
    sums = ", ".join(f"{count} {kind}" for kind, count in sorted(counts, key=lambda each: -each[1]))
    text = f"With {made_with()}, {len(cells)} pairs: {sums}.\n\n"
    text += f"| refused call | {' | '.join(ERRORS)} |\n{'|---' * (1 + len(ERRORS))}|\n"
    for call in dict.fromkeys(call for call, _ in cells):
        text += f"| `{call}` | {' | '.join(cells[call, error] for error in ERRORS)} |\n"
    return text


def cells_of_page() -> dict[tuple[str, str], str]:
    """Return the page's cells."""
    found = TABLE.search(PAGE.read_text())
    assert found
    rows = ROW.findall(found[0])
    return {(call, error): cell for call, *cells in rows for error, cell in zip(ERRORS, cells, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.refused_calls")
    parser.add_argument("--parallel", type=int, default=4, metavar="N")
    parser.add_argument("calls", nargs="*", metavar="CALL")
    options = parser.parse_args()
    cells = {}
    with tempfile.TemporaryDirectory(prefix="agent-init-refused-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o777)
        agent = build_agent(directory)
        calls = survey(directory / "survey", agent)
        pairs = [(call, error) for call in calls for error in ERRORS if not options.calls or call in options.calls]

        def try_all(pair: tuple[str, str]) -> tuple[dict[Place, Outcome], str]:
            call, error = pair
            found = {place: attempt(directory, agent, call, calls[call], error, place) for place in PLACES}
            return found, why_nothing_works(agent, calls[call], error)

        with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
            for pair, (found, why) in zip(pairs, pool.map(try_all, pairs), strict=True):
                cells[pair] = summary(found, why)
                print(*pair, cells[pair], flush=True)
                for (name, process1), outcome in found.items():
                    if options.calls or outcome.wrong:
                        lines = "".join(f"\n        {line}" for line in outcome.lines)
                        print(f"    {name}, {ROLES[process1]}: {outcome.kind}{lines}", flush=True)
    if not options.calls:
        text = table(cells)
        PAGE.write_text(TABLE.sub(lambda found: f"{found[1]}{text}{found[2]}", PAGE.read_text()))
    return int(any(cell not in right_cells() for cell in cells.values()))


def right_cells() -> tuple[str, ...]:
    """Return the cells that are right: what does not work at all is nothing that agent-init could change."""
    return GRACEFUL, EXPLAINED, f"{GRACEFUL} or {EXPLAINED}", NO_PYTHON, NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main())
