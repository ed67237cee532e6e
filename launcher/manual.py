"""The man pages of both commands, made from their click definitions: `python launcher/manual.py DIRECTORY`.

The pages are for the `man` macros (groff_man(7)), with nothing that mandoc(1) would not understand.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTATION = "https://github.com/agent-init/agent-init/tree/main/docs"
SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}  # groff_char(7)


def pages() -> dict[str, str]:
    """Return the man page of each command, by the name of its file."""
    sys.path.insert(0, str(ROOT))
    try:
        from entrypoint import __version__, cli
        from entrypoint.ctl import commands, main
    finally:
        sys.path.remove(str(ROOT))
    both = {cli.NAME: cli.command(), main.NAME: commands.group}
    return {
        f"{name}.1": "\n".join(_page(name, command, __version__, both.keys() - {name})) + "\n"
        for name, command in both.items()
    }


def _page(name: str, command: click.Command, version: str, others: Iterable[str]) -> Iterator[str]:
    context = click.Context(command, info_name=name, **command.context_settings)
    purpose, description = _parts(command.help or "")
    yield f'.TH {_text(name.upper())} 1 {_date()} "agent\\-init {version}" "User Commands"'
    yield from (".SH NAME", rf"{_text(name)} \- {_text(purpose)}")
    yield from (".SH SYNOPSIS", *_synopsis(context))
    yield from (".SH DESCRIPTION", *_paragraphs(description))
    yield from (".SH OPTIONS", *_options(context, command.get_params(context)))
    if isinstance(command, click.Group):
        yield from _commands(context, command)
    if command.epilog:
        _, _, codes = command.epilog.partition(": ")
        yield ".SH EXIT STATUS"
        yield from _paragraphs("\n\n".join(f"{code[0].upper()}{code[1:]}." for code in codes.rstrip(".").split("; ")))
    yield ".SH SEE ALSO"
    yield from (f".BR {_text(other)} (1)," for other in sorted(others))
    yield from (".UR " + DOCUMENTATION, "The documentation", ".UE")


def _commands(context: click.Context, group: click.Group) -> Iterator[str]:
    """Yield a section for the commands, and one for the options that most of them have."""
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    commands = {name: command for name, command in found.items() if command is not None}
    flags = {name: {tuple(parameter.opts) for parameter in command.params} for name, command in commands.items()}
    every = [opts for of_one in flags.values() for opts in of_one]
    common = {opts for opts in every if every.count(opts) > len(commands) / 2}
    others = [name for name in commands if not common <= flags[name]]
    yield ".SH COMMANDS"
    for name, command in commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        words = [piece for piece in command.collect_usage_pieces(inner) if piece != "[OPTIONS]"]
        yield from (".TP", _bold(name, words))
        paragraphs = (command.help or "").split("\n\n")
        yield _text(_one_line(paragraphs[0]))
        for paragraph in paragraphs[1:]:
            yield from (".IP", _text(_one_line(paragraph)))
        own = [parameter for parameter in command.params if tuple(parameter.opts) not in common]
        if any(isinstance(parameter, click.Option) for parameter in own):
            yield from (".RS", *_options(inner, own), ".RE")
    first = next(command for name, command in commands.items() if name not in others)
    yield from (".SH COMMON OPTIONS",)
    if others:
        yield _text(f"Of every command but {' and '.join(others)}.")
    shared = [parameter for parameter in first.params if tuple(parameter.opts) in common]
    yield from _options(click.Context(first), shared)


def _options(context: click.Context, parameters: Iterable[click.Parameter]) -> Iterator[str]:
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is None or isinstance(parameter, click.Argument):
            continue
        flags, text = record
        words = (part.split(" ") for part in flags.split(", "))
        yield from (".TP", ", ".join(_bold(first, rest) for first, *rest in words), _text(_one_line(text)))


def _synopsis(context: click.Context) -> Iterator[str]:
    yield _bold(context.info_name or "", context.command.collect_usage_pieces(context))


def _bold(first: str, rest: Iterable[str]) -> str:
    """Return a line whose first word is bold and whose others are in italics, as of an option and its value."""
    return " ".join([rf"\fB{_text(first)}\fP", *(rf"\fI{_text(word)}\fP" for word in rest)])


def _parts(text: str) -> tuple[str, str]:
    """Return what the command is for, without a capital and a full stop, and all of the text."""
    first = re.split(r"[.:]\s", _one_line(text), maxsplit=1)[0]
    return first[0].lower() + first[1:], text


def _paragraphs(text: str) -> Iterator[str]:
    first, *others = text.split("\n\n")
    yield _text(_one_line(first))
    for paragraph in others:
        yield from (".PP", _text(_one_line(paragraph)))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Return the text so that no character of it has a meaning for roff."""
    escaped = "".join(SPECIAL.get(character, character) for character in text)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def _date() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))


def write(directory: Path) -> list[Path]:
    """Write the pages into a directory; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, text in pages().items():
        files.append(directory / name)
        files[-1].write_text(text)
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]))
