"""The entry point: a probe is answered at once, anything else by the click commands in `commands`."""

import posix
import sys

from .connection import Failure, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "agent-initctl"
OWN_FAULT = 125  # bad usage, no agent-init, no answer


def main(arguments: "Sequence[str]") -> int:
    """Run agent-initctl and return its exit code."""
    try:
        if sys.stdin is None or sys.stdout is None or sys.stderr is None:
            _open_standard_files()
        code = _answer(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # nobody reads what is printed
        return 1
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        return fail(str(failure), failure.code)
    except (OSError, ImportError, SyntaxError) as error:  # a full disk behind stdout, a package copied in part
        return fail(f"cannot go on: {error}")


def fail(text: str, code: int = OWN_FAULT) -> int:
    """Print one line to stderr and return the exit code."""
    try:
        posix.write(2, f"{NAME}: {printable(text)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
    return code


def _open_standard_files() -> None:
    """Have the descriptors 0, 1 and 2 that are closed lead to /dev/null: a socket, say, would take their place.

    `sys.stdin` stays None where it was closed, for `check -` to see.
    """
    while (fd := posix.open("/dev/null", posix.O_RDWR)) <= 2:
        posix.set_inheritable(fd, True)
    posix.close(fd)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115


def _answer(arguments: "Sequence[str]") -> int:
    if arguments and arguments[0] in ("ready", "live"):
        from . import probes

        options = probes.parse(arguments[1:])
        if options is not None:
            return probes.PROBES[arguments[0]](*options)
    try:
        import click  # noqa: F401
    except ImportError:  # python -I -S, and click is in another directory (an editable install)
        import site

        site.main()
    try:
        from . import commands
    except ImportError as error:
        return fail(
            f"this command needs click: {error}; install agent-init with its dependencies (ready and live do not)"
        )
    return int(commands.run(arguments))
