"""A Docker engine for the tests: the running one, or a private one that is removed afterwards.

The private engine (`dockerd` with its own containerd) keeps its socket, data and run files in a temporary folder. It
creates no bridge and no firewall rules, and its containers have a separate cgroup. If the test run dies, the kernel
terminates it (`setpriv --pdeathsig`).
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

DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


class NotAvailable(Exception):
    """An engine, a program or a privilege that the tests need is missing; the text says which."""


class Engine:
    """The `docker` command for one engine. `host` is its DOCKER_HOST, None for the default one.

    `settings` are additional environment variables. Images are built with the classic builder unless they enable
    BuildKit.
    """

    def __init__(
        self, host: str | None = None, *, root: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.root = root  # the folder of a private engine
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false", **(settings or {})}
        if host is not None:
            self.environment["DOCKER_HOST"] = host
            self.environment.pop("DOCKER_CONTEXT", None)

    def __call__(
        self, *arguments: str, check: bool = True, timeout: float = 120.0, stdin: int | None = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS...`. If it fails, raise AssertionError with its output."""
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
        """Whether the engine can be reached."""
        try:
            return self("version", "--format", "{{.Server.Version}}", check=False, timeout=20).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


@contextmanager
def available_engine() -> Iterator[Engine]:
    """The running engine, or else a private one. Raises NotAvailable."""
    if shutil.which("docker") is None:
        raise NotAvailable("there is no docker command (Debian: docker.io)")
    running = Engine()
    if running.answers():
        yield running
        return
    with private_engine() as engine:
        yield engine


@contextmanager
def private_engine(settings: Mapping[str, str] | None = None, *, isolated: bool = False) -> Iterator[Engine]:
    """A private engine, removed at the end with all its containers. Raises NotAvailable.

    `settings` are environment variables for the engine and its `docker` command; PATH selects the Docker version.
    `isolated`: it has a network of its own, with nothing but the loopback interface.
    """
    missing = [name for name in ("dockerd", "containerd", "runc", "setpriv") if shutil.which(name) is None]
    if missing:
        raise NotAvailable(f"no engine is running, and starting one takes {', '.join(missing)} (Debian: docker.io)")
    if os.geteuid() != 0:
        raise NotAvailable("no engine is running, and only root can start one")
    root = Path(tempfile.mkdtemp(prefix="agent-init-engine-", dir="/tmp"))  # a socket's path is limited to 107 bytes
    engine = Engine(f"unix://{root}/socket", root=root, settings=settings)
    log = root / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [*DIES_WITH_US, *(OWN_NETWORK if isolated else ()), *_command(root)],
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
                raise NotAvailable(f"no engine is running, and dockerd does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield engine
        if containers := engine("ps", "--all", "--quiet").stdout.split():
            engine("rm", "--force", *containers)
    finally:
        _tear_down(daemon, root)


def _command(root: Path) -> Sequence[str]:
    return (
        *("dockerd", "--host", f"unix://{root}/socket", "--pidfile", f"{root}/pid"),
        *("--data-root", f"{root}/data", "--exec-root", f"{root}/run"),
        *("--storage-driver", "overlay2", "--cgroup-parent", f"/{root.name}"),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    )


def _tear_down(daemon: subprocess.Popen[bytes], root: Path) -> None:
    """Stop the engine and remove its processes, mounts, cgroups and files."""
    daemon.terminate()
    with suppress(subprocess.TimeoutExpired):
        daemon.wait(ENDS_WITHIN)
    if daemon.poll() is None:
        daemon.kill()
        daemon.wait()
    left = _wait_until_empty(lambda: _processes_of(root))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_until_empty(lambda: _processes_of(root))
    for mount in sorted(_mounts_below(root), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    for controller in Path("/sys/fs/cgroup").glob(f"**/{root.name}"):
        for folder, _, _ in os.walk(controller, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    shutil.rmtree(root)
    assert not left, f"the private engine left processes behind: {left}"


def _wait_until_empty(look: Callable[[], list[psutil.Process]], seconds: float = 10.0) -> list[psutil.Process]:
    """Wait until `look` returns an empty list, for at most `seconds`; return its last result."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _processes_of(root: Path) -> list[psutil.Process]:
    """The processes of the engine: containerd and the shims have the folder in their command lines."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(f"{root}/" in word for word in process.cmdline()):
                found.append(process)
    return found


def _mounts_below(root: Path) -> list[str]:
    mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.startswith(f"{root}/")]
