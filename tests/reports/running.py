"""Python programs with a responder in them, and the program that makes reports; both as process 1 starts them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

from tests.support.init import PATIENCE, clean_environment, until

ROOT = Path(__file__).parents[2]
AGENT_SIDE = ROOT / "entrypoint" / "agent"
SITE = AGENT_SIDE / "site"
REPORT = ROOT / "entrypoint" / "report" / "__main__.py"
PROGRAMS = Path(__file__).with_name("programs")


def _pythons() -> dict[str, str]:
    """One interpreter of each version that the machine has, our own first."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    places = [*Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"), *Path("/usr/bin").glob("python3.[0-9]*")]
    for place in sorted(places):
        version = re.search(r"3\.(\d+)", str(place))
        if version and int(version[1]) >= 9 and re.fullmatch(r"python(3\.\d+)?", place.name):
            found.setdefault(version[0], str(place))
    return found


PYTHONS = _pythons()


class Program:
    """A running Python program that can answer, or would like to. Its output is lines."""

    def __init__(
        self, words: list[str], *, python: str = sys.executable, stacks: bool = True, **variables: str
    ) -> None:
        self.responders = f"@test-{uuid.uuid4().hex}"
        environment = clean_environment(**{"AGENT_INIT_RESPONDERS": self.responders, **variables})
        if stacks:
            path = variables.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{SITE}:{path}" if path else str(SITE)
        self.process = subprocess.Popen(
            [python, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """Its next line, awaited."""
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise AssertionError(f"it ended: {self.process.communicate()[1]}")
        return line.rstrip("\n")

    def end(self) -> tuple[int, str, str]:
        """Its exit code, the rest of its output, and its stderr, once it has ended by itself."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def close(self) -> None:
        if self.process.poll() is None:
            for process in psutil.Process(self.pid).children(recursive=True):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.kill()
        self.process.communicate()

    def answer(self, pid: int | None = None) -> str:
        """What the process tells; "" where nobody listens. Raises TimeoutError."""
        return ask(self.responders, pid or self.pid)

    def answers_with(self, word: str, pid: int | None = None) -> str:
        """The answer, once `word` is in it."""
        return str(until(lambda: answer if word in (answer := self.answer(pid)) else "", f"{word!r} in an answer"))

    def report(self, **request: object) -> list[str]:
        """The lines of a report of this program and what is below it."""
        return report(**{"agent": self.pid, "responders": self.responders, **request})

    def reported(self, *words: str) -> list[str]:
        """The lines of a report, once each of `words` is in one: the program may not be yet where it is to hang."""
        lines: list[str] = []

        def complete() -> bool:
            lines[:] = self.report()
            return all(any(word in line for line in lines) for word in words)

        try:
            until(complete, f"{words} in a report")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *lines])) from None
        return lines


def ask(responders: str, pid: int, seconds: float = PATIENCE) -> str:
    """What the responder of a process answers; "" where nobody listens. Raises TimeoutError."""
    parts = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(f"\0{responders[1:]}/{pid}")
            while part := connection.recv(65536):
                parts.append(part)
        except (ConnectionRefusedError, ConnectionResetError):
            return ""
    return b"".join(parts).decode("ascii")


def reporter(**request: object) -> subprocess.Popen[str]:
    """The program that makes a report, started as process 1 does; we are its root."""
    defaults = {
        "root": os.getpid(),
        "since": time.monotonic(),
        "cpu": {},
        "stacks": False,
        "seconds": 10,
        "arguments": False,
        "room": None,
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(REPORT), json.dumps({**defaults, **request})],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report(**request: object) -> list[str]:
    """The lines that it prints."""
    with reporter(**request) as made:
        out, err = made.communicate(timeout=PATIENCE)
    assert not err
    assert all(line.startswith("report: ") for line in out.splitlines())
    return [line.removeprefix("report: ") for line in out.splitlines()]


def used(pid: int) -> dict[str, list[int]]:
    """The request's `cpu` for one process, now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return {str(pid): [int(fields[19]), int(fields[11]) + int(fields[12])]}
