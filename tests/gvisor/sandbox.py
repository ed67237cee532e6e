"""gVisor's runsc: one container for each test, with this machine's files, read-only, and no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import uuid
from pathlib import Path

from tests.support.init import until

SPECIAL = {"/proc": "proc", "/run": "tmpfs"}
START_SECONDS, END_SECONDS = 30.0, 30.0


class NotAvailable(Exception):
    """There is no runsc here, or it cannot start a container."""


class Sandbox:
    """A running container; `argv` is its process 1. `lines`: what it has printed on stdout and stderr."""

    def __init__(self, directory: Path, *argv: str, **variables: str) -> None:
        if shutil.which("runsc") is None or os.geteuid() != 0:
            raise NotAvailable("a sandbox takes runsc (Debian: runsc), and root")
        self.directory, self.lines = directory, list[str]()
        (directory / "config.json").write_text(json.dumps(_specification(argv, variables)))
        self._name = f"agent-init-{uuid.uuid4().hex[:12]}"  # runsc has one abstract socket of each name
        self._runsc = ["runsc", f"--root={directory}/state", "--platform=ptrace", "--network=none", "--ignore-cgroups"]
        # Process 1 gets pipes: a terminal or a file of the host would behave otherwise in the sandbox.
        self._run = subprocess.Popen(
            [*self._runsc, "run", f"--bundle={directory}", self._name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._run.stdout
        self.lines += iter(self._run.stdout.readline, "")

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._runsc, *arguments], capture_output=True, text=True, check=False, timeout=60)

    def find(self, text: str) -> list[str]:
        """Return the lines that contain `text`."""
        return [line.rstrip("\n") for line in list(self.lines) if text in line]

    def wait_for_line(self, text: str) -> None:
        until(lambda: self.find(text) or self._run.poll() is not None, f"{text!r} in {self.lines}", START_SECONDS)
        assert self.find(text), self.lines

    def signal(self, name: str) -> None:
        """Send a signal to process 1, from inside: `runsc kill` knows no real-time signals."""
        sent = self.run("kill", f"-{name}", "1")
        assert sent.returncode == 0, sent.stderr

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker exec` does."""
        return self._call("exec", self._name, *argv)

    def wait(self) -> int:
        """Wait for the end; return the exit code of process 1."""
        code = self._run.wait(END_SECONDS)
        self._reader.join()
        return code

    def close(self) -> None:
        """Remove the container, whatever it does."""
        self._call("delete", "--force", self._name)
        try:
            self._run.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._run.kill()
            self._run.wait()
        self._reader.join()
        assert self._run.stdout
        self._run.stdout.close()


def _specification(argv: tuple[str, ...], variables: dict[str, str]) -> dict[str, object]:
    """Return the content of config.json (OCI runtime specification)."""
    environment = {"PATH": os.environ["PATH"], **variables}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": "/", "readonly": True},
        "mounts": [{"destination": at, "type": kind, "source": kind} for at, kind in SPECIAL.items()],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }
