"""`agent-initctl check`: reads the files, prints the findings, and returns the exit code."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from typing import TYPE_CHECKING

from ..ctl import main
from ..ctl.connection import Failure
from . import combine, formats, rules
from .source import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "<stdin>"
MAX_BYTES = 16 << 20  # of a file; no file that people write is that large
MISSING = "this command needs PyYAML: pip install 'agent-init[check]'"


def run(files: Sequence[str], form: str) -> int:
    """Return 0 if nothing was found that counts, else 1. Raises Failure if a file cannot be read."""
    if importlib.util.find_spec("yaml") is None:
        raise Failure(MISSING)
    try:
        read = combine.read([(STDIN if file == "-" else file, _text(file)) for file in files])
        findings = rules.judge(read.all())
    except Unreadable as error:
        raise Failure(str(error)) from None
    for line in read.ignored:
        main.fail(line)
    text = formats.FORMATS[form](findings)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale, or a file's name, that is not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    if text:
        print(text)
    return int(any(made.severity in rules.COUNTING for made in findings))


def _text(file: str) -> str:
    try:
        if file == "-" and sys.stdin is None:  # descriptor 0 is closed
            raise Failure(f"{STDIN}: it is closed")
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(os.fsencode(file), "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"{file or repr(file)}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Failure(f"{file}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Failure(f"{STDIN if file == '-' else file}:{line}: not UTF-8") from None
