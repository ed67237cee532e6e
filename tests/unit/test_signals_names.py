"""Signals by name and number, the way they are typed and printed."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import signals

NUMBERS = st.sampled_from(sorted(signals.VALID))


def spelled(number: int) -> set[str]:
    """All the ways to type it."""
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
def test_a_signal_can_be_typed_in_many_ways(text: str, number: int) -> None:
    assert signals.parse(text) == number


@given(NUMBERS)
def test_every_signal_has_a_name_that_can_be_typed(number: int) -> None:
    assert {signals.parse(text) for text in spelled(number)} == {number}


def test_no_two_signals_have_one_name() -> None:
    assert len({signals.name_of(number) for number in signals.VALID}) == len(signals.VALID)


REFUSED = """
    0 -1 -9 65 99 100 1000 TERMM SIG SIGSIGTERM TERM+1 RTMIN+31 RTMIN-1 RTMAX+1 RTMAX-31 RTMIN+ RTMIN+x RTMIN+-1
    15.0 1e1 0x0f +15 \u0661\u0665 \u00b9 TERM,INT _DFL SIG_IGN BLOCK valid_signals 32 33
""".split()
REFUSED += ["", " ", " TERM", "TERM ", "TERM\n", "9" * 5000, "RTMIN+" + "9" * 5000, "\u0130NT", "1 5"]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a signal; accepted: ") as refused:
        signals.parse(text)
    assert signals.quote(text) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_where_there_are_no_realtime_signals_none_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    for name in ("RTMIN", "RTMAX"):
        monkeypatch.delitem(signals.NUMBERS, name)
    for text in ("RTMIN", "RTMIN+0", "RTMIN+1", "RTMIN+15", "RTMAX", "RTMAX-1", "RTMAX+1"):
        with pytest.raises(ValueError, match="is not a signal; accepted: "):
            signals.parse(text)
    assert signals.name_of(40) == "40"


@given(st.text(max_size=12))
def test_any_text_is_a_signal_or_refused_on_one_line(text: str) -> None:
    try:
        assert signals.parse(text) in signals.VALID
    except ValueError as error:
        told = str(error)
    else:
        return
    assert "\n" not in told


@pytest.mark.parametrize("text", ["KILL", "9", "STOP", "sigstop", "CHLD", "CLD", str(int(signal.SIGCHLD))])
def test_what_nobody_can_catch_is_no_request(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be caught"):
        signals.parse_catchable(text)


@given(NUMBERS)
def test_the_others_are(number: int) -> None:
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
        assert signals.parse_catchable(str(number)) == number


@given(st.text())
def test_what_was_typed_is_quoted_on_one_short_line(text: str) -> None:
    quoted = signals.quote(text)
    assert quoted.isprintable() or not text.isprintable()
    assert "\n" not in quoted
    assert len(quoted) < 60 * 10 + 10
