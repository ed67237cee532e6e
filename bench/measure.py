"""Measure agent-init beside its peers, each as process 1 of a fresh PID namespace. See README.md here.

Whatever is compared is measured in turns within the same minutes: a round runs every init once, in a new order each
time, and what counts is the median over the rounds. The stamps are taken in C (`probe.c`), so that the program which
measures is in no figure.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PROBE = Path(__file__).with_name("probe.c")
PATIENCE = 60.0  # how long a run may keep us waiting before it has failed
OURS = ("agent-init", "agent-init, environment", "agent-init, flags")
FLOOR, REFERENCE = "floor", "tini"

# The agent of a container is mostly a Python program, run by the interpreter that runs process 1: the pages of the
# interpreter's file are then shared, and count as nobody's private memory. It runs the probe first, then rests.
PYTHON_AGENT = "import signal, subprocess, sys; subprocess.run(sys.argv[1:], check=True); signal.pause()"
VARIABLES = {
    "AGENT_INIT_GRACE": "25s",
    "AGENT_INIT_LINGER": "2s",
    "AGENT_INIT_STOP_SIGNAL": "INT",
    "AGENT_INIT_REWRITE": "HUP:QUIT",
    "AGENT_INIT_OK_EXIT": "143",
}
FLAGS = "--grace 25s --linger=2s --stop-signal INT -r HUP:QUIT -e143".split()


@dataclass(frozen=True)
class Init:
    """Something to be process 1: the words before the agent's, and the figures that make sense for it."""

    name: str
    program: str
    words: Callable[[list[str]], list[str]]
    figures: frozenset[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    seldom: bool = False  # so slow that a few runs must do


@dataclass(frozen=True)
class Figure:
    """A row group of the table. The target holds for agent-init: at most `limit`, or `limit` times what `of` takes."""

    title: str
    unit: str
    limit: float = math.inf
    of: str = ""
    more_is_better: bool = False

    @property
    def target(self) -> str:
        """In words."""
        if self.limit == math.inf:
            return ""
        return f"at most {self.limit:g} x {self.of}" if self.of else f"at most {self.limit:g} {self.unit}".rstrip()


FIGURES = {
    "start": Figure("start to the agent's first instruction", "ms", 1.25, of=FLOOR),
    "whole": Figure("whole run of a command that ends at once", "ms"),
    "exit": Figure("agent's exit to ours", "ms", 3),
    "signal": Figure("one forwarded signal of many in a row, sender to handler", "us", 2, of=REFERENCE),
    "signal-rested": Figure("one forwarded signal after 2 ms of rest, sender to handler", "us"),
    "private": Figure("private memory at rest", "MiB", 4),
    "pss": Figure("proportional share of memory (PSS) at rest", "MiB"),
    "private-after": Figure("private memory after the orphans", "MiB", 4),
    "wakeups": Figure("wake-ups while idle", "", 0),
    "orphans": Figure("orphans reaped per second", "", more_is_better=True),
    "deadline": Figure("end after a deadline of 1 s, later than that by", "ms", 50),
}
REST = frozenset(("private", "wakeups"))
RUNS = frozenset(("start", "exit"))
PARTS = ("start", "exit", "rest", "signals", "orphans", "deadline", "idle")
FULL = REST | RUNS | {"signal", "orphans"}


class Failed(click.ClickException):
    """A run did not go as it should."""


# --- What is compared. ----------------------------------------------------------------------------------------------


def inits(python: Path, directory: Path) -> list[Init]:
    """All of them; `directory` is for files that one needs."""
    command = python.parent / "agent-init"
    ours = [str(command)] if command.exists() else [str(python), "-m", "entrypoint"]

    def before(program: str, *words: str) -> Callable[[list[str]], list[str]]:
        path = shutil.which(program) or program
        return lambda agent: [path, *words, *agent]

    def exec_at_once(agent: list[str]) -> list[str]:
        return [str(python), "-c", f"import os; os.execv({agent[0]!r}, {agent!r})"]

    def supervisord(agent: list[str]) -> list[str]:
        """Its one program, from a file of settings."""
        words = " ".join(f'"{word}"' for word in agent)
        settings = directory / "supervisord.conf"
        settings.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\nuser=root\n"
            f"[program:agent]\ncommand={words}\nautorestart=false\nstartsecs=0\n"
        )
        return [shutil.which("supervisord") or "", "-c", str(settings)]

    bare, by_environment, by_flags = OURS
    start = frozenset(("start",))
    return [
        Init(FLOOR, str(python), exec_at_once, start),
        Init(bare, ours[0], before(*ours, "--"), FULL | {"deadline"}),
        Init(by_environment, ours[0], before(*ours, "--"), FULL, VARIABLES),
        Init(by_flags, ours[0], before(*ours, *FLAGS, "--"), FULL),
        Init("agent-init, PYTHONPATH set", ours[0], before(*ours, "--"), start, {"PYTHONPATH": "/app"}),
        Init("env --block-signal agent-init", "env", before("env", "--block-signal", *ours, "--"), start),
        Init(REFERENCE, "tini", before("tini", "--"), FULL),
        Init("dumb-init -c", "dumb-init", before("dumb-init", "-c", "--"), FULL),
        Init("catatonit", "catatonit", before("catatonit", "--"), FULL),
        Init("pid1", "pid1", before("pid1", "--"), FULL - {"signal"}),  # it forwards TERM and INT only
        Init("supervisord", "supervisord", supervisord, start | REST, seldom=True),
    ]


# --- One run. -------------------------------------------------------------------------------------------------------


class Run:
    """An init as process 1, with an agent. `pid` is its pid as seen from here; `told` waits for what was stamped."""

    def __init__(self, bench: Bench, init: Init, agent: Sequence[str], *, in_python: bool = False) -> None:
        """`agent`: the probe's role and argument."""
        self.name = init.name
        self._records: dict[str, list[int]] = defaultdict(list)
        self._rest = b""
        path = bench.directory / "fifo"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # with a writer always there it has no end of file
        role, *argument = agent
        words = [str(bench.probe), role, str(path), *argument]
        if in_python:
            words = [str(bench.python), "-c", PYTHON_AGENT, *words]
        self._said = (bench.directory / "stderr").open("w+b")
        self._launcher = subprocess.Popen(
            [bench.probe, "launch", path, *init.words(words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env={**bench.environment, **init.variables},
        )
        self.pid = 0

    def __enter__(self) -> Run:
        try:
            self.pid = self.told("pid")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Everything dies with process 1, and that with its launcher."""
        self._launcher.kill()
        self._launcher.wait()
        os.close(self._fifo)
        self._said.close()

    def told(self, word: str) -> int:
        """The number that came with `word`; each is returned once."""
        end = time.monotonic() + PATIENCE
        while not self._records[word]:
            over = bool(self._records["end"])
            if over or not select.select([self._fifo], [], [], max(0.0, end - time.monotonic()))[0]:
                self._said.seek(0)
                said = self._said.read().decode(errors="replace").strip()
                raise Failed(f"{self.name}: waited in vain for {word!r}; it said: {said or 'nothing'}")
            *lines, self._rest = (self._rest + os.read(self._fifo, 4096)).split(b"\n")
            for line in lines:
                name, number = line.split()
                self._records[name.decode()].append(int(number))
        return self._records[word].pop(0)

    def forwarded(self) -> float:
        """How long a signal takes to the agent's handler, in microseconds."""
        sent = time.monotonic_ns()
        os.kill(self.pid, signal.SIGUSR1)
        return (self.told("got") - sent) / 1e3

    def switches(self) -> int:
        """How often process 1 has left the processor until now: once for each wake-up."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    def settle(self, still: float = 0.1) -> None:
        """Wait until process 1 has slept for `still` seconds."""
        end = time.monotonic() + PATIENCE
        seen = -1
        while (now := self.switches()) != seen:
            if time.monotonic() > end:
                raise Failed(f"{self.name} does not come to rest")
            seen = now
            time.sleep(still)

    def memory(self) -> dict[str, float]:
        """MiB, from `smaps_rollup` (proc(5))."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        size = {name: int(value.split()[0]) / 1024 for name, value in (line.split(":") for line in lines)}
        return {"private": size["Private_Clean"] + size["Private_Dirty"], "pss": size["Pss"]}


# --- The figures. ---------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What all runs have in common, and what they gave: `samples[figure][init]`."""

    python: Path
    directory: Path
    probe: Path
    candidates: list[Init]
    environment: dict[str, str]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    seldom: bool = True  # whether this round has what is slow

    def add(self, figure: str, init: Init, value: float) -> None:
        self.samples[figure][init.name].append(value)

    def those_with(self, figure: str) -> list[Init]:
        """In a new order each time, so that none always follows the same other."""
        chosen = [init for init in self.candidates if figure in init.figures and (self.seldom or not init.seldom)]
        return random.sample(chosen, len(chosen))

    def measure(self, part: str, turn: int, *, quick: bool) -> None:
        """One round's share of one of PARTS."""
        if part == "start":
            self.start()
        elif part == "exit":
            self.exit()
        elif part == "rest":
            self.rest()
        elif part == "signals":
            self.signals(50, 10)
        elif part == "orphans" and self.seldom:
            self.orphans(2000)
        elif part == "deadline" and self.seldom:
            self.deadline()
        elif part == "idle" and turn == 0:
            self.idle(3 if quick else 30)

    def start(self) -> None:
        for init in self.those_with("start"):
            with Run(self, init, ["first"]) as run:
                start, first = run.told("start"), run.told("first")
                self.add("start", init, (first - start) / 1e6)
                if "exit" in init.figures or init.name == FLOOR:
                    self.add("whole", init, (run.told("end") - start) / 1e6)

    def exit(self) -> None:
        for init in self.those_with("exit"):
            with Run(self, init, ["last", "100"]) as run:
                last = run.told("last")
                self.add("exit", init, (run.told("end") - last) / 1e6)

    def rest(self) -> None:
        for init in self.those_with("private"):
            with Run(self, init, ["ready"], in_python=True) as run:
                run.told("ready")
                run.settle()
                for figure, value in run.memory().items():
                    self.add(figure, init, value)

    def signals(self, count: int, rested: int) -> None:
        """All of them stand by. First each gets a row of signals, the next as soon as one has arrived: the caches are
        warm and the processor awake, the difference is that of the code. Then one in turn, with rests: that is what a
        single signal costs on this machine, where most of it is waking up.
        """
        with self._standing("signal", ["handle"]) as runs:
            for init, run in runs:
                for _ in range(count):
                    self.add("signal", init, run.forwarded())
            for _ in range(rested):
                for init, run in runs:
                    time.sleep(0.002)
                    self.add("signal-rested", init, run.forwarded())

    def idle(self, seconds: float) -> None:
        with self._standing("wakeups", ["ready"], in_python=True) as runs:
            before = [run.switches() for _, run in runs]
            time.sleep(seconds)
            for (init, run), count in zip(runs, before, strict=True):
                self.add("wakeups", init, run.switches() - count)

    def orphans(self, count: int) -> None:
        for init in self.those_with("orphans"):
            with Run(self, init, ["orphans", str(count)], in_python=True) as run:
                self.add("orphans", init, count / (run.told("reaped") / 1e9))
                run.settle()
                self.add("private-after", init, run.memory()["private"])

    def deadline(self) -> None:
        for init in self.those_with("deadline"):
            with Run(self, replace(init, variables={"AGENT_INIT_GRACE": "1s"}), ["stubborn"]) as run:
                run.told("ready")
                run.settle()
                sent = time.monotonic_ns()
                os.kill(run.pid, signal.SIGTERM)
                self.add("deadline", init, (run.told("end") - sent) / 1e6 - 1000)

    @contextlib.contextmanager
    def _standing(self, figure: str, agent: list[str], *, in_python: bool = False) -> Iterator[list[tuple[Init, Run]]]:
        with contextlib.ExitStack() as stack:
            runs = []
            for init in self.those_with(figure):
                run = stack.enter_context(Run(self, init, agent, in_python=in_python))
                run.told("ready")
                runs.append((init, run))
            for _, run in runs:
                run.settle()
            yield runs


# --- What they come to. ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One init's samples of one figure; `verdict` is empty where no target holds for it."""

    median: float
    low: float
    p99: float
    high: float
    count: int
    to_reference: float | None
    to_floor: float | None
    verdict: str


def judge(samples: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Line]]:
    """The table's lines, by figure and init."""
    table: dict[str, dict[str, Line]] = {}
    for key, figure in FIGURES.items():
        medians = {name: statistics.median(values) for name, values in samples.get(key, {}).items()}
        table[key] = {}
        for name, median in medians.items():
            verdict = ""
            if figure.limit < math.inf and name in OURS:
                # Without the one to compare with, the target is not met.
                limit = figure.limit * (medians.get(figure.of, 0.0) if figure.of else 1.0)
                verdict = "ok" if median <= limit else "MISSED"
            values = sorted(samples[key][name])
            table[key][name] = Line(
                median,
                values[0],
                values[math.ceil(len(values) * 0.99) - 1],
                values[-1],
                len(values),
                _ratio(median, medians.get(REFERENCE)),
                _ratio(median, medians.get(FLOOR)),
                verdict,
            )
    return table


def _ratio(value: float, to: float | None) -> float | None:
    return value / to if to else None


def show(table: Mapping[str, Mapping[str, Line]], order: Sequence[str]) -> None:
    """The table, for people."""
    for key, lines in table.items():
        if not lines:
            continue
        figure = FIGURES[key]
        unit = f", {figure.unit}" if figure.unit else ""
        remark = f" (target: {figure.target})" if figure.target else " (more is better)" * figure.more_is_better
        click.echo(f"\n{figure.title}{unit}{remark}")
        heads = ("median", "min", "p99", "max", "n", f"/ {REFERENCE}", f"/ {FLOOR}")
        click.echo(f"  {'':<30}" + "".join(f"{head:>9}" for head in heads))
        for name in order:
            if name not in lines:
                continue
            line = lines[name]
            numbers = "".join(f"{_figures(value):>9}" for value in (line.median, line.low, line.p99, line.high))
            ratios = "".join(
                f"{'' if ratio is None else f'{ratio:.2f}':>9}" for ratio in (line.to_reference, line.to_floor)
            )
            click.echo(f"  {name:<30}{numbers}{line.count:>9}{ratios}  {line.verdict}".rstrip())


def _figures(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.2f}"


def machine(python: Path) -> dict[str, Any]:
    """What the figures depend on."""
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": version,
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "load": round(os.getloadavg()[0], 1),
    }


# --- The command. ---------------------------------------------------------------------------------------------------


def _interpreter(_: click.Context, __: click.Parameter, given: Path) -> Path:
    python = given / "bin" / "python" if given.is_dir() else given
    if not os.access(python, os.X_OK):
        raise click.BadParameter(f"{python} is no interpreter")
    return Path(os.path.abspath(python))  # symbolic links stay: one of them is the virtual environment


def _build(directory: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Failed("the C compiler `cc` is missing (Debian: gcc, libc6-dev)")
    probe = directory / "probe"
    subprocess.run([compiler, "-static", "-O2", "-Wall", "-o", probe, PROBE], check=True)
    return probe


@click.command()
@click.option("--rounds", default=40, show_default=True, help="How often each is measured.")
@click.option("--quick", is_flag=True, help="8 rounds and little of each, for a first look.")
@click.option(
    "--python",
    "--venv",
    "python",
    type=click.Path(exists=True, path_type=Path),
    default=sys.executable,
    callback=_interpreter,
    help="The installation to measure: its interpreter, or its virtual environment. Default: the one running this.",
)
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="Just this part. Repeatable.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures to this file too.")
@click.option("--check", is_flag=True, help="Exit 1 when a target is missed.")
def main(rounds: int, quick: bool, python: Path, parts: tuple[str, ...], file: Path | None, check: bool) -> None:
    """Measure agent-init beside its peers, each as process 1 of a fresh PID namespace."""
    if os.geteuid() != 0:  # in a user namespace of our own we may make the other namespaces
        os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--", sys.executable, *sys.argv])
    rounds = 8 if quick else rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        known = inits(python, directory)
        present = [init for init in known if shutil.which(init.program)]
        for init in known:
            if init not in present:
                click.echo(f"missing: {init.name}", err=True)
        # Nothing of ours: what runs in a container sees little more than this.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "LANG": "C.UTF-8"}
        bench = Bench(python, directory, _build(directory), present, environment)
        about = machine(python)
        bench.start()  # once for nothing: files come into the cache
        bench.samples.clear()
        with click.progressbar(range(rounds), label="rounds", file=sys.stderr) as progress:
            for turn in progress:
                bench.seldom = turn % 8 == 0
                for part in parts or PARTS:
                    bench.measure(part, turn, quick=quick)
    table = judge(bench.samples)
    click.echo(", ".join(f"{key} {value}" for key, value in about.items()))
    show(table, [init.name for init in present])
    missed = [
        f"{FIGURES[key].title}: {name}"
        for key, lines in table.items()
        for name, line in lines.items()
        if line.verdict == "MISSED"
    ]
    click.echo("\n" + "\n".join(f"missed: {target}" for target in missed) if missed else "\nall targets are met")
    if file:
        figures = {key: {name: asdict(line) for name, line in lines.items()} for key, lines in table.items()}
        file.write_text(json.dumps({"machine": about, "figures": figures, "missed": missed}, indent=2) + "\n")
    if check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
