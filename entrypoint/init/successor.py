"""Recognises an agent that has replaced itself: it exits with code 0, unasked, while another process runs the program.

A program that updates itself or restarts by starting a new, detached process and exiting ends its container. The same
holds for one that becomes a daemon. What is found is only logged, with the remedy.
"""

import posix

from .. import paths
from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .main_process import MainProcess
    from .procfs import Process

# Programs that run another one, which their arguments name.
INTERPRETERS = ("python", "pypy", "node", "bun", "deno", "ruby", "perl", "php", "java", "dotnet", *procfs.SHELLS)
TAKE_PROGRAM = ("-m", "-c", "-e")  # options of theirs
BETWEEN_WORDS = str.maketrans(dict.fromkeys("'\"`;&|(){}<>=", " "))


class Program:
    """What a process runs: its executable file, and the name of the program if that is an interpreter."""

    __slots__ = ("file", "name")

    def __init__(self, pid: int, image: "tuple[str, list[str]] | None" = None) -> None:
        """`image`: its executable file and its arguments, if they were looked at before."""
        self.file, argv = (procfs.executable(pid), procfs.argv_of(pid)) if image is None else image
        self.name = _program_name(argv)

    def is_run_by(self, other: "Program") -> bool:
        """Whether the other process runs the same program."""
        if not self.file or self.file != other.file:
            return False
        return self.name == other.name or not paths.basename(self.file).startswith(INTERPRETERS)


def find(agent: "MainProcess", command: "Sequence[str]", left: "Sequence[Process]") -> "Process | None":
    """Return the process that seems to have taken the agent's place; None if there is none.

    `left`: what the agent has left behind. `command`: what was started. It may be a wrapper, which is not the program
    itself; then a process counts that has left the agent's process group and whose program is named in the command.
    """
    words = {_plain(word) for argument in command for word in argument.translate(BETWEEN_WORDS).split()}
    for process in left:
        if process.parent != posix.getpid():
            continue
        program = Program(process.pid)
        if agent.program.is_run_by(program) or (process.group != agent.group and program.name in words):
            return process
    return None


def _program_name(argv: "Sequence[str]") -> str:
    """Return the first argument that is no option, or what -m or -c takes; without arguments the program's own name."""
    for index, argument in enumerate(argv[1:], 1):
        if argument in TAKE_PROGRAM and argv[index + 1 :]:
            taken = argv[index + 1]
            return taken.rpartition(".")[2] if argument == "-m" else taken
        if not argument.startswith("-"):
            return _plain(argument)
    return _plain(argv[0]) if argv else ""


def _plain(path: str) -> str:
    """Return the name of a file without directory and suffix; of `app/__main__.py`, which `-m app` runs, `app`."""
    directory, _, name = path.rpartition("/")
    if name == "__main__.py":
        name = directory.rpartition("/")[2]
    return name.partition(".")[0] or name
