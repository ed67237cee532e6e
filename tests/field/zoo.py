"""Stop an agent behind each wrapper: `python -m tests.field.zoo [--init INIT] [NAME ...]`.

Each run has a PID namespace of its own, with the init as process 1. Once the agent is up, process 1 gets one TERM. It
holds if the agent got exactly one TERM, drained, and the container ended within a few seconds of the drain.
`--markdown` prints the table for the documentation, from a run of all three inits.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.field import display
from tests.field.wrappers import WRAPPERS, Outcome, Place, Wrapper
from tests.support.init import AGENT_INIT, NAMESPACE, clean_environment

DRAIN = 7.0  # longer than the timeouts of wrappers and the time to linger, shorter than Docker's 10 s
SLACK = 5.0  # how much later than the drain a container may end
START = 60.0  # how long a wrapper may take to start the agent
GRACE = 20.0
SETTLE = 0.5  # from the agent's first line to the TERM: the wrapper must have come to wait for its child
INITS = {
    "agent-init": [str(AGENT_INIT), "-t", f"{GRACE:g}s", "--"],
    "tini": ["tini", "--"],
    "dumb-init": ["dumb-init", "--"],
}


@dataclass(frozen=True)
class Result:
    """What one stop looked like. Times are seconds after the TERM; None for what did not happen."""

    wrapper: Wrapper
    started: bool
    terms: int
    drained: bool
    seconds: float | None  # until process 1 had ended
    exit_code: int | None
    output: str
    drain: float
    patience: float

    @property
    def problem(self) -> str:
        """What is wrong with this stop; empty if it holds."""
        if not self.started:
            return "the agent did not start"
        problems = []
        if self.terms == 0:
            problems.append("the agent got no TERM")
        elif self.terms > 1:
            problems.append(f"the agent got {self.terms} TERMs")
        if not self.drained:
            problems.append("it did not drain")
        if self.seconds is None:
            problems.append(f"not over after {self.patience:g} s")
        elif self.seconds > self.drain + SLACK:
            problems.append(f"not over within {self.drain + SLACK:g} s")
        return ", ".join(problems)

    @property
    def holds(self) -> bool:
        return not self.problem


@dataclass
class Run:
    """A wrapped agent that runs under an init. `pid` is process 1's, as seen from here."""

    place: Place
    outer: subprocess.Popen[bytes]
    output: Path
    pid: int = 0

    def log(self) -> list[str]:
        """What the agent printed, without its name."""
        return [line.removeprefix("agent: ") for line in self.place.log.read_text().splitlines()]

    def wait_until_up(self) -> bool:
        end = time.monotonic() + START
        while time.monotonic() < end and self.outer.poll() is None:
            if "up" in self.log():
                self.pid = psutil.Process(self.outer.pid).children()[0].pid
                time.sleep(SETTLE)
                return self.outer.poll() is None
            time.sleep(0.02)
        return False


@contextlib.contextmanager
def running(wrapper: Wrapper, init: list[str], drain: float) -> Iterator[Run]:
    """The wrapped agent under that init; whatever is left of it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="field-", ignore_cleanup_errors=True) as name:
        place = Place(Path(name), drain)
        (place.folder / "watched").mkdir()
        command = wrapper.build(place)
        output = place.folder / "output"
        with output.open("wb") as file:
            outer = subprocess.Popen(
                [*NAMESPACE, *init, *command],
                cwd=place.folder,
                env={**clean_environment(), **place.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield Run(place, outer, output)
        finally:
            outer.kill()  # and with it process 1, so everything in its namespace
            outer.wait()
            display.clean(place.display)


def stop(wrapper: Wrapper, init: list[str], drain: float = DRAIN, patience: float = GRACE + SLACK) -> Result:
    """Run it, stop it, and return how that went. After `patience` seconds it counts as never over."""
    with running(wrapper, init, drain) as run:
        started = run.wait_until_up()
        seconds = None
        if started:
            began = time.monotonic()
            os.kill(run.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.outer.wait(patience)
                seconds = time.monotonic() - began
        code = run.outer.poll()
        return Result(
            wrapper=wrapper,
            started=started,
            terms=run.log().count("TERM"),
            drained="drained" in run.log(),
            seconds=seconds,
            exit_code=code if code is None or code >= 0 else 128 - code,
            output=run.output.read_text(errors="replace"),
            drain=drain,
            patience=patience,
        )


def stop_all(wrappers: list[Wrapper], init: list[str], drain: float, parallel: int) -> Iterator[Result]:
    """In the order of the table, as soon as each is known."""
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(lambda wrapper: stop(wrapper, init, drain), wrappers)


def _line(result: Result) -> str:
    seconds = "-" if result.seconds is None else f"{result.seconds:.1f}"
    code = "-" if result.exit_code is None else str(result.exit_code)
    verdict = "holds" if result.holds else "fails"
    return f"{verdict}  {result.wrapper.name:<32} {seconds:>5} s  code {code:>3}  {result.problem}".rstrip()


def markdown(results: dict[str, list[Result]]) -> str:
    """The table for the documentation: a row for each wrapper, a column for each init."""
    inits = list(results)
    lines = [
        f"| wrapper | {' | '.join(inits)} |",
        f"|---|{'---|' * len(inits)}",
    ]
    for row in zip(*results.values(), strict=True):
        cells = ["drained" if result.holds else _cell(result) for result in row]
        lines.append(f"| {row[0].wrapper.name} | {' | '.join(cells)} |")
    sums = [f"{sum(result.holds for result in column)} of {len(column)}" for column in results.values()]
    lines.append(f"| **drained** | {' | '.join(sums)} |")
    return "\n".join(lines)


def _cell(result: Result) -> str:
    """What is wrong, in few words."""
    if not result.started:
        return "did not start"
    if result.terms == 0:
        what = "no TERM"
    elif result.terms > 1:
        what = f"{result.terms} TERMs"
    else:
        what = "late" if result.drained else "killed"
    return f"{what}, {result.seconds:.1f} s" if result.seconds is not None else f"{what}, never over"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.field.zoo", description=__doc__.splitlines()[0])
    parser.add_argument("--init", choices=[*INITS], default="agent-init")
    parser.add_argument("--drain", type=float, default=DRAIN, metavar="SECONDS")
    parser.add_argument("--parallel", type=int, default=6, metavar="N")
    parser.add_argument("--output", action="store_true", help="print the output of each run that does not hold")
    parser.add_argument("--markdown", action="store_true", help="run all inits, print a table for the documentation")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):  # ignored where a shell or nohup has started us
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    if unknown := [name for name in options.names if name not in WRAPPERS]:
        parser.error(f"no such wrapper: {', '.join(unknown)}")
    wrappers = [wrapper for name, wrapper in WRAPPERS.items() if not options.names or name in options.names]
    missing = [wrapper for wrapper in wrappers if wrapper.missing()]
    wrappers = [wrapper for wrapper in wrappers if wrapper not in missing]
    for wrapper in missing:
        print(f"not tried: {wrapper.name}, {wrapper.missing()} is not installed", file=sys.stderr)
    if options.markdown:
        columns = {
            name: list(stop_all(wrappers, init, options.drain, options.parallel)) for name, init in INITS.items()
        }
        print(markdown(columns))
        return 0
    results = []
    for result in stop_all(wrappers, INITS[options.init], options.drain, options.parallel):
        results.append(result)
        print(_line(result), flush=True)
        if options.output and not result.holds:
            print("".join(f"    {line}\n" for line in result.output.splitlines()[-12:]), end="", flush=True)
    held = sum(result.holds for result in results)
    print(f"{options.init}: {held} of {len(results)} hold")
    if options.init == "agent-init":
        unexpected = [r for r in results if r.holds != (r.wrapper.outcome is Outcome.HOLDS)]
        for result in unexpected:
            print(f"not as in the table ({result.wrapper.outcome.value}): {result.wrapper.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
