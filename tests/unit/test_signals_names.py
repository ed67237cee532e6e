"""Signal names and numbers: parsing and formatting."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import signals

NUMBERS = st.sampled_from(sorted(signals.VALID))


def spellings(number: int) -> set[str]:
    """Every text that names the signal."""
    names = {name for name, known in signals.NUMBERS.items() if known == number} | {signals.name_of(number)}
    return {*names, *(f"SIG{name}" for name in names), *map(str.lower, names), str(number)}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("Term", 15),
        ("15", 15),
        ("015", 15),
        ("HUP", 1),
        ("CLD", signal.SIGCHLD),
        ("POLL", signal.SIGIO),
        ("IOT", signal.SIGABRT),
        ("RTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax-1", signal.SIGRTMAX - 1),
        ("RTMAX", signal.SIGRTMAX),
        ("RTMIN+30", signal.SIGRTMAX),
        ("RTMIN+0", signal.SIGRTMIN),
    ],
)
def test_every_spelling_of_a_signal_is_accepted(text: str, number: int) -> None:
    assert signals.parse(text) == number


@given(NUMBERS)
def test_the_name_of_every_signal_parses_to_its_number(number: int) -> None:
    assert {signals.parse(text) for text in spellings(number)} == {number}


def test_names_are_unique() -> None:
    assert len({signals.name_of(number) for number in signals.VALID}) == len(signals.VALID)


REFUSED = """
    0 -1 -9 65 99 100 1000 TERMM SIG SIGSIGTERM TERM+1 RTMIN+31 RTMIN-1 RTMAX+1 RTMAX-31 RTMIN+ RTMIN+x RTMIN+-1
    15.0 1e1 0x0f +15 \u0661\u0665 \u00b9 TERM,INT _DFL SIG_IGN BLOCK valid_signals 32 33
""".split()
REFUSED += ["", " ", " TERM", "TERM ", "TERM\n", "9" * 5000, "RTMIN+" + "9" * 5000, "\u0130NT", "1 5"]


@pytest.mark.parametrize("text", REFUSED)
def test_an_unknown_signal_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="is not a signal; accepted: ") as refused:
        signals.parse(text)
    assert signals.quote(text) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_realtime_signals_are_refused_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has none."""
    for name in ("RTMIN", "RTMAX"):
        monkeypatch.delitem(signals.NUMBERS, name)
    for text in ("RTMIN", "RTMIN+0", "RTMIN+1", "RTMIN+15", "RTMAX", "RTMAX-1", "RTMAX+1"):
        with pytest.raises(ValueError, match="is not a signal; accepted: "):
            signals.parse(text)
    assert signals.name_of(40) == "40"


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused_on_one_line(text: str) -> None:
    try:
        assert signals.parse(text) in signals.VALID
    except ValueError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message


@pytest.mark.parametrize("text", ["KILL", "9", "STOP", "sigstop", "CHLD", "CLD", str(int(signal.SIGCHLD))])
def test_kill_stop_and_chld_are_refused_where_a_signal_must_be_caught(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be caught"):
        signals.parse_catchable(text)


@given(NUMBERS)
def test_every_other_signal_is_accepted_where_it_must_be_caught(number: int) -> None:
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
        assert signals.parse_catchable(str(number)) == number


@given(st.text())
def test_input_is_quoted_on_one_short_line(text: str) -> None:
    quoted = signals.quote(text)
    assert quoted.isprintable() or not text.isprintable()
    assert "\n" not in quoted
    assert len(quoted) < 60 * 10 + 10
