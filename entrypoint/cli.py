"""The click command, built from the table in `options`: help and shell completion; and what a mistake looks like.

It never starts an agent. Process 1 reads its options with `settings.read`; only where that finds something else to do
is this module imported, and the process ends with the answer. A mistake is told in the reader's own line, which names
what was typed and what is accepted, and needs no click.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import __version__, options, settings, signals
from .init.console import INFO, Console
from .init.spawn import OWN_FAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import click
    from click.shell_completion import CompletionItem

NAME = "agent-init"


def answer(arguments: Sequence[str], wanted: settings.UsageError | settings.InfoRequested) -> int:
    """Print what was asked for, or what is wrong; returns the exit code."""
    what = wanted.args[0]
    if isinstance(wanted, settings.UsageError):
        return _complain(what)
    if what == "version":
        print(f"{NAME} {__version__}", flush=True)  # what follows is os._exit
        return 0
    try:
        try:
            built = command()
        except ImportError:  # isolated, and click does not lie beside us (an editable install)
            import site

            site.main()
            built = command()
    except ImportError as error:
        return _complain(f"help and completion need click: {error}; install agent-init with its dependencies")
    given = list(arguments) if what == "complete" else ["--help"]
    try:
        built.main(given, prog_name=NAME, complete_var=settings.COMPLETE_VARIABLE)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _complain(text: str) -> int:
    """One line, whatever was typed; where nobody reads it, the exit code tells."""
    Console(2).log(INFO, "usage", text)
    return OWN_FAULT


def command() -> click.Command:
    """The command, with the parameters that the table makes. Raises ImportError when click is not there."""
    import click

    return click.Command(
        NAME,
        params=[
            *(parameter for option in options.OPTIONS for parameter in _parameters(option)),
            click.Option(["-V", "--version"], is_flag=True, help="Print the version and end."),
            click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]..."),
        ],
        context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
        options_metavar="[OPTIONS] [--]",
        help="Run COMMAND as the child of process 1: forward and translate signals, stop it gracefully within a "
        "deadline, reap every orphan, and end with its exit code.\n\n"
        "Every option has an environment variable; a flag wins over it.",
        epilog="Exit codes: the agent's own, or 128 + the signal that ended it; 125 agent-init itself failed, "
        "126 COMMAND cannot be run, 127 COMMAND was not found.",
    )


def _parameters(option: options.Option) -> Iterator[click.Parameter]:
    """The option that takes a value, if it has flags that do, then one for each constant."""
    import click

    told = f"{option.help}  [env: {option.variable}" + (f"; default: {option.default}]" if option.default else "]")
    if option.flags:
        yield click.Option(
            option.flags,
            metavar=option.metavar,
            multiple=option.many,
            help=told,
            shell_complete=lambda _context, _parameter, begun: _complete(option, begun),
        )
        told = ""
    for value in dict.fromkeys(option.constants.values()):
        flags = [flag for flag, constant in option.constants.items() if constant == value]
        yield click.Option(
            [*flags, f"{option.name}_{value}"],
            is_flag=not option.counted,
            count=option.counted,
            help=told or (f"The same as {option.flags[-1]} {value}." if option.flags else "Do not."),
        )
        told = ""


def _complete(option: options.Option, begun: str) -> list[CompletionItem]:
    """What a shell may offer as the option's value."""
    from click.shell_completion import CompletionItem

    words = option.metavar.split("|") if "|" in option.metavar else ()
    if option.metavar.startswith("SIG"):
        words = sorted(signals.NUMBERS)
    return [CompletionItem(word) for word in words if word.startswith(begun)]
