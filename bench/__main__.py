"""Measure agent-init beside its peers, each as process 1 of a fresh PID namespace. See README.md here.

Whatever is compared is measured in turns within the same minutes: a round runs every init once, in a new order each
time, and what counts is the median over the rounds. The stamps are taken in C (`probe.c`), so that the program which
measures is in no figure.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import plots, report
from .contenders import OURS, PARTS, inits
from .parts import Bench
from .run import Failed, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = Path(__file__).with_name("probe.c")
ROUNDS, FULL_EVERY = 24, 8
ROUNDS_QUICK = 4
MINUTES, MINUTES_QUICK = 11.0, 2.5


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


@contextlib.contextmanager
def _companion(python: Path) -> Iterator[None]:
    """Another program run by the same interpreter, as the agent of a container mostly is.

    The pages of the interpreter's file are then shared, and count as nobody's private memory. Ends with us.
    """
    rest = [str(python), "-c", "import signal, subprocess, sys; sys.stdin.read()"]
    with subprocess.Popen(rest, stdin=subprocess.PIPE):
        yield


@click.command()
@click.option("--rounds", type=int, help=f"How often each is measured. Default: {ROUNDS}.")
@click.option("--minutes", type=float, help=f"Begin nothing new after that. Default: {MINUTES:g}.")
@click.option("--quick", is_flag=True, help="A look of two minutes: 4 rounds, small trees, little idleness.")
@click.option(
    "--python",
    "--venv",
    "python",
    type=click.Path(exists=True, path_type=Path),
    default=sys.executable,
    callback=_interpreter,
    help="The installation to measure: its interpreter, or its virtual environment. Default: the one running this.",
)
@click.option("--only", "chosen", multiple=True, type=click.Choice(PARTS), help="Just this part. Repeatable.")
@click.option("--init", "named", multiple=True, help="Just this init, and those it is compared with. Repeatable.")
@click.option("--json", "figures", type=click.Path(path_type=Path), help="Write the figures to this file too.")
@click.option("--write", type=click.Path(path_type=Path), help="Write the tables to this file too, as a page.")
@click.option("--plots", "pictures", type=click.Path(path_type=Path), help="Draw into this directory (matplotlib).")
@click.option("--check", is_flag=True, help="Exit 1 when something of agent-init failed, or is far beyond its target.")
def main(
    *,
    rounds: int | None,
    minutes: float | None,
    quick: bool,
    python: Path,
    chosen: tuple[str, ...],
    named: tuple[str, ...],
    figures: Path | None,
    write: Path | None,
    pictures: Path | None,
    check: bool,
) -> None:
    """Measure agent-init beside its peers, each as process 1 of a fresh PID namespace."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, for the agents too
    if os.geteuid() != 0:  # in a user namespace of our own we may make the other namespaces
        own = ["unshare", "--user", "--map-root-user", "--", sys.executable, "-m", "bench", *sys.argv[1:]]
        os.execvp("unshare", own)
    for path in filter(None, (figures and figures.parent, write and write.parent, pictures)):
        path.mkdir(parents=True, exist_ok=True)  # now rather than after ten minutes
    if pictures:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]  # noqa: F401  # is it there?
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaves nothing behind then either
    rounds = rounds or (ROUNDS_QUICK if quick else ROUNDS)
    began = time.monotonic()
    until = began + 60 * (minutes or (MINUTES_QUICK if quick else MINUTES))
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _companion(python):
        directory = Path(name)
        everyone = inits(python, directory)
        if strangers := set(named) - {init.name for init in everyone}:
            raise click.BadParameter(f"--init {min(strangers)}: known are {', '.join(init.name for init in everyone)}")
        known = [init for init in everyone if not named or init.name in named]
        present = [init for init in known if init.present]
        # Nothing of ours: what runs in a container sees little more than this.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "LANG": "C.UTF-8"}
        bench = Bench(Place(directory, _build(directory), environment), present, quick)
        about = report.machine(python)
        bench.round(["start"], turn=0, full_every=1, until=until)  # files come into the cache
        bench.samples.clear()
        done = 0
        with click.progressbar(range(rounds), label="rounds", file=sys.stderr) as progress:
            for turn in progress:
                if not bench.round(chosen or PARTS, turn=turn, full_every=FULL_EVERY, until=until):
                    break
                done = turn + 1

    table = report.judge(bench.samples)
    about["missing"] = ", ".join(init.name for init in known if not init.present) or "none"
    about["measured"] = f"{done} of {rounds} rounds in {(time.monotonic() - began) / 60:.1f} minutes"
    failed = [f"{init}, {part}: {why}" for (part, init), whys in bench.failures.items() for why in whys]
    missed = report.verdicts(table, (report.MISSED, report.BROKEN))
    page = report.page(table, [init.name for init in present], about, missed, failed)
    click.echo(page)
    click.echo(", ".join(f"{part} {seconds:.0f}s" for part, seconds in bench.seconds.items()), err=True)
    if figures:
        lines = {key: {name: asdict(line) for name, line in group.items()} for key, group in table.items()}
        told = {"machine": about, "figures": lines, "missed": missed, "failed": failed}
        figures.write_text(json.dumps(told, indent=2) + "\n")
    drawn = (
        plots.draw(table, pictures, f"{about['date']}, {about['processors']}, {about['Python']}") if pictures else []
    )
    if write:
        links = [os.path.relpath(path, write.parent) for path in drawn]
        write.write_text(page + "".join(f"\n![{Path(link).stem}]({link})\n" for link in links))
    broken = report.verdicts(table, (report.BROKEN,)) + [line for line in failed if line.startswith(OURS)]
    if check and broken:
        click.echo("\n".join(f"broken: {line}" for line in broken), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
