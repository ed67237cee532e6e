"""Help, the version, shell completion and usage errors.

The click command is built from the table in `options`. It never starts an agent: process 1 reads its options with
`settings.read`, and imports this module only if there is no agent to start. The process then prints the answer and
exits. A usage error needs no click: it is printed as the one line that the reader raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import __version__, options, parsed, settings, signals
from .init.console import INFO, Console
from .init.spawn import OWN_FAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import click
    from click.shell_completion import CompletionItem

NAME = "agent-init"


def answer(arguments: Sequence[str], wanted: parsed.UsageError | parsed.InfoRequested) -> int:
    """Print what was asked for, or the usage error. Returns the exit code."""
    if isinstance(wanted, parsed.UsageError):
        return _print_error(wanted.args[0])
    try:
        return _print(wanted.args[0], arguments)
    except BrokenPipeError:  # the reader has seen enough
        return 1
    except OSError as error:  # such as a full disk behind stdout
        return _print_error(f"cannot write to stdout: {error.strerror}")


def _print(what: str, arguments: Sequence[str]) -> int:
    """Print the help, the version or completions. Returns the exit code. Raises OSError."""
    if what == "version":
        print(f"{NAME} {__version__}", flush=True)  # the caller ends with posix._exit, which flushes nothing
        return 0
    try:
        try:
            built = command()
        except ImportError:  # python -I -S, and click is in another directory (an editable install)
            import site

            site.main()
            built = command()
    except ImportError as error:
        return _print_error(f"help and completion need click: {error}; install agent-init with its dependencies")
    given = list(arguments) if what == "complete" else ["--help"]
    try:
        built.main(given, prog_name=NAME, complete_var=settings.COMPLETE_VARIABLE)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _print_error(text: str) -> int:
    """Print one line, if stderr takes it. Returns the exit code."""
    Console(2).log(INFO, "usage", text)
    return OWN_FAULT


def command() -> click.Command:
    """Return the click command for the table of options. Raises ImportError if click is not installed."""
    import click

    return click.Command(
        NAME,
        params=[
            *(parameter for option in options.OPTIONS for parameter in _parameters(option)),
            click.Option(["-V", "--version"], is_flag=True, help="Show the version and exit."),
            click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."),
        ],
        context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
        options_metavar="[OPTIONS] [--]",
        help="Run COMMAND as the child of process 1. Forward and translate signals, stop COMMAND gracefully within a "
        "deadline, reap every orphan, and exit with the exit code of COMMAND.\n\n"
        "Option parsing stops at the first non-option or at --. Each option has an environment variable; a flag wins "
        "over it. A DURATION is 25s, 1m30s, 500ms, 2h, a number of seconds or infinity; a SIG is TERM, SIGTERM, 15 or "
        "RTMIN+3.",
        epilog="Exit codes: the agent's own, or 128 + the signal that killed it; 134 if the agent hung but exited 0; "
        "125 if agent-init itself failed; 126 if COMMAND cannot be run; 127 if COMMAND was not found.",
    )


def _parameters(option: options.Option) -> Iterator[click.Parameter]:
    """Yield a parameter for the flags that take a value, if there are any, then one for each constant."""
    import click

    help_text = f"{option.help}  [env: {option.variable}" + (f"; default: {option.default}]" if option.default else "]")
    if option.flags:
        yield click.Option(
            option.flags,
            metavar=option.metavar,
            multiple=option.many,
            help=help_text,
            shell_complete=lambda _context, _parameter, begun: _complete(option, begun),
        )
        help_text = ""
    for value in dict.fromkeys(option.constants.values()):
        flags = [flag for flag, constant in option.constants.items() if constant == value]
        yield click.Option(
            [*flags, f"{option.name}_{value}"],
            is_flag=not option.counted,
            count=option.counted,
            help=help_text or (f"The same as {option.flags[-1]} {value}." if option.flags else "Turn this off."),
        )
        help_text = ""


def _complete(option: options.Option, begun: str) -> list[CompletionItem]:
    """Return the values of the option that begin with `begun`, for a shell to offer."""
    from click.shell_completion import CompletionItem

    values = option.metavar.split("|") if "|" in option.metavar else ()
    if option.metavar.startswith("SIG"):
        values = [*sorted(signals.NUMBERS), *values[1:]]
    return [CompletionItem(value) for value in values if value.startswith(begun)]
