"""Runs agent-init as a container's engine would: as process 1 of a PID namespace, or else as a subreaper.

Whatever happens, nothing of a run may be left when it is over. In a namespace the kernel sees to that, once its process
1 is dead. Without one the descendants are killed one by one, as long as agent-init adopts what they leave.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from ..init import procfs, tree
from .model import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__main__.py")
AGENT_INIT = (sys.executable, "-I", "-S", PROGRAM)
# Other options than these would change what the rehearsal reads, or write outside of it.
LOG_OPTIONS = ("--log-format", "json", "--log-to", "stderr", "--termination-log", "none")
NOT_INHERITED = ("AGENT_INIT_QUIET", "AGENT_INIT_VERBOSE", "TINI_VERBOSITY", "DUMB_INIT_DEBUG", "NOTIFY_SOCKET")
UNSHARE = ("--pid", "--fork", "--kill-child", "--mount-proc")
USERS = ((), ("--user", "--map-current-user"), ("--user", "--map-root-user"))
DIES_WITH_US = ("setpriv", "--pdeathsig=KILL", "--")
MAX_KILL_SECONDS = 10.0
PROBE_SECONDS = 10.0


@functools.cache
def namespace() -> tuple[str, ...] | None:
    """Return the command that runs another one as process 1 of a new PID namespace; None where there can be none."""
    dies = DIES_WITH_US if _works((*DIES_WITH_US, "true")) else ()
    for user in USERS:
        command = (*dies, "unshare", *user, *UNSHARE)
        if _works((*command, *AGENT_INIT, "--version")):  # in a user namespace not every file can be read
            return command
    return None


def _works(command: Sequence[str]) -> bool:
    try:
        null = subprocess.DEVNULL
        ran = subprocess.run(command, stdin=null, stdout=null, stderr=null, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return ran.returncode == 0


def ignore_nothing() -> None:
    """Let no agent inherit an ignored signal, as none is in a container: a shell's background job ignores INT and QUIT.

    A signal that is handled has its default action again after an execve(2). For the main thread.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)


def _ignore(_number: int, _frame: object) -> None:
    pass


class Container:
    """One agent-init with its agent. `pid`: agent-init's, as it is seen here; 0 as long as it is not known."""

    def __init__(
        self,
        command: Sequence[str],
        options: Sequence[str],
        mode: Mode,
        *,
        environment: Mapping[str, str],
        keep_stdin: bool,
        group: Path | None = None,
    ) -> None:
        """Start it. `options`: of agent-init. `group`: a control group to run it in. Raises OSError."""
        self.mode = mode
        prefix = namespace() or () if mode is Mode.PROCESS_1 else ()
        if mode is Mode.SUBREAPER:
            options = ("--subreaper", "--parent-death-signal", "TERM", *options)
        if group is not None:
            prefix = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *prefix)
        self._outer = subprocess.Popen(
            [*prefix, *AGENT_INIT, *LOG_OPTIONS, *options, "--", *command],
            env={name: value for name, value in environment.items() if name not in NOT_INHERITED},
            stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for agent-initctl alone
        )
        assert self._outer.stdout is not None
        assert self._outer.stderr is not None
        # The streams of the run close them.
        self.stdout, self.stderr = (os.dup(pipe.fileno()) for pipe in (self._outer.stdout, self._outer.stderr))
        self._outer.stdout.close()
        self._outer.stderr.close()
        self.pid = self._outer.pid if mode is Mode.SUBREAPER else 0

    def find(self) -> int:
        """Return agent-init's pid, as soon as it is there; 0 before that."""
        if not self.pid:
            self.pid = next((process.pid for process in _children(self._outer.pid)), 0)
        return self.pid

    def agent(self) -> procfs.Process | None:
        """Return the agent, as soon as agent-init has started it; None before that."""
        return next(iter(_children(self.pid)), None) if self.find() else None  # its helpers are younger

    def exit_code(self) -> int | None:
        """Return agent-init's exit code, as a platform sees it; None as long as it runs."""
        return exit_code(self._outer)

    def signal(self, number: int) -> None:
        """Send a signal to agent-init, if it has not exited."""
        if self.pid and self._outer.poll() is None:
            send(self.pid, number)

    def kill(self, known: Sequence[procfs.Process] = ()) -> None:
        """End whatever is left of it, and wait for that. `known`: processes of it that were seen."""
        if self._outer.stdin is not None:
            self._outer.stdin.close()
        end = time.monotonic() + MAX_KILL_SECONDS
        try:
            while self._outer.poll() is None and time.monotonic() < end:
                self._kill_once()
                try:
                    self._outer.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if self._outer.poll() is None:
                self._outer.kill()
                self._outer.wait()
            for process in known:  # agent-init may have died before them
                if procfs.is_there(process):
                    send(process.pid, signal.SIGKILL)

    def _kill_once(self) -> None:
        if self.mode is Mode.PROCESS_1:
            # unshare(1) ends with its child. Without one it has not forked yet.
            send(self.find() or self._outer.pid, signal.SIGKILL)
            return
        below = tree.below(self.pid, tree.everything())
        for process in below:
            send(process.pid, signal.SIGKILL)
        if not below:
            self._outer.kill()


def _children(pid: int) -> list[procfs.Process]:
    """Return the children of a process, the oldest first; also where the kernel does not list them."""
    found = procfs.children(pid)
    if not found and not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        found = tree.children_among(tree.everything())(pid)
    return sorted(found, key=lambda process: (process.start, process.pid))


def send(pid: int, number: int) -> None:
    """Send a signal to a process, if it is there, and if we may: it may have become another user's (setuid)."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def exit_code(process: subprocess.Popen[Any]) -> int | None:
    """Return the exit code, or 128 + the signal, as a platform sees it; None as long as it runs."""
    code = process.poll()
    return None if code is None else code if code >= 0 else 128 - code
