"""What agent-init, tini and dumb-init do in each trial, and behind each wrapper.

`python -m tests.field.table` runs everything under all three, and writes docs/field.md, docs/wrappers.md and README's
sums. It takes about ten minutes. What it has found is kept in the tests' cache until the code changes that it was
found with, so an interrupted run goes on where it was, and a second one only runs agent-init.

`python -m tests.field.table NAME...` runs the trials whose names contain one of these, prints what happened, and writes
nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.agents import environments
from tests.field import running, trial, trials, wrappers
from tests.field.running import INITS
from tests.field.trial import Trial
from tests.field.wrappers import WRAPPERS

ROOT = Path(__file__).parents[2]
FIELD_PAGE, WRAPPER_PAGE, README = ROOT / "docs" / "field.md", ROOT / "docs" / "wrappers.md", ROOT / "README.md"
SUMS = re.compile(r"(<!-- field: [^\n]*-->\n).*?(<!-- end of field -->)", re.DOTALL)
RIGHT = "right"

EVERYTHING: dict[str, Trial] = {**trials.ALL, **trials.WRAPPED}
Found = dict[str, list[str]]  # by the name of a trial, what is wrong


# --- Run them. ---


def digest(init: str) -> str:
    """It changes with what a result depends on."""
    field = ROOT / "tests" / "field"
    files = [field / f"{name}.py" for name in ("drain", "install", "place", "running", "trial", "wrappers")]
    files += [
        field / "programs" / "helped.py",
        *(ROOT / "tests" / "support" / name for name in ("actor.py", "init.py", "launcher.py")),
    ]
    files += [file for kind in ("trials", "locks", "npm", "go") for file in (field / kind).iterdir() if file.is_file()]
    files += [*(ROOT / "entrypoint").rglob("*.py"), ROOT / "launcher" / "launcher.c"] if init == "agent-init" else ()
    content = b"".join(file.read_bytes() for file in sorted(files))
    return hashlib.sha256(content).hexdigest()[:16]


class Results:
    """What was found under one init, in a file of the tests' cache."""

    def __init__(self, init: str) -> None:
        self.init = init
        self.file = environments.cache() / f"field-results-{init}-{digest(init)}.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.found: Found = {name: problems for name, problems in map(json.loads, lines) if name in EVERYTHING}

    def add(self, name: str, problems: list[str]) -> None:
        self.found[name] = problems
        with self.file.open("a") as file:
            file.write(json.dumps([name, problems]) + "\n")


def run_all(names: Iterable[str], inits: Iterable[str], parallel: int) -> dict[str, Found]:
    """The results, by init; those that are not known are found out."""
    results = {init: Results(init) for init in inits}
    missing = [(init, name) for init in results for name in names if name not in results[init].found]

    def find(case: tuple[str, str]) -> tuple[str, str, list[str]]:
        init, name = case
        return init, name, trial.problems(EVERYTHING[name], trial.run(EVERYTHING[name], init))

    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        done = concurrent.futures.as_completed([pool.submit(find, case) for case in missing])
        for number, (init, name, problems) in enumerate((future.result() for future in done), 1):
            results[init].add(name, problems)
            print(f"{number}/{len(missing)}  {init}: {name}: {_cell(problems)}", file=sys.stderr, flush=True)
    return {init: result.found for init, result in results.items()}


def show(names: list[str], inits: list[str], parallel: int) -> None:
    """Run these and print all that was seen."""
    cases = [(init, name) for name in names for init in inits]
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        outcomes = pool.map(lambda case: trial.run(EVERYTHING[case[1]], case[0]), cases)
        for (init, name), outcome in zip(cases, outcomes, strict=True):
            problems = trial.problems(EVERYTHING[name], outcome)
            print(f"--- {init}: {name}: {_cell(problems)}\n{outcome.shown()}", flush=True)


# --- Write the pages. ---


@dataclass(frozen=True)
class Sums:
    """In how many trials each init does what is right."""

    of: int
    right: Mapping[str, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{init} in {count}" for init, count in self.right.items())
        return f"Of {self.of}, {counts}."


def sums(results: Mapping[str, Found], names: Iterable[str]) -> Sums:
    chosen = list(names)
    return Sums(len(chosen), {init: sum(not found[name] for name in chosen) for init, found in results.items()})


def _cell(problems: list[str]) -> str:
    return ", ".join(problems) or RIGHT


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _cells(results: Mapping[str, Found], name: str) -> list[str]:
    return [_cell(found[name]) for found in results.values()]


def _sum_row(results: Mapping[str, Found], names: Iterable[str], empty: int) -> str:
    total = sums(results, names)
    return _row(f"**{RIGHT}**", *[""] * empty, *(f"**{count} of {total.of}**" for count in total.right.values()))


FIELD_HEAD = """# What people run behind an init

Each case is a trial in `tests/field/trials/`, most of them made from a public report. It runs with genuine programs, as
process 1 of a PID namespace, under agent-init, tini and dumb-init. It is stopped by TERM if its name says nothing else.
`python -m tests.field.table` has made this page, and `nox -s field` runs the trials.

The agent drains for about {drain:g} s after its first TERM, and loses its work at a second one. agent-init has
`{options}`: with the default of 5 s to linger, an agent that is merely left behind would seem to
drain. tini and dumb-init have no options. "{right}" is the outcome in the second column; anything else is what happened
instead. A source in brackets is the report that the case is a variation of.

{sums}
"""


def field_page(results: Mapping[str, Found]) -> str:
    total = sums(results, trials.ALL)
    reported = [name for name, case in trials.ALL.items() if not case.variation]
    first = sums(results, reported)
    text = FIELD_HEAD.format(
        drain=trial.DRAIN,
        options=" ".join(trial.OPTIONS),
        right=RIGHT,
        sums=f"All cases: {_counts(total)}.\nWithout the variations: {_counts(first)}.",
    )
    for kind, (heading, _) in trials.KINDS.items():
        names = {f"{kind}: {case.name}": case for case in trials.of(kind)}
        text += f"\n## {heading}\n\n{trials.about(kind)}\n\n"
        text += _row("case", "right outcome", "source", *results) + "|---" * (3 + len(results)) + "|\n"
        for name, case in names.items():
            source = f"[{case.source}]" if case.variation and case.source != "own" else case.source
            text += _row(case.name, case.text, source, *_cells(results, name))
        text += _sum_row(results, names, 2)
    return text


WRAPPER_HEAD = """# Behind which wrappers an agent drains

An agent that needs {drain:g} s to finish its work ({full:g} s where the wrapper has a timeout of its own) runs behind
each wrapper, with the init as process 1, and gets one stop request. It drains if it gets exactly one TERM, finishes,
and the container is over within {slack:g} s of that. `python -m tests.field.table` has made this page; the commands are
in `tests/field/wrappers.py`. agent-init has `{options}`, so that an agent that is merely left behind
does not seem to drain; tini and dumb-init have no options.

{sums}

"""
ENDS = """
These wrappers end their child themselves, whatever process 1 does:

"""


def wrapper_page(results: Mapping[str, Found]) -> str:
    head = {
        "drain": wrappers.DRAIN,
        "full": wrappers.FULL_DRAIN,
        "slack": wrappers.SLACK,
        "options": " ".join(trial.OPTIONS),
    }
    text = WRAPPER_HEAD.format(sums=f"Drained: {_counts(sums(results, trials.WRAPPED))}.", **head)
    text += _row("wrapper", *results) + "|---" * (1 + len(results)) + "|\n"
    text += "".join(_row(case.name, *_cells(results, name)) for name, case in trials.WRAPPED.items())
    text += _sum_row(results, trials.WRAPPED, 0) + ENDS
    ends = {wrapper.name: wrapper.ends_its_child for wrapper in WRAPPERS.values() if wrapper.ends_its_child}
    return text + "".join(f"- {name}: {how}\n" for name, how in ends.items())


def _counts(total: Sums) -> str:
    counts = [f"{init} {count}" for init, count in total.right.items()]
    return f"{', '.join(counts)}, of {total.of}"


def quoted(field_page: str, wrapper_page: str) -> str:
    """README's sentences, from the sums that the two pages state."""
    field = re.search(r"All cases: (.*?)\.", field_page)
    drained = re.search(r"Drained: (.*?)\.", wrapper_page)
    assert field
    assert drained
    return (
        f"An agent drains behind {_short(drained[1])[0]} [wrappers](docs/wrappers.md) ({_short(drained[1])[1]});\n"
        f"{_short(field[1])[0]} [trials from the field](docs/field.md) end as they should ({_short(field[1])[1]}).\n"
    )


def _short(counts: str) -> tuple[str, str]:
    """`agent-init 3, tini 1, dumb-init 2, of 4` as `3 of 4` and `tini 1, dumb-init 2`."""
    ours, *peers, total = counts.split(", ")
    return f"{ours.split()[1]} {total}", ", ".join(peers)


def write(results: Mapping[str, Found]) -> None:
    FIELD_PAGE.write_text(field_page(results))
    WRAPPER_PAGE.write_text(wrapper_page(results))
    sentences = quoted(FIELD_PAGE.read_text(), WRAPPER_PAGE.read_text())
    README.write_text(SUMS.sub(lambda found: f"{found[1]}{sentences}{found[2]}", README.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.field.table", description=str(__doc__).splitlines()[0])
    parser.add_argument("--init", choices=INITS, action="append")
    parser.add_argument("--parallel", type=int, default=4, metavar="N")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):  # ignored where a shell or nohup has started us
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    names = [name for name in EVERYTHING if not options.names or any(part in name for part in options.names)]
    if missing := {program for name in names if (program := EVERYTHING[name].missing())}:
        print(f"not installed: {', '.join(sorted(missing))}; python -m tests.field.install", file=sys.stderr)
        return 1
    for init in options.init or INITS:
        running.init(init)  # the threads would install agent-init each
    if options.names:
        show(names, options.init or list(INITS), options.parallel)
    else:
        results = run_all(names, options.init or INITS, options.parallel)
        if set(results) == set(INITS):
            write({init: results[init] for init in INITS})
    return 0


if __name__ == "__main__":
    sys.exit(main())
