"""The click command `agent-initctl rehearse`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import signals, units
from ..ctl.connection import Failure
from . import container, rehearsal, scenarios, up
from .model import Verdict
from .options import DEFAULT_GRACE, MAX_COUNT, UP_TIMEOUT, WORK_TIMEOUT, Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import Rehearsal, Run

EXIT_CODES = (
    "Exit codes: 0 if every scenario that counts held; 1 if something was lost; 125 if the rehearsal could not be done."
)
WIDTH = 120  # at most
MAX_DIGITS = 20


class Text(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A value with a parser that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _duration(text: str) -> float:
    seconds = units.parse_duration(text, infinite=False)
    if not seconds > 0:
        raise ValueError(f"{signals.quote(text)} is not accepted here; accepted: a finite time above 0, such as 25s")
    return seconds


def _count(text: str) -> int:
    if not (_is_number(text) and 0 < int(text) <= MAX_COUNT):
        raise ValueError(f"{signals.quote(text)} is not a count; accepted: a number from 1 to {MAX_COUNT}")
    return int(text)


def _seed(text: str) -> int:
    if not _is_number(text):
        raise ValueError(f"{signals.quote(text)} is not a seed; accepted: a number of up to {MAX_DIGITS} digits")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


COUNT, DURATION = Text("count", _count), Text("duration", _duration)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Lines:
    """The progress, on stderr: one line that is rewritten on a terminal, a line per run elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._left, self._ended, self._began = 0, 0, time.monotonic()

    def begins(self, runs: int, folder: Path) -> None:
        """Note what is to come."""
        if not runs and not self._ended:
            self._print(f"the output of the runs is kept in {folder}")
        self._left = runs

    def run_begins(self, title: str) -> None:
        """Show what is running, and how long the rest will take."""
        if not self._terminal:
            return
        if not self._left:
            click.echo(f"\r\x1b[Kthe first run: {title}", nl=False, err=True)
            return
        rest = ""
        if self._ended:
            each = (time.monotonic() - self._began) / self._ended
            rest = f", about {units.format_duration(max(1, round(each * self._left)))} left"
        click.echo(f"\r\x1b[K{self._ended} done, {self._left} to do{rest}: {title}", nl=False, err=True)

    def run_ends(self, run: Run) -> None:
        """Show how it has ended."""
        self._ended += 1
        self._left = max(0, self._left - 1)
        number = f" {run.number}" if run.number > 1 else ""
        why = f": {run.reasons[0]}" if run.reasons else ""
        drain = f" after {units.format_duration(round(run.drain, 2))}" if run.drain is not None else ""
        skipped = run.verdict is Verdict.SKIPPED
        self._print(f"{run.scenario.name}{number}: {run.verdict.value}{'' if skipped else drain}{why}")

    def close(self) -> None:
        """Remove the line."""
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _print(self, text: str) -> None:
        click.echo(f"\r\x1b[K{text}" if self._terminal else text, err=True)


class Stopped(BaseException):
    """A signal asks agent-initctl itself to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def _raise_stopped(number: int, _frame: object) -> None:
    raise Stopped(number)


@click.command(
    "rehearse",
    short_help="Stop an agent in every way that platforms do.",
    epilog=EXIT_CODES,
    context_settings={"allow_interspersed_args": False},
)
@click.option("--up", "up_", type=Text("up", up.parse), metavar="HOW", help=f"When the agent is up: {up.ACCEPTED}.")
@click.option("--work", metavar="CMD", help="Run by sh -c once the agent is up; a non-zero exit code means lost work.")
@click.option("--work-up", metavar="TEXT", help="The agent has the work in hand once CMD of --work prints this.")
@click.option("--break", "break_", metavar="CMD", help="Stop a dependency, for the scenario dependency-gone.")
@click.option("--mend", metavar="CMD", help="Start that dependency again.")
@click.option(
    "--scenarios",
    "ways",
    type=Text("scenarios", scenarios.parse),
    default=",".join(scenarios.NAMES),
    metavar="NAME,...",
    help=f"Only these: {', '.join(scenarios.NAMES)}.",
)
@click.option("--runs", type=COUNT, default="1", metavar="N", help="How often to run each scenario; once without this.")
@click.option(
    "--parallel", type=COUNT, default="1", metavar="N", help="Runs at a time; only for an agent without a fixed port."
)
@click.option(
    "--seed",
    type=Text("seed", _seed),
    metavar="N",
    help="Determines the order of runs, and the moments of early stops.",
)
@click.option(
    "--grace",
    type=DURATION,
    metavar="DURATION",
    help=f"The grace of each run: AGENT_INIT_GRACE, or {units.format_duration(DEFAULT_GRACE)}.",
)
@click.option(
    "--up-timeout",
    type=DURATION,
    default=f"{UP_TIMEOUT:g}s",
    metavar="DURATION",
    help=f"How long to wait until the agent is up; {units.format_duration(UP_TIMEOUT)} without this.",
)
@click.option(
    "--work-timeout",
    type=DURATION,
    default=f"{WORK_TIMEOUT:g}s",
    metavar="DURATION",
    help=f"How long the work may go on after the agent's end; {units.format_duration(WORK_TIMEOUT)} without this.",
)
@click.option("--keep", type=FOLDER, metavar="DIR", help="A new folder for the output of each run.")
@click.option("--stdin", "keep_stdin", is_flag=True, help="Keep stdin open, as docker run -i does.")
@click.option("--no-namespace", is_flag=True, help="Run agent-init as a subreaper, even if it could be process 1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in place of the table.")
@click.option("--junit", type=FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--html", type=FILE, metavar="FILE", help="Write an HTML page.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
def rehearse(command: tuple[str, ...], as_json: bool, junit: Path | None, html: Path | None, **given: Any) -> int:
    """Run an agent again and again, stop it in every way that platforms do, and report what was lost.

    Each run is an agent-init of its own, as process 1 of a PID namespace if that is allowed. Its other options come
    from AGENT_INIT_ variables.
    """
    options = _options(**given)
    for target in (junit, html):
        if target is not None and not _can_be_written(target):
            raise Failure(f"cannot write {target}: there is no such directory, or it cannot be written")
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
                signal.signal(number, _raise_stopped)
        container.ignore_nothing()
        progress = Lines()
        try:
            done = rehearsal.rehearse(command, options, progress)
        finally:
            progress.close()
        _write(done, as_json, junit, html)
    except rehearsal.Failure as failure:
        raise Failure(str(failure)) from None
    except Stopped as stopped:
        raise Failure("interrupted", 128 + stopped.number) from None
    return 0 if done.held else 1


def _options(*, up_: Any, break_: str | None, grace: float | None, no_namespace: bool, **given: Any) -> Options:
    if grace is None:
        grace = _own_grace()
    if given["seed"] is None:
        del given["seed"]
    return Options(up=up_, break_dependency=break_, grace=grace, subreaper=no_namespace, **given)


def _own_grace() -> float | None:
    """Return the grace from agent-init's own variables; None if a schedule replaces it. Raises Failure."""
    if os.environ.get("AGENT_INIT_STOP_SCHEDULE"):
        return None
    text = os.environ.get("AGENT_INIT_GRACE", "")
    if text in ("", "auto"):
        return DEFAULT_GRACE
    try:
        return _duration(text)
    except ValueError as error:
        raise Failure(f"AGENT_INIT_GRACE: {error}") from None


def _can_be_written(file: Path) -> bool:
    return not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)


def _write(done: Rehearsal, as_json: bool, junit: Path | None, html: Path | None) -> None:
    """Print the result, and write the files. Raises Failure."""
    if as_json:
        from . import json_report

        print(json_report.render(done), end="")
    else:
        from . import table

        width = shutil.get_terminal_size((WIDTH, 24)).columns
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(table.render(done, min(width, WIDTH), color), end="")
    if junit is not None:
        from . import junit as junit_report

        _write_file(junit, junit_report.render(done))
    if html is not None:
        from . import page

        _write_file(html, page.render(done))


def _write_file(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:  # it does not name the file if the disk is full
        raise Failure(f"cannot write {file}: {error.strerror}") from None
