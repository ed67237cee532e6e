"""Signals: their names, and which ones a process can catch.

`_signal` is the built-in part of `signal`. The other part imports `enum`, which takes longer than this whole package.
"""

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KILL, STOP, CONT, CHLD = int(_signal.SIGKILL), int(_signal.SIGSTOP), int(_signal.SIGCONT), int(_signal.SIGCHLD)
TERM, INT, HUP, QUIT = int(_signal.SIGTERM), int(_signal.SIGINT), int(_signal.SIGHUP), int(_signal.SIGQUIT)
ABRT, TSTP = int(_signal.SIGABRT), int(_signal.SIGTSTP)
EOF = 0  # no signal: the end of stdin, which --stop-on accepts beside signals
JOB_CONTROL = frozenset(map(int, (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)))

# The kernel sends these for a failed write, and the interpreter ignores them before any of our code runs: whether they
# were ignored before is lost. Every other disposition is as we inherited it, except INT's, which exec resets by itself.
OF_WRITES = frozenset(map(int, (_signal.SIGPIPE, _signal.SIGXFSZ)))

# These do no harm to a process that does not handle them (signal(7): default action "Ign" or "Cont").
HARMLESS = frozenset(map(int, (_signal.SIGCONT, _signal.SIGWINCH, _signal.SIGURG)))

NAMES: dict[int, str] = {EOF: "EOF"}
NUMBERS: dict[str, int] = {}
for _name, _number in vars(_signal).items():
    if _name[:3] == "SIG" and _name[3] != "_":
        NUMBERS[_name[3:]] = _number
        if _name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):  # older names for CHLD, IO and ABRT
            NAMES[_number] = _name[3:]
VALID = frozenset(map(int, _signal.valid_signals()))

ACCEPTED = "a signal's name or number, such as TERM, SIGTERM, 15 or RTMIN+3"


def quote(text: str) -> str:
    """Return the user's input for a message: quoted, on one line, at most 60 characters of it."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def name_of(number: int) -> str:
    """Return `TERM` for 15, `RTMIN+3` for 37, and the number itself as text if it has no name."""
    if number in NAMES:
        return NAMES[number]
    first, last = NUMBERS.get("RTMIN", 0), NUMBERS.get("RTMAX", 0)
    return f"RTMIN+{number - first}" if first < number < last else str(number)


def counts(by_number: "Sequence[int]") -> str:
    """Return how often each signal came, as text: `HUP:1,USR1:3`."""
    return ",".join(f"{name_of(number)}:{count}" for number, count in enumerate(by_number) if count)


def parse(text: str) -> int:
    """Return the number of the signal named `TERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-1`.

    Raises ValueError; the message names what is accepted.
    """
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+" if "+" in name else "-")
    if name.isascii() and name.isdigit() and len(name) < 4:
        number = int(name)
    elif base in ("RTMIN", "RTMAX") and sign and offset.isascii() and offset.isdigit() and len(offset) < 4:
        number = NUMBERS.get(base, 0) + (int(offset) if sign == "+" else -int(offset))
        if not NUMBERS.get("RTMIN", 1) <= number <= NUMBERS.get("RTMAX", 0):
            number = 0
    else:
        number = NUMBERS.get(name, 0)
    if number not in VALID:
        raise ValueError(f"{quote(text)} is not a signal; accepted: {ACCEPTED}")
    return number


def parse_catchable(text: str) -> int:
    """Like `parse`, but refuse KILL and STOP, which no process can catch, and CHLD, which process 1 needs itself."""
    number = parse(text)
    if number in (KILL, STOP, CHLD):
        raise ValueError(f"{quote(text)} cannot be caught here; accepted: any signal except KILL, STOP and CHLD")
    return number
