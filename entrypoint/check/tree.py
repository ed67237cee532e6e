"""YAML, JSON and TOML as one kind of tree that knows the line of each key.

YAML is only composed, never constructed: no tag is resolved, and no object is made of one. An alias is the same node
again, so a small file cannot grow, and a file that refers to itself ends. TOML is read by the standard library, which
keeps no lines: each statement is parsed once more by itself.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import source
from .source import Given, Place, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUE, FALSE = ("true", "yes", "on", "y"), ("false", "no", "off", "n")
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|' r"'''.*?'''|" r'"(?:\\.|[^"\\\n])*"|' r"'[^'\n]*'|#[^\n]*|[\[\]{}\n]", re.DOTALL
)
TOO_DEEP = "it is nested too deeply to be read"


@dataclass(eq=False)
class Node:
    """A scalar (text), a sequence (list), a mapping (dict), or nothing (None): then it is false.

    `place` is the line of the key, or that of the item of a sequence. `plain`: a scalar without quotes. What is not
    there is a node that is nothing, with the place of the nearest node that is.
    """

    place: Place
    value: str | list[Node] | dict[str, Node] | None = None
    plain: bool = True

    def __bool__(self) -> bool:
        return self.value is not None

    def __getitem__(self, key: str) -> Node:
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return found if found is not None else Node(self.place)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.value if isinstance(self.value, list) else ())

    def items(self) -> list[tuple[str, Node]]:
        """Return the keys and values of a mapping; of anything else nothing."""
        return list(self.value.items()) if isinstance(self.value, dict) else []

    @property
    def text(self) -> str | None:
        """Return a scalar's text; None for anything else."""
        return self.value if isinstance(self.value, str) else None

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.value, dict)

    @property
    def given(self) -> Given[str] | None:
        """Return a scalar's text with its place."""
        return Given(self.value, self.place) if isinstance(self.value, str) else None

    @property
    def number(self) -> Given[float] | None:
        """Return a finite number that is written as one, with its place."""
        seconds = source.number(self.value) if isinstance(self.value, str) else None
        return None if seconds is None else Given(seconds, self.place)

    @property
    def switch(self) -> Given[bool] | None:
        """Return a truth value, with its place. Compose and Kubernetes take those of YAML 1.1."""
        text = self.value.lower() if isinstance(self.value, str) else ""
        return Given(text in TRUE, self.place) if text in TRUE + FALSE else None

    @property
    def words(self) -> Given[tuple[str, ...]] | None:
        """Return the texts of a sequence, with its place; None if it is none, or has anything but scalars."""
        if not isinstance(self.value, list):
            return None
        texts = [item.text for item in self.value]
        found = tuple(text for text in texts if text is not None)
        return Given(found, self.place) if len(found) == len(texts) else None


# --- YAML and JSON. ---------------------------------------------------------------------------------------------------


def read_yaml(file: str, text: str) -> list[Node]:
    """Return a tree for each document of a YAML or JSON text. Raises Unreadable."""
    import yaml  # the extra `agent-init[check]`; the command has looked whether it is there

    if text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")  # JSON has tabs between its values only, and PyYAML takes none there
    try:
        return [_of_yaml(file, node, {}) for node in yaml.compose_all(text, Loader=yaml.SafeLoader)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else min(mark.line + 1, max(1, len(text.splitlines())))
        hint = "; is it a template? check the output of `helm template`" if "{{" in text else ""
        raise Unreadable(Place(file, line), f"not YAML: {error.problem or error.context}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, max(0, error.position)) + 1
        raise Unreadable(Place(file, line), f"not YAML: {error.reason}") from None
    except RecursionError:
        raise Unreadable(Place(file, 1), TOO_DEEP) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(Place(file, 1), f"not YAML: {error}") from None


def _of_yaml(file: str, node: Any, known: dict[int, Node]) -> Node:
    import yaml

    if id(node) in known:
        return known[id(node)]
    made = known[id(node)] = Node(Place(file, 1 if node is None else node.start_mark.line + 1))
    if isinstance(node, yaml.ScalarNode):
        made.plain = node.style is None
        is_null = made.plain and node.value in ("", "~", "null", "Null", "NULL")
        made.value = None if is_null else node.value
    elif isinstance(node, yaml.SequenceNode):
        made.value = [_of_yaml(file, item, known) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        made.value = _mapping(file, node, known)
    return made


def _mapping(file: str, node: Any, known: dict[int, Node]) -> dict[str, Node]:
    own: dict[str, Node] = {}
    merged: dict[str, Node] = {}
    for key, value in node.value:
        name, read = _of_yaml(file, key, known), _of_yaml(file, value, known)
        if name.text == "<<" and name.plain:
            for other in reversed(list(read) or [read]):  # of several the first one wins
                merged.update(other.items())
        elif name.text is not None:
            own[name.text] = replace(read, place=Place(file, key.start_mark.line + 1))
    return {**merged, **own}


# --- TOML. ------------------------------------------------------------------------------------------------------------


def read_toml(file: str, text: str) -> Node:
    """Return the tree of a TOML text. Raises Unreadable."""
    try:
        whole = tomllib.loads(text)
        return _of_toml(file, whole, _lines(text), (), 1)
    except tomllib.TOMLDecodeError as error:
        found = str(error).rpartition("(at line ")[2].partition(",")[0]
        last = max(1, len(text.splitlines()))
        line = min(int(found), last) if found.isdigit() else last
        problem = str(error).partition(" (at ")[0]
        raise Unreadable(Place(file, line), f"not TOML: {problem}") from None
    except RecursionError:
        raise Unreadable(Place(file, 1), TOO_DEEP) from None


def _of_toml(file: str, value: Any, lines: dict[tuple[str, ...], int], path: tuple[str, ...], line: int) -> Node:
    line = lines.get(path, line)
    made: Any
    if isinstance(value, dict):
        made = {key: _of_toml(file, item, lines, (*path, key), line) for key, item in value.items()}
    elif isinstance(value, list):
        made = [_of_toml(file, item, lines, (*path, str(number)), line) for number, item in enumerate(value)]
    elif isinstance(value, bool):
        made = "true" if value else "false"
    else:
        made = str(value)
    return Node(Place(file, line), made, plain=not isinstance(value, str))


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line at which each key begins, by its path. A table of an array has its number in the path."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    numbers: dict[tuple[str, ...], int] = {}
    for line, statement in _statements(text):
        parsed = tomllib.loads(statement)
        header = statement.lstrip().startswith("[")
        path: tuple[str, ...] = ()
        inner: Any = parsed
        while isinstance(inner, dict) and len(inner) == 1:
            key = next(iter(inner))
            inner, path = inner[key], (*path, key)
            found.setdefault(_numbered(path, numbers) if header else (*table, *path), line)
            if not header and not isinstance(inner, dict):
                break
        if header:
            if isinstance(inner, list):
                numbers[path] = numbers.get(path, -1) + 1
            table = _numbered(path, numbers)
            found.setdefault(table, line)
    return found


def _numbered(path: tuple[str, ...], numbers: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return the path with the number of the current table after each array of tables in it."""
    made: tuple[str, ...] = ()
    for count, key in enumerate(path, 1):
        made = (*made, key)
        if path[:count] in numbers:
            made = (*made, str(numbers[path[:count]]))
    return made


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each statement: it ends with a line, but not inside of brackets or a string."""
    begin, first, depth = 0, 1, 0
    for match in TOKEN.finditer(text + "\n"):
        token = match[0]
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if token != "\n" or depth > 0:
            continue
        statement = text[begin : match.end()]
        if statement.strip() and not statement.lstrip().startswith("#"):
            yield first, statement
        begin, first = match.end(), first + statement.count("\n")
