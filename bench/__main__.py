"""Measure agent-init beside its peers, each as process 1 of a new PID namespace. See README.md in this directory.

Everything that is compared is measured in turns within the same minutes. A round runs every init once, in random order,
and the result is the median over the rounds. The stamps are taken in C (`probe.c`), so that the time this program takes
is in no figure.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import plots, report
from .contenders import AGAINST, JUDGED, PARTS, inits, trees
from .figures import ALONE, ELSEWHERE
from .parts import Bench
from .run import Failed, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .contenders import Init

PROBE = Path(__file__).with_name("probe.c")
CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "bench.md"
COMPANION = """
import asyncio, ctypes, http.server, json, logging, subprocess, sys, urllib.request

async def work():
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.01))
        json.loads(json.dumps({"a": [1, 2.5, None]}))
        # MCL_CURRENT: all that is mapped, the interpreter's file too. This agent has done little, and sleeps.
        ctypes.CDLL(None).mlockall(1)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(work())
"""
ROUNDS, ROUNDS_QUICK, ROUNDS_AGAINST = 24, 4, 100
FULL_EVERY = 8  # rounds; memory and signals of a comparison every fourth
MINUTES, MINUTES_QUICK = 11.0, 2.5


@dataclass(frozen=True)
class Limits:
    """How long to measure. `until`: start nothing new after this (monotonic clock)."""

    rounds: int
    until: float


def _interpreter(_: click.Context, __: click.Parameter, given: Path) -> Path:
    python = given / "bin" / "python" if given.is_dir() else given
    if not os.access(python, os.X_OK):
        raise click.BadParameter(f"{python} is not an interpreter")
    return Path(os.path.abspath(python))  # with its symbolic links: one of them is the virtual environment


def _other_checkout(_: click.Context, __: click.Parameter, given: Path | None) -> Path | None:
    if given and not (given / "entrypoint" / "__main__.py").is_file():
        raise click.BadParameter(f"{given} is not a checkout of agent-init")
    return given.resolve() if given else None


@click.command()
@click.option("--rounds", type=int, help=f"Number of rounds. Default: {ROUNDS}.")
@click.option("--minutes", type=float, help=f"Start nothing new after this. Default: {MINUTES:g}.")
@click.option("--quick", is_flag=True, help="Two minutes: 4 rounds, small trees, 3 idle seconds.")
@click.option(
    "--python",
    "--venv",
    "python",
    type=click.Path(exists=True, path_type=Path),
    default=sys.executable,
    callback=_interpreter,
    help="The installation to measure: its interpreter or virtual environment. Default: the one that runs this.",
)
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part. Repeatable.")
@click.option("--init", "names", multiple=True, help="Only this init. Repeatable; add tini and floor for the ratios.")
@click.option("--write", type=click.Path(path_type=Path), help="Write the page to this file. Default: docs/bench.md.")
@click.option(
    "--full", type=click.Path(path_type=Path), help="Write all tables, figures and plots into this directory."
)
@click.option("--figures", type=click.Path(path_type=Path), help="Write all figures as JSON to this file.")
@click.option(
    "--also",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Figures of a run with another Python, for the page. Repeatable.",
)
@click.option("--check", is_flag=True, help="Exit 1 if agent-init failed or is far above a target.")
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    callback=_other_checkout,
    help="Compare this checkout with another one instead, in one run.",
)
def main(
    *,
    rounds: int | None,
    minutes: float | None,
    quick: bool,
    python: Path,
    parts: tuple[str, ...],
    names: tuple[str, ...],
    write: Path | None,
    full: Path | None,
    figures: Path | None,
    also: tuple[Path, ...],
    check: bool,
    against: Path | None,
) -> None:
    """Measure agent-init beside its peers, each as process 1 of a new PID namespace.

    A complete run writes docs/bench.md. A run with --quick, --only or --init writes a page only with --write.
    """
    _become_able()
    rounds = rounds or (ROUNDS_AGAINST if against else ROUNDS_QUICK if quick else ROUNDS)
    limits = Limits(rounds, time.monotonic() + 60 * (minutes or (MINUTES_QUICK if quick else MINUTES)))
    if against:
        click.echo(_compare(python, against, limits))
        return
    if not (write or quick or parts or names):
        write = PAGE
    _prepare(write, full, figures)
    others = [json.loads(file.read_text()) for file in also]
    about = report.machine(python)
    with _bench(python, quick) as bench:
        everyone = _chosen(inits(python, bench.place.directory), names)
        bench.candidates = [init for init in everyone if init.is_installed]
        began = time.monotonic()
        done = _measure(bench, parts or PARTS, limits)
    about["missing"] = ", ".join(init.name for init in everyone if not init.is_installed) or "none"
    how = "with `--quick`, " if quick else ""
    about["measured"] = f"{how}{done} of {rounds} rounds complete in {(time.monotonic() - began) / 60:.1f} minutes"
    if not _write(bench, about, others, write=write, full=full, figures=figures) and check:
        sys.exit(1)


def _become_able() -> None:
    """Become able to create namespaces, and end in order on INT and TERM."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and agents inherit that
    if os.geteuid() != 0:
        argv = ["unshare", "--user", "--map-root-user", "--", sys.executable, "-m", "bench", *sys.argv[1:]]
        os.execvp("unshare", argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _prepare(write: Path | None, full: Path | None, figures: Path | None) -> None:
    """Fail now rather than after ten minutes."""
    for path in filter(None, (write and write.parent, full, figures and figures.parent)):
        path.mkdir(parents=True, exist_ok=True)
    if full:
        try:
            import matplotlib  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        except ImportError as error:
            raise click.UsageError("--full needs matplotlib: pip install 'matplotlib>=3.8'") from error


@contextlib.contextmanager
def _bench(python: Path, quick: bool) -> Iterator[Bench]:
    """Enter the block with a bench without candidates, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _companion(python):
        directory = Path(name)
        # Programs in a container see little more than this.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "LANG": "C.UTF-8"}
        yield Bench(Place(directory, _build(directory), environment), [], quick)


@contextlib.contextmanager
def _companion(python: Path) -> Iterator[None]:
    """Run another program with the same interpreter, as most containers do: an agent on asyncio.

    The pages of the interpreter's file are then shared and are nobody's private memory. It ends with this process.
    """
    argv = [str(python), "-c", COMPANION]
    with subprocess.Popen(argv, stdin=subprocess.PIPE):
        yield


def _build(directory: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Failed("the C compiler `cc` is missing (Debian: gcc, libc6-dev)")
    probe = directory / "probe"
    subprocess.run([compiler, "-static", "-O2", "-Wall", "-o", probe, PROBE], check=True)
    return probe


def _chosen(everyone: list[Init], names: tuple[str, ...]) -> list[Init]:
    if unknown := set(names) - {init.name for init in everyone}:
        known = ", ".join(init.name for init in everyone)
        raise click.BadParameter(f"--init {min(unknown)} is unknown; known: {known}")
    return [init for init in everyone if not names or init.name in names]


def _measure(bench: Bench, parts: tuple[str, ...], limits: Limits) -> int:
    """Return the number of complete rounds."""
    bench.round(["start"], turn=0, full_every=1, until=limits.until)  # brings files into the cache
    bench.samples.clear()
    with click.progressbar(range(limits.rounds), label="rounds", file=sys.stderr) as progress:
        for turn in progress:
            if not bench.round(parts, turn=turn, full_every=FULL_EVERY, until=limits.until):
                return turn
    return limits.rounds


def _write(
    bench: Bench,
    about: dict[str, str],
    others: list[dict[str, Any]],
    *,
    write: Path | None,
    full: Path | None,
    figures: Path | None,
) -> bool:
    """Print the page and write what was asked for. Return False if agent-init is broken.

    `others`: the figures of runs with other Pythons, as they are written here.
    """
    table = report.judge(bench.samples)
    failed = _failures(bench)
    missed = report.verdicts(table, (report.MISSED, report.BROKEN))
    lines = {key: {name: asdict(line) for name, line in group.items()} for key, group in table.items()}
    everything = {"machine": about, "figures": lines, "missed": missed, "failed": failed}
    page = report.page(table, about, missed, failed, [*others, everything])
    click.echo(page)
    click.echo(", ".join(f"{part} {seconds:.0f}s" for part, seconds in bench.seconds.items()), err=True)
    if write:
        write.write_text(page)
    if figures:
        figures.write_text(json.dumps(everything, indent=2) + "\n")
    if full:
        order = [*(init.name for init in bench.candidates), ALONE, ELSEWHERE]
        (full / "tables.md").write_text(report.full(table, order, about, missed, failed))
        (full / "figures.json").write_text(json.dumps(everything, indent=2) + "\n")
        plots.draw(table, full, f"{about['date']}, {about['processors']}, {about['Python']}")
    broken = report.verdicts(table, (report.BROKEN,)) + [line for line in failed if line.startswith(JUDGED)]
    for line in broken:
        click.echo(f"broken: {line}", err=True)
    return not broken


def _failures(bench: Bench) -> list[str]:
    return [f"{init}, {part}: {why}" for (part, init), reasons in bench.failures.items() for why in reasons]


def _compare(python: Path, other: Path, limits: Limits) -> str:
    """Measure both trees in turns and return the table. A sample is the median of one run."""
    paths = {"this": CHECKOUT, "other": other}
    for path in paths.values():
        compileall.compile_dir(path / "entrypoint", quiet=1)
    about = report.machine(python)
    medians: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with _bench(python, quick=False) as bench:
        bench.candidates = trees(python, paths)
        bench.is_full, bench.until = False, limits.until
        bench.each("start")  # brings files into the cache
        with click.progressbar(range(limits.rounds), label="rounds", file=sys.stderr) as progress:
            for turn in progress:
                bench.samples.clear()
                for part in AGAINST if turn % 4 == 0 else ("start",):
                    bench.each(part)
                for figure, by_init in bench.samples.items():
                    for init, values in by_init.items():
                        medians[figure][init].append(statistics.median(values))
    for line in _failures(bench):
        click.echo(f"failed: {line}", err=True)
    facts = f"{about['Python']}, {about['processors']}, load before: {about['load before']}"
    return f"this: {CHECKOUT}\nother: {other}\n{facts}\n\n" + report.comparison(medians, *paths)


if __name__ == "__main__":
    main()
