"""A container with all that the rules ask about it, and what a rule returns."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .. import options, parsed, settings
from ..init import stop_steps
from ..units import INFINITY, format_duration
from . import frameworks, launch
from .from_dockerfile import has_no_entrypoint, shell_of
from .model import COMPOSE, FLY, KUBERNETES, Container, Platform
from .shell import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .launch import Shell
    from .source import Given, Place

ERROR, WARNING, NOTE = "error", "warning", "note"
MAY_START_AGENT_INIT = (".sh", ".bash")
ONE_SHOT = frozenset(
    "migrate upgrade alembic collectstatic createsuperuser makemigrations seed initdb init db:migrate build install ci "
    "test lint pytest mc psql pip flyway prisma curl wget generate compile dbt loaddata download-files".split()
)
NAMES_A_FILE = ("node", "bun", "deno")  # the word after it is a file, such as `build` of SvelteKit


@dataclass(frozen=True)
class Finding:
    """What goes wrong. `remedy`: the line to write instead, or nothing."""

    rule: str
    severity: str
    place: Place
    reason: str
    remedy: str = ""


class Case:
    """A container, the program that it runs, and agent-init's settings in it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.launch = container.launch
        self.use = frameworks.recognise(container)

    @property
    def platform(self) -> Platform:
        """Return what stops the container."""
        return self.container.platform

    @property
    def has_agent_init(self) -> bool:
        """Whether agent-init is in the command line."""
        return self.launch.agent_init is not None

    @cached_property
    def own_variables(self) -> dict[str, Given[str]]:
        """Return agent-init's variables whose values are known."""
        return {
            name: given
            for name, given in self.container.variables.items()
            if name.startswith(parsed.PREFIX) and "$" not in given.value and "{{" not in given.value
        }

    @property
    def expects_agent_init(self) -> bool:
        """Whether agent-init is there, as its variables show where the command line is not known."""
        if self.has_agent_init:
            return True
        known = any(option.variable in self.own_variables for option in options.OPTIONS)
        return known and (self.container.words is None or self.entrypoint_is_unknown)

    @property
    def entrypoint_is_unknown(self) -> bool:
        """Whether an entrypoint that is not at hand, such as agent-init, may run the command."""
        container = self.container
        given = container.entrypoint or (container.image_of.entrypoint if container.image_of else None)
        if given is not None:  # the script may be the image's own
            return bool(given.value) and given.value[0].rpartition("/")[2] == "docker-entrypoint.sh"
        return not has_no_entrypoint(container.image_of.base if container.image_of else container.image)

    @cached_property
    def settings_or_problem(self) -> parsed.Settings | str | None:
        """Return agent-init's settings, or what is wrong with them; None without agent-init."""
        if not self.expects_agent_init:
            return None
        arguments = [*(self.launch.agent_init or ())]
        if any("$" in word for word in arguments[: len(arguments) - len(launch.command_of(arguments))]):
            arguments = []
        if not launch.command_of(arguments):
            arguments = [*(word for word in arguments if word != "--"), "--", "agent"]
        try:
            return settings.read(arguments, {name: given.value for name, given in self.own_variables.items()})
        except parsed.UsageError as error:
            return str(error)
        except parsed.InfoRequested:
            return None

    @property
    def settings(self) -> parsed.Settings | None:
        """Return agent-init's settings; None if there are none, or bad ones."""
        found = self.settings_or_problem
        return found if isinstance(found, parsed.Settings) else None

    @property
    def deadline(self) -> float | None:
        """Return the seconds from the stop signal of the platform to agent-init's own SIGKILL; None: it has none."""
        if self.settings is None:
            return None
        steps = stop_steps.own_steps(self.settings)
        seconds = INFINITY if steps is None else stop_steps.seconds_to_kill(steps)
        return seconds if seconds < INFINITY else None

    def place_of(self, option: str) -> Place:
        """Return where an option of agent-init's was written."""
        variable = parsed.PREFIX + option.upper()
        source = self.settings.sources.get(option, "") if self.settings else ""
        given = self.container.variables.get(variable)
        if given is not None and (not source or source == variable):
            return given.place
        given_parts = self.written_parts[::-1] if source.startswith("-") else []
        parts = (part for part in given_parts if any(_written(source).search(word) for word in part.value))
        return next((part.place for part in parts), self.container.words_place)

    @property
    def time(self) -> tuple[float, str] | None:
        """Return how long the agent has after the stop signal, and why, as text; None if that is not known."""
        limits: list[tuple[float, str]] = []
        container = self.container
        left = container.seconds_after_hook
        if left is not None and container.seconds is not None:
            why = f"{self.platform.name} waits {format_duration(container.seconds)}"
            why += " by default" if container.grace is None else ""
            if container.hook_seconds:
                why += f", less {format_duration(container.hook_seconds)} of preStop"
            limits.append((left, why))
        if self.deadline is not None and self.settings is not None:
            limits.append((self.deadline, f"agent-init waits {format_duration(self.deadline)}"))
        if not limits:
            return None
        seconds, why = min(limits)
        delay = self.settings.stop_delay if self.settings else 0.0
        return max(0.0, seconds - delay), why + (f", less the stop delay of {format_duration(delay)}" if delay else "")

    @property
    def signals_group(self) -> bool:
        """Whether a small init signals all processes: dumb-init, `tini -g`."""
        words = iter(self.container.words or ())
        name = next((word.rpartition("/")[2] for word in words if word.rpartition("/")[2] in self.launch.inits), "")
        options = set(itertools.takewhile(lambda word: word.startswith("-"), words))
        if name == "dumb-init":
            return not options & {"-c", "--single-child"}
        return name == "tini" and "-g" in options

    @property
    def who(self) -> str:
        """Return the program's name for a sentence."""
        if self.use:
            return self.use.framework.name
        words = self.launch.program
        return " ".join(words[:2]) if self.launch.is_python and len(words) > 1 else (words or ("the program",))[0]

    @property
    def runs_once(self) -> bool:
        """Whether it is a program that ends by itself soon, such as a migration."""
        words = self.launch.program[:4]
        if words and words[0] in NAMES_A_FILE:
            words = (words[0], *words[2:])
        named = [word for before, word in zip(("", *words), words, strict=False) if not before.startswith("-")]
        return not ONE_SHOT.isdisjoint(named) or self.container.kind == "CronJob"

    @property
    def sh(self) -> str:
        """Return what `sh` is in the image: dash, bash or busybox; empty if it is not known."""
        image = self.container.image_of
        return image.shell if image else shell_of(self.container.image)

    def shell_kind(self, shell: Shell) -> str:
        """Return what a shell is: dash, bash or busybox; empty if it is not known."""
        if shell.name == "sh":
            return self.sh
        return KINDS[shell.name]

    # --- The lines to write. ----------------------------------------------------------------------------------------

    def variable_line(self, name: str, value: str, *, in_image: bool = False) -> str:
        """Return the line that sets a variable."""
        if in_image or self.platform.setting == "":
            return f"ENV {name}={value}"
        quoted = json.dumps(value) if value.isdigit() else value
        if self.platform is COMPOSE:
            return f"{name}: {quoted}"
        if self.platform is KUBERNETES:
            return f"- {{name: {name}, value: {quoted}}}"
        if self.platform is FLY:
            return f'{name} = "{value}"'
        return json.dumps({"name": name, "value": value})

    def option_line(self, option: str, value: str) -> str:
        """Return the line that sets an option of agent-init's: its flag where that is written, which wins, else its
        variable.
        """
        flag = self.settings.sources.get(option, "") if self.settings else ""
        for part in self.written_parts[::-1] if flag.startswith("-") else ():
            words = list(part.value)
            if flag in words[:-1]:
                index = words.index(flag) + 1
                return self.line_of(part, [*words[:index], value, *words[index + 1 :]])
            if any(_written(flag).search(word) for word in words):
                return self.line_of(part, [_written(flag).sub(rf"\g<1>{value}", word, count=1) for word in words])
        return self.variable_line(parsed.PREFIX + option.upper(), value)

    def grace_line(self, seconds: float) -> str:
        """Return the line that has the platform wait so long after the stop signal, or as long as it can."""
        whole = math.ceil(min(seconds + self.container.hook_seconds, self.container.maximum or INFINITY))
        texts = {COMPOSE: format_duration(whole), FLY: f'"{whole}s"'}
        return self.setting_line(self.platform.setting, texts.get(self.platform, str(whole)))

    def setting_line(self, key: str, text: str) -> str:
        """Return a line of the platform's file: TOML, YAML or JSON."""
        if self.platform is FLY:
            return f"{key} = {text}"
        return f"{key}: {text}" if self.platform in (COMPOSE, KUBERNETES) else f'"{key}": {text}'

    @property
    def written(self) -> tuple[str, ...]:
        """Return the words of the line that `command_line` replaces."""
        return next((given.value for given in self.written_parts if given.value), ())

    @property
    def written_parts(self) -> list[Given[tuple[str, ...]]]:
        """Return the parts of the command line that were written, the last one first."""
        container, image = self.container, self.container.image_of
        parts = [container.command, container.entrypoint]
        parts += [image.command, image.entrypoint] if image and container.entrypoint is None else []
        return [part for part in parts if part is not None]

    def command_line(self, words: Sequence[str]) -> str:
        """Return the line that sets the command, in the file where it is written now."""
        return self.line_of(next((part for part in self.written_parts if part.value), None), words)

    def line_of(self, part: Given[tuple[str, ...]] | None, words: Sequence[str]) -> str:
        """Return the line that sets a part of the command line, in the file where it is written now."""
        container, text = self.container, json.dumps(list(words))
        if part is not None and part is container.command:
            if self.platform is FLY and container.name:  # a process: it has a text, and no array
                return self.setting_line(container.name, json.dumps(shlex.join(words)))
            return self.setting_line({KUBERNETES: "args", FLY: "cmd"}.get(self.platform, "command"), text)
        if part is container.entrypoint and part is not None:
            return self.entrypoint_line(words)
        return ("CMD " if container.image_of and part is container.image_of.command else "ENTRYPOINT ") + text

    def replaced(self, word: str, *words: str) -> str:
        """Return the line that has other words in the place of one; nothing if that is in no part as it is written."""
        for part in self.written_parts:
            given = list(part.value)
            if word in given:
                index = len(given) - 1 - given[::-1].index(word)
                return self.line_of(part, [*given[:index], *words, *given[index + 1 :]])
            inner = re.compile(rf"(?<!\S){re.escape(word)}(?!\S)")
            if any(inner.search(text) for text in given):
                return self.line_of(part, [inner.sub(shlex.join(words), text) for text in given])
        return ""

    @property
    def entrypoint_key(self) -> str:
        """Return what sets the entrypoint in the platform's file."""
        return {KUBERNETES: "command", COMPOSE: "entrypoint", FLY: "entrypoint"}.get(self.platform, "entryPoint")

    def entrypoint_line(self, words: Sequence[str]) -> str:
        """Return the line that sets the entrypoint, in the platform's file."""
        return self.setting_line(self.entrypoint_key, json.dumps(list(words)))


def _written(flag: str) -> re.Pattern[str]:
    """Return a pattern for a flag of agent-init's with its value (a group before that), in a word or a shell's line."""
    between = r"(?:=| +)" if flag.startswith("--") else r"(?: +|=|(?=\d))"
    return re.compile(rf"((?<!\S){re.escape(flag)}(?:{between}|$))(?:[^\s]*)")
