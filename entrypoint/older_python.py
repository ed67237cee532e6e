"""A Python that is too old for agent-init: execute a later one. Any Python from 3.6 on can run this."""

import posix
import sys

VERSIONS = [b"python3.%d" % minor for minor in range(15, 10, -1)]
OPTIONS = [b"-I", b"-S", b"-X", b"utf8"]


def leave(script: str) -> None:
    """Become a later Python of PATH that runs the same script with the same arguments.

    Raises RuntimeError, with what is wrong here, if there is none.
    """
    try:
        words, entries = _lines("cmdline"), _lines("environ")
    except OSError:  # no /proc: nothing else has the arguments and the environment as they were given
        words, entries = [b""], []
    arguments = words[len(words) - len(sys.argv) + 1 :]
    pairs = (entry.partition(b"=") for entry in reversed(entries))  # of two with one name the first counts
    environment = {name: value for name, equals, value in pairs if name and equals}
    signalfd = sys._xoptions.get("signalfd")  # the launcher's
    options = OPTIONS if signalfd is None else [*OPTIONS, b"-X", b"signalfd=%s" % str(signalfd).encode()]
    name = words[0].rpartition(b"/")[2]  # if we are one of them, those before us are no later Pythons
    for version in VERSIONS[VERSIONS.index(name) + 1 if name in VERSIONS else 0 :]:
        for directory in environment.get(b"PATH", b"").split(b":"):
            python = directory + b"/" + version
            try:
                if directory.startswith(b"/") and _is_program(python):
                    argv = [python, *options, script.encode(errors="surrogateescape"), *arguments]
                    posix.execve(python, argv, environment)
            except OSError:
                continue
    raise RuntimeError(f"it needs Python 3.11 or later, and {sys.executable} is Python {sys.version.split()[0]}")


def _lines(name: str) -> "list[bytes]":
    with open("/proc/self/" + name, "rb") as file:
        return file.read().split(b"\0")[:-1]


def _is_program(file: bytes) -> bool:
    """Whether it is not a script: that may run any Python, or none."""
    with open(file, "rb") as opened:
        return opened.read(2) != b"#!"
