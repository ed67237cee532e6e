"""Text for people: foreign text made safe to print, and lines that fit a terminal.

Names of processes and log lines come from the agent, and can be anything.
"""

from __future__ import annotations

import re
import unicodedata

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # ECMA-48: CSI sequences; xterm's OSC
WIDE = ("W", "F")  # East Asian Width (UAX 11): two columns of a terminal


def printable(text: str) -> str:
    """Return one line without escape sequences, and with every other character that cannot be printed escaped.

    What is left is valid in XML 1.0, cannot control a terminal, and does not change the direction of the text.
    """
    text = ANSI.sub("", text)
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else " "
        if character in "\t\xa0"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(text: str) -> list[str]:
    """Return each line as `printable` does."""
    return [printable(line) for line in text.split("\n")]


def columns(text: str) -> int:
    """Return how many columns of a terminal printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in WIDE else 1


def pad(text: str, width: int) -> str:
    """Return the text with spaces behind it, so that it takes `width` columns."""
    return text + " " * (width - columns(text))


def wrap(text: str, width: int) -> list[str]:
    """Return the text in lines of at most `width` columns, at least two, broken at spaces where possible."""
    width = max(width, 2)
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and columns(line) + 1 + columns(word) <= width:
            line += " " + word
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, width)
        lines += full
    return [*lines, line] if line or not lines else lines


def _pieces(word: str, width: int) -> list[str]:
    """Return a word in pieces of at most `width` columns."""
    pieces = [""]
    used = 0
    for character in word:
        taken = _columns_of(character)
        if used + taken > width:
            pieces.append("")
            used = 0
        pieces[-1] += character
        used += taken
    return pieces


def shorten(text: str, width: int) -> str:
    """Return at most `width` columns of the text, with `...` in the place of what is left out at its end."""
    if columns(text) <= width:
        return text
    return _pieces(text, max(1, width - 3))[0] + "..."[:width]


def plural(number: int, noun: str) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
