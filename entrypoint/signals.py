"""Signals: their names, and the ones that can be caught.

`_signal` is the built-in half of `signal`; the other half imports `enum`, which costs more than all of this package.
"""

import _signal

KILL, STOP, CONT, CHLD = int(_signal.SIGKILL), int(_signal.SIGSTOP), int(_signal.SIGCONT), int(_signal.SIGCHLD)
TERM, INT, HUP, QUIT = int(_signal.SIGTERM), int(_signal.SIGINT), int(_signal.SIGHUP), int(_signal.SIGQUIT)
ABRT, TSTP = int(_signal.SIGABRT), int(_signal.SIGTSTP)
JOB_CONTROL = frozenset(map(int, (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)))

# The kernel sends them to whoever wrote in vain, so the interpreter ignores them. Whether they came to us ignored can
# no longer be known; all other dispositions (but INT's, which exec undoes by itself) are as we got them.
OF_WRITES = frozenset(map(int, (_signal.SIGPIPE, _signal.SIGXFSZ)))

# Sent to a process that does not handle them, these change nothing (signal(7), "Ign" and "Cont").
HARMLESS = frozenset(map(int, (_signal.SIGCONT, _signal.SIGWINCH, _signal.SIGURG)))

NAMES: dict[int, str] = {}
NUMBERS: dict[str, int] = {}
for _name, _number in vars(_signal).items():
    if _name[:3] == "SIG" and _name[3] != "_":
        NUMBERS[_name[3:]] = _number
        if _name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):  # older names for CHLD, IO and ABRT
            NAMES[_number] = _name[3:]
VALID = frozenset(map(int, _signal.valid_signals()))

ACCEPTED = "a signal's name or number, such as TERM, SIGTERM, 15 or RTMIN+3"


def quote(text: str) -> str:
    """What the user typed, for a message: quoted, on one line, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def name_of(number: int) -> str:
    """`15` -> `TERM`, `37` -> `RTMIN+3`; a number without a name stays a number."""
    if number in NAMES:
        return NAMES[number]
    first, last = NUMBERS.get("RTMIN", 0), NUMBERS.get("RTMAX", 0)
    return f"RTMIN+{number - first}" if first < number < last else str(number)


def parse(text: str) -> int:
    """The signal that `text` names: `TERM`, `sigterm`, `15`, `RTMIN+3`, `RTMAX-1`.

    Raises ValueError, saying what is accepted.
    """
    word = text.upper().removeprefix("SIG")
    base, sign, offset = word.partition("+" if "+" in word else "-")
    if word.isascii() and word.isdigit() and len(word) < 4:
        number = int(word)
    elif base in ("RTMIN", "RTMAX") and sign and offset.isascii() and offset.isdigit() and len(offset) < 4:
        number = NUMBERS.get(base, 0) + (int(offset) if sign == "+" else -int(offset))
        if not NUMBERS.get("RTMIN", 1) <= number <= NUMBERS.get("RTMAX", 0):
            number = 0
    else:
        number = NUMBERS.get(word, 0)
    if number not in VALID:
        raise ValueError(f"{quote(text)} is not a signal; accepted: {ACCEPTED}")
    return number


def parse_catchable(text: str) -> int:
    """As `parse`, without KILL and STOP, which nobody can catch, and CHLD, which process 1 needs for itself."""
    number = parse(text)
    if number in (KILL, STOP, CHLD):
        raise ValueError(f"{quote(text)} cannot be caught as a request; accepted: any signal but KILL, STOP and CHLD")
    return number
