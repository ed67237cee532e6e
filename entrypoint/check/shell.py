"""What a shell does with a line such as `cd /app && python agent.py`: which program it runs, and whether it stays.

Which shells replace themselves by the last program was tried (Debian 12): dash 0.5.12 never does. bash 5.2 does after
`;`, `&&` and `||`, but not for a pipe, a redirection, a background job or a trap for EXIT. busybox 1.35, ksh93 and
zsh 5.9 do even then, but not for a pipe or a trap for EXIT. All of them do so for `exec`.

A line with anything else (loops, functions, here-documents) is not understood, and no rule says anything about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# What each is like; what `sh` is depends on the image.
KINDS = {"bash": "bash", "dash": "dash", "ksh": "busybox", "ash": "busybox", "busybox": "busybox", "zsh": "busybox"}
SHELLS = frozenset(("sh", *KINDS))
STAYS, REPLACED, MAYBE = "stays", "is replaced", "may stay"
# They end at once, or only wait: none of them is the program that the container is for.
ASIDE = frozenset(
    "true false : exit echo printf sleep wait tail cd export set source . test [ mkdir chmod chown cat ls umask trap "
    "kill date env unset ulimit eval read rm cp mv ln touch".split()
)
FEEDERS = ASIDE | frozenset("yes seq envsubst".split())  # at the head of a pipe: the program is behind them
COMPOUND = frozenset("if then else elif fi for while until do done case esac select function { } ! [[ (( time".split())
PIPES = ("|", "|&")
REDIRECTION = re.compile(r"(&>>?|>>?&?|<&?|>\|)\s*([^\s;&|<>()]*|&\d)")
ESCAPED = re.compile(r'\\([$`"\\\n])')  # inside double quotes
OPERATORS = re.compile(r"&&|\|\||\|&|;;|[;&|\n()]")


@dataclass
class Command:
    """A simple command: its words and where each begins, the operator after it, and whether it has a redirection."""

    words: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    after: str = ""
    is_redirected: bool = False

    @property
    def name(self) -> str:
        """Return the program's name, without its directory and without `exec`."""
        return self.argv[0].rpartition("/")[2] if self.argv else ""

    @property
    def is_exec(self) -> bool:
        """Whether the shell is told to replace itself by it."""
        return self.bare[:1] == ["exec"] and len(self.bare) > 1

    @property
    def is_compound(self) -> bool:
        """Whether it is a part of a loop or the like."""
        return self.bare[:1] != [] and self.bare[0] in COMPOUND

    @property
    def bare(self) -> list[str]:
        """Return the words without the assignments before them."""
        found = list(self.words)
        while found and re.match(r"[A-Za-z_]\w*=", found[0]):
            del found[0]
        return found

    @property
    def argv(self) -> list[str]:
        """Return what is run."""
        found = self.bare
        while found[:1] in (["exec"], ["command"], ["builtin"]):
            del found[0]
            while found and found[0].startswith("-") and len(found[0]) == 2:
                del found[0 : 2 if found[0] == "-a" else 1]
        return found


@dataclass(frozen=True)
class Line:
    """A line that is understood. `main`: the index of the command that the container is for."""

    text: str
    commands: tuple[Command, ...]
    main: int

    @property
    def program(self) -> Command:
        """Return the command that the container is for."""
        return self.commands[self.main]

    @property
    def background(self) -> list[Command]:
        """Return the commands that are started in the background, but for those that end at once."""
        return [made for made in self.commands if made.after == "&" and made.name and made.name not in ASIDE]

    @property
    def is_piped(self) -> bool:
        """Whether the output of the main command goes into another program."""
        return self.program.after in PIPES

    @property
    def is_in_pipe(self) -> bool:
        """Whether the main command is a part of a pipe, its last one included."""
        before = self.commands[self.main - 1].after if self.main else ""
        return self.is_piped or before in PIPES

    @property
    def has_trap(self) -> bool:
        """Whether the shell handles signals itself."""
        return any(made.name == "trap" for made in self.commands)

    @property
    def has_pipefail(self) -> bool:
        """Whether the exit code of a pipe is that of the part that failed."""
        return any(made.name == "set" and "pipefail" in made.words for made in self.commands)

    @property
    def waits(self) -> bool:
        """Whether it ends with `wait`: then all that matters is in the background."""
        return self.commands[-1].name == "wait"

    @property
    def with_exec(self) -> str | None:
        """Return the line with `exec` before the main command; None if another command follows that."""
        program = self.program
        if self.main != len(self.commands) - 1 or self.is_in_pipe or program.after == "&":
            return None
        start = program.starts[len(program.words) - len(program.bare)]
        return f"{self.text[:start]}exec {self.text[start:]}"

    def fate(self, shell: str) -> str:
        """Return what becomes of the shell while the main command runs: STAYS, REPLACED, or MAYBE.

        `shell`: dash, bash, busybox; empty if it may be any of these.
        """
        last = self.main == len(self.commands) - 1
        if self.program.is_exec and not self.is_in_pipe:
            return REPLACED
        traps_exit = any(made.name == "trap" and {"EXIT", "0"} & set(made.words[2:]) for made in self.commands)
        if not last or self.is_in_pipe or traps_exit or self.program.after == "&" or shell == "dash":
            return STAYS
        if shell == "bash":
            background = any(made.after == "&" for made in self.commands)
            return STAYS if background or self.program.is_redirected else REPLACED
        return REPLACED if shell == "busybox" else MAYBE


def understand(text: str) -> Line | None:
    """Return what a shell's line does; None if it is not understood."""
    commands = split(text)
    if not commands:
        return None
    for made in commands:
        if made.is_compound or made.after in ("(", ")", ";;"):
            return None
    candidates = [index for index, made in enumerate(commands) if made.name and made.name not in ASIDE]
    front = [index for index in candidates if commands[index].after != "&"]
    if not candidates:
        return None
    main = (front or candidates)[-1]
    while main and commands[main - 1].after in PIPES:  # the first part of a pipe does the work
        main -= 1
    while commands[main].name in FEEDERS and commands[main].after in PIPES and main + 1 < len(commands):
        main += 1
    if commands[main].name in ASIDE or commands[-1].after in PIPES:
        return None
    return Line(text, tuple(commands), main)


def split(text: str) -> list[Command] | None:
    """Return the simple commands of a line; None if a part of it is not understood."""
    if "<<" in text or "`" in text:
        return None
    commands, pieces, index, first = [Command()], list[str](), 0, 0  # pieces: of the word that is read

    def end_word() -> None:
        if pieces:
            commands[-1].words.append("".join(pieces))
            commands[-1].starts.append(first)
            pieces.clear()

    while index < len(text):
        first = first if pieces else index
        character = text[index]
        if character == "\\" and index + 1 < len(text):
            pieces += [text[index + 1]] if text[index + 1] != "\n" else []  # else the line goes on
            index += 2
        elif character in "'\"" or text[index : index + 2] in ("$(", "${"):
            end = _end_of_quotes(text, index) if character != "$" else _end_of_expansion(text, index + 1)
            if end is None:
                return None
            pieces.append(_unquoted(text[index : end + 1]))
            index = end + 1
        elif match := REDIRECTION.match(text, index):
            if "".join(pieces).isdigit():  # a descriptor
                pieces.clear()
            end_word()
            commands[-1].is_redirected = True
            index = match.end()
        elif operator := OPERATORS.match(text, index):
            end_word()
            _end_command(commands, operator[0])
            index = operator.end()
        elif character.isspace():
            end_word()
            index += 1
        elif character == "#" and not pieces:
            end = text.find("\n", index)
            index = len(text) if end < 0 else end
        else:
            pieces.append(character)
            index += 1
    end_word()
    return [made for made in commands if made.words or made.is_redirected or made.after in ("(", ")", ";;")]


def _unquoted(text: str) -> str:
    """Return what a shell makes of a text in quotes; an expansion stays as it is."""
    if text[0] == '"':
        return ESCAPED.sub(lambda match: match[1].strip("\n"), text[1:-1])
    return text[1:-1] if text[0] == "'" else text


def _end_command(commands: list[Command], operator: str) -> None:
    operator = ";" if operator == "\n" else operator
    if not commands[-1].words and not commands[-1].is_redirected and operator == ";":
        return
    commands[-1].after = operator
    commands.append(Command())


def _end_of_quotes(text: str, start: int) -> int | None:
    quote, index = text[start], start + 1
    while index < len(text):
        if text[index] == "\\" and quote == '"':
            index += 1
        elif text[index] == quote:
            return index
        index += 1
    return None


def _end_of_expansion(text: str, start: int) -> int | None:
    closing, depth = {"(": ")", "{": "}"}[text[start]], 0
    for index in range(start, len(text)):
        depth += (text[index] == text[start]) - (text[index] == closing)
        if not depth:
            return index
    return None
