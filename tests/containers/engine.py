"""A Docker engine to test with: the one that answers, or a private one that is gone again afterwards.

The private one (`dockerd` with a containerd of its own) keeps to a temporary folder: its socket, its data, its run
files. It makes no bridge and no firewall rule, and its containers have a cgroup of their own. When the test run dies,
the kernel ends it (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STARTS_WITHIN = 90.0
ENDS_WITHIN = 60.0


class NoEngine(Exception):
    """No engine answers and none can be started; the text says why."""


class Engine:
    """The `docker` command, talking to one engine. `host` is its DOCKER_HOST, None for the default one.

    `settings` are variables that the command gets besides. It builds with the classic builder unless they say more.
    """

    def __init__(
        self, host: str | None = None, *, root: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.root = root  # where a private engine keeps everything
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false", **(settings or {})}
        if host is not None:
            self.environment["DOCKER_HOST"] = host
            self.environment.pop("DOCKER_CONTEXT", None)

    def __call__(
        self, *arguments: str, check: bool = True, timeout: float = 120.0, stdin: int | None = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS...`; a failure is an AssertionError with what it said."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            stdin=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def answers(self) -> bool:
        """Whether there is an engine at the other end."""
        try:
            return self("version", "--format", "{{.Server.Version}}", check=False, timeout=20).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


@contextmanager
def any_engine() -> Iterator[Engine]:
    """An engine that answers. Raises NoEngine."""
    if shutil.which("docker") is None:
        raise NoEngine("there is no docker command (Debian: docker.io)")
    there = Engine()
    if there.answers():
        yield there
        return
    with private_engine() as engine:
        yield engine


@contextmanager
def private_engine(settings: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """An engine of our own, taken down at the end with all its containers. Raises NoEngine.

    `settings` are variables for it and its `docker` command: PATH says which Docker it is.
    """
    missing = [name for name in ("dockerd", "containerd", "runc", "setpriv") if shutil.which(name) is None]
    if missing:
        raise NoEngine(f"no engine answers, and to start one there is no {', '.join(missing)} (Debian: docker.io)")
    if os.geteuid() != 0:
        raise NoEngine("no engine answers, and only root can start one")
    root = Path(tempfile.mkdtemp(prefix="agent-init-engine-", dir="/tmp"))  # short: a socket's path has 107 bytes
    engine = Engine(f"unix://{root}/socket", root=root, settings=settings)
    log = root / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            _command(root),
            env=engine.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while not engine.answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise NoEngine(f"no engine answers, and dockerd does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield engine
        if containers := engine("ps", "--all", "--quiet").stdout.split():
            engine("rm", "--force", *containers)
    finally:
        _take_down(daemon, root)


def _command(root: Path) -> Sequence[str]:
    return (
        *("setpriv", "--pdeathsig", "TERM", "dockerd"),
        *("--host", f"unix://{root}/socket", "--pidfile", f"{root}/pid"),
        *("--data-root", f"{root}/data", "--exec-root", f"{root}/run"),
        *("--storage-driver", "overlay2", "--cgroup-parent", f"/{root.name}"),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    )


def _take_down(daemon: subprocess.Popen[bytes], root: Path) -> None:
    """End the engine and whatever of it is left: processes, mounts, cgroups, files."""
    daemon.terminate()
    with suppress(subprocess.TimeoutExpired):
        daemon.wait(ENDS_WITHIN)
    if daemon.poll() is None:
        daemon.kill()
        daemon.wait()
    left = _await_none(lambda: _processes_of(root))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _await_none(lambda: _processes_of(root))
    for mount in sorted(_mounts_below(root), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    for controller in Path("/sys/fs/cgroup").glob(f"**/{root.name}"):
        for folder, _, _ in os.walk(controller, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    shutil.rmtree(root)
    assert not left, f"the private engine left processes behind: {left}"


def _await_none(look: Callable[[], list[psutil.Process]], seconds: float = 10.0) -> list[psutil.Process]:
    """Look until there is nothing, at most that long; returns what is there then."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _processes_of(root: Path) -> list[psutil.Process]:
    """containerd and the shims have the folder in their command lines."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(f"{root}/" in word for word in process.cmdline()):
                found.append(process)
    return found


def _mounts_below(root: Path) -> list[str]:
    mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.startswith(f"{root}/")]
