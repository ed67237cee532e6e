"""Run Python programs with a responder, and the reporter, both the way process 1 runs them."""

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
    """Return one interpreter of each version on this machine by version, our own first."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    places = [*Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"), *Path("/usr/bin").glob("python3.[0-9]*")]
    for place in sorted(places):
        version = re.search(r"3\.(\d+)", str(place))
        if version and int(version[1]) >= 9 and re.fullmatch(r"python(3\.\d+)?", place.name):
            found.setdefault(version[0], str(place))
    return found


PYTHONS = _pythons()


class Program:
    """A running Python program, with a responder unless `stacks` is false."""

    def __init__(
        self, arguments: list[str], *, python: str = sys.executable, stacks: bool = True, **variables: str
    ) -> None:
        self.responders = f"@test-{uuid.uuid4().hex}"
        environment = clean_environment(**{"AGENT_INIT_RESPONDERS": self.responders, **variables})
        if stacks:
            path = variables.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{SITE}:{path}" if path else str(SITE)
        self.process = subprocess.Popen(
            [python, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """Wait for its next line of output and return it."""
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise AssertionError(f"it ended: {self.process.communicate()[1]}")
        return line.rstrip("\n")

    def end(self) -> tuple[int, str, str]:
        """Wait until it ends; return its exit code, the rest of its output, and its stderr."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def close(self) -> None:
        """Kill it and its descendants."""
        if self.process.poll() is None:
            for process in psutil.Process(self.pid).children(recursive=True):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.kill()
        self.process.communicate()

    def answer(self, pid: int | None = None) -> str:
        """Return the answer of the program or of process `pid`, "" if nobody listens. Raises TimeoutError."""
        return ask(self.responders, pid or self.pid)

    def answer_with(self, text: str, pid: int | None = None) -> str:
        """Ask until `text` is in the answer; return the answer."""
        return str(until(lambda: answer if text in (answer := self.answer(pid)) else "", f"{text!r} in an answer"))

    def report(self, *, by: str = sys.executable, **request: object) -> list[str]:
        """Return the lines of a report on this program and its descendants. `by`: the reporter's interpreter."""
        return report(python=by, **{"agent": self.pid, "responders": self.responders, **request})

    def report_with(self, *texts: str) -> list[str]:
        """Make reports until each of `texts` is in a line, since the program may not hang yet; return the lines."""
        lines: list[str] = []

        def complete() -> bool:
            lines[:] = self.report()
            return all(any(text in line for line in lines) for text in texts)

        try:
            until(complete, f"{texts} in a report")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *lines])) from None
        return lines


def ask(responders: str, pid: int, seconds: float = PATIENCE) -> str:
    """Return what the responder of a process answers, "" if nobody listens. Raises TimeoutError."""
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


def reporter(*, python: str = sys.executable, **request: object) -> subprocess.Popen[str]:
    """Start the reporter the way process 1 does. The root of its report is this process."""
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
        [python, "-I", "-S", str(REPORT), json.dumps({**defaults, **request})],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report(*, python: str = sys.executable, **request: object) -> list[str]:
    """Run the reporter; return the lines it prints, without their prefix."""
    with reporter(python=python, **request) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert not err
    assert all(line.startswith("report: ") for line in out.splitlines())
    return [line.removeprefix("report: ") for line in out.splitlines()]


def cpu_baseline(pid: int) -> dict[str, list[int]]:
    """Return the request's `cpu` for one process, measured now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return {str(pid): [int(fields[19]), int(fields[11]) + int(fields[12])]}
