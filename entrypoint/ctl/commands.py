"""The click commands of `agent-initctl`. `run` prints a usage error as one line, as agent-init does."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .. import __version__, control, signals, units
from . import main, probes, reports, search, status
from .connection import Connection, Failure, find, read
from .follow import Follower

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

COMPLETE_VARIABLE = "_AGENT_INITCTL_COMPLETE"
FILE = click.Path(readable=False)  # a path for completion; what is wrong with a file, the command says itself
EXIT_CODES = (
    "Exit codes: 0 for yes or done; 1 for no, refused, or not in time; 125 for bad usage, no agent-init, or no answer."
)


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A finite duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        try:
            return units.parse_duration(value, infinite=False)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class MoreThanZero(Duration):
    """One that is not 0."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        seconds = super().convert(value, param, ctx)
        if not seconds:
            self.fail(f"{signals.quote(str(value))} is too short; accepted: more than 0", param, ctx)
        return seconds


class Pid(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A pid."""

    name = "pid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return it."""
        text = str(value)
        if not probes.is_pid(text):
            self.fail(f"{signals.quote(text)} is not a pid; accepted: a number from 1", param, ctx)
        return int(text)


class Signal(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A signal that a process can catch, as its number."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return its number."""
        try:
            return signals.parse_catchable(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so."""
        from click.shell_completion import CompletionItem

        names = (name for name in sorted(signals.NUMBERS) if _is_catchable(name))
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def _is_catchable(name: str) -> bool:
    try:
        return bool(signals.parse_catchable(name))
    except ValueError:
        return False


def _common(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that each command has."""
    pid = click.option(
        "--pid",
        type=Pid(),
        metavar="N",
        help="The pid of the agent-init to ask, as seen here. Without this: the nearest agent-init among the "
        "ancestors, else process 1, else the only one in this container.",
    )
    timeout = click.option(
        "--timeout",
        type=MoreThanZero(),
        default=probes.TIMEOUT,
        metavar="DURATION",
        help=f"How long to wait for an answer; {units.format_duration(probes.TIMEOUT)} without this.",
    )
    return pid(timeout(command))


class Group(click.Group):
    """The commands. Those that need much more are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return sorted({*self.commands, "rehearse"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of them."""
        if cmd_name == "rehearse":
            from ..rehearse.command import rehearse

            return rehearse
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Query and control agent-init: process 1 of this container, or the agent-init that this process runs below."
    "\n\n`check` and `rehearse` need no running agent-init: they show beforehand what a stop will do.",
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version", prog_name=main.NAME, message="%(prog)s %(version)s")
def group() -> None:
    """Group the commands."""


@group.command("status", short_help="Print the state of the agent and of a stop.")
@_common
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as docs/operate.md describes it.")
@click.option("--watch", is_flag=True, help="Print the state every second; on a terminal, in place.")
def _status(pid: int | None, timeout: float, as_json: bool, watch: bool) -> int:
    """Print the state of the agent and of a stop: the state, since when, and what comes next.

    With --watch the exit code is 0 when that agent-init has ended.
    """
    target = find(pid)
    shown = False
    while True:
        try:
            text = read(partial(status.text, pid=target, as_json=as_json), target, timeout)
        except Failure:
            if shown and search.ends(target):
                return 0
            raise
        shown = True
        if watch and sys.stdout.isatty():
            text = "\x1b[H\x1b[2J" + text  # home, clear (ECMA-48)
        print(text, flush=True)
        if not watch:
            return 0
        time.sleep(1)


@group.command(short_help="Exit with 0 if the agent is ready, with 1 if not.")
@_common
def ready(pid: int | None, timeout: float) -> int:
    """Exit with 0 if the agent has sent READY=1 and no stop was requested, with 1 if not. For an exec probe."""
    return probes.ready(pid, timeout)


@group.command(short_help="Exit with 0 if no hang was detected, with 1 if one was.")
@_common
def live(pid: int | None, timeout: float) -> int:
    """Exit with 0 if no hang was detected (--watchdog, --ready-timeout), with 1 if one was. For an exec probe."""
    return probes.live(pid, timeout)


@group.command(short_help="Request a stop, as TERM does.")
@_common
@click.option("--wait", is_flag=True, help="Print the log of the stop until the stop ends, or until --timeout.")
@click.option("--grace", type=Duration(), metavar="DURATION", help="The grace of this stop, if it has not begun.")
def stop(pid: int | None, timeout: float, wait: bool, grace: float | None) -> int:
    """Request a stop, as TERM does. With --wait, for a preStop hook, --timeout limits the whole stop, if it is given.

    If process 1 ends, its PID namespace ends with it, and so does this command: exit code 137 is normal then.
    """
    given = click.get_current_context().get_parameter_source("timeout")
    limited = given is not None and given.name != "DEFAULT"
    end = time.monotonic() + timeout if limited else None
    fields = {"WAIT": "1"} if wait else {}
    if grace is not None:
        fields["GRACE"] = f"{grace:.3f}"
    target = find(pid)
    connection = Follower(target, timeout, end) if wait else Connection(target, timeout)
    accepted = False
    try:
        for kind, data in connection.ask("stop", **fields):
            accepted = True
            if kind == control.DONE:
                return 0
            _put(data)
    except TimeoutError:
        limit = units.format_duration(timeout)
        if not accepted:
            raise Failure(f"agent-init (pid {target}) does not answer within {limit}") from None
        raise Failure(f"the stop has not ended within {limit}; it goes on", 1) from None
    if wait:
        raise Failure("the connection has ended before the stop", 1)
    return 0


@group.command(short_help="Give a stop in progress more time.")
@_common
@click.argument("duration", type=MoreThanZero(), metavar="DURATION")
def extend(pid: int | None, timeout: float, duration: float) -> int:
    """Give a stop in progress DURATION more time, at most up to --max-grace."""
    return _print_answer(pid, timeout, "extend", SECONDS=f"{duration:.3f}")


@group.command("signal", short_help="Act as if process 1 had received a signal.")
@_common
@click.argument("signal", type=Signal(), metavar="SIG")
def _signal(pid: int | None, timeout: float, signal: int) -> int:
    """Act as if process 1 had received SIG: forward it, rewrite it, drop it, or take it as a stop request."""
    return _print_answer(pid, timeout, "signal", SIGNAL=str(signal))


@group.command(short_help="Print a stall report now.")
@_common
@click.option("--tasks", is_flag=True, help="Print every task of the agent's event loops, too.")
def report(pid: int | None, timeout: float, tasks: bool) -> int:
    """Print a stall report, what the processes below agent-init are doing now, and change nothing.

    It takes no longer than --timeout, and waits half of that for the stacks of processes that do not answer.
    """
    end = time.monotonic() + timeout
    request = read(lambda fields: dict(json.loads(fields["REQUEST"])), find(pid), timeout, "report")
    return reports.make(request, max(0.0, end - time.monotonic()), tasks=tasks)


@group.command(short_help="Print the last lines of agent-init's log as JSON.")
@_common
@click.option("--follow", "-f", is_flag=True, help="Then print new lines as they come.")
def events(pid: int | None, timeout: float, follow: bool) -> int:
    """Print the last lines of agent-init's log as JSON, 64 KiB at most."""
    target = find(pid)
    connection = Follower(target, timeout, None) if follow else Connection(target, timeout)
    for _, data in connection.ask("events", **({"FOLLOW": "1"} if follow else {})):
        _put(data)
    return 0


@group.command(short_help="Find in files what will go wrong at a stop.")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "github", "sarif")),
    default="text",
    help="Lines for people (text, the default), one JSON object (json), GitHub's workflow commands (github), or SARIF "
    "2.1.0 (sarif).",
)
def check(files: tuple[str, ...], form: str) -> int:
    """Read the files that start a container, and report what will go wrong at a stop; docs/check.md has the rules.

    FILE is a Dockerfile, a Compose file, Kubernetes objects, an ECS task definition or fly.toml; `-` is stdin. Files
    that are given together are checked together. The exit code is 1 if there is an error or a warning, else 0. It
    needs `pip install 'agent-init[check]'`.
    """
    from ..check import command

    return command.run(files, form)


def _print_answer(pid: int | None, timeout: float, command: str, **fields: str) -> int:
    for _, data in Connection(find(pid), timeout).ask(command, **fields):
        _put(data)
    return 0


def _put(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code."""
    if os.environ.get(COMPLETE_VARIABLE):
        try:
            group.main(list(arguments), prog_name=main.NAME, complete_var=COMPLETE_VARIABLE)
        except SystemExit as end:
            return int(end.code or 0)
    try:
        code = group.main(list(arguments), prog_name=main.NAME, standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return main.OWN_FAULT
    except click.ClickException as error:
        return main.fail(_one_line(error))
    except click.Abort:
        return 130


def _one_line(error: click.ClickException) -> str:
    """Return the message, with what is accepted: the commands in place of an unknown one, else the command's usage."""
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if "accepted: " in text:
        return text
    if context is None:
        return f"{text}; all options: {main.NAME} COMMAND --help"
    if context.command is group:
        return f"{text}; accepted: {', '.join(group.list_commands(context))}; all options: {main.NAME} --help"
    return f"{text}; {' '.join(context.get_usage().split())}".replace("; Usage: ", "; usage: ")
