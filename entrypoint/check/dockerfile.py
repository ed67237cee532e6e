"""A reader for Dockerfiles that keeps line numbers (https://docs.docker.com/reference/dockerfile/).

It knows comments, continued lines, the `escape` directive, here-documents, and the exec form. It does not expand
variables: a text with a `$` is left as it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .source import Place, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INSTRUCTIONS = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME "
    "WORKDIR".split()
)
DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*$")
HEREDOC = re.compile(r"<<(-?)\s*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\2")
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Instruction:
    """An instruction, in capitals, with the rest of its text on one line. `place`: where it begins."""

    name: str
    text: str
    place: Place

    @property
    def word(self) -> str:
        """Return the text without the quotes around it."""
        return "".join(words(self.text)[:1])

    @property
    def on_build(self) -> Instruction | None:
        """Return what an ONBUILD has the stages do that are built on this one."""
        name, rest = _name_and_rest(self.text)
        return Instruction(name.upper(), rest.strip(), self.place) if self.name == "ONBUILD" else None

    @property
    def array(self) -> tuple[str, ...] | None:
        """Return the words of the exec form; None where it is the shell form: then it is not an array in JSON."""
        if not self.text.startswith("["):
            return None
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return tuple(found) if isinstance(found, list) and all(isinstance(word, str) for word in found) else None


@dataclass
class Stage:
    """A build stage. `base`: an image, or the name of an earlier stage. `name`: as in `FROM base AS name`."""

    base: str
    name: str
    place: Place
    instructions: list[Instruction] = field(default_factory=list)

    def run_on(self, base: Stage | None) -> list[Instruction]:
        """Return the instructions, after those that the stage below leaves to this one."""
        left = [made.on_build for made in base.instructions] if base else []
        return [*(made for made in left if made is not None), *self.instructions]


@dataclass(frozen=True)
class Dockerfile:
    """The stages of a file, with the values that its ARGs before the first FROM have by default."""

    file: str
    stages: tuple[Stage, ...]
    arguments: dict[str, str]

    def chain(self, target: str | None = None) -> tuple[Stage, ...]:
        """Return a stage and those that it is built on, the base first; the last stage without a target."""
        wanted = [number for number, stage in enumerate(self.stages) if target in (stage.name, str(number))]
        number = wanted[-1] if target and wanted else len(self.stages) - 1
        found = [self.stages[number]]
        while True:
            base = self.image_of(found[0]).lower()
            earlier = [index for index in range(number) if self.stages[index].name.lower() == base]
            if not earlier:
                return tuple(found)
            number = earlier[-1]
            found.insert(0, self.stages[number])

    def image_of(self, stage: Stage) -> str:
        """Return the image that a stage is built on, with the defaults of the ARGs in it.

        An ARG without a default is left as it is.
        """
        text = stage.base
        for _ in range(5):  # an ARG may have another one in it, and two may have each other
            if "$" not in text:
                break
            text = VARIABLE.sub(self._value, text)
        return text

    def _value(self, match: re.Match[str]) -> str:
        """Return the value of an ARG; the text as it is if it has none."""
        value = self.arguments.get(match[1] or match[3])
        return value or (match[2] if match[2] is not None else value if value is not None else match[0])


def looks_like_one(text: str) -> bool:
    """Whether a text begins as a Dockerfile does: comments, ARGs, and a FROM."""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first, rest = _name_and_rest(line)
        if first.upper() == "FROM":
            return bool(rest) and not rest.startswith(("=", ":"))
        if first.upper() != "ARG":
            return False
    return False


def read(file: str, text: str) -> Dockerfile:
    """Return what a Dockerfile says. Raises Unreadable."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for made in _instructions(file, text):
        if made.name not in INSTRUCTIONS:
            raise Unreadable(made.place, f"not a Dockerfile: unknown instruction {made.name[:40]!r}")
        if made.name == "FROM":
            stages.append(_stage(made))
        elif stages:
            stages[-1].instructions.append(made)
        elif made.name == "ARG":
            for word in words(made.text):
                name, equals, value = word.partition("=")
                arguments.update({name: value} if equals else {})
        else:
            raise Unreadable(made.place, f"not a Dockerfile: {made.name} before the first FROM")
    if not stages:
        raise Unreadable(Place(file, 1), "not a Dockerfile: it has no FROM")
    return Dockerfile(file, tuple(stages), arguments)


def _stage(made: Instruction) -> Stage:
    parts = [word for word in made.text.split() if not word.startswith("--")]
    if not parts:
        raise Unreadable(made.place, "not a Dockerfile: FROM without an image")
    name = parts[2] if len(parts) > 2 and parts[1].upper() == "AS" else ""
    return Stage(parts[0], name, made.place)


def _instructions(file: str, text: str) -> Iterator[Instruction]:
    lines = text.split("\n")
    escape = _escape(lines)
    number = 0
    while number < len(lines):
        first = number
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        pieces = []
        while line.endswith(escape):
            pieces.append(line[: -len(escape)])
            while number < len(lines) and (not (next_line := lines[number].strip()) or next_line.startswith("#")):
                number += 1
            line = lines[number].strip() if number < len(lines) else ""
            number += 1
        pieces.append(line)
        name, rest = _name_and_rest(" ".join(piece.strip() for piece in pieces if piece.strip()))
        made = Instruction(name.upper(), rest.strip(), Place(file, first + 1))
        if made.name in ("RUN", "COPY", "ADD", "CMD", "ENTRYPOINT") and made.array is None:
            rest, number = _with_heredocs(rest, lines, number)
            made = replace(made, text=rest.strip())
        yield made


def _name_and_rest(text: str) -> tuple[str, str]:
    """Return the first word of a text, and what is after the spaces or tabs behind it."""
    name, rest = [*text.split(None, 1), "", ""][:2]
    return name, rest


def _with_heredocs(rest: str, lines: Sequence[str], number: int) -> tuple[str, int]:
    """Return the text with its here-documents, and the number of the line after them."""
    for match in list(HEREDOC.finditer(rest)):
        mark = match[3]
        ends = (index for index in range(number, len(lines)) if _ends(lines[index], mark, indented=bool(match[1])))
        end = next(ends, None)
        if end is None:
            return rest, number
        body = "\n".join(lines[number:end])
        rest, number = (f"{rest}\n{body}" if rest.strip() != f"<<{mark}" else body), end + 1
    return rest, number


def _ends(line: str, mark: str, *, indented: bool) -> bool:
    """Whether a here-document ends at a line: `<<-` takes tabs before its end as well."""
    line = line.removesuffix("\r")
    return (line.lstrip("\t") if indented else line) == mark


def _escape(lines: Sequence[str]) -> str:
    for line in lines:
        match = DIRECTIVE.match(line.strip())
        if not match:
            break
        if match[1].lower() == "escape" and match[2] in ("\\", "`"):
            return match[2]
    return "\\"


def words(text: str) -> list[str]:
    """Return the words of an instruction's text, without the quotes around them."""
    found, word, quote, started = [], "", "", False
    previous = ""
    for character in text:
        if previous == "\\" and quote != "'":
            word, previous = word[:-1] + character, ""
            continue
        previous = character
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote, started = character, True
        elif not quote and character.isspace():
            if word or started:
                found.append(word)
            word, started = "", False
        else:
            word += character
    return [*found, word] if word or started else found


def variables(made: Instruction) -> dict[str, str]:
    """Return what an ENV instruction sets: `ENV A=1 B="2 3"`, or the old form `ENV A 1`."""
    parts = words(made.text)
    if parts and "=" not in parts[0]:
        name, value = _name_and_rest(made.text)
        return {name: " ".join(words(value))}
    return {name: value for name, equals, value in (part.partition("=") for part in parts) if equals}
